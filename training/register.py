"""Register: the model becomes a version in the registry, with its artifact, metrics, card and lineage."""

import getpass
import gzip
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import re
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import numpy as np

from contract.manifest import Manifest
from contract.paths import ROOT
from contract.service import INPUT, METADATA_FILE, MODEL_FILE, ArtifactMetadata, SelfTest, Tensor
from training import registry
from training.data import Rows, load
from training.evaluate import EVALUATION_FILE, METRICS_FILE
from training.ingest import ingested
from training.onnxfile import open_model
from training.optimise import variants
from training.registry import CARD_FILE, FINGERPRINT, LINEAGE_FILE, METRIC, ModelVersion
from training.steps import Context, code

VERSION_FILE = "version.json"
SELF_TEST_ROWS, SELF_TEST_AMONG = 5, 500
BACKGROUND_ROWS = 16
"""Of the test part, which explanations compare with; as many as the service uses of them."""
ROUNDING = {True: 0.02, False: 1e-4}
"""How far processors may differ, in deviations of the answers: a rounding of 8 bits may go the other way."""
PACKAGES = ("torch", "onnxruntime", "onnx", "numpy", "polars", "scikit-learn", "torch-pruning")


def step(context: Context) -> str:
    """Upload the artifact and register the version, which then waits for approval, unless it is there already."""
    version = registered(context)
    if version is None:
        version = register(context)
    (context.folder("register") / VERSION_FILE).write_text(json.dumps({"version": version.version, "arn": version.arn}))
    return f"version {version.version}"


def registered(context: Context) -> ModelVersion | None:
    """The version that was made from the same data, settings and code, if there is one."""
    wanted = fingerprint(context)
    known = registry.versions(context.outputs.of_model(context.manifest.name).package_group)
    return next((version for version in known if version.properties.get(FINGERPRINT) == wanted), None)


def fingerprint(context: Context) -> str:
    """Name what a version is made from: the data, the settings and the code."""
    settings = context.manifest.model_dump_json(exclude={"scoring", "serving", "tune"})
    served = json.dumps([context.manifest.sensitive_columns, context.manifest.serving.browser])  # in the artifact, too
    parts = (ingested(context).id, settings, served, code(context.manifest.name))
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:32]


def register(context: Context) -> ModelVersion:
    """Register what the steps before have left."""
    manifest, outputs, folder = context.manifest, context.outputs, context.folder("register")
    metrics = json.loads((context.folder("evaluate") / METRICS_FILE).read_text())
    artifact = pack(
        context.folder("optimise") / "model",
        load(context.folder("split") / "test", manifest),
        manifest,
        _is_int8(context),
    )
    record = lineage(context) | {"metrics": metrics}
    documents = {
        registry.METRICS_FILE: metrics,
        LINEAGE_FILE: record,
        CARD_FILE: card(context, metrics),
    }
    prefix, bucket, s3 = f"{manifest.name}/{record[FINGERPRINT]}", outputs.buckets.artifacts, boto3.client("s3")
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document, indent=1))
        s3.upload_file(str(folder / name), bucket, f"{prefix}/{name}")
    report = context.folder("evaluate") / "report.html"
    s3.upload_file(str(report), bucket, f"{prefix}/report.html", ExtraArgs={"ContentType": "text/html"})
    s3.put_object(Bucket=bucket, Key=f"{prefix}/model.tar.gz", Body=artifact)
    uri = f"s3://{bucket}/{prefix}"
    answer = boto3.client("sagemaker").create_model_package(
        ModelPackageGroupName=outputs.of_model(manifest.name).package_group,
        ModelPackageDescription=manifest.description,
        ModelApprovalStatus=registry.PENDING,
        InferenceSpecification={
            "Containers": [{"Image": outputs.images["inference"], "ModelDataUrl": f"{uri}/model.tar.gz"}],
            "SupportedContentTypes": ["application/json", "text/csv"],
            "SupportedResponseMIMETypes": ["application/json"],
        },
        ModelMetrics={
            "ModelQuality": {"Statistics": {"ContentType": "application/json", "S3Uri": f"{uri}/metrics.json"}}
        },
        ModelCard={"ModelCardContent": json.dumps(documents[CARD_FILE]), "ModelCardStatus": "PendingReview"},
        CustomerMetadataProperties=_properties(record, metrics, artifact),
    )
    return registry.describe(answer["ModelPackageArn"])


