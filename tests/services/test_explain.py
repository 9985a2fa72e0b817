"""Explanations are Shapley values: compared with their definition, feature by feature."""

import hashlib
import itertools
import math

import numpy as np
import pytest

from contract.service import LiveVersion
from services.inference.artifacts import load_archive
from services.inference.explain import explain
from tests.services.conftest import Linear, client_of, request, serve_directory

INFER = "/v2/models/digits/infer"
EXPLAIN = {"explain": True}


def version_of(model):
    archive = model.archive()
    digest = hashlib.sha256(archive).hexdigest()
    return load_archive(archive, "digits", LiveVersion(version=1, weight=100, artifact="s3://b/k", sha256=digest))


def shapley(model, row, background):
    """By definition: the mean over all coalitions, and over the background rows."""
    columns, label = len(row), model.answer([row])["label"][0]

    def value(coalition, start):
        mixed = [row[i] if i in coalition else start[i] for i in range(columns)]
        return model.answer([mixed])["probabilities"][0][label]

    result = np.zeros(columns)
    for start, feature in itertools.product(background, range(columns)):
        others = [i for i in range(columns) if i != feature]
        for size in range(columns):
            weight = math.factorial(size) * math.factorial(columns - size - 1) / math.factorial(columns)
            for coalition in itertools.combinations(others, size):
                gain = value({*coalition, feature}, start) - value(set(coalition), start)
                result[feature] += weight * gain / len(background)
    return result


def test_attributions_are_the_shapley_values():
    model = Linear(seed=5)
    background = np.random.default_rng(8).normal(size=(40, 4)).tolist()
    version = version_of(Linear(seed=5, metadata={"background": background}))
    row = np.array([1.5, -1, 0.3, 2], np.float32)
    got = explain(version, row[None])
    # Sixteen typical rows are used, each with as many permutations.
    expected = shapley(model, row.tolist(), background[:16])
    np.testing.assert_allclose(got.attributions[0], expected, atol=0.08)
    assert np.corrcoef(got.attributions[0], expected)[0, 1] > 0.97


def test_base_and_attributions_add_up_to_the_answer():
    version = version_of(Linear())
    rows = np.random.default_rng(4).normal(size=(7, 4)).astype(np.float32)
    got = explain(version, rows)
    answers = Linear().answer(rows)["probabilities"].max(axis=1)
    np.testing.assert_allclose(got.base + got.attributions.sum(axis=1), answers, atol=1e-6)
    labels = Linear().answer(rows)["label"]
    base = Linear().answer(np.eye(4)[:2])["probabilities"].mean(axis=0)  # the self-test's rows
    np.testing.assert_allclose(got.base, base[labels], atol=1e-6)


def test_a_feature_that_does_not_count_gets_nothing():
    class Blind(Linear):
        @property
        def weights(self):
            weights = super().weights.copy()
            weights[2] = 0
            return weights

    got = explain(version_of(Blind()), np.array([[1, 2, 300, 4]], np.float32))
    assert got.attributions[0][2] == 0
    assert np.abs(got.attributions[0]).max() > 0.01


def test_an_explanation_comes_with_the_answer_on_request(client, linear):
    rows = [[1, 2, 3, 4], [0, 0, 1, 0]]
    plain = client.post(INFER, json=request(*rows)).json()
    answer = client.post(INFER, json=request(*rows, parameters=EXPLAIN)).json()
    *outputs, explanation, base = answer["outputs"]
    assert outputs == plain["outputs"]
    assert (explanation["name"], explanation["datatype"], explanation["shape"]) == ("explanation", "FP64", [2, 4])
    assert (base["name"], base["shape"]) == ("explanation_base", [2])
    total = np.reshape(explanation["data"], (2, 4)).sum(axis=1) + base["data"]
    np.testing.assert_allclose(total, linear.answer(rows)["probabilities"].max(axis=1), atol=1e-6)
    again = client.post(INFER, json=request(*rows, parameters=EXPLAIN)).json()
    assert again["outputs"] == answer["outputs"]  # reproducible
    assert client.post(INFER, json=request(*rows, parameters={"explain": False})).json()["outputs"] == plain["outputs"]


def test_too_many_rows_to_explain_are_refused(tmp_path, linear):
    client = client_of(serve_directory(tmp_path, linear))
    answer = client.post(INFER, json=request(*[[1, 2, 3, 4]] * 17, parameters=EXPLAIN))
    assert answer.status_code == 400
    assert "at most 16 rows" in answer.json()["error"]


@pytest.mark.parametrize("rows", [[[1]], [["x"]]])
def test_background_that_does_not_fit_is_refused(rows):
    with pytest.raises(Exception, match=r"background|not valid"):
        version_of(Linear(metadata={"background": rows}))
