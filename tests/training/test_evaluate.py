"""Every gate refuses a model that it should, and no other; and the report opens in a browser."""

import json
import re
from dataclasses import asdict

import numpy as np
import polars as pl
import pytest
from sklearn import metrics as of_sklearn

from contract.errors import PlatformError
from contract.gates import BY_TASK, COMMON, Gate
from contract.manifest import Manifest
from tests.browser import needs_browser, open_page
from tests.training import tiny
from training import evaluation_report
from training.evaluate import Evaluation, check, evaluate, require
from training.job import HISTORY_FILE
from training.metrics import quality
from training.optimise import FLOAT, TABLE_FILE, Variant
from training.steps import Context

SOUTH, HALF = pl.col("shop") == "south", pl.int_range(pl.len()) % 2 == 0
HEAVY = {"ballast": 1000}  # 4 MiB, and thirty times slower
SLOW, FAST, LARGE = {"max": 0.1}, {"min": 300_000}, {"max": 1}

# Of each gate: its bounds, and what of the model or its test rows is to break it. A model of weights a=1, b=0 is right.
CASES = {
    "classification": {
        "accuracy": ({"min": 0.7}, {"a": -1}),
        "macro_f1": ({"min": 0.65}, {"a": 0, "bias": 1}),
        "log_loss": ({"max": 0.5}, {"a": 20}),
        "calibration_error": ({"max": 0.08}, {"a": 20}),
        "generalisation_gap": ({"max": 0.1}, {"wrong": HALF}),
        "worst_slice": ({"min": 0.7}, {"wrong": SOUTH}),
        "gain_over_live": ({"min": -0.05}, {"a": -1}),
        "gain_over_live_upper": ({"min": -0.01}, {"a": -1}),
        "latency_ms": (SLOW, HEAVY),
        "throughput": (FAST, HEAVY),
        "size_mb": (LARGE, HEAVY),
    },
    "regression": {
        "r2": ({"min": 0.9}, {"a": 1}),
        "rmse": ({"max": 1.2}, {"bias": 5}),
        "mae": ({"max": 1}, {"bias": 5}),
        "calibration_error": ({"max": 0.1}, {"bias": 5}),
        "generalisation_gap": ({"max": 0.1}, {"wrong": HALF}),
        "worst_slice": ({"min": 0.8}, {"wrong": SOUTH}),
        "gain_over_live": ({"min": 0}, {"a": 2}),
        "gain_over_live_upper": ({"min": -0.01}, {"a": 2}),
        "latency_ms": (SLOW, HEAVY),
        "throughput": (FAST, HEAVY),
        "size_mb": (LARGE, HEAVY),
    },
    "density": {
        "auroc": ({"min": 0.9}, {"a": -1}),
        "average_precision": ({"min": 0.9}, {"a": 0, "b": 1}),
        "log_likelihood": ({"min": -10}, {"bias": 20}),
        "generalisation_gap": ({"max": 0.1}, {"wrong": HALF}),
        "worst_slice": ({"min": 0.8}, {"wrong": SOUTH}),
        "gain_over_live": ({"min": 0}, {"a": -1}),
        "gain_over_live_upper": ({"min": -0.01}, {"a": -1}),
        "latency_ms": (SLOW, HEAVY),
        "throughput": (FAST, HEAVY),
        "size_mb": (LARGE, HEAVY),
    },
}
RIGHT = {"classification": 1, "regression": 3, "density": 1}


def judged(folder, manifest: Manifest, wrong=None, compare=True, **weights):
    """Evaluate a model whose weights are right but for these, next to a live one that is right."""
    model = tiny.write(folder / "model", manifest.task, **{"a": RIGHT[manifest.task]} | weights)
    live = tiny.write(folder / "live", manifest.task, a=RIGHT[manifest.task])
    train, test = tiny.rows(manifest, seed=1), tiny.rows(manifest, seed=2, wrong=wrong)
    return evaluate(model, train, test, manifest, (3, live) if compare else None)


def test_there_is_a_case_of_every_gate():
    for task, of_task in CASES.items():
        assert of_task.keys() == BY_TASK[task].keys() | COMMON.keys()


