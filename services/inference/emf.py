"""Metrics on AWS Lambda, which nobody can scrape: a line of CloudWatch's Embedded Metric Format a request."""

import json
import time
from typing import Any

from contract.metrics import EMBEDDED, embedded
from services.inference.metrics import Labels, Metrics


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


def _now_ms() -> int:
    return int(time.time() * 1000)


def _print(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)
