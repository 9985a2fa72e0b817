"""Tests of what a model answers when its input changes in a way whose effect is known; see `contract.gates.Behaviour`.

After Ribeiro et al., Beyond accuracy: behavioral testing of NLP models with CheckList, arXiv:2005.04118.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.data import Data
from contract.gates import Behaviour, Change
from contract.manifest import Manifest
from training.metrics import Answers

SEED = 0


def shares(
    ask: Callable[[NDArray[np.float32]], Answers], features: NDArray[np.float32], manifest: Manifest
) -> dict[str, float]:
    """The share of the rows at which each test of the manifest holds.

    Args:
        ask: the model.
        features: of the test part; shape [N, columns].
        manifest: the model's.
    """
    before = ask(features)
    return {
        name: float(_holds(test, before, ask(changed(features, test.change, manifest.data)), manifest).mean())
        for name, test in manifest.behaviour.items()
    }


def changed(features: NDArray[np.float32], changes: dict[str, Change], data: Data) -> NDArray[np.float32]:
    """Rows with a change to the columns of some features, each within the bounds of its feature afterwards."""
    result, places = features.copy(), {column: place for place, column in enumerate(data.columns)}
    chance = np.random.default_rng(SEED)
    for name, change in changes.items():
        feature = data.features[name]
        columns = [places[column] for column in feature.columns(name)]
        values = features[:, columns] * change.scale + change.add
        if change.noise:
            values = values + chance.normal(0, change.noise, values.shape)
        result[:, columns] = np.clip(values, feature.min, feature.max) if _bounded(feature) else values
    return result


def _bounded(feature: Any) -> bool:
    return not (feature.min is feature.max is None)


def _holds(test: Behaviour, before: Answers, after: Answers, manifest: Manifest) -> NDArray[np.bool_]:
    """Whether the test holds, at each row."""
    if test.kind == "invariance" and manifest.task == "classification":
        return np.asarray(before["label"] == after["label"])
    first, then = (_number(answers, test, manifest) for answers in (before, after))
    if test.kind == "invariance":
        return np.asarray(abs(then - first) <= test.tolerance)
    return np.asarray(then > first if test.expect == "rise" else then < first)


def _number(answers: Answers, test: Behaviour, manifest: Manifest) -> NDArray[np.float32]:
    if manifest.task == "classification":
        chosen: NDArray[np.float32] = answers["probabilities"][:, test.of]
        return chosen
    return answers["value" if manifest.task == "regression" else "score"]