def pack(folder: Path, test: Rows, manifest: Manifest, is_int8: bool = False) -> bytes:
    """Make the artifact of a model directory: a tar.gz of the ONNX file and what a service must know to serve it.

    The same files always give the same bytes, so that a checksum says whether two artifacts are the same.
    """
    session = open_model(folder)
    names = [output.name for output in session.get_outputs()]
    features = test.features[:SELF_TEST_AMONG]
    answers = dict(zip(names, session.run(names, {INPUT: features}), strict=True))
    chosen = np.arange(len(features))[:SELF_TEST_ROWS]
    if manifest.task == "classification":  # rows whose label no rounding can turn
        chosen = np.argsort(-answers["probabilities"].max(1), kind="stable")[:SELF_TEST_ROWS]
    spread = float(answers[names[-1]].std())
    metadata = ArtifactMetadata(
        model=manifest.name,
        task=manifest.task,
        columns=tuple(manifest.data.columns),
        inputs=(Tensor(name=INPUT, datatype="FP32", shape=(-1, len(manifest.data.columns))),),
        outputs=tuple(
            Tensor(name=name, datatype="INT64" if answer.dtype.kind == "i" else "FP32", shape=(-1, *answer.shape[1:]))
            for name, answer in answers.items()
        ),
        self_test=SelfTest(
            inputs=features[chosen].tolist(),
            outputs={name: answer[chosen].tolist() for name, answer in answers.items()},
            tolerance=max(1e-3, ROUNDING[is_int8] * spread),
        ),
        background=features[:: max(1, len(features) // BACKGROUND_ROWS)][:BACKGROUND_ROWS].tolist(),
        sensitive=manifest.sensitive_columns,
        browser=manifest.serving.browser,
    )
    files = {MODEL_FILE: (folder / MODEL_FILE).read_bytes(), METADATA_FILE: metadata.model_dump_json().encode()}
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def lineage(context: Context) -> dict[str, Any]:
    """Where a version comes from: all that is needed to make it again."""
    return {
        FINGERPRINT: fingerprint(context),
        "snapshot": asdict(ingested(context)),
        "manifest": context.manifest.model_dump(mode="json"),
        "commit": commit(),
        "code": code(context.manifest.name),
        "variant": next(variant.name for variant in variants(context.folder("optimise")) if variant.chosen),
        "environment": environment(),
        "trained_by": getpass.getuser(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def environment() -> dict[str, str]:
    """What the code runs on, as far as results may depend on it."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "threads": os.environ.get("OMP_NUM_THREADS", "1"),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }


def commit() -> str:
    """The commit that the code is at, marked if there are changes on top of it."""
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(describe, cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown: git is not installed"
    return done.stdout.strip() or "unknown: not a git checkout"


def card(context: Context, metrics: Mapping[str, float]) -> dict[str, Any]:
    """The model card, in the schema that SageMaker has for the card of a model package."""
    manifest, snapshot = context.manifest, ingested(context)
    checks = json.loads((context.folder("evaluate") / EVALUATION_FILE).read_text())["checks"]
    return {
        "model_overview": {"model_creator": getpass.getuser()},
        "intended_uses": {
            "purpose_of_model": manifest.description,
            "intended_uses": f"{manifest.purpose}; the data may be used for: {', '.join(manifest.data.allowed_use)}",
            "factors_affecting_model_efficiency": " ".join(manifest.limits) or "none are stated in the manifest",
        },
        "training_details": {
            "training_observations": f"snapshot {snapshot.id}, {snapshot.rows} rows from {snapshot.source}",
        },
        "evaluation_details": [
            {
                "name": "test part",
                "evaluation_observation": "; ".join(f"{each['name']}: {each['bound']}" for each in checks),
                "metric_groups": [
                    {
                        "name": manifest.task,
                        "metric_data": [
                            {"name": name, "type": "number", "value": value} for name, value in metrics.items()
                        ],
                    }
                ],
            }
        ],
    }


def _is_int8(context: Context) -> bool:
    return any(variant.chosen and variant.name.endswith("int8") for variant in variants(context.folder("optimise")))


def _properties(record: Mapping[str, Any], metrics: Mapping[str, float], artifact: bytes) -> dict[str, str]:
    """What can be seen and searched for in the registry; the rest is in the lineage."""
    told = {
        **{name: record[name] for name in (FINGERPRINT, "commit", "variant", "trained_by", "created")},
        "snapshot": record["snapshot"]["id"],
        "source": record["snapshot"]["source"],
        "sha256": hashlib.sha256(artifact).hexdigest(),
        **{f"training.{name}": value for name, value in record["manifest"]["training"].items() if name != "network"},
        **{f"training.network.{name}": value for name, value in record["manifest"]["training"]["network"].items()},
        **{f"{METRIC}{name}": f"{value:.6g}" for name, value in metrics.items()},
    }
    # SageMaker takes no quotes, braces or commas here, and no more than this.
    return {name: re.sub(r"[^\w\s.:/=+@-]", "_", str(value))[:256] for name, value in told.items()}
