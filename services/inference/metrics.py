"""The service's metrics: plain numbers while it works; `exposition` makes Prometheus families of them on request.

The client library's own counters take a lock each and cost a tenth of a whole request; here only one thread writes a
number, so none is needed. Several workers write theirs to a folder that they share, each to a file of its own, and
whichever of them is asked adds them up.
"""

import os
import threading
from bisect import bisect_left
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from contract.metrics import LATENCY_BOUNDS

_SAVE_INTERVAL_S = 0.1

Labels = tuple[str, ...]


class Tally(Struct):
    """The requests of one model, version and code."""

    labels: Labels
    buckets: list[int] = msgspec.field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS) + 1))
    rows: int = 0
    seconds: float = 0.0
    taken: int = 0
    """Those of them that `Metrics.take_answered` has given out."""


class Snapshot(Struct):
    """The numbers of one worker."""

    tallies: list[Tally] = []
    counters: dict[str, list[tuple[Labels, float]]] = {}
    shares: dict[str, dict[str, float]] = {}
    in_flight: int = 0


_read_snapshot = msgspec.json.Decoder(Snapshot).decode


class Metrics:
    """Counts what one worker does, and knows what all of them did.

    Args:
        folder: where the workers' files are; None for a service of one process.
        worker: this worker's number; one that takes the place of another counts on from its numbers.
    """

    def __init__(self, folder: Path | None = None, worker: int = 0) -> None:
        self.in_flight: Callable[[], int] = lambda: 0
        self.worker = worker
        self._file = folder / f"{worker}.json" if folder else None
        before = _read_snapshot(self._file.read_bytes()) if self._file and self._file.exists() else Snapshot()
        self._tallies: dict[tuple[str, str, int], Tally] = {
            (tally.labels[0], tally.labels[1], int(tally.labels[2])): tally for tally in before.tallies
        }
        self._counters = {name: dict(values) for name, values in before.counters.items()}
        self._counting = threading.Lock()
        self._shares: dict[str, dict[str, float]] = {}
        self._saved = b""
        self._stop = threading.Event()

    def record(self, model: str, version: str, code: int, rows: int, seconds: float) -> None:
        """Count one answered request; for the event loop's thread alone."""
        key = (model, version, code)
        tally = self._tallies.get(key)
        if tally is None:
            tally = self._tallies[key] = Tally((model, version, str(code)))
        tally.buckets[bisect_left(LATENCY_BOUNDS, seconds)] += 1
        tally.rows += rows
        tally.seconds += seconds

    def add(self, counter: str, labels: Labels, count: float = 1) -> None:
        """Count something that is rare enough for a lock."""
        with self._counting:
            values = self._counters.setdefault(counter, {})
            values[labels] = values.get(labels, 0) + count

    def take_answered(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Requests that this worker has answered since it was last asked, and those that failed, by model and version.

        For one thread alone. A worker that takes the place of a killed one goes on from where that one was.
        """
        answered: dict[tuple[str, str], tuple[int, int]] = {}
        for (model, version, code), tally in list(self._tallies.items()):
            count = sum(tally.buckets)
            if new := count - tally.taken:
                tally.taken = count
                requests, errors = answered.get((model, version), (0, 0))
                answered[model, version] = (requests + new, errors + (new if code >= 500 else 0))
        return answered

    def show_shares(self, model: str, shares: Mapping[str, float]) -> None:
        """Show the loaded versions of a model with their shares of the traffic, and no others."""
        self._shares[model] = dict(shares)

    def start(self) -> None:
        """Write this worker's numbers to its file from now on, for the other workers to read."""
        if self._file:
            threading.Thread(target=self._save_often, name="metrics", daemon=True).start()

    def stop(self) -> None:
        """Write the last numbers."""
        self._stop.set()
        self._save()

    def snapshots(self) -> list[Snapshot]:
        """The numbers of all workers."""
        others = sorted(set(self._file.parent.glob("*.json")) - {self._file}) if self._file else []
        return [self._snapshot(), *(_read_snapshot(file.read_bytes()) for file in others)]

    def _snapshot(self) -> Snapshot:
        with self._counting:
            counters = {name: list(values.items()) for name, values in self._counters.items()}
        return Snapshot(list(self._tallies.values()), counters, dict(self._shares), self.in_flight())

    def _save_often(self) -> None:
        while not self._stop.wait(_SAVE_INTERVAL_S):
            self._save()

    def _save(self) -> None:
        content = msgspec.json.encode(self._snapshot())
        if self._file and content != self._saved:
            unfinished = self._file.with_suffix(".unfinished")
            unfinished.write_bytes(content)
            os.replace(unfinished, self._file)
            self._saved = content
