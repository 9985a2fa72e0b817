"""The platform at a glance: every model's traffic in one place, and what trains."""

from collections.abc import Iterable
from itertools import chain

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from infra.dashboards.platform import Platform
from infra.dashboards.queries import Query, graph, number, promql
from infra.dashboards.traffic import Traffic, traffic


def build(dashboard: Dashboard, platform: Platform) -> Dashboard:
    """Fill the dashboard of the whole environment.

    Args:
        dashboard: an empty one, with its title and uid.
        platform: the environment.
    """
    flows = [traffic(model, platform) for model in platform.models]
    total = _all(flow.total() for flow in flows)
    errors = _all(flow.error_percent() for flow in flows)
    dashboard.with_row(Row("Models"))
    dashboard.with_panel(number("Requests a minute", "reqpm", total, "Of each model, now.", span=12))
    what = "Answers with a status of 5xx, in percent of each model's; red from the limit that raises an alert on."
    dashboard.with_panel(number("Errors", "percent", errors, what, limit=platform.settings.error_percent, span=12))
    dashboard.with_panel(graph("Requests", "reqpm", total, "Requests a minute of each model.", span=12))
    dashboard.with_panel(graph("Errors", "percent", errors, what, limit=platform.settings.error_percent, span=12))
    _latency(dashboard, flows)
    drift = promql("max by (model) (mlp_drift_score)", "{{model}}")
    what = "The feature of each model that has drifted furthest from its training data."
    dashboard.with_panel(graph("Drift", "none", [drift], what, limit=platform.settings.drift_score))
    if platform.gpu_training:
        _training(dashboard.with_row(Row("Training")))
    return dashboard


def _all(queries: Iterable[list[Query]]) -> list[Query]:
    return list(chain.from_iterable(queries))


def _latency(dashboard: Dashboard, flows: list[Traffic]) -> None:
    """One panel a unit: SageMaker measures in microseconds."""
    for unit in dict.fromkeys(flow.latency_unit for flow in flows):
        slowest = _all(flow.slowest() for flow in flows if flow.latency_unit == unit)
        what = "99 of 100 requests of the slowest version are answered within it."
        dashboard.with_panel(graph("Latency, p99", unit, slowest, what))


def _training(dashboard: Dashboard) -> None:
    gpus = promql("count(DCGM_FI_DEV_GPU_UTIL) or vector(0)", "GPUs")
    dashboard.with_panel(number("GPUs", "none", [gpus], "GPUs that are there, and paid for.", span=8))
    idle = promql("cluster:gpu_idle:usd_per_hour or vector(0)", "idle")
    what = "What the unused part of the GPUs costs at list price."
    dashboard.with_panel(number("Idle GPUs, an hour", "currencyUSD", [idle], what, span=8))
    pending = promql('sum(kueue_pending_workloads{status="active"}) or vector(0)', "jobs")
    dashboard.with_panel(number("Jobs that wait", "none", [pending], "Training jobs that wait for quota.", span=8))
