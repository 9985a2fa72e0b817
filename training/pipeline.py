"""The pipeline: from raw data to an approved version, each step's result kept for the next run."""

import getpass
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from contract.errors import PlatformError
from contract.manifest import Manifest, load_manifest
from contract.outputs import Outputs
from contract.paths import MODELS, ROOT
from training import evaluate, ingest, registry
from training.data import load, split
from training.ingest import Snapshot
from training.registry import ModelVersion
from training.validate import validate

Report = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """The version that a run of the pipeline left live."""

    version: int
    metrics: dict[str, float]
    artifact: str
    up_to_date: bool


def run(model: str, outputs: Outputs, work: Path, report: Report, source: Path | None = None) -> Result:
    """Run a model's pipeline with the AWS clients that the environment variables configure.

    A version that was made from the same data, settings and code is not made again: what is left to do for it, its
    approval say, is done.

    Args:
        model: name of the model.
        outputs: where the environment keeps things.
        work: a folder for what lies between the steps.
        report: told in a line what is going on.
        source: a local file that is to replace the raw data first.

    Raises:
        PlatformError: if a step refuses its input, a gate fails, the training does, or what would be made is a version
            that was rejected.
    """
    manifest = load_manifest(model)
    if source:
        ingest.put_raw(manifest, outputs.buckets, source)
    elif ingest.seed_raw(manifest, outputs.buckets):
        report(f"wrote the example's raw data to s3://{outputs.buckets.raw}/{model}/{manifest.data.source}")
    snapshot = ingest.ingest(manifest, outputs.buckets)
    report(f"ingest: snapshot {snapshot.id} of {snapshot.rows} rows")
    fingerprint = _fingerprint(manifest, snapshot)
    group = outputs.models[model].package_group
    made = [known for known in registry.versions(group) if known.properties.get("fingerprint") == fingerprint]
    version = made[0] if made else _make(manifest, outputs, snapshot, fingerprint, work, report)
    if version.status == registry.REJECTED:
        raise PlatformError(
            f"{model} has a version {version.version} of the same data, settings and code, and it was rejected; "
            f"change one of them, or approve that version in the model package group {group}"
        )
    if version.status != registry.APPROVED:
        version = registry.approve(version)
        report(f"approve: version {version.version}")
    registry.make_live(version, outputs.models[model].live_parameter)
    return Result(version.version, version.metrics, version.artifact, up_to_date=bool(made))


def _make(
    manifest: Manifest, outputs: Outputs, snapshot: Snapshot, fingerprint: str, work: Path, report: Report
) -> ModelVersion:
    channel, model_dir = work / "train", work / "model"
    shutil.rmtree(work, ignore_errors=True)
    with _timed(report, "validate") as done:
        ingest.download(snapshot, channel)
        done(f"{validate(channel, manifest)} rows are in range")
    with _timed(report, "train") as done:
        _train(manifest.name, channel, model_dir, report)
        done("model.onnx written")
    with _timed(report, "evaluate") as done:
        rows = load(channel, manifest)
        metrics = evaluate.evaluate(model_dir, rows, manifest)
        evaluate.check_gates(metrics, manifest.gates, manifest.name)
        done(f"{len(manifest.gates)} gates passed")
    with _timed(report, "register") as done:
        artifact = registry.pack(model_dir, split(rows, manifest.split)[1], manifest)
        lineage = {
            "fingerprint": fingerprint,
            "snapshot": snapshot.id,
            "source": snapshot.source,
            "commit": _commit(),
            "trained_by": getpass.getuser(),
            **{f"training.{name}": str(value) for name, value in manifest.training},
        }
        version = registry.register(manifest, outputs, artifact, metrics, lineage)
        done(f"version {version.version}")
    return version


def _train(model: str, channel: Path, model_dir: Path, report: Report) -> None:
    """Run the training entry point as SageMaker would: a process of its own, told by variables where things are."""
    environment = os.environ | {
        "SM_HPS": json.dumps({"model": model}),
        "SM_CHANNEL_TRAIN": str(channel),
        "SM_MODEL_DIR": str(model_dir),
        "SM_OUTPUT_DATA_DIR": str(model_dir.with_name("output") / "data"),
    }
    command = [sys.executable, "-m", "training.train"]
    lines = deque[str](maxlen=20)
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as job:
        try:
            for line in job.stdout or ():
                lines.append(line)
                report(f"train: {line.strip()}")
        except BaseException:
            job.kill()  # a training that nobody waits for, after a Ctrl-C say, must not go on
            raise
    if job.returncode:
        failure = model_dir.with_name("output") / "failure"
        reason = failure.read_text() if failure.exists() else "".join(lines).strip() or f"exit status {job.returncode}"
        raise PlatformError(f"the training of {model} failed: {reason}")


def _fingerprint(manifest: Manifest, snapshot: Snapshot) -> str:
    """Name what a version is made from: the data, the settings and the code."""
    digest = hashlib.sha256(f"{snapshot.id} {manifest.model_dump_json()}".encode())
    for folder in (MODELS.parent, MODELS / manifest.name):
        for file in sorted(folder.glob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:32]


def _commit() -> str:
    """The commit that the code is at, marked if there are changes on top of it."""
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(describe, cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown: git is not installed"
    return done.stdout.strip() or "unknown: not a git checkout"


@contextmanager
def _timed(report: Report, step: str) -> Iterator[Callable[[str], None]]:
    """Report a step when it starts and, with what came of it and the seconds it took, when it has ended."""
    start = time.perf_counter()
    report(step)
    yield lambda result: report(f"{step}: {result} ({time.perf_counter() - start:.1f} s)")
