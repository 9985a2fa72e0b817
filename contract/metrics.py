"""Every metric that something in the platform exports: one table, which dashboards, alert rules and collectors keep to.

The service's own names stand here once; a test compares them with what its `/metrics` really says. What others export
is as their published lists have it, named beside each part. A query that uses anything else is refused by a test.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True)
class Metric:
    """A Prometheus metric.

    Attributes:
        name: as its exporter shows it; a counter's ends in `_total`, a histogram's stands for its three series.
        kind: how to query it: only the rate of a counter means anything.
        labels: those that its exporter gives it, without the target's.
        what: what it says, in its unit.
    """

    name: str
    kind: Kind
    labels: frozenset[str]
    what: str

    @property
    def series(self) -> tuple[str, ...]:
        """The names that a query may use."""
        if self.kind == "histogram":
            return tuple(f"{self.name}_{part}" for part in ("bucket", "sum", "count"))
        return (self.name,)


def _metric(name: str, kind: Kind, labels: str, what: str) -> Metric:
    return Metric(name, kind, frozenset(labels.split()), what)


SERVICE = (
    _metric("mlp_requests_total", "counter", "model version code", "Inference requests by answer."),
    _metric("mlp_request_seconds", "histogram", "model version code", "Time from request to answer."),
    _metric("mlp_rows_total", "counter", "model version", "Rows predicted."),
    _metric("mlp_version_share", "gauge", "model version", "Share of the traffic of each loaded version, in percent."),
    _metric("mlp_in_flight", "gauge", "", "Inference requests being answered."),
    _metric("mlp_failed_loads_total", "counter", "model", "Versions that could not be loaded, by attempt."),
    _metric("mlp_failed_refreshes_total", "counter", "model", "Times that the live versions could not be read."),
    _metric("mlp_feedback_total", "counter", "model", "True labels that came back."),
    _metric("mlp_capture_delivered_total", "counter", "stream", "Captured lines that Firehose has taken."),
    _metric("mlp_capture_lost_total", "counter", "stream", "Captured lines that could not be delivered."),
)
"""What the inference service answers at `/metrics`; collected where it runs on ECS."""

LATENCY_BOUNDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the buckets of `mlp_request_seconds`, in seconds: a model's `latency_ms` counts as the next one."""

MONITOR = (
    _metric("mlp_drift_score", "gauge", "model feature", "Population stability index of a feature; 0.2 is a shift."),
    _metric("mlp_quality", "gauge", "model version metric", "A quality metric, from the true labels that came back."),
)
"""What the monitor of data and model quality writes to Prometheus and, under the same names, to CloudWatch."""

_GPU = "gpu UUID device modelName Hostname namespace pod container"

DCGM = (
    _metric("DCGM_FI_DEV_GPU_UTIL", "gauge", _GPU, "GPU utilisation, in percent."),
    _metric("DCGM_FI_DEV_MEM_COPY_UTIL", "gauge", _GPU, "Utilisation of the memory's bandwidth, in percent."),
    _metric("DCGM_FI_DEV_FB_USED", "gauge", _GPU, "Memory used, in MiB."),
    _metric("DCGM_FI_DEV_FB_FREE", "gauge", _GPU, "Memory free, in MiB."),
    _metric("DCGM_FI_DEV_POWER_USAGE", "gauge", _GPU, "Power drawn, in watts."),
    _metric("DCGM_FI_DEV_GPU_TEMP", "gauge", _GPU, "Temperature, in degrees Celsius."),
    _metric("DCGM_FI_DEV_XID_ERRORS", "gauge", _GPU, "The last XID error; 0 if there was none."),
)
"""NVIDIA's exporter with its default counters (dcgm-exporter 4, `etc/default-counters.csv`)."""

KUEUE = (
    _metric("kueue_pending_workloads", "gauge", "cluster_queue status", "Workloads that wait for their quota."),
    _metric("kueue_admitted_active_workloads", "gauge", "cluster_queue", "Workloads that run."),
    _metric("kueue_admission_wait_time_seconds", "histogram", "cluster_queue", "Time from creation to admission."),
    _metric("kueue_evicted_workloads_total", "counter", "cluster_queue reason", "Workloads that were put back."),
)
"""Kueue's controller (kueue.sigs.k8s.io/docs/reference/metrics)."""

SCRAPING = (_metric("up", "gauge", "", "Whether the last scrape of a target succeeded."),)
"""What a collector adds for each target."""

PROMETHEUS: tuple[Metric, ...] = SERVICE + MONITOR + DCGM + KUEUE + SCRAPING

TARGET_LABELS = frozenset({"job", "instance"})
"""Labels that the collectors give every metric."""

SCRAPE_SECONDS = 30
"""How often the collectors look."""

JOBS = {"inference": SERVICE, "dcgm": DCGM, "kueue": KUEUE}
"""By scrape job, the metrics that are kept; what no dashboard or rule knows is not paid for."""

