"""How good answers are: the metrics of each task, from what the ONNX file gives."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics

from contract.errors import PlatformError
from contract.gates import Slice
from contract.manifest import Manifest
from training.data import Rows

BINS = 10
LEAST_PROBABILITY = 1e-7

Answers = Mapping[str, NDArray[Any]]


def quality(answers: Answers, rows: Rows, manifest: Manifest) -> float:
    """The metric that says how good the model is; the greater, the better."""
    if manifest.task == "classification":
        return float((answers["label"] == rows.targets).mean())
    if manifest.task == "regression":
        return _r2(answers["value"], rows.targets)
    if manifest.data.target is None:
        return float(-answers["score"].mean())
    return _auroc(answers["score"], rows.targets)


def measure(answers: Answers, rows: Rows, manifest: Manifest) -> dict[str, float]:
    """All metrics of the model's task; `contract.gates` says what they mean."""
    targets = rows.targets
    if manifest.task == "classification":
        probabilities, labels = answers["probabilities"], answers["label"]
        assert targets is not None
        return {
            "accuracy": quality(answers, rows, manifest),
            "macro_f1": float(metrics.f1_score(targets, labels, average="macro", zero_division=0)),
            "log_loss": float(-np.log(np.maximum(true_probability(answers, rows), LEAST_PROBABILITY)).mean()),
            "calibration_error": calibration_error(*reliability(probabilities.max(1), labels == targets)),
        }
    if manifest.task == "regression":
        assert targets is not None
        errors = answers["value"] - targets
        deviation = float(targets.std()) or 1.0
        return {
            "r2": quality(answers, rows, manifest),
            "rmse": float(np.sqrt((errors**2).mean())),
            "mae": float(abs(errors).mean()),
            "calibration_error": calibration_error(*reliability(answers["value"], targets, equal=False)) / deviation,
        }
    found = {"log_likelihood": float(-answers["score"].mean())}
    if targets is None:
        return found
    return found | {
        "auroc": quality(answers, rows, manifest),
        "average_precision": float(metrics.average_precision_score(targets, answers["score"])),
    }


def true_probability(answers: Answers, rows: Rows) -> NDArray[np.float32]:
    """What a classifier gave each row's true label; shape [N]."""
    probabilities: NDArray[np.float32] = answers["probabilities"]
    assert rows.targets is not None
    of_truth: NDArray[np.float32] = probabilities[np.arange(len(rows)), rows.targets]
    return of_truth


def reliability(
    told: NDArray[Any], happened: NDArray[Any], equal: bool = True
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """What a model told and what happened, in bins of rows that it told about the same.

    Args:
        told: the probability of its answer, or its value; shape [N].
        happened: whether the answer was right, or the target; shape [N].
        equal: bins of equal width from 0 to 1, as for probabilities, rather than of equally many rows.

    Returns:
        Of each bin that has rows, the mean of the one, of the other, and how many rows it has.
    """
    if equal:
        place = np.minimum((told * BINS).astype(np.int64), BINS - 1)
    else:
        place = np.argsort(np.argsort(told)) * BINS // len(told)
    counts = np.bincount(place, minlength=BINS)
    kept = counts > 0
    means = [np.bincount(place, values.astype(np.float64), BINS)[kept] / counts[kept] for values in (told, happened)]
    return means[0], means[1], counts[kept]


def calibration_error(told: NDArray[np.float64], happened: NDArray[np.float64], counts: NDArray[np.int64]) -> float:
    """The mean distance of what was told and what happened, weighted by rows.

    For probabilities it is the expected calibration error of Guo et al., On calibration of modern neural networks,
    arXiv:1706.04599, equation 3.
    """
    return float((abs(told - happened) * counts).sum() / counts.sum())


def by_slice(answers: Answers, rows: Rows, manifest: Manifest) -> dict[str, tuple[int, float]]:
    """The number of rows and the quality in each part of the manifest's slices that is large enough.

    Raises:
        PlatformError: if no part of a slice is.
    """
    found: dict[str, tuple[int, float]] = {}
    for wanted in manifest.slices:
        parts = {name: chosen for name, chosen in _parts(rows, wanted).items() if chosen.sum() >= wanted.least}
        if not parts:
            raise PlatformError(
                f"no part of the slice by {wanted.column} has {wanted.least} test rows; "
                "lower slices.least in the manifest, change its edges, or leave the slice out"
            )
        for name, chosen in parts.items():
            of_part = {output: values[chosen] for output, values in answers.items()}
            found[name] = (int(chosen.sum()), quality(of_part, rows.take(np.flatnonzero(chosen)), manifest))
    return found


def _parts(rows: Rows, wanted: Slice) -> dict[str, NDArray[np.bool_]]:
    assert rows.table is not None
    column = rows.table[wanted.column]
    if not wanted.edges:
        return {
            f"{wanted.column}={value}": (column == value).to_numpy() for value in column.drop_nulls().unique().sort()
        }
    numbers = column.cast(float).to_numpy()
    ends = [-np.inf, *wanted.edges, np.inf]
    return {f"{wanted.column} {low:g} to {high:g}": (numbers >= low) & (numbers < high) for low, high in pairwise(ends)}


def _r2(values: NDArray[Any], targets: NDArray[Any] | None) -> float:
    assert targets is not None
    if len(targets) < 2:
        return float("nan")
    around_mean = np.square(targets - targets.mean(dtype=np.float64)).sum()
    return float(1 - np.square(targets - values.astype(np.float64)).sum() / around_mean) if around_mean else 0.0


def _auroc(scores: NDArray[Any], outliers: NDArray[Any] | None) -> float:
    """By the statistic of Mann and Whitney: a bootstrap asks often, and scikit-learn takes 20 times longer."""
    assert outliers is not None
    count = int(outliers.sum())
    pairs = count * (len(outliers) - count)
    if not pairs:
        return float("nan")
    ranks = stats.rankdata(scores)[outliers == 1]
    return float((ranks.sum() - count * (count + 1) / 2) / pairs)