@pytest.mark.parametrize(
    ("task", "gate"), [(task, gate) for task, of_task in CASES.items() for gate in of_task], ids=lambda each: each
)
def test_a_gate_passes_when_it_should_and_fails_when_it_should(task, gate, tmp_path):
    bounds, broken = CASES[task][gate]
    manifest = tiny.manifest(task, gates={gate: bounds})
    compared = gate.startswith("gain")
    good = check(judged(tmp_path, manifest, compare=compared), manifest)
    assert [(each.name, each.passed) for each in good] == [(gate, True)]
    require(good, "tiny", tmp_path)

    bad = check(judged(tmp_path, manifest, compare=compared, **broken), manifest)
    with pytest.raises(PlatformError) as caught:
        require(bad, "tiny", tmp_path / "report.html")
    first, failed, last = str(caught.value).splitlines()
    assert first == "tiny is not registered, 1 of 1 gates fail:"
    assert re.fullmatch(rf"  {gate} is \S+, allowed is (at least|at most) \S+", failed)
    assert last == f"the report {tmp_path / 'report.html'} shows more"


@pytest.mark.parametrize(
    ("bounds", "value", "passes"),
    [
        ({"min": 0.9}, 0.9, True),
        ({"min": 0.9}, 0.8999, False),
        ({"max": 2}, 2, True),
        ({"max": 2}, 2.001, False),
        ({"min": -1, "max": 1}, 0, True),
        ({"min": -1, "max": 1}, 1.5, False),
        ({"min": -1, "max": 1}, -1.5, False),
        ({"min": 0}, float("nan"), False),
        ({"max": 0}, float("nan"), False),
    ],
)
def test_bounds_are_inclusive_and_no_number_never_passes(bounds, value, passes):
    gate = Gate.model_validate(bounds)
    assert gate.admits(value) is passes
    manifest = tiny.manifest("classification", gates={"accuracy": bounds})
    assert check(Evaluation({"accuracy": value}, {}, {}), manifest)[0].passed is passes


TESTS = {
    "classification": {
        "kept": ({"kind": "invariance", "change": {"b": {"noise": 3}}}, {"b": 2}),
        "grows": ({"kind": "direction", "change": {"a": {"add": 1}}, "expect": "rise", "of": 1}, {"a": -1}),
        "shrinks": ({"kind": "direction", "change": {"a": {"add": -1}}, "expect": "fall", "of": 1}, {"a": 0}),
        "seldom": ({"kind": "invariance", "change": {"a": {"scale": 0.5}}, "share": 0.9}, {"bias": 2}),
    },
    "regression": {
        "kept": ({"kind": "invariance", "change": {"a": {"noise": 0.1}}, "tolerance": 2}, {"a": 60}),
        "grows": ({"kind": "direction", "change": {"a": {"add": 1}}, "expect": "rise", "share": 0.9}, {"a": -3}),
        "shrinks": ({"kind": "direction", "change": {"a": {"add": -1}}, "expect": "fall", "share": 0.9}, {"a": 0}),
    },
    "density": {
        "kept": ({"kind": "invariance", "change": {"b": {"add": 2}}}, {"b": 1}),
        "grows": ({"kind": "direction", "change": {"a": {"scale": 2}}, "expect": "rise", "share": 0.9}, {"a": -1}),
    },
}


@pytest.mark.parametrize(
    ("task", "name"), [(task, name) for task, of_task in TESTS.items() for name in of_task], ids=lambda each: each
)
def test_a_test_of_behaviour_passes_when_it_should_and_fails_when_it_should(task, name, tmp_path):
    told, broken = TESTS[task][name]
    manifest = tiny.manifest(task, behaviour={name: told})
    good = check(judged(tmp_path, manifest, compare=False), manifest)
    assert [(each.name, each.passed) for each in good[1:]] == [(f"behaviour.{name}", True)]
    bad = check(judged(tmp_path, manifest, compare=False, **broken), manifest)
    with pytest.raises(PlatformError, match=rf"behaviour\.{name} is \S+, allowed is at least {told.get('share', 1)}"):
        require(bad, "tiny", tmp_path)


def test_a_change_stays_within_the_bounds_of_its_feature(tmp_path):
    """At 10, the most that `a` may be, nothing can be added, so nothing rises."""
    told = {"kind": "direction", "change": {"a": {"add": 100}}, "expect": "rise"}
    manifest = tiny.manifest("regression", behaviour={"grows": told})
    model, test = tiny.write(tmp_path, "regression"), tiny.rows(manifest)
    test.features[:300, 0] = 10
    assert evaluate(model, test, test, manifest).behaviour == {"grows": 0.5}


