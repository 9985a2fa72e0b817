"""The service's Prometheus metrics, in a registry of their own so that a process can hold several applications."""

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

_BOUNDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_NAMES = [*map(str, _BOUNDS), "+Inf"]


class Metrics:
    """Counts what the service does."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = _Requests()
        registry.register(self._requests)
        self._shares = Gauge(
            "mlp_version_share",
            "Share of the traffic of each loaded version, in percent.",
            ("model", "version"),
            registry=registry,
        )
        self.failed_loads = Counter(
            "mlp_failed_loads", "Versions that could not be loaded, by attempt.", ("model",), registry=registry
        )
        self.failed_refreshes = Counter(
            "mlp_failed_refreshes", "Times that the live versions could not be read.", ("model",), registry=registry
        )
        # A plain number costs nothing to count; the gauge looks at it when it is scraped.
        self.in_flight = 0
        in_flight = Gauge("mlp_in_flight", "Inference requests being answered.", registry=registry)
        in_flight.set_function(lambda: self.in_flight)

    def record(self, model: str, version: str, code: int, rows: int, seconds: float) -> None:
        """Count one answered request."""
        self._requests.record((model, version, str(code)), rows, seconds)

    def show_shares(self, model: str, shares: Mapping[str, float]) -> None:
        """Show the loaded versions of a model, and no others."""
        self._shares.remove_by_labels({"model": model})
        for version, share in shares.items():
            self._shares.labels(model, version).set(share)


class _Tally:
    """The requests of one model, version and code."""

    __slots__ = ("buckets", "rows", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * len(_NAMES)
        self.rows = 0
        self.seconds = 0.0


class _Requests(Collector):
    """The metrics that every request touches.

    Only the event loop counts, so plain numbers do; the client library's own counters would take a lock each and
    cost a tenth of a whole request.
    """

    def __init__(self) -> None:
        self._tallies: dict[tuple[str, str, str], _Tally] = {}

    def record(self, labels: tuple[str, str, str], rows: int, seconds: float) -> None:
        tally = self._tallies.get(labels)
        if tally is None:
            tally = self._tallies[labels] = _Tally()
        tally.buckets[bisect_left(_BOUNDS, seconds)] += 1
        tally.rows += rows
        tally.seconds += seconds

    def collect(self) -> Iterator[Metric]:
        labels = ("model", "version", "code")
        requests = CounterMetricFamily("mlp_requests", "Inference requests by answer.", labels=labels)
        seconds = HistogramMetricFamily("mlp_request_seconds", "Time from request to answer.", labels=labels)
        rows = CounterMetricFamily("mlp_rows", "Rows predicted.", labels=labels[:2])
        for of, tally in list(self._tallies.items()):
            counts = list(accumulate(tally.buckets))
            requests.add_metric(of, counts[-1])
            seconds.add_metric(of, list(zip(_NAMES, counts, strict=True)), tally.seconds)
            if tally.rows:  # only answers with status 200 have rows
                rows.add_metric(of[:2], tally.rows)
        yield from (requests, seconds, rows)
