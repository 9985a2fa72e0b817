"""Micro-batching without a wait: the rows of requests that lie ready at the same moment are predicted together.

A prediction of eight rows takes three times as long as one of a single row, and nobody has to wait for more to come:
what has not arrived when the event loop's pass ends is not part of the batch.
"""

import asyncio

import numpy as np

from services.inference.artifacts import Version
from services.inference.tensors import Array

MOST_ROWS = 8
"""Of a request; above, a prediction of its own costs no more."""

Answers = list[Array]


class Batches:
    """The requests of this pass, by version."""

    def __init__(self) -> None:
        self._waiting: dict[Version, list[tuple[Array, asyncio.Future[Answers]]]] = {}

    def predict(self, version: Version, features: Array) -> asyncio.Future[Answers]:
        """All outputs for these rows, at the end of the pass."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answers] = loop.create_future()
        waiting = self._waiting.get(version)
        if waiting is None:
            waiting = self._waiting[version] = []
            loop.call_soon(self._run, version)
        waiting.append((features, future))
        return future

    def _run(self, version: Version) -> None:
        waiting = self._waiting.pop(version)
        names = version.everything.names
        try:
            answers = version.predict(np.concatenate([features for features, _ in waiting]), names)
        except Exception:  # it may be the fault of one: each gets the answer, or the error, that it would have alone
            for features, future in waiting:
                _predict_alone(version, features, names, future)
            return
        start = 0
        for features, future in waiting:
            end = start + len(features)
            if not future.done():  # its client may have gone
                future.set_result([answer[start:end] for answer in answers])
            start = end


def _predict_alone(version: Version, features: Array, names: list[str], future: asyncio.Future[Answers]) -> None:
    if future.done():
        return
    try:
        future.set_result(version.predict(features, names))
    except Exception as error:
        future.set_exception(error)
