"""An environment in the emulated AWS, as the stack would have made it, and data and manifests to work on."""

import boto3
import pytest

from contract.data import Data
from contract.manifest import load_manifest, model_names
from contract.outputs import Outputs
from contract.service import LiveVersions, ServiceSettings
from tests.conftest import REGION
from training.steps import Context

USER, PASSWORD = "reader", "s3cret-and-never-shown"


@pytest.fixture
def outputs(emulated_aws) -> Outputs:
    buckets = {what: f"test-{what}" for what in ("raw", "curated", "artifacts", "queries", "logs")}
    for bucket in buckets.values():
        boto3.client("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    models = {}
    for name in model_names():
        boto3.client("sagemaker").create_model_package_group(ModelPackageGroupName=f"test-{name}")
        live = f"/test/models/{name}"
        boto3.client("ssm").put_parameter(Name=live, Value=LiveVersions().model_dump_json(), Type="String")
        models[name] = {"package_group": f"test-{name}", "live_parameter": live, "endpoint": "https://api"}
    return Outputs.model_validate(
        {
            "environment": "test",
            "region": REGION,
            "buckets": buckets,
            "key_arn": "arn:aws:kms:eu-west-1:123456789012:key/1",
            "training_role": "arn:aws:iam::123456789012:role/training",
            "images": {"inference": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/test/inference"},
            "models": models,
            "service": ServiceSettings(models=tuple(models), live_parameters="/test/models").environment(),
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


@pytest.fixture
def orders(manifest):
    """Makes manifests over a small table with a column of every type."""

    def make(source="orders.csv", **changes):
        data = {
            "source": source,
            "allowed_use": ["demonstration"],
            "features": {
                "amount": {"min": 0, "max": 100},
                "items": {"type": "integer", "nullable": True},
                "express": {"type": "boolean"},
                "colour": {"type": "category", "categories": ["red", "green", "blue"]},
            },
            "target": {"name": "returned", "classes": 2},
            "context": {
                "order": {"type": "integer", "unique": True},
                "placed": {"type": "time"},
                "customer": {"type": "text"},
            },
        }
        return manifest.model_copy(update={"data": Data.model_validate(data | changes)})

    return make


@pytest.fixture
def context(outputs, tmp_path):
    """Makes the context of a model's steps; what they report is in `said`."""

    def make(manifest):
        return Context(manifest, outputs, tmp_path / "work" / manifest.name, make.said.append)

    make.said = []
    return make


@pytest.fixture(scope="session")
def postgres_server(postgres):
    """The connection string of a real PostgreSQL server, as somebody who needs a password."""
    postgres.run(f"CREATE ROLE {USER} LOGIN SUPERUSER PASSWORD '{PASSWORD}'")
    return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{postgres.port}/postgres"
