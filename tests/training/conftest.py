"""An environment in the emulated AWS, as the stack would have made it, and a manifest that trains in a second."""

import boto3
import pytest

from contract.manifest import load_manifest
from contract.outputs import Outputs
from contract.service import LiveVersions, ServiceSettings
from tests.conftest import REGION


@pytest.fixture
def outputs(emulated_aws) -> Outputs:
    buckets = {what: f"test-{what}" for what in ("raw", "curated", "artifacts", "queries", "logs")}
    for bucket in buckets.values():
        boto3.client("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    boto3.client("sagemaker").create_model_package_group(ModelPackageGroupName="test-digits")
    live = "/test/models/digits"
    boto3.client("ssm").put_parameter(Name=live, Value=LiveVersions().model_dump_json(), Type="String")
    return Outputs.model_validate(
        {
            "environment": "test",
            "region": REGION,
            "buckets": buckets,
            "key_arn": "arn:aws:kms:eu-west-1:123456789012:key/1",
            "training_role": "arn:aws:iam::123456789012:role/training",
            "images": {"inference": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/test/inference"},
            "models": {"digits": {"package_group": "test-digits", "live_parameter": live, "endpoint": "https://api"}},
            "service": ServiceSettings(models=("digits",), live_parameters="/test/models").environment(),
        }
    )


@pytest.fixture(scope="session")
def manifest():
    return load_manifest("digits")


@pytest.fixture(scope="session")
def table():
    """The example's data, as a frame."""
    from training.data import model_module

    return model_module("digits").raw_data()
