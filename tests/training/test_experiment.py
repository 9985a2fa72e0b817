"""The statistics of an experiment against formulas and known figures, and what was captured as it lies in the lake."""

import gzip
import itertools
import json
import math
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import boto3
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from training import experiment
from training.experiment import ALPHA, MIN_LABELS, Arm, Estimate, collect, compare, proportion, quality, quantile

NOW = datetime.now(UTC)
Z = 1.959963984540054  # 97.5% point of the normal distribution


def arm(answers, labels) -> Arm:
    return Arm(len(answers), len(answers), answers=list(map(float, answers)), labels=list(map(float, labels)))


def right(of: int, total: int) -> Arm:
    """So many right answers among so many."""
    return arm([1] * total, [1] * of + [0] * (total - of))


def noisy(size: float, rows=400, seed=0) -> Arm:
    """A regression whose errors are of this size."""
    labels = np.random.default_rng(seed).normal(100, 10, rows)
    return arm(labels + np.random.default_rng(seed + 1).normal(0, size, rows), labels)


def scores(gap: float, rows=400, seed=0) -> Arm:
    """A detector that gives outliers, every fourth row, so much higher a score."""
    labels = (np.arange(rows) % 4 == 0).astype(float)
    return arm(np.random.default_rng(seed).normal(size=rows) + gap * labels, labels)


def wilson(successes: int, trials: int) -> Estimate:
    """Wilson, 1927, as it is written down: (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)."""
    share, n = successes / trials, trials
    middle, half = share + Z**2 / (2 * n), Z * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return Estimate(share, (middle - half) / (1 + Z**2 / n), (middle + half) / (1 + Z**2 / n))


@pytest.mark.parametrize(("successes", "trials"), [(95, 100), (1, 3), (500, 1000), (7, 10_000)])
def test_a_share_has_wilsons_interval(successes, trials):
    assert proportion(successes, trials) == pytest.approx(wilson(successes, trials), abs=1e-12)


def test_a_share_that_is_certain_has_an_interval_still():
    assert proportion(0, 10).low == pytest.approx(0, abs=1e-12)
    assert proportion(10, 10).high == pytest.approx(1)
    assert 0.6 < proportion(10, 10).low < 0.9


def test_wilsons_interval_is_that_of_the_literature():
    """Newcombe, Statistics in Medicine 17, 1998, table I: 81 of 263 gives 0.2553 to 0.3662."""
    assert proportion(81, 263) == pytest.approx((0.3080, 0.2553, 0.3662), abs=5e-5)


@pytest.mark.parametrize(
    "counts", [(90, 100, 80, 100), (50, 1000, 71, 1000), (300, 400, 300, 400), (5, 120, 900, 1000)]
)
def test_the_z_test_of_two_shares_is_the_chi_squared_test_of_the_table(counts):
    one, of, two, other = counts
    table = [[one, of - one], [two, other - two]]
    expected = stats.chi2_contingency(table, correction=False).pvalue
    assert experiment.two_proportions(*counts) == pytest.approx(expected, abs=1e-12)


def test_shares_without_any_variance_do_not_differ():
    assert experiment.two_proportions(100, 100, 200, 200) == 1


def test_an_error_has_students_interval():
    of = arm([1, 2, 4, 8, 9], [0, 0, 0, 0, 0])
    errors = np.array([1, 2, 4, 8, 9.0])
    half = 2.7764451051977987 * errors.std(ddof=1) / math.sqrt(5)  # 97.5% point of t with 4 degrees of freedom
    assert quality(of, "regression") == pytest.approx((4.8, 4.8 - half, 4.8 + half))
    assert math.isnan(quality(arm([1], [0]), "regression").low)


def test_two_errors_are_compared_by_welchs_test():
    one, other = noisy(5, 150), noisy(6, 300, seed=5)
    a, b = (np.abs(np.array(each.answers) - np.array(each.labels)) for each in (one, other))
    va, vb = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    t = (a.mean() - b.mean()) / math.sqrt(va + vb)
    freedom = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    (found,) = compare({1: other, 2: one}, "regression", 1)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(t), freedom))
    assert found.difference == pytest.approx(a.mean() - b.mean())


def test_the_area_under_the_curve_is_that_of_scikit_learn_with_ties():
    of = arm([1, 2, 2, 3, 3, 3, 5, 7], [0, 0, 1, 0, 1, 1, 0, 1])
    assert quality(of, "density").value == pytest.approx(roc_auc_score(of.labels, of.answers))


