"""Measures how good the example models are on rows that nothing was fitted to, next to what scikit-learn makes of them.

python -m benchmarks.quality [--seeds 5] [--models digits diabetes anomaly] [--one-split]

Each seed divides the rows anew and gives other first weights (with --one-split they stay divided as the manifest says);
the settings are the manifests'. All learn from the same rows: the train part, and the validation part too where a name
says so, since the networks choose their best epoch by it. The table has the mean over the seeds, its standard error and
the mean difference to the float network; below it stands whether each target is reached.
"""

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from contract.manifest import Manifest, load_manifest
from training import job
from training.data import Rows, encoded, features, model_module
from training.export import export
from training.metrics import quality
from training.onnxfile import answer, open_model
from training.optimise import CPU
from training.quantise import CALIBRATED, quantise
from training.split import divide

ACCURACY, SECONDS, INT8_DROP = 0.985, 30.0, 0.003


@dataclass
class Results:
    """What the contenders of one model came to, a number a seed."""

    quality: dict[str, list[float]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    def add(self, contender: str, value: float) -> None:
        """Add what a contender came to with the next seed."""
        self.quality.setdefault(contender, []).append(value)

    def mean(self, contender: str) -> float:
        """Of a contender, over the seeds."""
        return float(np.mean(self.quality[contender]))


def main() -> None:
    """Print the table and the targets; the status is 1 if one of them is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=list(PEERS), choices=PEERS)
    parser.add_argument("--one-split", action="store_true")
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {arguments.seeds} seeds", file=sys.stderr)
    print(f"{'model':9} {'metric':9} {'contender':28} {'mean':>7} {'error':>7} {'to float':>9} {'train s, most':>14}")
    came = {}
    for name in arguments.models:
        manifest, came[name] = load_manifest(name), Results()
        for seed in range(arguments.seeds):
            run(manifest, seed, None if arguments.one_split else seed, came[name])
        show(manifest, came[name])
    missed = False
    for text, reached in targets(came):
        missed |= not reached
        print(f"{'reached' if reached else 'MISSED ':7}  {text}")
    sys.exit(missed)


def run(manifest: Manifest, seed: int, division: int | None, results: Results) -> None:
    """Train the network and its peers with one seed, and another one of the split unless it is to be the manifest's."""
    training = manifest.training.model_copy(update={"seed": seed})
    manifest = manifest.model_copy(update={"training": training})
    table = model_module(manifest.name).raw_data()
    parts = divide(table, manifest.split.model_copy(update={} if division is None else {"seed": division}))
    train, validation, test = (rows_of(parts[part], manifest) for part in ("train", "validation", "test"))

    start = time.perf_counter()
    network = job.build(manifest, training, CPU.device)
    job.train(manifest, network, train, validation, CPU)
    results.seconds.append(time.perf_counter() - start)
    with tempfile.TemporaryDirectory() as name:
        folder, sample = Path(name), np.random.default_rng(0).permutation(len(train))[:CALIBRATED]
        export(network.eval(), manifest.task, train.features[:2], folder / "float")
        quantise(folder / "float", folder / "int8", train.features[sample])
        for variant in ("float", "int8"):
            results.add(variant, quality(answer(open_model(folder / variant), test.features), test, manifest))
    both = rows_of(pl.concat([parts["train"], parts["validation"]]), manifest)
    for contender, value in PEERS[manifest.name](train, both, test, seed).items():
        results.add(contender, value)


def rows_of(table: pl.DataFrame, manifest: Manifest) -> Rows:
    """A part of the split as the network takes it."""
    assert manifest.data.target
    target = encoded(table[manifest.data.target.name], manifest.data.target)
    return Rows(features(table, manifest.data), target, table)


def classifiers(train: Rows, _: Rows, test: Rows, __: int) -> dict[str, float]:
    """Accuracy of two classics."""
    of = {"logistic regression": LogisticRegression(max_iter=2000), "support vector machine": SVC(C=10)}
    return {
        name: float((fitted(model, train).predict(test.features) == test.targets).mean()) for name, model in of.items()
    }


def lines(train: Rows, both: Rows, test: Rows, _: int) -> dict[str, float]:
    """R2 of ridge regression, as it is and with the penalty that cross-validation finds."""
    penalties = np.logspace(-2, 3, 30)
    return {
        "ridge": r2_score(test.targets, fitted(Ridge(), train).predict(test.features)),
        "ridge, cv": r2_score(test.targets, fitted(RidgeCV(penalties), train).predict(test.features)),
        "ridge, cv, with validation": r2_score(test.targets, fitted(RidgeCV(penalties), both).predict(test.features)),
    }


def forests(train: Rows, both: Rows, test: Rows, seed: int) -> dict[str, float]:
    """Area under the ROC curve of isolation forests, which see no labels either."""

    def score(rows: Rows) -> NDArray[np.float64]:
        forest = IsolationForest(random_state=seed).fit(rows.features)
        return -np.asarray(forest.score_samples(test.features))

    return {
        "isolation forest": roc_auc_score(test.targets, score(train)),
        "isolation forest, with val.": roc_auc_score(test.targets, score(both)),
    }


def fitted(model: Any, rows: Rows) -> Any:
    """The model on standardised features."""
    return make_pipeline(StandardScaler(), model).fit(rows.features, rows.targets)


def show(manifest: Manifest, results: Results) -> None:
    """Print a line a contender."""
    base = np.array(results.quality["float"])
    for contender, values in results.quality.items():
        error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
        seconds = f"{max(results.seconds):.1f}" if contender == "float" else ""
        gap = (np.array(values) - base).mean()
        print(
            f"{manifest.name:9} {manifest.quality:9} {contender:28} {np.mean(values):7.4f} {error:7.4f} {gap:+9.4f} "
            f"{seconds:>14}"
        )


def targets(came: dict[str, Results]) -> list[tuple[str, bool]]:
    """What is to be reached, in words, and whether it is."""
    told = []
    if digits := came.get("digits"):
        drop = digits.mean("float") - digits.mean("int8")
        told += [
            (f"digits: accuracy at least {ACCURACY}: {digits.mean('float'):.4f}", digits.mean("float") >= ACCURACY),
            (f"digits: at most {SECONDS:.0f} s of training: {max(digits.seconds):.1f}", max(digits.seconds) <= SECONDS),
            (f"digits: int8 within {100 * INT8_DROP:.1f} points: {100 * drop:.2f} less", drop <= INT8_DROP),
        ]
    for name, peer in (("diabetes", "ridge"), ("anomaly", "isolation forest")):
        if results := came.get(name):
            ours = results.mean("float")
            for contender in [each for each in results.quality if each.startswith(peer)]:
                theirs = results.mean(contender)
                told.append((f"{name}: at least {contender}: {ours:.4f} to {theirs:.4f}", ours >= theirs))
    return told


PEERS = {"digits": classifiers, "diabetes": lines, "anomaly": forests}

if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
