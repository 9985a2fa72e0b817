"""An environment in the emulated AWS, as the stack would have made it, and data and manifests to work on."""

import hashlib

import boto3
import pytest

from contract.data import Data
from contract.manifest import load_manifest
from contract.outputs import Outputs
from contract.service import LiveVersion
from tests.training.environment import environment_of
from training.steps import Context

USER, PASSWORD = "reader", "s3cret-and-never-shown"


@pytest.fixture
def outputs(emulated_aws, outputs_document) -> Outputs:
    """An environment whose buckets, package groups and parameters are there, and empty."""
    environment_of(outputs_document)
    return outputs_document


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
def context(outputs, tmp_path, monkeypatch):
    """Makes the context of a model's steps; what they report is in `said`."""

    def make(manifest):
        from training import explore

        monkeypatch.setattr(explore, "EMBEDDED", 100)  # t-SNE of all rows takes longer than all other steps
        return Context(manifest, outputs, tmp_path / "work" / manifest.name, make.said.append)

    make.said = []
    return make


@pytest.fixture(scope="session")
def postgres_server(postgres):
    """The connection string of a real PostgreSQL server, as somebody who needs a password."""
    postgres.run(f"CREATE ROLE {USER} LOGIN SUPERUSER PASSWORD '{PASSWORD}'")
    return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{postgres.port}/postgres"


@pytest.fixture
def published(outputs):
    """Puts an artifact into the bucket; `changes` spoil what is promised of it."""

    def put(archive: bytes, number=7, **changes) -> LiveVersion:
        key = f"digits/{hashlib.sha256(archive).hexdigest()}/model.tar.gz"
        boto3.client("s3").put_object(Bucket=outputs.buckets.artifacts, Key=key, Body=archive)
        promised = {
            "artifact": f"s3://{outputs.buckets.artifacts}/{key}",
            "sha256": hashlib.sha256(archive).hexdigest(),
        }
        return LiveVersion(version=number, weight=100, **promised | changes)

    return put
