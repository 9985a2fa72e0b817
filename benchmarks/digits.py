"""Trains the digits network without a platform: a model directory is all that the serving benchmarks need."""

import io
import sys
import tarfile
import tempfile
from pathlib import Path

from contract.manifest import load_manifest
from contract.outputs import Outputs
from training import optimise, register, split, train
from training.data import load, model_module
from training.steps import Context


def trained(cache: Path) -> Path:
    """The model directory of a digits network, trained if there is none."""
    folder = cache / "digits"
    if not (folder / "metadata.json").exists():
        print("training digits, once", file=sys.stderr)
        make(folder)
    return folder


def make(folder: Path) -> None:
    """Write the unpacked artifact that the pipeline's steps make of the model's data."""
    with tempfile.TemporaryDirectory() as work:
        # These steps work on files alone: of an environment they need nothing.
        context = Context(load_manifest("digits"), Outputs.model_construct(), Path(work), lambda _: None)
        snapshot = context.folder("ingest") / "snapshot"
        snapshot.mkdir(parents=True)
        model_module("digits").raw_data().write_parquet(snapshot / "digits.parquet")
        for step in (split, train, optimise):
            context.folder(step.__name__.rpartition(".")[2]).mkdir()
            step.step(context)
        rows = load(context.folder("split") / "test", context.manifest)
        is_int8 = next(of.name for of in optimise.variants(context.folder("optimise")) if of.chosen).endswith("int8")
        archive = register.pack(context.folder("optimise") / "model", rows, context.manifest, is_int8)
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