def test_the_interval_of_an_area_is_that_of_hanley_and_mcneil(monkeypatch):
    """Their example, table 2: an area of 0.893 from 51 ill and 58 well has a standard error of 0.032."""
    monkeypatch.setattr(stats, "mannwhitneyu", lambda ill, well: SimpleNamespace(statistic=0.893 * 51 * 58))
    of = arm([0] * 109, [1] * 51 + [0] * 58)
    value, low, high = quality(of, "density")
    assert value == pytest.approx(0.893)
    assert (high - low) / (2 * Z) == pytest.approx(0.032, abs=6e-4)


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_quantile_lies_within_its_interval(values, q):
    value, low, high = quantile(values, q)
    assert value in values
    assert not low > value
    assert not high < value


def test_too_few_values_give_no_end():
    assert quantile([1, 2], 0.5) == pytest.approx((1, math.nan, math.nan), nan_ok=True)
    assert quantile(range(100), 0.99) == pytest.approx((98, 96, math.nan), nan_ok=True)


def test_a_quantiles_interval_holds_the_true_one_as_often_as_it_says():
    generator = np.random.default_rng(1)
    for q in (0.5, 0.95):
        held = 0
        for _ in range(500):
            _, low, high = quantile(generator.uniform(size=400), q)
            held += low <= q <= high
        assert 0.93 <= held / 500 <= 0.995


def test_a_known_interval_of_a_median():
    """Conover, 3.2: of 16 values, the 4th and the 13th enclose the median with 97.9%; no closer pair reaches 95%."""
    assert quantile(range(1, 17), 0.5) == (8, 4, 13)


VERDICTS = {
    "classification": {
        "better": (right(940, 1000), right(900, 1000)),
        "worse": (right(860, 1000), right(900, 1000)),
        "no difference shown": (right(900, 1000), right(900, 1000)),
    },
    "regression": {
        "better": (noisy(4), noisy(6)),
        "worse": (noisy(8), noisy(6)),
        "no difference shown": (noisy(6, seed=3), noisy(6, seed=9)),
    },
    "density": {
        "better": (scores(3), scores(1)),
        "worse": (scores(0.2), scores(2)),
        "no difference shown": (scores(1), scores(1)),
    },
}


@pytest.mark.parametrize(
    ("task", "verdict"), [(task, verdict) for task, cases in VERDICTS.items() for verdict in cases]
)
def test_the_verdict(task, verdict):
    one, baseline = VERDICTS[task][verdict]
    (found,) = compare({7: baseline, 8: one}, task, 7)
    assert (found.version, found.verdict) == (8, verdict)
    assert (found.p < ALPHA) == (verdict != "no difference shown")


@pytest.mark.parametrize("task", VERDICTS)
def test_with_too_few_labels_there_is_no_verdict(task):
    cases = {
        "classification": (right(99, 99), right(100, 1000)),
        "regression": (noisy(1, MIN_LABELS - 1), noisy(60)),
        "density": (scores(9, MIN_LABELS - 1), scores(0)),
    }
    (found,) = compare(dict(enumerate(cases[task])), task, 1)
    assert (found.p, found.verdict) == (None, f"not enough labels (99 of {MIN_LABELS})")


@pytest.mark.parametrize("task", VERDICTS)
def test_without_labels_there_is_neither_quality_nor_verdict(task):
    assert quality(Arm(5, 5), task) is None
    (found,) = compare({1: Arm(5, 5), 2: Arm(5, 5)}, task, 1)
    assert found == experiment.Comparison(2, None, None, "not enough labels (0 of 100)")


def test_a_detector_without_any_outlier_has_no_verdict():
    usual = arm(range(200), [0] * 200)
    assert quality(usual, "density") is None
    (found,) = compare({1: scores(2), 2: usual}, "density", 1)
    assert found.verdict == "not enough labels (none of one kind)"


def test_perfect_answers_are_equal():
    (found,) = compare({1: noisy(0), 2: noisy(0)}, "regression", 1)
    assert (found.p, found.verdict) == (1, "no difference shown")


