"""Explanations on request: the share that each feature has in an answer, by sampled Shapley values.

The method is permutation sampling (Strumbelj and Kononenko, "Explaining prediction models and individual predictions
with feature contributions", 2014), each permutation walked forwards and backwards (antithetic, as SHAP's
PermutationExplainer does). Features that are not in yet take their values from a typical row of the artifact.
It needs the model's answers only, so it works for whatever can be exported to ONNX.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from contract.service import INPUT
from services.inference.artifacts import Version
from services.inference.protocol import Output, RequestError, output_of
from services.inference.tensors import Array

MAX_ROWS = 16
_PERMUTATIONS = 16  # at least
_MOST_ROWS_AT_ONCE = 4096

EXPLANATION: tuple[Output, ...] = (
    output_of("explanation", "FP64"),
    output_of("explanation_base", "FP64"),
)
"""The outputs that an answer with an explanation has more."""


class Explanation(NamedTuple):
    """What the features of each row have added to `base`: their sum and the base are the explained number."""

    attributions: NDArray[np.float64]
    base: NDArray[np.float64]


def explain(version: Version, rows: Array) -> Explanation:
    """Attribute the answer for each row to its features.

    What is explained is the probability of the likeliest class, or, of a model without probabilities, its first
    output of floating-point numbers.

    Args:
        version: the model to ask.
        rows: features of shape [N, columns].

    Returns:
        Attributions of shape [N, columns] and bases of shape [N], the mean answers for the background. For the same
        rows they are always the same numbers.

    Raises:
        RequestError: if there are too many rows, or the model has nothing that could be explained.
    """
    if len(rows) > MAX_ROWS:
        raise RequestError(400, f"explanations are for at most {MAX_ROWS} rows at once, given: {len(rows)}")
    if rows.dtype.kind not in "iuf":
        raise RequestError(400, f'input "{INPUT}": {version.reader.datatype} features cannot be explained')
    name = _explained_output(version)
    results = [_explain_row(version, name, row) for row in rows]
    return Explanation(np.stack([result[0] for result in results]), np.array([result[1] for result in results]))


def _explained_output(version: Version) -> str:
    floats = [name for name, output in version.outputs.items() if output.datatype.startswith("FP")]
    if not floats:
        raise RequestError(400, f"model {version.model!r} has no output of floating-point numbers to explain")
    return "probabilities" if "probabilities" in floats else floats[0]


def _explain_row(version: Version, output: str, row: Array) -> tuple[NDArray[np.float64], float]:
    random = np.random.default_rng(0)
    columns = len(row)
    answer = version.predict(row[None], [output])[0].reshape(-1)
    chosen = int(answer.argmax())
    total, base = np.zeros(columns), 0.0
    # Each walk starts at a typical row and puts in one feature after the other: columns + 1 rows to predict.
    background = version.background[:_PERMUTATIONS]
    permutations = len(background) * -(-_PERMUTATIONS // len(background))  # each typical row as often as the others
    walks = [walk for _ in range(permutations) for walk in _both_ways(random.permutation(columns))]
    starts = [background[i // 2 % len(background)] for i in range(len(walks))]
    at_once = max(1, _MOST_ROWS_AT_ONCE // (columns + 1))
    for i in range(0, len(walks), at_once):
        part = list(zip(walks[i : i + at_once], starts[i : i + at_once], strict=True))
        values = _values(version, output, np.concatenate([_steps(row, start, order) for order, start in part]), chosen)
        for (order, _), along in zip(part, values.reshape(len(part), columns + 1), strict=True):
            total[order] += np.diff(along)
            base += along[0]
    return total / len(walks), base / len(walks)


def _both_ways(order: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return order, order[::-1]


def _steps(row: Array, start: Array, order: NDArray[np.int64]) -> Array:
    """The rows of a walk, of shape [columns + 1, columns]: in row i the first i features of `order` are the row's."""
    place = np.empty(len(row), np.int64)
    place[order] = np.arange(len(row))
    return np.where(place < np.arange(len(row) + 1)[:, None], row, start)


def _values(version: Version, output: str, rows: Array, chosen: int) -> NDArray[np.float64]:
    answers = version.predict(rows, [output])[0]
    return answers.reshape(len(rows), -1)[:, chosen].astype(np.float64)
