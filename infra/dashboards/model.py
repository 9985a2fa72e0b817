"""The dashboard of one model: traffic, versions side by side, drift and quality, and what it runs on."""

from collections.abc import Callable

from grafana_foundation_sdk.builders import table
from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.models.common import TableAutoCellOptions
from grafana_foundation_sdk.models.dashboard import DataTransformerConfig

from infra.dashboards.platform import Platform, ServedModel
from infra.dashboards.queries import PROMETHEUS, Query, graph, metric, promql, promql_now
from infra.dashboards.traffic import Traffic, traffic


def build(dashboard: Dashboard, model: ServedModel, platform: Platform) -> Dashboard:
    """Fill the dashboard of a model.

    Args:
        dashboard: an empty one, with its title and uid.
        model: the model.
        platform: the environment.
    """
    flow = traffic(model, platform)
    _traffic(dashboard.with_row(Row("Traffic")), flow, platform)
    _versions(dashboard.with_row(Row("Versions side by side")), model, flow, platform)
    _drift(dashboard.with_row(Row("Drift and quality")), model, platform)
    RUNTIMES[model.runtime](dashboard.with_row(Row(f"Runtime: {model.runtime}")), model)
    return dashboard


def _traffic(dashboard: Dashboard, flow: Traffic, platform: Platform) -> None:
    limit = platform.settings.latency_ms / 1000 if flow.latency_unit == "s" else platform.settings.latency_ms * 1000
    dashboard.with_panel(graph("Requests", "reqpm", flow.total(), "Requests a minute, of all versions.", span=8))
    what = "Answers with a status of 5xx, in percent of all; the line is the limit that raises an alert."
    errors = flow.error_percent()
    dashboard.with_panel(graph("Errors", "percent", errors, what, limit=platform.settings.error_percent, span=8))
    what = "99 of 100 requests of the slowest version are answered within it; the line is the objective."
    dashboard.with_panel(graph("Latency, p99", flow.latency_unit, flow.slowest(), what, limit=limit, span=8))


def _versions(dashboard: Dashboard, model: ServedModel, flow: Traffic, platform: Platform) -> None:
    dashboard.with_panel(graph("Requests by version", "reqpm", flow.requests(), "How the versions share the traffic."))
    latency = [*flow.latency(50), *flow.latency(99)]
    what = "The median and the 99th percentile of each version."
    dashboard.with_panel(graph("Latency by version", flow.latency_unit, latency, what))
    if model.runtime != "ecs":
        return
    what = "Answers with a status of 5xx, in percent of the version's requests."
    limit = platform.settings.error_percent
    dashboard.with_panel(graph("Errors by version", "percent", flow.errors(), what, limit=limit))
    dashboard.with_panel(_comparison(model.name))


def _comparison(model: str) -> table.Panel:
    """A row a version: what it gets, how it does."""
    requests = f'sum by (version) (rate(mlp_requests_total{{model="{model}"}}[5m]))'
    failed = f'sum by (version) (rate(mlp_requests_total{{model="{model}",code=~"5.."}}[5m]))'
    buckets = f'sum by (version, le) (rate(mlp_request_seconds_bucket{{model="{model}"}}[5m]))'
    columns = {
        "Share of traffic, %": f'max by (version) (mlp_version_share{{model="{model}"}})',
        "Requests a minute": f"60 * {requests}",
        "Errors, %": f"100 * ({failed} or 0 * {requests}) / {requests}",
        "p50, ms": f"1000 * histogram_quantile(0.5, {buckets})",
        "p99, ms": f"1000 * histogram_quantile(0.99, {buckets})",
    }
    queries = [promql_now(expression).ref_id(f"Q{number}") for number, expression in enumerate(columns.values())]
    names = {f"Value #Q{number}": title for number, title in enumerate(columns)}
    panel = table.Panel().title("Versions now").description("The last five minutes of each loaded version.")
    panel.span(12).height(8).datasource(PROMETHEUS).targets(list(queries)).decimals(2)
    panel.cell_options(TableAutoCellOptions())
    return panel.transformations(
        [
            DataTransformerConfig(id_val="joinByField", options={"byField": "version", "mode": "outer"}),
            DataTransformerConfig(
                id_val="organize",
                options={"renameByName": names, "excludeByName": {f"Time {n}": True for n in range(1, 6)}},
            ),
        ]
    )


