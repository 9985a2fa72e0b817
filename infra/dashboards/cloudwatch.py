"""The dashboard of one model in CloudWatch, for environments without Grafana.

The form is CloudWatch's own: see "Dashboard body structure and syntax" in its API reference.
"""

from collections.abc import Sequence
from typing import Any

from infra.dashboards.platform import Platform, ServedModel

WIDTH, HEIGHT = 8, 6
COLUMNS = 24 // WIDTH


def body(model: ServedModel, platform: Platform) -> dict[str, Any]:
    """The dashboard of a model as `PutDashboard` takes it."""
    widgets = [*_of_runtime(model, platform), *_of_monitor(model, platform)]
    for number, widget in enumerate(widgets):
        row, column = divmod(number, COLUMNS)
        widget |= {"x": column * WIDTH, "y": row * HEIGHT, "width": WIDTH, "height": HEIGHT}
        widget["properties"] |= {"region": platform.region, "view": "timeSeries", "yAxis": {"left": {"min": 0}}}
    return {"start": "-PT6H", "periodOverride": "inherit", "widgets": widgets}


def _of_runtime(model: ServedModel, platform: Platform) -> list[dict[str, Any]]:
    if model.runtime == "lambda":
        return _lambda(model, platform.namespace("inference"))
    return _sagemaker(model) if model.runtime == "sagemaker" else _ecs(model)


def _lambda(model: ServedModel, namespace: str) -> list[dict[str, Any]]:
    own = ("model", model.name)
    function = [part for pair in model.dimensions.items() for part in pair]
    return [
        _widget("Requests by version, a minute", _search(namespace, "mlp_requests", own, "version", "Sum", 60)),
        _widget(
            "Errors, %",
            [{"expression": "100 * errors / requests", "id": "share", "label": model.name}],
            [namespace, "mlp_errors", *own, {"id": "errors", "stat": "Sum", "visible": False}],
            [namespace, "mlp_requests", *own, {"id": "requests", "stat": "Sum", "visible": False}],
        ),
        _widget("Latency by version, p99, s", _search(namespace, "mlp_request_seconds", own, "version", "p99", 60)),
        _widget(
            "Invocations a minute",
            *(["AWS/Lambda", name, *function, {"stat": "Sum"}] for name in ("Invocations", "Errors", "Throttles")),
        ),
        _widget(
            "Duration, ms",
            *(["AWS/Lambda", "Duration", *function, {"stat": stat, "label": stat}] for stat in ("p50", "p99")),
        ),
        _widget("At once", ["AWS/Lambda", "ConcurrentExecutions", *function, {"stat": "Maximum"}]),
    ]


def _ecs(model: ServedModel) -> list[dict[str, Any]]:
    service = [part for pair in model.dimensions.items() for part in pair]
    names = ("CPUUtilization", "MemoryUtilization")
    # The service's own metrics are in Prometheus, if there is one: CloudWatch has what ECS measures.
    return [_widget("Use of the tasks, %", *(["AWS/ECS", name, *service, {"stat": "Average"}] for name in names))]


def _sagemaker(model: ServedModel) -> list[dict[str, Any]]:
    (endpoint,) = model.dimensions.items()
    parts = {
        "Invocations by version, a minute": ("Invocations", "Sum"),
        "Failed invocations, a minute": ("Invocation5XXErrors", "Sum"),
        "Latency by version, p99, µs": ("ModelLatency", "p99"),
    }
    return [
        _widget(title, _search("AWS/SageMaker", name, endpoint, "VariantName", statistic, 60))
        for title, (name, statistic) in parts.items()
    ]


def _of_monitor(model: ServedModel, platform: Platform) -> list[dict[str, Any]]:
    namespace, own = platform.namespace("monitor"), ("model", model.name)
    quality = _search(namespace, "mlp_quality", own, "version,metric", "Average", 3600)
    return [
        _widget("Drift of the features", _search(namespace, "mlp_drift_score", own, "feature", "Maximum", 3600)),
        _widget("Quality by version", quality),
    ]


def _search(
    namespace: str, name: str, fixed: tuple[str, str], free: str, statistic: str, period: int
) -> list[dict[str, str]]:
    """All series of a metric with one dimension fixed, a line for each value of the others."""
    dimension, value = fixed
    query = f'{{{namespace},{dimension},{free}}} MetricName="{name}" {dimension}="{value}"'
    return [{"expression": f"SEARCH('{query}', '{statistic}', {period})"}]


def _widget(title: str, *metrics: Sequence[Any]) -> dict[str, Any]:
    return {"type": "metric", "properties": {"title": title, "period": 60, "metrics": [list(m) for m in metrics]}}
