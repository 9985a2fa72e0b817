"""Previews an environment with settings of the test's choosing, and reads its policies."""

import copy
import json
import runpy
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from contract.manifest import load_manifest
from contract.paths import MODELS, ROOT
from embedded.foresight import arns
from embedded.monitor import Deployment, Resource, run

DIGEST = "sha256:" + "a" * 64

SETTINGS: dict[str, Any] = {
    "version": 1,
    "tier": "dev",
    "prefix": "acme",
    "permissions_boundary": "",
    "data": {},
    "audit": {"log_retention_days": 14},
    "alerts": {"emails": ["oncall@example.com"]},
    "budget": {"monthly_usd": 10, "emails": ["team@example.com"]},
    "network": {"cidr": "10.0.0.0/16", "zones": ["a", "b", "c"], "nat": "none", "flow_logs": True},
    "storage": {"noncurrent_days": 7, "log_days": 30},
    "inference": {"architecture": "arm64"},
    "training": {"backend": "sagemaker"},
    "observability": {},
    "cluster": {},
}
PROD: dict[str, Any] = {
    "tier": "prod",
    "network": {"nat": "per-zone"},
    "storage": {"noncurrent_days": 30},
    "audit": {"log_retention_days": 90},
    "alerts": {"emails": ["team@example.com"]},
}
"""What an environment has to change to be allowed to call itself production."""

EVERYTHING_ON = PROD | {
    "network": {"nat": "per-zone", "endpoints": ["ecr", "kms", "logs", "sagemaker", "secretsmanager", "ssm", "sts"]},
    "data": {"aurora": {"min_acu": 0, "max_acu": 1, "backup_days": 7}, "mlflow": {"size": "Small"}},
    "observability": {"prometheus": True, "grafana": "managed", "admins": ["12345678-1234-1234-1234-123456789012"]},
    "audit": PROD["audit"] | {"trail": True},
    "training": {
        "image_digest": DIGEST,
        "sagemaker": {"instance_types": ["m7i.large", "m7i.2xlarge", "g5.xlarge", "p4d.24xlarge"]},
        "batch": {"instance_types": ["m7i.large", "g5.xlarge", "g5.12xlarge"]},
    },
}
"""Production with every optional part, for the checks that go over whatever there is."""

CLUSTER: dict[str, Any] = {
    "admins": ["acme-bootstrap-deploy", "arn:aws:iam::123456789012:role/platform"],
    "pools": {
        "a100": {
            "instances": ["p4d.24xlarge"],
            "capacity": ["block"],
            "reservations": ["cr-0123456789abcdef0"],
            "zone": "a",
            "efa": True,
            "limit": 32,
        },
        "a10g": {
            "instances": ["g5"],
            "capacity": ["reservation", "spot", "on-demand"],
            "reservations": ["cr-0fedcba9876543210"],
            "limit": 16,
        },
        "cpu": {"instances": ["m7i.2xlarge", "m7i.8xlarge"], "limit": 192, "empty_minutes": 1},
    },
    "teams": {
        "default": {"quota": {"a100": 16, "a10g": 8, "cpu": 96}, "members": ["researchers"]},
        "vision": {"quota": {"a100": 16, "a10g": 8, "cpu": 64}, "weight": 2.5, "members": ["researchers", "vision"]},
        "ops": {"quota": {"cpu": 32}, "borrow": False},
    },
    "lustre": {"zone": "a"},
}
"""A cluster with every kind of pool and team."""
ON_EKS = EVERYTHING_ON | {
    "cluster": CLUSTER,
    "training": EVERYTHING_ON["training"] | {"backend": "eks"},
    "observability": {"prometheus": True, "grafana": "cluster"},
}
"""Production with the cluster, and what may run on it."""

