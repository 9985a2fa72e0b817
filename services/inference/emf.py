"""What is counted, as lines of CloudWatch's Embedded Metric Format: CloudWatch Logs makes metrics of them.

On AWS Lambda, which nobody can scrape, it is a line a request; elsewhere a line a minute with the sums.
"""

import json
import threading
import time
from typing import Any

from contract.metrics import EMBEDDED, embedded, embedded_sums
from services.inference.metrics import Labels, Metrics

INTERVAL_S = 60.0
"""How often sums are printed: CloudWatch's own metrics have a minute between two points."""


class EmfMetrics(Metrics):
    """Counts, and prints each count for CloudWatch to extract from the log, as metrics of `namespace`."""

    namespace = ""

    def record(self, model: str, version: str, code: int, rows: int, seconds: float) -> None:
        """Count one answered request."""
        super().record(model, version, code, rows, seconds)
        answers = [(code, rows, seconds)]
        _print(embedded(self.namespace, model or "none", version or "none", _now_ms(), answers) | {"code": code})

    def add(self, counter: str, labels: Labels, count: float = 1) -> None:
        """Count something else."""
        super().add(counter, labels, count)
        if counter not in EMBEDDED["inference"]:
            return
        (dimensions,) = EMBEDDED["inference"][counter]
        directive = {
            "Namespace": self.namespace,
            "Dimensions": [list(dimensions)],
            "Metrics": [{"Name": counter, "Unit": "Count"}],
        }
        metadata = {"Timestamp": _now_ms(), "CloudWatchMetrics": [directive]}
        _print({"_aws": metadata, **dict(zip(dimensions, labels, strict=True)), counter: count})


class EmfSums:
    """Prints each minute, and at the end, what a worker has answered since the last time: a line a version, if any.

    Requests know nothing of it: a thread of its own reads the numbers that are there for Prometheus.

    Args:
        metrics: of this worker.
        namespace: of the metrics in CloudWatch.
    """

    def __init__(self, metrics: Metrics, namespace: str) -> None:
        self._metrics = metrics
        self._namespace = namespace
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._print_often, name="emf", daemon=True)

    def start(self) -> None:
        """Print from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Print the last sums."""
        self._stop.set()
        self._thread.join()

    def _print_often(self) -> None:
        while not self._stop.wait(INTERVAL_S):
            self._print_new()
        self._print_new()

    def _print_new(self) -> None:
        now = _now_ms()
        for (model, version), (requests, errors) in self._metrics.take_answered().items():
            _print(embedded_sums(self._namespace, model or "none", version or "none", now, requests, errors))


def _now_ms() -> int:
    return int(time.time() * 1000)


def _print(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)
