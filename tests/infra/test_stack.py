"""The program as a whole: it previews with unknowns, tags everything, and exports what the contract says."""

import pulumi_aws
import pytest

from contract.manifest import model_names
from contract.outputs import Outputs
from embedded.project import environments, run_environment


@pytest.mark.parametrize("environment", environments())
def test_every_shipped_environment_previews(environment):
    deployment = run_environment(environment)
    assert deployment.outputs["environment"] == environment
    assert deployment.outputs.keys() == Outputs.model_fields.keys()


def test_the_outputs_are_what_the_contract_says(build):
    outputs = Outputs.model_validate(build().outputs)
    assert outputs.buckets.raw == "acme-test-raw"
    assert outputs.service_settings.models == tuple(model_names())
    assert sorted(outputs.models) == model_names()
    assert outputs.models["digits"].endpoint == "https://api/v2/models/digits"


def test_everything_that_takes_tags_has_them(preview):
    for resource in preview().resources.values():
        if resource.custom and takes_tags(resource.type):
            expected = {"Project": "acme", "Environment": "test", "ManagedBy": "pulumi"}
            assert expected.items() <= resource.inputs["tags"].items(), resource


def takes_tags(type_: str) -> bool:
    module, _, name = type_.removeprefix("aws:").partition("/")
    package = getattr(pulumi_aws, {"lambda": "lambda_"}.get(module, module))
    return hasattr(getattr(package, name.partition(":")[2]), "tags")


def test_every_component_is_registered_below_the_stack(preview):
    deployment = preview()
    components = {r.name: r.type for r in deployment.children(deployment.stack.urn)}
    assert components == {
        name: f"ml-platform:infra:{name.title()}"
        for name in (
            "network",
            "storage",
            "registry",
            "identity",
            "notifications",
            "training",
            "catalog",
            "cost",
            "inference",
            "observability",
        )
    }
    assert all(r.parent != deployment.stack.urn for r in deployment.resources.values() if r.custom)


def test_the_graph_is_the_same_in_every_run():
    first, second = run_environment("dev"), run_environment("dev")
    assert {urn: r.inputs for urn, r in first.resources.items()} == {
        urn: r.inputs for urn, r in second.resources.items()
    }