BY_VERSION = (("model",), ("model", "version"))

Dimensions = Sequence[tuple[str, ...]]
"""The sets of dimensions that a CloudWatch metric comes with; a query names all dimensions of one set."""


def _each(names: str, *dimensions: tuple[str, ...]) -> dict[str, Dimensions]:
    return dict.fromkeys(names.split(), dimensions)


CLOUDWATCH: Mapping[str, Mapping[str, Dimensions]] = {
    "AWS/Lambda": _each("Invocations Errors Throttles Duration ConcurrentExecutions", ("FunctionName",)),
    "AWS/ECS": _each("CPUUtilization MemoryUtilization", ("ClusterName", "ServiceName")),
    "AWS/SageMaker": _each(
        "Invocations Invocation4XXErrors Invocation5XXErrors ModelLatency OverheadLatency",
        ("EndpointName", "VariantName"),
    ),
    # Of a host, all of its GPUs added up: 800 is the most of eight.
    "/aws/sagemaker/TrainingJobs": _each("GPUUtilization GPUMemoryUtilization", ("Host",)),
    # An account's charges of the month so far; AWS keeps them in us-east-1 alone.
    "AWS/Billing": _each("EstimatedCharges", ("Currency",), ("Currency", "ServiceName")),
}
"""AWS's metrics by namespace and name, as the CloudWatch page of each service's documentation lists them."""

EMBEDDED: Mapping[str, Mapping[str, Dimensions]] = {
    "inference": {
        **_each("mlp_requests mlp_errors mlp_request_seconds mlp_rows", *BY_VERSION),
        **_each("mlp_failed_loads mlp_failed_refreshes", ("model",)),
        **_each("mlp_capture_lost", ("stream",)),
    },
    "gpu": {"nvidia_smi_utilization_gpu": (("InstanceId",),)},
    "monitor": {"mlp_drift_score": (("model", "feature"),), "mlp_quality": (("model", "version", "metric"),)},
}
"""The platform's own metrics in CloudWatch, by the part of the platform that writes them (`gpu` is the CloudWatch
agent on Batch's instances): see `namespace`."""

_UNITS = {"mlp_requests": "Count", "mlp_errors": "Count", "mlp_request_seconds": "Seconds", "mlp_rows": "Count"}


def namespace(prefix: str, environment: str, part: str) -> str:
    """The CloudWatch namespace of one part of an environment, such as `mlp/dev/inference`.

    A role that may write to CloudWatch is held to its namespace by a condition, so each part has its own.
    """
    return f"{prefix}/{environment}/{part}"


def embedded(
    namespace: str, model: str, version: str, timestamp_ms: int, answers: Sequence[tuple[int, int, float]]
) -> dict[str, Any]:
    """Requests as a document in CloudWatch's embedded metric format.

    A Lambda function prints it as one line of JSON; CloudWatch Logs makes the metrics out of it, so that nothing is
    sent and no request waits. One line holds at most 100 values a metric, so at most 100 answers.

    Args:
        namespace: from `namespace`.
        model: the model that answered.
        version: its version.
        timestamp_ms: when, in milliseconds since 1970.
        answers: of each request the HTTP status, the rows predicted and the seconds it took.

    Raises:
        ValueError: if there are no answers, or more than 100.
    """
    if not 1 <= len(answers) <= 100:
        raise ValueError(f"one document holds 1 to 100 answers, but {len(answers)} were given")
    values = {
        "mlp_requests": len(answers),
        "mlp_errors": sum(code >= 500 for code, _, _ in answers),
        "mlp_request_seconds": [seconds for _, _, seconds in answers],
        "mlp_rows": sum(rows for _, rows, _ in answers),
    }
    return _document(namespace, model, version, timestamp_ms, values)


def embedded_sums(
    namespace: str, model: str, version: str, timestamp_ms: int, requests: int, errors: int
) -> dict[str, Any]:
    """The requests of a while as such a document, and how many of them failed (a status of 500 and above).

    A service that lives on between requests prints one now and then, instead of one for each request.
    """
    values = {"mlp_requests": requests, "mlp_errors": errors}
    return _document(namespace, model, version, timestamp_ms, values)


def _document(namespace: str, model: str, version: str, timestamp_ms: int, values: Mapping[str, Any]) -> dict[str, Any]:
    directive = {
        "Namespace": namespace,
        "Dimensions": [list(dimensions) for dimensions in BY_VERSION],
        "Metrics": [{"Name": name, "Unit": _UNITS[name]} for name in values],
    }
    metadata = {"Timestamp": timestamp_ms, "CloudWatchMetrics": [directive]}
    return {"_aws": metadata, "model": model, "version": version, **values}


def series() -> Iterator[tuple[str, Metric]]:
    """Every name that a PromQL query may use, with its metric."""
    for metric in PROMETHEUS:
        for name in metric.series:
            yield name, metric