def test_of_many_versions_the_p_values_are_holms():
    """Each test alone says 0.0096, 0.03 and 0.6; times 3, 2 and 1, and never smaller than the one before."""
    arms = {1: right(900, 1000), 2: right(933, 1000), 3: right(870, 1000), 4: right(893, 1000)}
    raw = {
        n: experiment.two_proportions(len(a.labels) and int(sum(a.labels)), 1000, 900, 1000) for n, a in arms.items()
    }
    ordered = sorted([2, 3, 4], key=raw.__getitem__)
    expected = dict(
        zip(ordered, itertools.accumulate((raw[n] * (3 - i) for i, n in enumerate(ordered)), max), strict=True)
    )
    found = {each.version: each.p for each in compare(arms, "classification", 1)}
    assert found == pytest.approx({version: min(1, p) for version, p in expected.items()})


def test_versions_that_are_the_same_are_rarely_told_apart():
    """The level of the test: of experiments without any difference, one in twenty may end with a verdict."""
    generator = np.random.default_rng(0)
    ended = 0
    for _ in range(400):
        arms = {n: right(int(generator.binomial(300, 0.9)), 300) for n in range(3)}
        ended += any(each.verdict in ("better", "worse") for each in compare(arms, "classification", 0))
    assert ended / 400 < 0.08


@pytest.fixture
def lake(outputs):
    """Writes lines as Firehose would; each file is delivered after the one before."""

    def write(what: str, *lines: dict, name="1.gz", model="digits") -> None:
        content = "".join(json.dumps(line) + "\n" for line in lines).encode()
        boto3.client("s3").put_object(
            Bucket=outputs.buckets.curated,
            Key=f"{what}/{model}/date={NOW:%Y-%m-%d}/{name}",
            Body=gzip.compress(content) if name.endswith(".gz") else content,
        )

    return write


def predicted(id_: str, version: int, *answers: float, minutes=1, task="classification", **more) -> dict:
    return {
        "time": f"{NOW - timedelta(minutes=minutes):%Y-%m-%d %H:%M:%S.%f}",
        "model": "digits",
        "version": version,
        "prediction_id": id_,
        "rows": len(answers),
        "latency_ms": 2.5,
        "inputs": [],
        "outputs": {experiment.ANSWERS[task]: list(answers), "probabilities": [0.5]},
    } | more


def labelled(id_: str, label: float, row=0) -> dict:
    return {"time": f"{NOW:%Y-%m-%d %H:%M:%S.%f}", "model": "digits", "prediction_id": id_, "row": row, "label": label}


def test_answers_and_labels_meet_by_id_and_row(outputs, lake):
    lake("predictions", predicted("a", 1, 3, 4), predicted("b", 2, 5), predicted("c", 2, 6))
    lake("predictions", predicted("b", 2, 5), name="2.gz")  # delivered twice: its label counts once
    lake("predictions", predicted("z", 3, 1), model="another")
    lake("feedback", labelled("a", 3), labelled("a", 9, row=1), labelled("b", 1), labelled("nobody", 1), name="1")
    lake("feedback", labelled("b", 5), name="2")  # which corrects the first
    arms = collect(outputs.buckets.curated, "digits", "classification", NOW - timedelta(days=1))
    assert list(arms) == [1, 2]
    assert (arms[1].requests, arms[1].rows, list(arms[1].latencies)) == (1, 2, [2.5])
    assert (list(arms[1].answers), list(arms[1].labels)) == ([3, 4], [3, 9])
    assert (arms[2].requests, list(arms[2].answers), list(arms[2].labels)) == (3, [5], [5])


def test_an_answer_that_is_no_number_has_no_quality(outputs, lake):
    lake("predictions", predicted("a", 1, None, 4))
    lake("feedback", labelled("a", 3), labelled("a", 4, row=1))
    arm = collect(outputs.buckets.curated, "digits", "classification", NOW - timedelta(days=1))[1]
    assert (list(arm.answers), list(arm.labels)) == ([4], [4])


def test_what_was_before_does_not_count(outputs, lake):
    lake("predictions", predicted("a", 1, 3, minutes=90), predicted("b", 1, 3, minutes=10))
    assert collect(outputs.buckets.curated, "digits", "classification", NOW - timedelta(hours=1))[1].requests == 1
    assert collect(outputs.buckets.curated, "digits", "classification", NOW + timedelta(hours=1)) == {}


@pytest.mark.parametrize("task", ["regression", "density"])
def test_the_answer_is_the_output_of_the_task(outputs, lake, task):
    lake("predictions", predicted("a", 1, 0.25, task=task))
    lake("feedback", labelled("a", 1))
    assert list(collect(outputs.buckets.curated, "digits", task, NOW - timedelta(days=1))[1].answers) == [0.25]
