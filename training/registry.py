"""The registry: versions in SageMaker's model registry, their artifacts in S3, and which of them are live."""

import gzip
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError

from contract.errors import PlatformError
from contract.service import METADATA_FILE, MODEL_FILE, LiveVersion, LiveVersions

PENDING, APPROVED, REJECTED = "PendingManualApproval", "Approved", "Rejected"
METRIC = "metric."  # what stands before a metric's name among a version's properties
FINGERPRINT = "fingerprint"
CARD_FILE, LINEAGE_FILE, METRICS_FILE = "card.json", "lineage.json", "metrics.json"


@dataclass(frozen=True)
class ModelVersion:
    """A version in the registry."""

    version: int
    arn: str
    status: str
    artifact: str
    properties: Mapping[str, str]
    created: datetime

    @property
    def metrics(self) -> dict[str, float]:
        """What the gates looked at when it was registered."""
        return {
            name.removeprefix(METRIC): float(value)
            for name, value in self.properties.items()
            if name.startswith(METRIC)
        }

    def document(self, name: str) -> dict[str, Any]:
        """The card or the lineage, which lie beside the artifact."""
        content: dict[str, Any] = json.loads(fetch(f"{self.artifact.rpartition('/')[0]}/{name}"))
        return content


def approve(version: ModelVersion) -> ModelVersion:
    """Approve a version."""
    return _decide(version, APPROVED)


def reject(version: ModelVersion) -> ModelVersion:
    """Reject a version, so that nothing makes it live."""
    return _decide(version, REJECTED)


def _decide(version: ModelVersion, status: str) -> ModelVersion:
    boto3.client("sagemaker").update_model_package(
        ModelPackageArn=version.arn,
        ModelApprovalStatus=status,
        CustomerMetadataProperties=dict(version.properties),  # as they are; moto forgets what is not said again
    )
    return describe(version.arn)


def live(parameter: str) -> LiveVersions:
    """The versions that take traffic, and their shares."""
    value = boto3.client("ssm").get_parameter(Name=parameter)["Parameter"]["Value"]
    return LiveVersions.model_validate_json(value)


def make_live(version: ModelVersion, parameter: str) -> None:
    """Give a version all the traffic."""
    only = LiveVersion(
        version=version.version, weight=100, artifact=version.artifact, sha256=version.properties["sha256"]
    )
    value = LiveVersions(versions=(only,)).model_dump_json()
    boto3.client("ssm").put_parameter(Name=parameter, Value=value, Type="String", Overwrite=True)


def fetch(uri: str) -> bytes:
    """An object in S3.

    Raises:
        PlatformError: if there is none.
    """
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    try:
        content: bytes = boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    except ClientError as error:
        raise PlatformError(f"{uri} cannot be read: {error.response['Error']['Code']}") from None
    return content


def unpack(artifact: bytes, folder: Path) -> None:
    """Put the two files of an artifact into a folder.

    Raises:
        PlatformError: if it is not one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(artifact)), mode="r:") as tar:
            for name in (MODEL_FILE, METADATA_FILE):
                member = tar.extractfile(name)
                assert member
                (folder / name).write_bytes(member.read())
    except (tarfile.TarError, OSError, EOFError, KeyError) as error:
        raise PlatformError(f"the artifact cannot be unpacked: {error}") from None


def versions(group: str) -> list[ModelVersion]:
    """The versions in a model package group, the newest first."""
    pages = boto3.client("sagemaker").get_paginator("list_model_packages").paginate(ModelPackageGroupName=group)
    arns = [summary["ModelPackageArn"] for page in pages for summary in page["ModelPackageSummaryList"]]
    return sorted((describe(arn) for arn in arns), key=lambda version: version.version, reverse=True)


def find(group: str, number: int) -> ModelVersion:
    """One version of a group.

    Raises:
        PlatformError: if there is none, naming those there are.
    """
    known = {version.version: version for version in versions(group)}
    if number not in known:
        there = ", ".join(map(str, sorted(known))) or "none yet"
        raise PlatformError(f"the model package group {group} has no version {number}; there are: {there}")
    return known[number]


def describe(arn: str) -> ModelVersion:
    """One version."""
    package: dict[str, Any] = boto3.client("sagemaker").describe_model_package(ModelPackageName=arn)
    return ModelVersion(
        version=package["ModelPackageVersion"],
        arn=arn,
        status=package["ModelApprovalStatus"],
        artifact=package["InferenceSpecification"]["Containers"][0]["ModelDataUrl"],
        properties=package.get("CustomerMetadataProperties", {}),
        created=package["CreationTime"],
    )