def _drift(dashboard: Dashboard, model: ServedModel, platform: Platform) -> None:
    drift = promql(f'max by (feature) (mlp_drift_score{{model="{model.name}"}})', "{{feature}}")
    what = "How far the distribution of each feature is from that of the training data (population stability index)."
    limit = platform.settings.drift_score
    dashboard.with_panel(graph("Drift of the features", "none", [drift], what, limit=limit))
    quality = promql(
        f'max by (version, metric) (mlp_quality{{model="{model.name}"}})', "version {{version}} {{metric}}"
    )
    what = "Quality of each version, by the true labels that came back."
    dashboard.with_panel(graph("Quality", "none", [quality], what))
    if model.runtime != "ecs":
        return
    feedback = promql(f'60 * sum(rate(mlp_feedback_total{{model="{model.name}"}}[$__rate_interval]))', "labels")
    dashboard.with_panel(graph("Feedback", "cpm", [feedback], "True labels that came back, a minute."))
    captured = [
        promql(f"60 * sum by (stream) (rate(mlp_capture_{what}_total[$__rate_interval]))", f"{{{{stream}}}} {what}")
        for what in ("delivered", "lost")
    ]
    what = "Captured lines a minute, of every model: lost ones are missing from the monitor's view."
    dashboard.with_panel(graph("Capture", "cpm", captured, what))


def _lambda(dashboard: Dashboard, model: ServedModel) -> None:
    def of(name: str, statistic: str) -> Query:
        return metric("AWS/Lambda", name, model.dimensions, statistic, f"{name} {statistic}")

    calls = [of(name, "Sum") for name in ("Invocations", "Errors", "Throttles")]
    dashboard.with_panel(graph("Invocations", "cpm", calls, "As Lambda counts them, a minute.", span=8))
    duration = [of("Duration", statistic) for statistic in ("p50", "p99")]
    dashboard.with_panel(graph("Duration", "ms", duration, "Of an invocation, what the function is paid for.", span=8))
    concurrent = [of("ConcurrentExecutions", "Maximum")]
    dashboard.with_panel(graph("At once", "none", concurrent, "Invocations at the same time.", span=8))


def _ecs(dashboard: Dashboard, model: ServedModel) -> None:
    used = [metric("AWS/ECS", f"{what}Utilization", model.dimensions, "Average", what) for what in ("CPU", "Memory")]
    dashboard.with_panel(graph("Use of the tasks", "percent", used, "Of what the tasks reserve.", limit=80, span=8))
    in_flight = promql('sum(mlp_in_flight{job="inference"})', "requests")
    what = "Requests being answered at this moment, of every model on ECS."
    dashboard.with_panel(graph("In flight", "none", [in_flight], what, span=8))
    failed = [
        promql(f'sum(increase({name}{{model="{model.name}"}}[$__rate_interval]))', label)
        for name, label in (("mlp_failed_loads_total", "loads"), ("mlp_failed_refreshes_total", "refreshes"))
    ]
    what = "Versions that could not be loaded, and times that the list of live versions could not be read."
    dashboard.with_panel(graph("Failures to follow the live versions", "none", failed, what, limit=1, span=8))


def _sagemaker(dashboard: Dashboard, model: ServedModel) -> None:
    def of(name: str, statistic: str) -> Query:
        dimensions = {**model.dimensions, "VariantName": "*"}
        return metric("AWS/SageMaker", name, dimensions, statistic, f"${{PROP('Dim.VariantName')}} {name}")

    refused = [of(name, "Sum") for name in ("Invocation4XXErrors", "Invocation5XXErrors")]
    dashboard.with_panel(graph("Failed invocations", "cpm", refused, "As SageMaker counts them, a minute."))
    overhead = [of("OverheadLatency", "p99")]
    dashboard.with_panel(graph("SageMaker's share of the latency", "µs", overhead, "What the model does not take."))


RUNTIMES: dict[str, Callable[[Dashboard, ServedModel], None]] = {
    "lambda": _lambda,
    "ecs": _ecs,
    "sagemaker": _sagemaker,
}
