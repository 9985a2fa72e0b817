"""Recording and alert rules of Prometheus, as data: an alert says what is wrong and, in a line, what to do.

The form is Prometheus' own rule file; `docs/dashboards.md` has the alerts' runbooks under their names.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from infra.settings.observability import ObservabilitySettings

# List prices on demand in us-east-1, of a GPU for an hour, since AWS lowered them in June 2025: the smallest size of
# g4dn (T4), g5 (A10G), g6 (L4) and g6e (L40S), and an eighth of p4d (A100 40 GB), p4de (A100 80 GB), p5 (H100), p5en
# (H200) and p6-b200. By the model's name as NVIDIA's driver has it.
GPU_USD_PER_HOUR = {
    "Tesla T4": 0.526,
    "NVIDIA A10G": 1.006,
    "NVIDIA L4": 0.805,
    "NVIDIA L40S": 1.861,
    "NVIDIA A100-SXM4-40GB": 2.745,
    "NVIDIA A100-SXM4-80GB": 3.431,
    "NVIDIA H100 80GB HBM3": 6.88,
    "NVIDIA H200": 7.91,
    "NVIDIA B200": 14.24,
}

OBJECTIVE = 0.99
"""Share of the requests that are to be answered within the objective's latency."""
FAST_BURN = 14.4
"""Times the allowed rate: what is allowed for 30 days is gone in two (Google's SRE workbook, chapter 5)."""

Severity = Literal["critical", "warning"]


@dataclass(frozen=True)
class Recording:
    """A query whose answer is kept as a metric of its own, named level:metric:operation."""

    name: str
    expression: str

    def rule(self) -> dict[str, Any]:
        """As a rule file has it."""
        return {"record": self.name, "expr": self.expression}


@dataclass(frozen=True)
class Alert:
    """A query whose every answer, once it has lasted, is a reason to tell somebody.

    Attributes:
        name: the alert's.
        expression: the query.
        lasting: how long it must hold, such as `5m`.
        severity: critical if users notice it now.
        summary: what is wrong, with labels of the answer.
        runbook: the first thing to do.
    """

    name: str
    expression: str
    lasting: str
    severity: Severity
    summary: str
    runbook: str

    def rule(self) -> dict[str, Any]:
        """As a rule file has it."""
        return {
            "alert": self.name,
            "expr": self.expression,
            "for": self.lasting,
            "labels": {"severity": self.severity},
            "annotations": {"summary": self.summary, "runbook": self.runbook},
        }


def recordings(settings: ObservabilitySettings) -> dict[str, tuple[Recording, ...]]:
    """The recording rules by group."""
    seconds = settings.latency_ms / 1000
    # A whole number is 1.0 as the service writes it, and 1 as the collector does.
    bound = f'le="{seconds:g}"' if seconds % 1 else f'le=~"{seconds:g}|{seconds}"'
    fast = f'mlp_request_seconds_bucket{{code!~"5..",{bound}}}'
    serving = [Recording("model_version:mlp_requests:rate5m", "sum by (model, version) (rate(mlp_requests_total[5m]))")]
    for window in ("5m", "1h"):
        failed = f'sum by (model) (rate(mlp_requests_total{{code=~"5.."}}[{window}]))'
        all_ = f"sum by (model) (rate(mlp_requests_total[{window}]))"
        served = f'sum by (model) (rate(mlp_request_seconds_count{{code!~"5.."}}[{window}]))'
        in_time = f"sum by (model) (rate({fast}[{window}]))"
        serving += [
            # A model without errors has no series of them: its ratio is 0, not absent.
            Recording(f"model:mlp_errors:ratio_rate{window}", f"({failed} or 0 * {all_}) / {all_}"),
            Recording(f"model:mlp_slow_requests:ratio_rate{window}", f"1 - {in_time} / {served}"),
        ]
    priced = "on (modelName) group_left () gpu:price:usd_per_hour"
    return {
        "serving": tuple(serving),
        "gpu": (
            Recording("gpu:price:usd_per_hour", _prices()),
            Recording("cluster:gpu:usd_per_hour", f"sum(0 * DCGM_FI_DEV_GPU_UTIL + {priced})"),
            Recording("cluster:gpu_idle:usd_per_hour", f"sum((1 - DCGM_FI_DEV_GPU_UTIL / 100) * {priced})"),
        ),
    }


def _prices() -> str:
    """The list prices as series: one for each model of GPU."""
    prices = (
        f'label_replace(vector({price:g}), "modelName", "{model}", "", "")' for model, price in GPU_USD_PER_HOUR.items()
    )
    return " or ".join(prices)


