"""Trains the digits network without a platform: a model directory is all that the serving benchmarks need."""

import io
import tarfile
import tempfile
from pathlib import Path

from contract.manifest import load_manifest
from training import job
from training.data import Rows, encoded, features, model_module
from training.export import export
from training.optimise import CPU
from training.register import pack
from training.split import divide


def train(folder: Path) -> None:
    """Write the unpacked artifact of a freshly trained version."""
    manifest = load_manifest("digits")
    target = manifest.data.target
    assert target
    parts = {
        name: Rows(features(table, manifest.data), encoded(table[target.name], target), table)
        for name, table in divide(model_module("digits").raw_data(), manifest.split).items()
    }
    network = job.build(manifest, manifest.training, CPU.device)
    job.train(manifest, network, parts["train"], None, CPU)
    with tempfile.TemporaryDirectory() as work:
        export(network.eval(), manifest.task, parts["train"].features[:2], Path(work))
        archive = pack(Path(work), parts["test"], manifest)
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
