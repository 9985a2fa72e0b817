"""Metrics on AWS Lambda, which nobody can scrape: a line of CloudWatch's Embedded Metric Format a request."""

import json
import time

from services.inference.metrics import Labels, Metrics

NAMESPACE = "ml-platform"

_OF_A_REQUEST = {"requests": "Count", "errors": "Count", "latency": "Milliseconds", "rows": "Count"}


class EmfMetrics(Metrics):
    """Counts, and prints each count for CloudWatch to extract from the log.

    Requests have the dimensions model and version; captured lines that were lost have their stream.
    """

    def record(self, model: str, version: str, code: int, rows: int, seconds: float) -> None:
        """Count one answered request."""
        super().record(model, version, code, rows, seconds)
        values = {"requests": 1, "errors": int(code >= 500), "latency": round(seconds * 1000, 3), "rows": rows}
        _print({"model": model or "none", "version": version or "none"}, values, _OF_A_REQUEST, code=code)

    def add(self, counter: str, labels: Labels, count: float = 1) -> None:
        """Count something else."""
        super().add(counter, labels, count)
        if counter == "mlp_capture_lost":
            _print({"stream": labels[0]}, {"capture_lost": count}, {"capture_lost": "Count"})
        elif counter in ("mlp_failed_loads", "mlp_failed_refreshes"):
            name = counter.removeprefix("mlp_")
            _print({"model": labels[0]}, {name: count}, {name: "Count"})


def _print(dimensions: dict[str, str], values: dict[str, float], units: dict[str, str], **more: int) -> None:
    directive = {
        "Namespace": NAMESPACE,
        "Dimensions": [list(dimensions)],
        "Metrics": [{"Name": name, "Unit": unit} for name, unit in units.items()],
    }
    aws = {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]}
    print(json.dumps({"_aws": aws, **dimensions, **values, **more}), flush=True)
