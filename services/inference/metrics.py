"""The service's metrics: plain numbers while it works, Prometheus families when somebody asks.

The client library's own counters take a lock each and cost a tenth of a whole request; here only one thread writes a
number, so none is needed. Several workers write theirs to a folder that they share, each to a file of its own, and
whichever of them is asked adds them up.
"""

import os
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from pathlib import Path

import msgspec
from msgspec import Struct
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

BOUNDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_BUCKETS = [*map(str, BOUNDS), "+Inf"]
_SAVE_INTERVAL_S = 0.1

_COUNTERS = {
    "mlp_failed_loads": ("Versions that could not be loaded, by attempt.", ("model",)),
    "mlp_failed_refreshes": ("Times that the live versions could not be read.", ("model",)),
    "mlp_rows": ("Rows predicted.", ("model", "version")),
    "mlp_feedback": ("True labels that came back.", ("model",)),
    "mlp_capture_delivered": ("Captured lines that Firehose has taken.", ("stream",)),
    "mlp_capture_lost": ("Captured lines that could not be delivered.", ("stream",)),
}
_REQUEST_LABELS = ("model", "version", "code")

Labels = tuple[str, ...]


class Tally(Struct):
    """The requests of one model, version and code."""

    labels: Labels
    buckets: list[int] = msgspec.field(default_factory=lambda: [0] * len(_BUCKETS))
    rows: int = 0
    seconds: float = 0.0


class Snapshot(Struct):
    """The numbers of one worker."""

    tallies: list[Tally] = []
    counters: dict[str, list[tuple[Labels, float]]] = {}
    shares: dict[str, dict[str, float]] = {}
    in_flight: int = 0


_read_snapshot = msgspec.json.Decoder(Snapshot).decode


class Metrics(Collector):
    """Counts what one worker does, and collects what all of them did.

    Args:
        folder: where the workers' files are; None for a service of one process.
        worker: this worker's number; one that takes the place of another counts on from its numbers.
    """

    def __init__(self, folder: Path | None = None, worker: int = 0) -> None:
        self.in_flight: Callable[[], int] = lambda: 0
        self._file = folder / f"{worker}.json" if folder else None
        before = _read_snapshot(self._file.read_bytes()) if self._file and self._file.exists() else Snapshot()
        self._tallies = {(*tally.labels[:2], int(tally.labels[2])): tally for tally in before.tallies}
        self._counters = {name: dict(values) for name, values in before.counters.items()}
        self._counting = threading.Lock()
        self._shares: dict[str, dict[str, float]] = {}
        self._saved = b""
        self._stop = threading.Event()
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def record(self, model: str, version: str, code: int, rows: int, seconds: float) -> None:
        """Count one answered request; for the event loop's thread alone."""
        key = (model, version, code)
        tally = self._tallies.get(key)
        if tally is None:
            tally = self._tallies[key] = Tally((model, version, str(code)))
        tally.buckets[bisect_left(BOUNDS, seconds)] += 1
        tally.rows += rows
        tally.seconds += seconds

    def add(self, counter: str, labels: Labels, count: float = 1) -> None:
        """Count something that is rare enough for a lock."""
        with self._counting:
            values = self._counters.setdefault(counter, {})
            values[labels] = values.get(labels, 0) + count

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

    def collect(self) -> Iterable[Metric]:
        """The numbers of all workers."""
        snapshots = [self._snapshot()]
        if self._file:
            others = sorted(set(self._file.parent.glob("*.json")) - {self._file})
            snapshots += [_read_snapshot(file.read_bytes()) for file in others]
        return _families(snapshots)

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


def _families(snapshots: list[Snapshot]) -> Iterator[Metric]:
    tallies: dict[Labels, Tally] = {}
    for one in (tally for snapshot in snapshots for tally in snapshot.tallies):
        whole = tallies.setdefault(one.labels, Tally(one.labels))
        whole.buckets = [a + b for a, b in zip(whole.buckets, one.buckets, strict=True)]
        whole.rows += one.rows
        whole.seconds += one.seconds
    counters: dict[str, dict[Labels, float]] = {name: {} for name in _COUNTERS}
    for name, values in (item for snapshot in snapshots for item in snapshot.counters.items()):
        for labels, value in values:
            counters[name][labels] = counters[name].get(labels, 0) + value

    requests = CounterMetricFamily("mlp_requests", "Inference requests by answer.", labels=_REQUEST_LABELS)
    seconds = HistogramMetricFamily("mlp_request_seconds", "Time from request to answer.", labels=_REQUEST_LABELS)
    for labels, tally in tallies.items():
        counts = list(accumulate(tally.buckets))
        requests.add_metric(labels, counts[-1])
        seconds.add_metric(labels, list(zip(_BUCKETS, counts, strict=True)), tally.seconds)
        if tally.rows:  # only answers with status 200 have rows
            counters["mlp_rows"][labels[:2]] = counters["mlp_rows"].get(labels[:2], 0) + tally.rows
    yield from (requests, seconds)
    for name, (what, label_names) in _COUNTERS.items():
        family = CounterMetricFamily(name, what, labels=label_names)
        for labels, value in counters[name].items():
            family.add_metric(labels, value)
        yield family

    shares = GaugeMetricFamily(
        "mlp_version_share",
        "Share of the traffic of each loaded version, in percent.",
        labels=("model", "version"),
    )
    for model, of in {model: of for snapshot in snapshots for model, of in snapshot.shares.items()}.items():
        for version, share in of.items():
            shares.add_metric((model, version), share)
    yield shares
    waiting = sum(snapshot.in_flight for snapshot in snapshots)
    yield GaugeMetricFamily("mlp_in_flight", "Inference requests being answered.", value=waiting)
