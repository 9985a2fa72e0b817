"""Every Kubernetes object that the program makes is one that an API server of the pinned versions takes."""

import json

import jsonschema
import pytest

from contract.outputs import Outputs
from contract.training import Compute
from infra import versions
from infra.queues import configuration
from tests.infra.conftest import ON_EKS
from tests.kubernetes import check, check_values, published
from training import jobs
from training.fitting import Job

RELEASE = "kubernetes:helm.sh/v3:Release"


@pytest.fixture
def deployment(build):
    return build("prod", **ON_EKS)


def objects(deployment):
    """What is sent to the API server, but for what charts bring; with subnets' ids of the form that they have."""
    return [
        json.loads(json.dumps(resource.inputs).replace("acme-prod-private-", "subnet-0"))
        for resource in deployment.resources.values()
        if resource.type.startswith("kubernetes:") and resource.type != RELEASE
    ]


def releases(deployment):
    return {release.inputs["name"]: release.inputs for release in deployment.of_type(RELEASE)}


def job_of(deployment, team="default", **compute):
    outputs = Outputs.model_validate(deployment.outputs)
    needs = Compute(team=team, **compute)
    job = Job(jobs.job_name(outputs.training, "digits", "train"), "digits", "train", needs)
    return jobs.request(job, outputs, "eks")


def test_every_object_is_valid(deployment):
    found = objects(deployment)
    kinds = {each["kind"] for each in found}
    assert kinds == {
        "ClusterQueue", "ClusterRole", "ConfigMap", "EC2NodeClass", "LimitRange", "LocalQueue", "Namespace",
        "NetworkPolicy", "NodePool", "PersistentVolume", "PersistentVolumeClaim", "ResourceFlavor", "ResourceQuota",
        "RoleBinding", "ServiceAccount", "WorkloadPriorityClass",
    }  # fmt: skip
    for each in found:
        try:
            check(each)
        except jsonschema.ValidationError as error:
            pytest.fail(f"{each['kind']} {each['metadata']['name']}: {error.json_path}: {error.message}")


def test_the_largest_cluster_that_the_settings_allow_is_valid(build):
    """Kueue and Karpenter bound how long their lists may be, and so must the settings."""
    pools = {f"pool{i}": {"instances": ["g5.xlarge"], "limit": 20, "pods_per_node": 12} for i in range(20)}
    teams = {team: {"quota": dict.fromkeys(pools, 1)} for team in ("default", "a", "b")}
    cluster = ON_EKS["cluster"] | {"pools": pools, "teams": teams, "lustre": None}
    for each in objects(build("prod", **ON_EKS | {"cluster": cluster, "observability": {}})):
        check(each)


@pytest.mark.parametrize(
    "compute", [{}, {"gpus": 1}, {"gpus": 8, "instances": 2, "vcpus": 64, "memory_gib": 512}, {"team": "vision"}]
)
def test_every_job_is_valid(deployment, compute):
    check(job_of(deployment, **compute))


def test_charts_know_the_values_that_they_are_given(deployment):
    found = releases(deployment)
    assert found.keys() == published("charts").keys()
    for name, release in found.items():
        check_values(name, release.get("values", {}))


def test_kueue_knows_the_fields_of_its_configuration():
    fields = {*published("charts")["kueue"]["configuration"]["fields"], "apiVersion", "kind"}
    # A map by kind, and two of Kubernetes' own types.
    free = {"groupKindConcurrency", "managedJobsNamespaceSelector", "leaderElection"}

    def named(part):
        for name, value in part.items():
            yield name
            if isinstance(value, dict) and name not in free:
                yield from named(value)

    given = set(named(configuration(20)))
    assert {"waitForPodsReady", "blockAdmission", "excludeResourcePrefixes"} <= given
    assert given <= fields
    assert "blokAdmission" not in fields


def test_charts_and_definitions_are_those_of_the_pinned_versions(deployment):
    """Whoever raises a version brings the schemas along: `tests/infra/schemas/kubernetes/sources.py`."""
    definitions, charts = published("definitions"), published("charts")
    assert definitions["NodePool"]["version"] == charts["karpenter"]["version"] == f"v{versions.KARPENTER.version}"
    assert definitions["ClusterQueue"]["version"] == charts["kueue"]["version"] == f"v{versions.KUEUE.version}"
    assert definitions["JobSet"]["version"] == charts["jobset"]["version"] == f"v{versions.JOBSET.version}"
    assert published("objects")["version"].startswith(f"v{versions.KUBERNETES}.")
    for name, release in releases(deployment).items():
        # A repository's tag is its charts' version, or ends with it; of others a commit is named, whose chart says it.
        known = (charts[name]["version"], charts[name]["chart"])
        assert any(each.endswith(release["version"].removeprefix("v")) for each in known), name
    for source in (*definitions.values(), *charts.values(), published("objects")):
        assert source["source"]


def test_the_validation_finds_what_is_wrong(deployment):
    (queue, *_) = [each for each in objects(deployment) if each["kind"] == "ClusterQueue"]
    job = job_of(deployment)
    (worker,) = job["spec"]["replicatedJobs"]
    for good, path, wrong in (
        (queue, ["spec", "preemption", "reclaimWithinCohort"], "Sometimes"),
        (queue, ["spec", "cohort"], "teams"),  # its name in v1beta1
        (queue, ["spec", "resourceGroups"], queue["spec"]["resourceGroups"] * 20),
        (queue, ["apiVersion"], "kueue.x-k8s.io/v1"),
        (job, ["spec", "replicatedJobs"], [worker, worker]),  # a list that is a map by name
        (job, ["spec", "suspended"], True),
        (job, ["metadata", "labels"], {"team": 1}),
    ):
        broken = json.loads(json.dumps(good))
        part = broken
        for key in path[:-1]:
            part = part[key]
        part[path[-1]] = wrong
        with pytest.raises((jsonschema.ValidationError, KeyError)):
            check(broken)
    for values in ({"replica": 2}, {"controller": True}, {"settings": {"clusterNam": "x"}}, {"tolerations": {}}):
        with pytest.raises(AssertionError):
            check_values("karpenter", values)
