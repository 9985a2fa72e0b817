"""The registry: artifacts in S3, versions in SageMaker's model registry, and which of them are live."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from contract.manifest import Manifest, Metric
from contract.outputs import Outputs
from contract.service import (
    INPUT,
    METADATA_FILE,
    MODEL_FILE,
    ArtifactMetadata,
    LiveVersion,
    LiveVersions,
    SelfTest,
    Tensor,
)
from training.data import Rows
from training.evaluate import open_model

APPROVED, REJECTED = "Approved", "Rejected"
METRIC = "metric."  # what stands before a metric's name among a version's properties
SELF_TEST_ROWS = 5


@dataclass(frozen=True)
class ModelVersion:
    """A version in the registry."""

    version: int
    arn: str
    status: str
    artifact: str
    properties: Mapping[str, str]

    @property
    def metrics(self) -> dict[str, float]:
        """What the gates looked at when it was registered."""
        return {
            name.removeprefix(METRIC): float(value)
            for name, value in self.properties.items()
            if name.startswith(METRIC)
        }


def pack(folder: Path, test: Rows, manifest: Manifest) -> bytes:
    """Make the artifact of a model directory: a tar.gz of the ONNX file and what a service must know to serve it.

    The same files always give the same bytes, so that a checksum says whether two artifacts are the same.
    """
    session = open_model(folder)
    names = [output.name for output in session.get_outputs()]
    sample = test.features[:SELF_TEST_ROWS]
    answers = dict(zip(names, session.run(names, {INPUT: sample}), strict=True))
    metadata = ArtifactMetadata(
        model=manifest.name,
        task=manifest.task,
        columns=tuple(manifest.data.columns),
        inputs=(Tensor(name=INPUT, datatype="FP32", shape=(-1, len(manifest.data.columns))),),
        outputs=tuple(
            Tensor(name=name, datatype="INT64" if answer.dtype.kind == "i" else "FP32", shape=(-1, *answer.shape[1:]))
            for name, answer in answers.items()
        ),
        self_test=SelfTest(inputs=sample.tolist(), outputs={name: answer.tolist() for name, answer in answers.items()}),
    )
    files = {MODEL_FILE: (folder / MODEL_FILE).read_bytes(), METADATA_FILE: metadata.model_dump_json().encode()}
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def register(
    manifest: Manifest, outputs: Outputs, artifact: bytes, metrics: Mapping[Metric, float], lineage: Mapping[str, str]
) -> ModelVersion:
    """Upload an artifact and register it as a version that waits for approval.

    Args:
        manifest: the model's.
        outputs: where things are.
        artifact: what `pack` made.
        metrics: what `evaluate` measured.
        lineage: what the version came from; `fingerprint` among it names the artifact's folder.
    """
    prefix = f"{manifest.name}/{lineage['fingerprint']}"
    bucket = outputs.buckets.artifacts
    s3 = boto3.client("s3")
    s3.put_object(Bucket=bucket, Key=f"{prefix}/model.tar.gz", Body=artifact)
    s3.put_object(Bucket=bucket, Key=f"{prefix}/metrics.json", Body=json.dumps(metrics).encode())
    uri = f"s3://{bucket}/{prefix}"
    answer = boto3.client("sagemaker").create_model_package(
        ModelPackageGroupName=outputs.models[manifest.name].package_group,
        ModelPackageDescription=manifest.description,
        ModelApprovalStatus="PendingManualApproval",
        InferenceSpecification={
            "Containers": [{"Image": outputs.images["inference"], "ModelDataUrl": f"{uri}/model.tar.gz"}],
            "SupportedContentTypes": ["application/json", "text/csv"],
            "SupportedResponseMIMETypes": ["application/json"],
        },
        ModelMetrics={
            "ModelQuality": {"Statistics": {"ContentType": "application/json", "S3Uri": f"{uri}/metrics.json"}}
        },
        # One property a value: SageMaker takes no quotes, braces or commas here, so no JSON.
        CustomerMetadataProperties={
            **lineage,
            "sha256": hashlib.sha256(artifact).hexdigest(),
            **{f"{METRIC}{name}": f"{value:.6g}" for name, value in metrics.items()},
        },
    )
    return describe(answer["ModelPackageArn"])


def approve(version: ModelVersion) -> ModelVersion:
    """Approve a version."""
    boto3.client("sagemaker").update_model_package(
        ModelPackageArn=version.arn,
        ModelApprovalStatus=APPROVED,
        CustomerMetadataProperties=dict(version.properties),  # as they are; moto forgets what is not said again
    )
    return describe(version.arn)


def make_live(version: ModelVersion, parameter: str) -> bool:
    """Give a version all the traffic; tell whether that was a change."""
    only = LiveVersion(
        version=version.version, weight=100, artifact=version.artifact, sha256=version.properties["sha256"]
    )
    value = LiveVersions(versions=(only,)).model_dump_json()
    ssm = boto3.client("ssm")
    if ssm.get_parameter(Name=parameter)["Parameter"]["Value"] == value:
        return False
    ssm.put_parameter(Name=parameter, Value=value, Type="String", Overwrite=True)
    return True


def versions(group: str) -> list[ModelVersion]:
    """The versions in a model package group, the newest first."""
    pages = boto3.client("sagemaker").get_paginator("list_model_packages").paginate(ModelPackageGroupName=group)
    arns = [summary["ModelPackageArn"] for page in pages for summary in page["ModelPackageSummaryList"]]
    return sorted((describe(arn) for arn in arns), key=lambda version: version.version, reverse=True)


def describe(arn: str) -> ModelVersion:
    """One version."""
    package: dict[str, Any] = boto3.client("sagemaker").describe_model_package(ModelPackageName=arn)
    return ModelVersion(
        version=package["ModelPackageVersion"],
        arn=arn,
        status=package["ModelApprovalStatus"],
        artifact=package["InferenceSpecification"]["Containers"][0]["ModelDataUrl"],
        properties=package.get("CustomerMetadataProperties", {}),
    )
