"""Previews an environment with settings of the test's choosing, and reads its policies."""

import copy
import json
import runpy
from typing import Any

import pytest

from contract.paths import ROOT
from embedded.monitor import Deployment, Resource, run

SETTINGS: dict[str, Any] = {
    "version": 1,
    "tier": "dev",
    "prefix": "acme",
    "permissions_boundary": "",
    "data": {},
    "audit": {"log_retention_days": 14},
    "budget": {"monthly_usd": 10, "emails": ["team@example.com"]},
    "network": {"cidr": "10.0.0.0/16", "zones": ["a", "b", "c"], "nat": "none", "flow_logs": True},
    "storage": {"noncurrent_days": 7, "log_days": 30},
    "inference": {"architecture": "arm64"},
    "observability": {},
}
PROD: dict[str, Any] = {
    "tier": "prod",
    "network": {"nat": "per-zone"},
    "storage": {"noncurrent_days": 30},
    "audit": {"log_retention_days": 90},
}
"""What an environment has to change to be allowed to call itself production."""

EVERYTHING_ON = PROD | {
    "network": {"nat": "per-zone", "endpoints": ["ecr", "kms", "logs", "sagemaker", "secretsmanager", "ssm", "sts"]},
    "data": {"aurora": {"min_acu": 0, "max_acu": 1, "backup_days": 7}, "mlflow": "Small"},
    "observability": {"prometheus": True, "grafana": "managed", "admins": ["12345678-1234-1234-1234-123456789012"]},
    "audit": PROD["audit"] | {"trail": True},
}
"""Production with every optional part, for the checks that go over whatever there is."""

DIGEST = "sha256:" + "a" * 64


class KnownIds:
    """Gives every resource an id and an ARN, so that what depends on them can be read."""

    def apply(self, resource: Resource) -> tuple[str, dict[str, Any]]:
        account = "123456789012"
        place = f"eu-west-1:{account}"
        arns = {
            "aws:s3/bucket:Bucket": f"arn:aws:s3:::{resource.name}",
            "aws:kms/key:Key": f"arn:aws:kms:{place}:key/1",
            "aws:iam/role:Role": f"arn:aws:iam::{account}:role/{resource.name}",
            "aws:ecr/repository:Repository": f"arn:aws:ecr:{place}:repository/{resource.inputs.get('name')}",
            "aws:amp/workspace:Workspace": f"arn:aws:aps:{place}:workspace/{resource.name}",
            "aws:athena/workgroup:Workgroup": f"arn:aws:athena:{place}:workgroup/{resource.name}",
            "aws:sagemaker/modelPackageGroup:ModelPackageGroup": (
                f"arn:aws:sagemaker:{place}:model-package-group/{resource.name}"
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
            "endpoint": f"{resource.name}.example.com",
            "prometheusEndpoint": f"https://aps.example.com/workspaces/{resource.name}/",
        }
        return resource.name, computed | resource.inputs


_built: dict[str, Deployment] = {}


def _build(environment: str, known: bool, region: str = "eu-west-1", **changes: Any) -> Deployment:
    """Run the program with changed settings; the same settings are run once, and nobody changes what comes of them."""
    settings = copy.deepcopy(SETTINGS)
    for name, change in changes.items():
        settings[name] = settings[name] | change if isinstance(change, dict) else change
    config = {
        f"ml-platform:{name}": json.dumps(value) if isinstance(value, dict) else str(value)
        for name, value in settings.items()
    }
    key = json.dumps([environment, known, region, config])
    if key not in _built:
        _built[key] = run(
            lambda: runpy.run_path(str(ROOT / "stacks" / "__main__.py"), run_name="__main__") and None,
            project="ml-platform",
            stack=environment,
            config=config | {"aws:region": region},
            provider=KnownIds() if known else None,
        )
    return _built[key]


@pytest.fixture
def build():
    """Build an environment whose resources all have known ids; keyword arguments change its settings."""
    return lambda environment="test", **sections: _build(environment, True, **sections)


@pytest.fixture
def preview():
    """Preview an environment: what only an up would know is unknown."""
    return lambda environment="test", **sections: _build(environment, False, **sections)


def only(deployment: Deployment, type_: str, name: str) -> Resource:
    (resource,) = [r for r in deployment.of_type(type_) if r.name == f"acme-{deployment.outputs['environment']}-{name}"]
    return resource


def statements(policy: str) -> list[dict[str, Any]]:
    return json.loads(policy)["Statement"]


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
