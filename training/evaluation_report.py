"""The report of an evaluation: gates, comparison, slices, plots of the errors, and the worst of them, as one page."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from sklearn import metrics as of_sklearn

from contract.manifest import Manifest
from training import report
from training.data import Rows
from training.job import HISTORY_FILE
from training.metrics import Answers, reliability, true_probability
from training.onnxfile import answer, open_model
from training.optimise import variants
from training.report import Section, Table
from training.steps import Context

if TYPE_CHECKING:
    from training.evaluate import Check, Evaluation

WORST, IN_A_ROW = 12, 6


def write(path: Path, context: Context, found: "Evaluation", checks: "list[Check]", test: Rows) -> None:
    """Write the page."""
    manifest = context.manifest
    answers = answer(open_model(context.folder("optimise") / "model"), test.features)
    failed = [check.name for check in checks if not check.passed]
    verdict = f"Refused: {', '.join(failed)}." if failed else f"All {len(checks)} gates passed."
    lead = f"{manifest.description} {verdict} Measured on {len(test):,} test rows that nothing was fitted to."
    errors = {"classification": _confusion, "regression": _residuals, "density": _separation}[manifest.task]
    sections = [
        _gates(checks),
        _metrics(found, manifest),
        _comparison(found, manifest),
        _slices(found, manifest),
        errors(answers, test, manifest),
        _calibration(answers, test, manifest),
        _worst(answers, test, manifest),
        _variants(context),
        _learning(context),
    ]
    report.write(path, f"{manifest.name}: evaluation", lead, [section for section in sections if section])


def _gates(checks: "list[Check]") -> Section:
    head = ["gate", "value", "allowed", "passed", ""]
    rows = [(each.name, each.value, each.bound, each.passed, each.note) for each in checks]
    text = "Of a test of behaviour, the value is the share of the test rows at which it holds."
    return Section("Gates", text, [Table(head, rows)])


def _metrics(found: "Evaluation", manifest: Manifest) -> Section:
    rows = [(name, value, manifest.metrics.get(name, "")) for name, value in found.metrics.items()]
    return Section("Metrics", tables=[Table(["metric", "value", "what it is"], rows)])


def _comparison(found: "Evaluation", manifest: Manifest) -> Section:
    title = "Comparison with the live version"
    if not found.comparison:
        return Section(title, "There is no live version that takes the same columns.")
    than, drawn = found.comparison, report.figure(9, 1.4)
    axes = drawn.add_subplot()
    axes.errorbar([than.gain], [0], xerr=[[than.gain - than.lower], [than.upper - than.gain]], fmt="o", capsize=4)
    axes.axvline(0, color="grey", linestyle=":")
    axes.set_yticks([])
    axes.set_xlabel(f"{manifest.quality} minus that of version {than.version}")
    text = (
        f"{manifest.quality} is {than.gain:+.4f} against version {than.version} on the same rows, 95% confidence "
        f"interval {than.lower:+.4f} to {than.upper:+.4f} (percentile bootstrap over rows, 1,000 resamples). If "
        f"version {than.version} was trained from another snapshot, it may have seen some of these rows."
    )
    return Section(title, text, plots=[report.plot(drawn, "Gain over the live version with its confidence interval")])


def _slices(found: "Evaluation", manifest: Manifest) -> Section | None:
    if not found.slices:
        return None
    drawn = report.figure(9, 0.6 + 0.28 * len(found.slices))
    axes = drawn.add_subplot()
    axes.barh(list(found.slices), [good for _, good in found.slices.values()])
    axes.axvline(found.metrics[manifest.quality], color="black", linestyle=":")
    axes.invert_yaxis()
    axes.set_xlabel(manifest.quality)
    rows = [(name, count, good) for name, (count, good) in found.slices.items()]
    plot = report.plot(drawn, f"{manifest.quality} by slice; the dotted line is that of all rows")
    return Section("Slices", tables=[Table(["slice", "rows", manifest.quality], rows)], plots=[plot])


def _confusion(answers: Answers, test: Rows, manifest: Manifest) -> Section:
    target = manifest.data.target
    assert target
    assert target.classes
    matrix = of_sklearn.confusion_matrix(test.targets, answers["label"], labels=range(target.classes))
    names = target.labels or [str(label) for label in range(target.classes)]
    size = min(10.0, 2.5 + 0.4 * len(names))
    drawn = report.figure(size + 1, size)
    axes = drawn.add_subplot()
    drawn.colorbar(axes.imshow(np.log1p(matrix), cmap="Blues"), shrink=0.8, label="log(1 + rows)")
    if len(names) <= 20:
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(len(names)), names)
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                colour = "white" if count > matrix.max() / 3 else "black"
                axes.text(column, row, str(count), ha="center", va="center", fontsize=8, color=colour)
    axes.set_xlabel("answer")
    axes.set_ylabel("truth")
    return Section("Confusion matrix", plots=[report.plot(drawn, "How often each class got each answer")])


def _residuals(answers: Answers, test: Rows, _: Manifest) -> Section:
    values, drawn = answers["value"], report.figure(10, 4)
    left, right = drawn.subplots(1, 2)
    left.scatter(values, test.targets - values, s=8)
    left.axhline(0, color="grey", linestyle=":")
    left.set_xlabel("prediction")
    left.set_ylabel("truth minus prediction")
    right.hist(test.targets - values, bins=30)
    right.set_xlabel("truth minus prediction")
    right.set_yticks([])
    return Section("Residuals", plots=[report.plot(drawn, "Residuals against the prediction, and their distribution")])


def _separation(answers: Answers, test: Rows, _: Manifest) -> Section:
    scores, drawn = answers["score"], report.figure(10, 4)
    if test.targets is None:
        axes = drawn.add_subplot()
        axes.hist(scores, bins=40)
        axes.set_xlabel("score")
        return Section("Scores", plots=[report.plot(drawn, "How the scores of the test rows are distributed")])
    left, right = drawn.subplots(1, 2)
    edges = np.histogram_bin_edges(np.clip(scores, *np.quantile(scores, [0, 0.99])), 40)
    for value, name in ((0, "usual"), (1, "outliers")):
        left.hist(np.minimum(scores[test.targets == value], edges[-1]), edges, alpha=0.6, label=name)
    left.set_xlabel("score; beyond the last percentile in the last bar")
    left.legend(frameon=False)
    if len(np.unique(test.targets)) == 2:
        false, true, _ = of_sklearn.roc_curve(test.targets, scores)
        right.plot(false, true)
    right.plot([0, 1], [0, 1], color="grey", linestyle=":")
    right.set_xlabel("share of the usual rows above the threshold")
    right.set_ylabel("share of the outliers")
    caption = "Scores of usual rows and outliers, and the ROC curve"
    return Section("Separation of the outliers", plots=[report.plot(drawn, caption)])


def _calibration(answers: Answers, test: Rows, manifest: Manifest) -> Section | None:
    if manifest.task == "density" or test.targets is None:
        return None
    if manifest.task == "classification":
        right = answers["label"] == test.targets
        told, happened, counts = reliability(answers["probabilities"].max(1), right)
        names = ("probability of the answer", "share of right answers")
    else:
        told, happened, counts = reliability(answers["value"], test.targets, equal=False)
        names = ("mean prediction", "mean truth")
    drawn = report.figure(5.5, 4.5)
    axes = drawn.add_subplot()
    ends = [min(told.min(), happened.min()), max(told.max(), happened.max())]
    axes.plot(ends, ends, color="grey", linestyle=":")
    axes.plot(told, happened, marker="o")
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    sizes = ", ".join(map(str, counts))
    caption = f"Calibration curve in {len(counts)} bins of {sizes} rows; on the dotted line it is perfect"
    return Section("Calibration", plots=[report.plot(drawn, caption)])


def _worst(answers: Answers, test: Rows, manifest: Manifest) -> Section:
    if manifest.task == "classification":
        badness: NDArray[np.float32] = -true_probability(answers, test)
        told, names = answers["label"], ("truth", "answer", "probability of the truth")
        rest = [[test.targets[row], told[row], float(-badness[row])] for row in range(len(test))]  # type: ignore[index]
    elif manifest.task == "regression":
        badness, names = np.abs(answers["value"] - test.targets), ("truth", "prediction", "error")
        rest = [[float(v) for v in (test.targets[r], answers["value"][r], badness[r])] for r in range(len(test))]  # type: ignore[index]
    else:
        outlier = np.zeros(len(test)) if test.targets is None else test.targets
        ranks = np.argsort(np.argsort(answers["score"])) / max(1, len(test) - 1)
        badness, names = np.abs(outlier - ranks), ("outlier", "score", "share of rows with a lower score")
        rest = [[bool(outlier[r]), float(answers["score"][r]), float(ranks[r])] for r in range(len(test))]
    worst = [int(row) for row in np.argsort(-badness, kind="stable")[:WORST]]
    wide = manifest.data.columns[:8]
    images = [name for name, feature in manifest.data.features.items() if feature.shape]
    shown = [] if images else wide
    rows = [[row, *rest[row], *(test.features[row, place] for place in range(len(shown)))] for row in worst]
    plots = [_pictures(name, worst, rest, test, manifest) for name in images]
    table = Table(["test row", *names, *shown], [[_plain(value) for value in row] for row in rows])
    return Section("Worst errors", f"The {len(worst)} test rows that the model is most wrong about.", [table], plots)


def _pictures(name: str, worst: list[int], rest: list[list[object]], test: Rows, manifest: Manifest) -> report.Plot:
    feature, first = manifest.data.features[name], manifest.data.columns.index(f"{name}_0")
    lines = -(-len(worst) // IN_A_ROW)
    drawn = report.figure(9, 1.8 * lines)
    for place, row in enumerate(worst):
        axes: Axes = drawn.add_subplot(lines, IN_A_ROW, place + 1)
        pixels = test.features[row, first : first + feature.size].reshape(feature.shape or (1, feature.size))
        axes.imshow(pixels, cmap="Greys")
        axes.set_title(f"{rest[row][0]}, answer {rest[row][1]}", fontsize=9)
        axes.set_axis_off()
    return report.plot(drawn, f"The {name} of these rows, with truth and answer")


def _variants(context: Context) -> Section:
    head = [
        "variant",
        context.manifest.quality,
        "size, KiB",
        "latency of a row, ms",
        "rows a second",
        "",
        "not chosen for",
    ]
    rows = [
        (v.name, v.quality, v.size_mb * 1024, v.latency_ms, v.throughput, "chosen" if v.chosen else "", v.refused)
        for v in variants(context.folder("optimise"))
    ]
    text = "Measured on the validation part, on one thread; the smallest variant that is good enough is the model."
    return Section("Variants", text, [Table(head, rows)])


def _learning(context: Context) -> Section:
    history = json.loads((context.folder("train") / HISTORY_FILE).read_text())
    drawn = report.figure(9, 3.5)
    axes = drawn.add_subplot()
    numbers = [epoch["number"] for epoch in history]
    axes.plot(numbers, [epoch["loss"] for epoch in history], label="train part")
    if history[-1]["validation_loss"] is not None:
        axes.plot(numbers, [epoch["validation_loss"] for epoch in history], label="validation part")
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    axes.legend(frameon=False)
    return Section(
        "Learning curve", plots=[report.plot(drawn, "Loss by epoch, of the network before it was made small")]
    )


def _plain(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value