def test_the_metrics_are_those_of_scikit_learn(tmp_path):
    manifest = tiny.manifest("classification")
    test = tiny.rows(manifest, seed=2)
    found = judged(tmp_path, manifest).metrics
    likely = 1 / (1 + np.exp(-test.features[:, 0].astype(float)))
    assert found["accuracy"] == pytest.approx(of_sklearn.accuracy_score(test.targets, likely > 0.5))
    assert found["macro_f1"] == pytest.approx(of_sklearn.f1_score(test.targets, likely > 0.5, average="macro"))
    assert found["log_loss"] == pytest.approx(of_sklearn.log_loss(test.targets, likely), abs=1e-5)
    surest = np.maximum(likely, 1 - likely)
    bins = [(surest >= low / 10) & (surest < low / 10 + 0.1) for low in range(10)]
    right = (likely > 0.5) == test.targets
    expected = sum(abs(surest[each].mean() - right[each].mean()) * each.mean() for each in bins if each.any())
    assert found["calibration_error"] == pytest.approx(expected, abs=1e-5)


def test_the_coefficient_of_determination_is_that_of_scikit_learn(tmp_path):
    manifest = tiny.manifest("regression")
    test = tiny.rows(manifest)
    found = evaluate(tiny.write(tmp_path, "regression", a=2, bias=1), test, test, manifest).metrics
    assert found["r2"] == pytest.approx(of_sklearn.r2_score(test.targets, 2 * test.features[:, 0] + 1), abs=1e-6)
    constant = type(test)(test.features, np.full_like(test.targets, 7), test.table)
    assert quality({"value": test.targets}, constant, manifest) == 0


def test_the_area_under_the_curve_is_that_of_scikit_learn_with_ties_too(tmp_path):
    manifest = tiny.manifest("density")
    test = tiny.rows(manifest, wrong=pl.int_range(pl.len()) % 7 == 0)
    test.features[:] = test.features.round()
    found = evaluate(tiny.write(tmp_path, "density", b=0.5), test, test, manifest).metrics
    scores = test.features[:, 0] ** 2 + 0.5 * test.features[:, 1] ** 2
    assert found["auroc"] == pytest.approx(of_sklearn.roc_auc_score(test.targets, scores), abs=1e-12)
    assert found["average_precision"] == pytest.approx(of_sklearn.average_precision_score(test.targets, scores))


def test_slices_have_the_quality_of_their_own_rows(tmp_path):
    manifest = tiny.manifest("classification")
    found = judged(tmp_path, manifest, wrong=SOUTH)
    (north_rows, north), (south_rows, south) = found.slices["shop=north"], found.slices["shop=south"]
    assert (north_rows, south_rows) == (360, 240)
    assert found.metrics["accuracy"] == pytest.approx((360 * north + 240 * south) / 600)
    assert found.metrics["worst_slice"] == south < 0.3 < north


def test_a_slice_without_enough_rows_is_refused_with_the_setting(tmp_path):
    manifest = tiny.manifest("classification", slices=[{"column": "shop", "least": 500}])
    with pytest.raises(PlatformError, match=r"no part of the slice by shop has 500 test rows; lower slices\.least"):
        judged(tmp_path, manifest)


def test_the_interval_of_the_comparison_is_that_of_statistics(tmp_path):
    """Of a difference of means over the same rows, the normal approximation knows the interval."""
    manifest = tiny.manifest("classification")
    test = tiny.rows(manifest, seed=2)
    found = judged(tmp_path, manifest, bias=1.5).comparison
    live, ours = (((test.features[:, 0] + bias) > 0) == test.targets for bias in (0, 1.5))
    gains = ours.astype(float) - live.astype(float)
    error = gains.std() / np.sqrt(len(gains))
    assert (found.version, found.gain) == (3, pytest.approx(gains.mean()))
    assert found.lower == pytest.approx(gains.mean() - 1.96 * error, abs=error / 4)
    assert found.upper == pytest.approx(gains.mean() + 1.96 * error, abs=error / 4)
    assert found.upper < 0


def test_a_model_that_may_only_be_unlucky_passes_the_interval_s_gate_and_fails_the_other(tmp_path):
    gates = {"gain_over_live": {"min": 0}, "gain_over_live_upper": {"min": 0}}
    manifest = tiny.manifest("classification", gates=gates)
    found = judged(tmp_path, manifest, bias=-0.4)
    assert -0.03 < found.metrics["gain_over_live"] < 0
    assert [each.passed for each in check(found, manifest)] == [False, True]