MLFLOW_ON_ECS: dict[str, Any] = {
    "aurora": {"backup_days": 7},
    "mlflow": {
        "ecs": {
            "domain": "mlflow.ml.example.com",
            "certificate_arn": "arn:aws:acm:eu-west-1:123456789012:certificate/1",
            "image_digest": "sha256:" + "b" * 64,
        }
    },
}
"""Data settings for a region in which SageMaker has no MLflow."""

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
            "aws:sqs/queue:Queue": f"arn:aws:sqs:{place}:{resource.name}",
            "aws:sns/topic:Topic": f"arn:aws:sns:{place}:{resource.name}",
            "aws:lb/listenerRule:ListenerRule": (
                f"arn:aws:elasticloadbalancing:{place}:listener-rule/app/{resource.name}/1/2/3"
            ),
            "aws:lb/targetGroup:TargetGroup": f"arn:aws:elasticloadbalancing:{place}:targetgroup/{resource.name}/1",
            "aws:ecr/repository:Repository": f"arn:aws:ecr:{place}:repository/{resource.inputs.get('name')}",
            "aws:amp/workspace:Workspace": f"arn:aws:aps:{place}:workspace/{resource.name}",
            "aws:athena/workgroup:Workgroup": f"arn:aws:athena:{place}:workgroup/{resource.name}",
            "aws:sagemaker/modelPackageGroup:ModelPackageGroup": (
                f"arn:aws:sagemaker:{place}:model-package-group/{resource.name}"
            ),
            "aws:ec2/securityGroup:SecurityGroup": f"arn:aws:ec2:{place}:security-group/{resource.name}",
            "aws:ec2/subnet:Subnet": f"arn:aws:ec2:{place}:subnet/{resource.name}",
            "aws:cloudwatch/logGroup:LogGroup": f"arn:aws:logs:{place}:log-group:{resource.inputs.get('name')}",
            "aws:batch/jobQueue:JobQueue": f"arn:aws:batch:{place}:job-queue/{resource.name}",
            "aws:batch/jobDefinition:JobDefinition": f"arn:aws:batch:{place}:job-definition/{resource.name}:1",
        }
        computed = {
            "arn": arns.get(resource.type, f"arn:aws:test:eu-west-1:123456789012:{resource.name}"),
            "name": resource.name,
            "bucket": resource.name,
            "latestVersion": 1,
            "keyId": resource.name,
            "executionArn": f"arn:aws:execute-api:eu-west-1:123456789012:{resource.name}",
            "invokeArn": f"arn:aws:apigateway:{resource.name}",
            "repositoryUrl": f"123456789012.dkr.ecr.eu-west-1.amazonaws.com/{resource.name}",
            "apiEndpoint": "https://api",
            "arnSuffix": f"app/{resource.name}",
            "version": "1",
            "endpoint": f"{resource.name}.example.com",
            "prometheusEndpoint": f"https://aps.example.com/workspaces/{resource.name}/",
            "clusterResourceId": f"cluster-{resource.name}",
            "dnsName": f"{resource.name}.example.com",
            "zoneId": f"Z-{resource.name}",
        }
        if resource.type == "aws:eks/cluster:Cluster":
            computed |= {
                "endpoint": "https://0123456789ABCDEF.gr7.eu-west-1.eks.amazonaws.com",
                "certificateAuthority": {"data": "LS0tLQ=="},
            }
            resource.inputs["vpcConfig"]["clusterSecurityGroupId"] = "sg-0123456789abcdef0"
        return resource.name, computed | resource.inputs


_built: dict[str, Deployment] = {}


def _build(
    environment: str,
    known: str,
    region: str = "eu-west-1",
    serving: dict[str, Any] | None = None,
    gates: dict[str, Any] | None = None,
    scoring: dict[str, Any] | None = None,
    **changes: Any,
) -> Deployment:
    """Run the program with changed settings, and with digits alone and other sections of its manifest if it is told so.

    The same settings are run once, and nobody changes what comes of them.
    """
    settings = copy.deepcopy(SETTINGS)
    for name, change in changes.items():
        settings[name] = settings[name] | change if isinstance(change, dict) else change
    config = {
        f"ml-platform:{name}": json.dumps(value) if isinstance(value, dict) else str(value)
        for name, value in settings.items()
    }
    sections = {"serving": serving, "gates": gates, "scoring": scoring}
    key = json.dumps([environment, known, region, sections, config])
    if key not in _built:

        def program() -> None:
            with digits_with({name: section for name, section in sections.items() if section}):
                runpy.run_path(str(ROOT / "stacks" / "__main__.py"), run_name="__main__")

        _built[key] = run(
            program,
            project="ml-platform",
            stack=environment,
            config=config | {"aws:region": region},
            provider=KnownIds() if known == "ids" else None,
            foresee=arns(region) if known == "arns" else None,
        )
    return _built[key]


@contextmanager
def digits_with(sections: dict[str, Any]) -> Iterator[None]:
    """Let the model folder hold digits alone, with these sections in its manifest; without any, as it is."""
    if not sections:
        yield
        return
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        given = yaml.safe_load((MODELS / "digits" / "model.yaml").read_text())
        model = Path(folder, "digits", "model.yaml")
        model.parent.mkdir()
        model.write_text(yaml.safe_dump(given | sections))
        patch.setattr("contract.manifest.MODELS", Path(folder))
        load_manifest.cache_clear()
        try:
            yield
        finally:
            load_manifest.cache_clear()


@pytest.fixture
def build():
    """Build an environment whose resources all have known ids; keyword arguments change its settings."""
    return lambda environment="test", **sections: _build(environment, "ids", **sections)


@pytest.fixture
def preview():
    """Preview an environment: what only an up would know is unknown."""
    return lambda environment="test", **sections: _build(environment, "", **sections)


@pytest.fixture
def foresee():
    """Preview an environment as `mlp preview` does: with the form of each ARN known."""
    return lambda environment="test", **sections: _build(environment, "arns", **sections)


def only(deployment: Deployment, type_: str, name: str) -> Resource:
    (resource,) = [r for r in deployment.of_type(type_) if r.name == f"acme-{deployment.outputs['environment']}-{name}"]
    return resource


def statements(policy: str) -> list[dict[str, Any]]:
    return json.loads(policy)["Statement"]


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
