"""Compares the versions of a model by what was captured of them: their latency, and their answers beside true labels.

Captured predictions and the labels that came back lie in the lake (contract/capture.py) and meet by prediction id and
row. Each labelled row counts once, and counts as independent of the others.
"""

import gzip
import json
import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import NormalDist
from typing import Any, NamedTuple

import boto3
import numpy as np
from scipy import stats

from contract.gates import Task

ALPHA = 0.05
MIN_LABELS = 100
"""Labelled rows that each of two versions needs; with fewer, the tests' normal approximation says too little."""
ANSWERS = {"classification": "label", "regression": "value", "density": "score"}
"""The output that is compared with the true label."""
QUALITY = {
    "classification": ("accuracy", "two-proportion z-test, Wilson intervals"),
    "regression": ("mean_absolute_error", "Welch's t-test of the absolute errors, t intervals"),
    "density": ("auroc", "z-test of two areas, Hanley and McNeil's intervals"),
}
"""What is measured of a task, and how it is tested."""


class Estimate(NamedTuple):
    """A number with its confidence interval."""

    value: float
    low: float
    high: float


@dataclass
class Arm:
    """What is known of one version."""

    requests: int = 0
    rows: int = 0
    latencies: "array[float]" = field(default_factory=lambda: array("d"))
    answers: "array[float]" = field(default_factory=lambda: array("d"))
    """Of the rows that have a true label."""
    labels: "array[float]" = field(default_factory=lambda: array("d"))


@dataclass(frozen=True)
class Comparison:
    """A version beside the baseline.

    Attributes:
        version: the one that is compared.
        difference: its quality less the baseline's.
        p: probability of a difference as large if there is none, corrected for the number of versions; None if there
            are too few labels.
        verdict: better, worse, no difference shown, or not enough labels.
    """

    version: int
    difference: float | None
    p: float | None
    verdict: str


def collect(bucket: str, model: str, task: Task, since: datetime) -> dict[int, Arm]:
    """What was captured of a model's versions, by version.

    Args:
        bucket: the curated one.
        model: the model's name.
        task: the model's; it says which output the labels belong to.
        since: what was captured before counts no more.
    """
    labels: dict[tuple[str, int], float] = {}
    for line in _lines(bucket, f"feedback/{model}/", since):  # in order: a label that came later corrects the first
        labels[line["prediction_id"], line["row"]] = line["label"]
    arms: dict[int, Arm] = {}
    for line in _lines(bucket, f"predictions/{model}/", since):
        arm = arms.setdefault(line["version"], Arm())
        arm.requests += 1
        arm.rows += line["rows"]
        arm.latencies.append(line["latency_ms"])
        for row, answer in enumerate(line["outputs"].get(ANSWERS[task], ())):
            # Firehose may deliver a line twice, and clients may use an id twice: the first counts.
            # A null stands for an answer that was no number.
            if (label := labels.pop((line["prediction_id"], row), None)) is not None and answer is not None:
                arm.answers.append(answer)
                arm.labels.append(label)
    return dict(sorted(arms.items()))


def quality(arm: Arm, task: Task) -> Estimate | None:
    """Accuracy, mean absolute error or area under the ROC curve, with a 95% interval; None if it is not defined.

    The intervals are those of Wilson (see `proportion`), of Student (Biometrika 6, 1908, 1-25: a mean and its standard
    error, with the t distribution of n - 1 degrees of freedom), and of Hanley and McNeil (see `_area`).
    """
    answers, labels = np.array(arm.answers), np.array(arm.labels)
    if not len(labels):
        return None
    if task == "classification":
        return proportion(int((answers == labels).sum()), len(labels))
    if task == "regression":
        errors = np.abs(answers - labels)
        value = float(errors.mean())
        if len(errors) < 2:
            return Estimate(value, math.nan, math.nan)
        half = float(stats.t.ppf(1 - ALPHA / 2, len(errors) - 1) * stats.sem(errors))
        return Estimate(value, value - half, value + half)
    area = _area(answers, labels)
    if not area:
        return None
    value, error = area
    half = NormalDist().inv_cdf(1 - ALPHA / 2) * error
    return Estimate(value, max(0.0, value - half), min(1.0, value + half))


def proportion(successes: int, trials: int) -> Estimate:
    """A proportion with Wilson's score interval (Journal of the American Statistical Association 22, 1927, 209-212)."""
    interval = stats.binomtest(successes, trials).proportion_ci(1 - ALPHA, method="wilson")
    return Estimate(successes / trials, float(interval.low), float(interval.high))


def quantile(values: Sequence[float], q: float) -> Estimate:
    """A quantile with the order statistics that enclose it (Conover, Practical Nonparametric Statistics, 3.2).

    An end is NaN where there are too few values to give it: 100 of them have no upper end for the 99% quantile.
    """
    ordered = np.sort(np.asarray(values))
    low, high = stats.binom.ppf([ALPHA / 2, 1 - ALPHA / 2], len(ordered), q).astype(int)
    return Estimate(
        float(np.quantile(ordered, q, method="inverted_cdf")),
        float(ordered[low - 1]) if low else math.nan,
        float(ordered[high]) if high < len(ordered) else math.nan,
    )


