"""Queries and panels: the few kinds that the dashboards are made of, on Grafana's own builders."""

from collections.abc import Mapping, Sequence

from grafana_foundation_sdk.builders import cloudwatch, common, prometheus, stat, timeseries
from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.cloudwatch import MetricEditorMode, MetricQueryType, QueryMode
from grafana_foundation_sdk.models.common import (
    BigValueGraphMode,
    DataSourceRef,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import Threshold, ThresholdsMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

Query = prometheus.Dataquery | cloudwatch.MetricsQuery

# Every Grafana of the platform has its data sources under these IDs, so that one dashboard fits all of them.
PROMETHEUS = DataSourceRef(type_val="grafana-amazonprometheus-datasource", uid="prometheus")
CLOUDWATCH = DataSourceRef(type_val="cloudwatch", uid="cloudwatch")
ATHENA = DataSourceRef(type_val="grafana-athena-datasource", uid="athena")
MIXED = DataSourceRef(type_val="datasource", uid="-- Mixed --")

PERIOD_SECONDS = 60
"""The interval of what is counted in CloudWatch; kept by AWS for 15 days."""


def promql(expression: str, legend: str = "") -> prometheus.Dataquery:
    """A PromQL query over the range that the dashboard shows."""
    return prometheus.Dataquery().datasource(PROMETHEUS).expr(expression).legend_format(legend).range()


def promql_now(expression: str) -> prometheus.Dataquery:
    """A PromQL query of the latest values, as rows of a table."""
    query = prometheus.Dataquery().datasource(PROMETHEUS).expr(expression).instant()
    return query.format(PromQueryFormat.TABLE)


def metric(
    namespace: str,
    name: str,
    dimensions: Mapping[str, str],
    statistic: str,
    label: str,
    *,
    region: str = "default",
    id: str = "",
    hide: bool = False,
) -> cloudwatch.MetricsQuery:
    """A CloudWatch metric.

    Args:
        namespace: the metric's namespace.
        name: its name.
        dimensions: all of its dimensions; the value `*` stands for any, each with a line of its own.
        statistic: such as `Sum`, `Average` or `p99`.
        label: of the line, which may hold CloudWatch's `${PROP('Dim.version')}`.
        region: where the metric is, if not in the environment's region.
        id: a name for expressions.
        hide: whether only expressions use it.
    """
    query = cloudwatch.MetricsQuery().datasource(CLOUDWATCH).query_mode(QueryMode.METRICS)
    query.metric_query_type(MetricQueryType.SEARCH).metric_editor_mode(MetricEditorMode.BUILDER)
    query.region(region).namespace(namespace).metric_name(name).dimensions(dict(dimensions)).match_exact(True)
    return query.statistic(statistic).period(str(PERIOD_SECONDS)).label(label).id(id).hide(hide)


def calculated(expression: str, label: str) -> cloudwatch.MetricsQuery:
    """CloudWatch's arithmetic over the queries of the same panel, by their `id`."""
    query = cloudwatch.MetricsQuery().datasource(CLOUDWATCH).query_mode(QueryMode.METRICS).region("default")
    query.metric_query_type(MetricQueryType.SEARCH).metric_editor_mode(MetricEditorMode.CODE)
    return query.expression(expression).period(str(PERIOD_SECONDS)).label(label)


def graph(
    title: str, unit: str, queries: Sequence[Query], what: str, *, limit: float | None = None, span: int = 12
) -> timeseries.Panel:
    """Lines over time.

    Args:
        title: of the panel.
        unit: Grafana's name of the unit, such as `reqpm`, `s` or `percent`.
        queries: what is drawn.
        what: how to read it, for the panel's `i`.
        limit: where a line is drawn that should not be crossed.
        span: width, of 24.
    """
    legend = common.VizLegendOptions().show_legend(True).placement(LegendPlacement.BOTTOM)
    legend.display_mode(LegendDisplayMode.TABLE).calcs(["lastNotNull", "max"])
    panel = timeseries.Panel().title(title).description(what).unit(unit).min(0).span(span).height(8)
    panel.legend(legend).tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI)).fill_opacity(10)
    panel.thresholds(_thresholds(limit))
    if limit is not None:
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED))
    panel.datasource(_source(queries)).targets(_named(queries))
    return panel


def number(
    title: str, unit: str, queries: Sequence[Query], what: str, *, limit: float | None = None, span: int = 6
) -> stat.Panel:
    """The latest value of each query, large, over its course; red from the limit on."""
    panel = stat.Panel().title(title).description(what).unit(unit).span(span).height(5)
    panel.graph_mode(BigValueGraphMode.AREA).thresholds(_thresholds(limit)).no_value("none")
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    panel.datasource(_source(queries)).targets(_named(queries))
    return panel


def _thresholds(limit: float | None) -> ThresholdsConfig:
    steps = [Threshold(value=None, color="green")]
    if limit is not None:
        steps.append(Threshold(value=limit, color="red"))
    return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def _source(queries: Sequence[Query]) -> DataSourceRef:
    """The data source of a panel: the one that all its queries have, or Grafana's mixture."""
    kinds = {type(query) for query in queries}
    if len(kinds) > 1:
        return MIXED
    return CLOUDWATCH if cloudwatch.MetricsQuery in kinds else PROMETHEUS


def _named(queries: Sequence[Query]) -> list[Builder[Dataquery]]:
    return [query.ref_id(f"Q{number}") for number, query in enumerate(queries)]
