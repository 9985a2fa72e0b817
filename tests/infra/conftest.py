"""Previews an environment with settings of the test's choosing, and reads its policies."""

import copy
import json
import runpy
from typing import Any

import pytest

from contract.paths import ROOT
from embedded.monitor import Deployment, Resource, run

SETTINGS: dict[str, Any] = {
    "network": {"cidr": "10.0.0.0/16", "zones": ["a", "b", "c"], "nat": "none", "flow_logs": True},
    "storage": {"noncurrent_days": 7, "log_days": 30},
    "inference": {"architecture": "arm64", "log_retention_days": 14},
}
DIGEST = "sha256:" + "a" * 64


class KnownIds:
    """Gives every resource an id and an ARN, so that what depends on them can be read."""

    def apply(self, resource: Resource) -> tuple[str, dict[str, Any]]:
        arns = {
            "aws:s3/bucket:Bucket": f"arn:aws:s3:::{resource.name}",
            "aws:kms/key:Key": "arn:aws:kms:eu-west-1:123456789012:key/1",
            "aws:sagemaker/modelPackageGroup:ModelPackageGroup": (
                f"arn:aws:sagemaker:eu-west-1:123456789012:model-package-group/{resource.name}"
            ),
        }
        computed = {
            "arn": arns.get(resource.type, f"arn:aws:test:eu-west-1:123456789012:{resource.name}"),
            "bucket": resource.name,
            "keyId": resource.name,
            "executionArn": f"arn:aws:execute-api:eu-west-1:123456789012:{resource.name}",
            "invokeArn": f"arn:aws:apigateway:{resource.name}",
            "repositoryUrl": f"123456789012.dkr.ecr.eu-west-1.amazonaws.com/{resource.name}",
            "apiEndpoint": "https://api",
        }
        return resource.name, computed | resource.inputs


def _build(environment: str, provider: KnownIds | None, **sections: dict[str, Any]) -> Deployment:
    settings = copy.deepcopy(SETTINGS)
    for name, changes in sections.items():
        settings[name] |= changes
    config = {f"ml-platform:{name}": json.dumps(section) for name, section in settings.items()}
    config |= {"aws:region": "eu-west-1", "ml-platform:prefix": "acme"}
    return run(
        lambda: runpy.run_path(str(ROOT / "stacks" / "__main__.py"), run_name="__main__") and None,
        project="ml-platform",
        stack=environment,
        config=config,
        provider=provider,
    )


@pytest.fixture
def build():
    """Build an environment whose resources all have known ids; keyword arguments change its settings."""
    return lambda environment="test", **sections: _build(environment, KnownIds(), **sections)


@pytest.fixture
def preview():
    """Preview an environment: what only an up would know is unknown."""
    return lambda environment="test", **sections: _build(environment, None, **sections)


def only(deployment: Deployment, type_: str, name: str) -> Resource:
    (resource,) = [r for r in deployment.of_type(type_) if r.name == f"acme-{deployment.outputs['environment']}-{name}"]
    return resource


def statements(policy: str) -> list[dict[str, Any]]:
    return json.loads(policy)["Statement"]


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
