"""What must not change by accident: names, protection and public flags of each environment, kept as text.

A change of infrastructure shows as a change of a file in `graphs/`. To accept it: UPDATE_GRAPHS=1 pytest tests/infra
"""

import os
import random
from pathlib import Path

import pulumi_aws as aws
import pytest

from embedded.monitor import UNKNOWN, Resource, Secret, run
from embedded.project import environments, run_environment

GRAPHS = Path(__file__).parent / "graphs"

# Properties that name a thing (a change replaces it), open it, or guard what it holds.
TELLING = (
    "availabilityZone", "bucket", "cidrBlock", "clusterIdentifier", "databaseName", "deletionProtection", "engine",
    "forceDelete", "forceDestroy", "functionName", "identifier", "imageTagMutability", "instanceClass",
    "mapPublicIpOnLaunch", "modelPackageGroupName", "name", "nat", "packageType", "publiclyAccessible",
    "retentionInDays", "routeKey", "authorizationType", "storageEncrypted", "trackingServerName",
)  # fmt: skip


def line(resource: Resource) -> str:
    told = {name: resource.inputs[name] for name in TELLING if name in resource.inputs}
    facts = [f"{name}={value}" for name, value in told.items() if value != UNKNOWN and not isinstance(value, Secret)]
    path = resource.urn.split("::", 2)[2]
    return " ".join([path, *facts, *(["protected"] if resource.protect else [])])


@pytest.mark.parametrize("environment", environments())
def test_the_graph_is_the_reviewed_one(environment):
    deployment = run_environment(environment)
    graph = "".join(f"{line(resource)}\n" for _, resource in sorted(deployment.resources.items()))
    file = GRAPHS / f"{environment}.txt"
    if os.environ.get("UPDATE_GRAPHS"):
        file.write_text(graph)
    assert graph.splitlines() == file.read_text().splitlines()


def test_the_order_of_a_program_does_not_change_a_urn():
    def program(seed):
        names = ["a", "b", "c", "d"]
        random.Random(seed).shuffle(names)
        return lambda: [aws.s3.Bucket(name) for name in names] and None

    first, second = (run(program(seed), project="shop", stack="dev", config={}) for seed in (1, 2))
    assert list(first.resources) != list(second.resources)
    assert first.resources.keys() == second.resources.keys()
