"""An environment as the stack would have made it: what it tells, and what is there."""

import boto3
import pytest

from contract.manifest import model_names
from contract.outputs import Outputs
from contract.service import LiveVersions, ServiceSettings

REGION = "eu-west-1"


@pytest.fixture(scope="session")
def outputs_document() -> Outputs:
    """What the stack of an environment tells; none of it need be there."""
    names = {
        name: {"package_group": f"test-{name}", "live_parameter": f"/test/models/{name}", "endpoint": "https://api"}
        for name in model_names()
    }
    return Outputs.model_validate(
        {
            "environment": "test",
            "region": REGION,
            "buckets": {what: f"test-{what}" for what in ("raw", "curated", "artifacts", "queries", "logs")},
            "key_arn": "arn:aws:kms:eu-west-1:123456789012:key/1",
            "training_role": "arn:aws:iam::123456789012:role/training",
            "images": {"inference": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/test/inference"},
            "models": names,
            "service": ServiceSettings(models=tuple(names), live_parameters="/test/models").environment(),
        }
    )


def environment_of(outputs: Outputs) -> None:
    """Make its buckets, package groups and parameters, all empty."""
    for bucket in outputs.buckets.model_dump().values():
        boto3.client("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    for names in outputs.models.values():
        boto3.client("sagemaker").create_model_package_group(ModelPackageGroupName=names.package_group)
        value = LiveVersions().model_dump_json()
        boto3.client("ssm").put_parameter(Name=names.live_parameter, Value=value, Type="String")