def alerts(settings: ObservabilitySettings, on_ecs: Iterable[str]) -> dict[str, tuple[Alert, ...]]:
    """The alert rules by group.

    Args:
        settings: the limits.
        on_ecs: the models whose service is collected: those must be there.
    """
    return {
        "serving": (*_serving(settings), *(_not_served(model) for model in on_ecs)),
        "data": _data(settings),
        "gpu": _gpu(settings),
    }


def _serving(settings: ObservabilitySettings) -> Sequence[Alert]:
    errors = settings.error_percent / 100
    burn = FAST_BURN * (1 - OBJECTIVE)
    slow = "model:mlp_slow_requests:ratio_rate"
    return (
        Alert(
            "ModelErrors",
            f"model:mlp_errors:ratio_rate5m > {errors:g}",
            "5m",
            "critical",
            "{{ $labels.model }} fails {{ $value | humanizePercentage }} of its requests",
            "See which version fails on the model's dashboard; take it off with a weight of 0, then read its logs.",
        ),
        Alert(
            "ModelLatencyBurn",
            f"{slow}5m > {burn:g} and {slow}1h > {burn:g}",
            "2m",
            "critical",
            "{{ $labels.model }} answers {{ $value | humanizePercentage }} of its requests later than "
            f"{settings.latency_ms:g} ms",
            "Compare the versions' p99 and the tasks' CPU; add tasks if it is load, take the version off if it is one.",
        ),
        Alert(
            "ModelNoTraffic",
            "sum by (model) (increase(mlp_requests_total[30m])) == 0 and sum by (model) (mlp_version_share) > 0",
            "10m",
            "warning",
            "{{ $labels.model }} is live and has had no request for half an hour",
            "Send one with `mlp predict`; if it is answered, look at the callers and the gateway's log.",
        ),
        Alert(
            "ModelVersionFails",
            "sum by (model) (increase(mlp_failed_loads_total[15m])) > 0",
            "5m",
            "warning",
            "{{ $labels.model }} has a live version that cannot be loaded; the others serve on",
            "The service's log says why: a wrong checksum, a self-test that fails; approve a version that loads.",
        ),
    )


def _not_served(model: str) -> Alert:
    return Alert(
        "ModelNotServed",
        f'absent(mlp_version_share{{model="{model}"}})',
        "15m",
        "critical",
        "no task serves {{ $labels.model }}, or none is collected",
        "Look at the ECS service's events and its deployment; if tasks run, at the log of their collector.",
    )


def _data(settings: ObservabilitySettings) -> tuple[Alert, ...]:
    return (
        Alert(
            "CaptureDropped",
            "sum by (stream) (increase(mlp_capture_lost_total[15m])) > 0",
            "5m",
            "warning",
            "{{ $value | humanize }} captured lines of {{ $labels.stream }} were lost in a quarter of an hour",
            "Look at the Firehose stream's throttling and at the task's role; predictions go on meanwhile.",
        ),
        Alert(
            "ModelDrift",
            f"max by (model, feature) (mlp_drift_score) > {settings.drift_score:g}",
            "1h",
            "warning",
            "{{ $labels.feature }} of {{ $labels.model }} has drifted by {{ $value | humanize }}",
            "Compare the feature's distribution with the training data's; mend its source, or train on newer data.",
        ),
    )


def _gpu(settings: ObservabilitySettings) -> tuple[Alert, ...]:
    idle = settings.idle_gpu_minutes
    return (
        Alert(
            "GpuIdle",
            "max by (Hostname, gpu, modelName) (DCGM_FI_DEV_GPU_UTIL) < 5",
            f"{idle}m",
            "warning",
            f"GPU {{{{ $labels.gpu }}}} of {{{{ $labels.Hostname }}}} has been idle for {idle} minutes",
            "Find the pod that holds it (`kubectl get pods -A -o wide`) and end it; with no pod, the node is to go.",
        ),
        Alert(
            "TrainingPending",
            'sum by (cluster_queue) (kueue_pending_workloads{status="active"}) > 0',
            f"{settings.pending_minutes}m",
            "warning",
            "{{ $value }} jobs of the queue {{ $labels.cluster_queue }} have been waiting",
            "Read the workload's condition (`kubectl describe workload`): quota, borrowing, or no GPU to be had.",
        ),
    )


def rule_file(groups: Mapping[str, Sequence[Recording | Alert]]) -> dict[str, Any]:
    """Groups of rules as Prometheus reads them, evaluated once a minute."""
    return {
        "groups": [
            {"name": name, "interval": "1m", "rules": [rule.rule() for rule in rules]} for name, rules in groups.items()
        ]
    }
