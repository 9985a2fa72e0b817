"""Trains the digits network without a platform: a model directory is all that the serving benchmarks need."""

import io
import tarfile
import tempfile
from pathlib import Path

from contract.manifest import load_manifest
from training.data import load, model_module, split
from training.export import export
from training.registry import pack
from training.train import fit


def train(folder: Path) -> None:
    """Write the unpacked artifact of a freshly trained version."""
    manifest = load_manifest("digits")
    with tempfile.TemporaryDirectory() as work:
        model_module("digits").raw_data().write_parquet(Path(work) / "digits.parquet")
        train_rows, test_rows = split(load(Path(work), manifest), manifest.split)
        export(fit(manifest, train_rows), train_rows.features[:2], Path(work))
        archive = pack(Path(work), test_rows, manifest)
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