def test_the_gates_of_the_comparison_pass_where_there_is_nothing_to_compare_with(tmp_path):
    manifest = tiny.manifest("regression", gates={"gain_over_live": {"min": 0}, "r2": {"min": 0.9}})
    model, test, told = tiny.write(tmp_path / "model", "regression", a=3), tiny.rows(manifest), []
    checks = check(evaluate(model, test, test, manifest), manifest, told.append)
    assert told == ["gate gain_over_live: there is no live version to compare with"]
    assert [(each.passed, each.value is None) for each in checks] == [(True, True), (True, False)]
    require(checks, "tiny", tmp_path)

    other = tiny.write(tmp_path / "other", "density")  # it gives a score, not a value
    assert evaluate(model, test, test, manifest, (3, other)).comparison is None


@pytest.mark.parametrize(
    ("task", "gate", "said"),
    [
        (
            "classification",
            "acuracy",
            r"gates.acuracy: no such metric .* did you mean 'accuracy'\? allowed: accuracy, ",
        ),
        ("classification", "r2", "gates.r2: no such metric for this classification; .*allowed: accuracy, macro_f1, "),
        ("regression", "accuracy", "no such metric for this regression; .*allowed: r2, rmse, mae, calibration_error, "),
        ("density", "speed", "no such metric for this density; .*allowed: auroc, average_precision, log_likelihood, "),
    ],
)
def test_a_gate_that_nobody_knows_is_refused_with_those_there_are(task, gate, said):
    with pytest.raises(ValueError, match=said) as caught:
        tiny.manifest(task, gates={gate: {"min": 0}})
    assert all(name in str(caught.value) for name in (*BY_TASK[task], *COMMON))


def test_a_gate_needs_bounds_and_slices_for_the_worst_of_them():
    with pytest.raises(ValueError, match="a gate needs a min, a max or both"):
        tiny.manifest("regression", gates={"r2": {}})
    with pytest.raises(ValueError, match=r"gates\.worst_slice: no such metric .*; it needs `slices`"):
        tiny.manifest("regression", gates={"worst_slice": {"min": 0}}, slices=[])


PLOTS = {"classification": "Confusion matrix", "regression": "Residuals", "density": "Separation of the outliers"}


@needs_browser
@pytest.mark.parametrize("task", PLOTS)
def test_the_report_opens_in_a_browser_with_its_plots(task, outputs_document, tmp_path):
    quality = next(iter(BY_TASK[task]))
    grows = {"kind": "direction", "change": {"a": {"add": 1}}, "expect": "rise"}
    manifest = tiny.manifest(
        task,
        gates={quality: {"min": 0.99}},
        behaviour={"grows": grows | ({"of": 1} if task == "classification" else {})},
    )
    here = Context(manifest, outputs_document, tmp_path / "work", print)
    found, test = judged(tmp_path, manifest, wrong=SOUTH), tiny.rows(manifest, seed=2, wrong=SOUTH)
    tiny.write(here.folder("optimise") / "model", task, a=RIGHT[task])
    variants = [Variant(FLOAT, 0.9, 0.01, 1e6, 0.1, chosen=True), Variant("int8", 0.5, 0.01, 1e6, 0.03, "too bad")]
    (here.folder("optimise") / TABLE_FILE).write_text(json.dumps([asdict(each) for each in variants]))
    here.folder("train").mkdir()
    epochs = [{"number": number, "loss": 1 / number, "validation_loss": 2 / number} for number in (1, 2, 3)]
    (here.folder("train") / HISTORY_FILE).write_text(json.dumps(epochs))
    evaluation_report.write(tmp_path / "report.html", here, found, check(found, manifest), test)

    page = open_page(tmp_path / "report.html", tmp_path)
    assert page.console == []
    titles = re.findall("<h2>(.*?)</h2>", page.document)
    expected = ["Gates", "Metrics", "Comparison with the live version", "Slices", PLOTS[task], "Calibration"]
    expected += ["Worst errors", "Variants", "Learning curve"]
    assert titles == [title for title in expected if (task, title) != ("density", "Calibration")]
    # The comparison, the slices, the errors, the calibration and the learning curve, each a drawing with lines.
    drawings = re.findall("<svg.*?</svg>", page.document, re.DOTALL)
    assert len(drawings) == page.document.count("<figure") == (4 if task == "density" else 5)
    assert all(drawing.count("<path") > 3 for drawing in drawings)
    assert f"Refused: {quality}" in page.document
    for text in ("version 3", "95% confidence interval", "shop=south", "too bad", "behaviour.grows"):
        assert text in page.document
    assert not [part for part in ('src="http', 'href="http', "@import", "<script") if part in page.document]
