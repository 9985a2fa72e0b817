"""The metrics of all workers as Prometheus reads them."""

from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from contract.metrics import LATENCY_BOUNDS
from services.inference.metrics import Labels, Metrics, Snapshot, Tally

_BUCKETS = [*map(str, LATENCY_BOUNDS), "+Inf"]
_COUNTERS = {
    "mlp_failed_loads": ("Versions that could not be loaded, by attempt.", ("model",)),
    "mlp_failed_refreshes": ("Times that the live versions could not be read.", ("model",)),
    "mlp_rows": ("Rows predicted.", ("model", "version")),
    "mlp_feedback": ("True labels that came back.", ("model",)),
    "mlp_capture_delivered": ("Captured lines that Firehose has taken.", ("stream",)),
    "mlp_capture_lost": ("Captured lines that could not be delivered.", ("stream",)),
}
_REQUEST_LABELS = ("model", "version", "code")


class Families(Collector):
    """Adds the workers' numbers up each time that it is asked."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        """One family a metric."""
        return _families(self._metrics.snapshots())


def registry_of(metrics: Metrics) -> CollectorRegistry:
    """A registry of its own, so that a process can hold several services."""
    registry = CollectorRegistry()
    registry.register(Families(metrics))
    return registry


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