def compare(arms: Mapping[int, Arm], task: Task, baseline: int) -> list[Comparison]:
    """Compare each version with the baseline.

    The p-values are corrected by Holm's method (Scandinavian Journal of Statistics 6, 1979, 65-70), so that the risk of
    even one false verdict is 5% however many versions there are.
    """
    others = {version: arm for version, arm in arms.items() if version != baseline}
    raw = {version: _p_value(arm, arms[baseline], task) for version, arm in others.items()}
    corrected = _holm({version: p for version, p in raw.items() if p is not None})
    return [_judge(version, arm, arms[baseline], task, corrected.get(version)) for version, arm in others.items()]


def _judge(version: int, arm: Arm, baseline: Arm, task: Task, p: float | None) -> Comparison:
    theirs, ours = quality(baseline, task), quality(arm, task)
    difference = ours.value - theirs.value if ours and theirs else None
    if p is None or difference is None:
        fewest = min(len(arm.labels), len(baseline.labels))
        why = f"{fewest} of {MIN_LABELS}" if fewest < MIN_LABELS else "none of one kind"
        return Comparison(version, difference, None, f"not enough labels ({why})")
    if p >= ALPHA:
        return Comparison(version, difference, p, "no difference shown")
    gained = -difference if task == "regression" else difference
    return Comparison(version, difference, p, "better" if gained > 0 else "worse")


def _p_value(one: Arm, other: Arm, task: Task) -> float | None:
    """Two-sided; None if there are too few labels.

    Of two accuracies by `two_proportions`; of two mean errors by Welch's t-test (Biometrika 34, 1947, 28-35); of two
    areas by their difference over its standard error, the root of the sum of both squared, which is normal for areas of
    different rows (Hanley and McNeil, Radiology 143, 1982, 29-36).
    """
    if min(len(one.labels), len(other.labels)) < MIN_LABELS:
        return None
    answers, labels = (np.array(one.answers), np.array(other.answers)), (np.array(one.labels), np.array(other.labels))
    if task == "regression":
        errors = [np.abs(a - b) for a, b in zip(answers, labels, strict=True)]
        p = float(stats.ttest_ind(*errors, equal_var=False).pvalue)
        return 1.0 if math.isnan(p) else p  # both have no variance at all
    if task == "classification":
        right = [int((a == b).sum()) for a, b in zip(answers, labels, strict=True)]
        return two_proportions(right[0], len(labels[0]), right[1], len(labels[1]))
    areas = [_area(a, b) for a, b in zip(answers, labels, strict=True)]
    if not areas[0] or not areas[1]:
        return None
    error = math.hypot(areas[0][1], areas[1][1])
    return _two_sided((areas[0][0] - areas[1][0]) / error) if error else 1.0


def two_proportions(right: int, of: int, other_right: int, other_of: int) -> float:
    """P-value of the two-proportion z-test with the pooled variance (NIST/SEMATECH e-Handbook, 7.3.3)."""
    pooled = (right + other_right) / (of + other_of)
    error = math.sqrt(pooled * (1 - pooled) * (1 / of + 1 / other_of))
    return _two_sided((right / of - other_right / other_of) / error) if error else 1.0


def _two_sided(z: float) -> float:
    return math.erfc(abs(z) / math.sqrt(2))


def _holm(p_values: Mapping[int, float]) -> dict[int, float]:
    corrected, largest = {}, 0.0
    for rank, (version, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, p * (len(p_values) - rank)))
        corrected[version] = largest
    return corrected


def _area(scores: Any, labels: Any) -> tuple[float, float] | None:
    """Area under the ROC curve and its standard error (Hanley and McNeil, Radiology 143, 1982, 29-36)."""
    outliers, rest = scores[labels == 1], scores[labels != 1]
    if not len(outliers) or not len(rest):
        return None
    pairs = len(outliers) * len(rest)
    area = float(stats.mannwhitneyu(outliers, rest).statistic) / pairs
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    spread = (len(outliers) - 1) * (q1 - area**2) + (len(rest) - 1) * (q2 - area**2)
    return area, math.sqrt(max(0.0, area * (1 - area) + spread) / pairs)


def _lines(bucket: str, prefix: str, since: datetime) -> Iterator[dict[str, Any]]:
    """The captured lines below a prefix, file by file in the order in which they were delivered."""
    s3 = boto3.client("s3")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    files = [file for page in pages for file in page.get("Contents", ()) if file["LastModified"] >= since]
    text = since.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    for file in sorted(files, key=lambda file: (file["LastModified"], file["Key"])):
        content = s3.get_object(Bucket=bucket, Key=file["Key"])["Body"].read()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        for line in content.splitlines():
            document: dict[str, Any] = json.loads(line)
            if document["time"] >= text:
                yield document
