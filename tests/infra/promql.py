"""Reads PromQL with a real parser, and finds what a query uses that nothing exports."""

import functools
import re
from collections.abc import Iterator

import promql_parser as promql

from contract.metrics import TARGET_LABELS, Metric, series
from infra.alert_rules import recordings
from infra.settings.observability import ObservabilitySettings

RATES = {"rate", "irate", "increase"}
SETS = {"and", "or", "unless"}
VARIABLES = {"$__rate_interval": "2m", "$__range_s": "21600", "$__range": "6h", "$__interval": "1m"}
"""What Grafana fills in, the longer names first."""


def parse(query: str) -> promql.Expr:
    """Parse a query; raises ValueError if it is none."""
    for variable, value in VARIABLES.items():
        query = query.replace(variable, value)
    return promql.parse(query)


@functools.cache
def exported() -> dict[str, Metric]:
    """By name, what exporters and recording rules make."""
    metrics = dict(series())
    for rule in (rule for group in recordings(ObservabilitySettings()).values() for rule in group):
        metrics[rule.name] = Metric(rule.name, "gauge", frozenset(labels(parse(rule.expression), metrics)), "")
    return metrics


def mistakes(query: str) -> list[str]:
    """What is wrong with a query: metrics and labels that nothing exports, and counters without their rate."""
    return list(_mistakes(parse(query), inside_rate=False))


def labels(expression: promql.Expr, metrics: dict[str, Metric] | None = None) -> set[str]:
    """The labels that the answers of a query have."""
    known = exported() if metrics is None else metrics
    match expression:
        case promql.VectorSelector():
            le = {"le"} if expression.name.endswith("_bucket") else set()
            return {*known[expression.name].labels, *TARGET_LABELS} | le if expression.name in known else set()
        case promql.MatrixSelector():
            return labels(expression.vector_selector, known)
        case promql.AggregateExpr():
            by = expression.modifier
            return set(by.labels) if by and by.type == promql.AggModifierType.By else set()
        case promql.Call() if expression.func.name == "absent":
            return {matcher.name for matcher in expression.args[0].matchers.matchers}
        case promql.Call() if expression.func.name == "label_replace":
            return labels(expression.args[0], known) | {expression.args[1].val}
        case promql.Call():
            below = set().union(*(labels(argument, known) for argument in expression.args))
            return below - {"le"} if expression.func.name == "histogram_quantile" else below
        case promql.BinaryExpr():
            left, right = labels(expression.lhs, known), labels(expression.rhs, known)
            return left | right if str(expression.op) == "or" or not left else left
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            return labels(expression.expr, known)
    return set()


def _mistakes(expression: promql.Expr, inside_rate: bool) -> Iterator[str]:
    match expression:
        case promql.VectorSelector():
            yield from _selector(expression, inside_rate)
        case promql.MatrixSelector():
            yield from _selector(expression.vector_selector, inside_rate)
        case promql.AggregateExpr():
            grouped = set(expression.modifier.labels) if expression.modifier else set()
            if missing := grouped - labels(expression.expr):
                yield f"{expression.prettify()} groups by {', '.join(sorted(missing))}, which it does not have"
            yield from _mistakes(expression.expr, inside_rate)
        case promql.Call():
            for argument in expression.args:
                yield from _mistakes(argument, inside_rate or expression.func.name in RATES)
        case promql.BinaryExpr():
            on = expression.modifier.matching.labels if expression.modifier and expression.modifier.matching else []
            for side in (expression.lhs, expression.rhs):
                if missing := set(on) - labels(side):
                    yield f"{side.prettify()} is matched on {', '.join(sorted(missing))}, which it does not have"
                yield from _mistakes(side, inside_rate)
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            yield from _mistakes(expression.expr, inside_rate)


def _selector(selector: promql.VectorSelector, inside_rate: bool) -> Iterator[str]:
    metric = exported().get(selector.name)
    if metric is None:
        yield f"nothing exports {selector.name}"
        return
    for matcher in selector.matchers.matchers:
        if matcher.name not in labels(selector):
            yield f"{selector.name} has no label {matcher.name}"
    counts = metric.kind == "counter" or re.search("_(bucket|count|sum)$", selector.name)
    if counts and not inside_rate:
        yield f"{selector.name} counts up for ever: take its rate"
