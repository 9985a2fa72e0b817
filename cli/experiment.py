"""`mlp experiment`: how the versions of a model do beside each other."""

import re
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from cli.handover import environment_outputs
from cli.output import AsJson, progress, results, show, step
from cli.rollout import Environment, Model, endpoint
from contract.errors import PlatformError
from contract.manifest import Manifest, load_manifest
from contract.outputs import Outputs

if TYPE_CHECKING:
    from training.experiment import Arm, Estimate

Counts = dict[str, tuple[int, int]]
"""Requests and those of them that failed, by version."""
_COUNTED = re.compile(r'mlp_requests_total\{(?=.*model="([^"]*)")(?=.*version="([^"]+)")(?=.*code="(\d+)").*\} (\S+)')


def experiment(
    model: Model,
    days: Annotated[float, typer.Option(min=0.001, max=3650, help="How far back to look.")] = 7,
    baseline: Annotated[
        int | None, typer.Option(min=1, help="What the others are compared with; by default what is live for longest.")
    ] = None,
    environment: Environment = "local",
    as_json: AsJson = False,
) -> None:
    """Compare the versions of a model: requests, errors, latency, and quality where true labels came back.

    Predictions are captured by the service, and labels are what its feedback route took; both lie in the lake. A
    version is called better or worse if the test says so at a level of 5%, and only with 100 labelled rows each.
    """
    manifest = load_manifest(model)
    outputs = environment_outputs(environment, f"mlp experiment {model} --env {environment}")
    with step(f"Experiment {model}") as this:
        from training import experiment as statistics
        from training import registry

        since = datetime.now(UTC) - timedelta(days=days)
        arms = statistics.collect(outputs.buckets.curated, model, manifest.task, since)
        if not arms:
            raise PlatformError(
                f"nothing was captured of {model} in the last {days:g} days in {outputs.buckets.curated}/predictions/; "
                "the service captures predictions a few seconds, on AWS a few minutes, after it made them"
            )
        live = [each.version for each in registry.live(outputs.of_model(model).live_parameter).versions]
        first = baseline or next((number for number in live if number in arms), next(iter(arms)))
        if first not in arms:
            there = ", ".join(map(str, arms))
            raise PlatformError(f"--baseline {first}: nothing was captured of it; there are: {there}")
        comparisons = {each.version: each for each in statistics.compare(arms, manifest.task, first)}
        counts = _counts(model, environment, outputs, since)
        this.done(f"{sum(arm.requests for arm in arms.values())} requests captured in {days:g} days")
    versions = []
    for number, arm in arms.items():
        compared = comparisons.get(number)
        verdict = "baseline" if number == first else compared.verdict if compared else ""
        versions.append(
            {"version": number, "live": number in live}
            | _facts(arm, manifest, counts.get(str(number)))
            | {
                "difference": compared.difference if compared else None,
                "p_value": compared.p if compared else None,
                "verdict": verdict,
            }
        )
    name, test = statistics.QUALITY[manifest.task]
    document = {"model": model, "quality": name, "test": test, "alpha": statistics.ALPHA, "baseline": first}
    if as_json:
        show({}, True, document | {"min_labels": statistics.MIN_LABELS, "versions": versions})
        return
    _print(name, versions)
    counted = "since the service was started" if environment == "local" else f"in the last {days:g} days"
    progress.print(
        f"[dim]{test}, level {statistics.ALPHA} after Holm's correction, at least {statistics.MIN_LABELS} labels "
        f"each; in brackets 95% confidence intervals; requests and errors {counted}[/dim]"
    )


def _facts(arm: "Arm", manifest: Manifest, counted: tuple[int, int] | None) -> dict[str, Any]:
    from training.experiment import proportion, quality, quantile

    measured = quality(arm, manifest.task)
    return {
        "requests": counted[0] if counted else None,
        "errors": counted[1] if counted else None,
        "error_rate": _estimate(proportion(counted[1], counted[0])) if counted and counted[0] else None,
        "captured": arm.requests,
        "rows": arm.rows,
        "latency_ms": {name: _estimate(quantile(arm.latencies, q)) for name, q in _QUANTILES.items()},
        "labelled": len(arm.labels),
        "quality": _estimate(measured) if measured else None,
    }


_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def _estimate(estimate: "Estimate") -> dict[str, float | None]:
    """With null for what is not a number, which JSON does not have."""
    return {name: value if value == value else None for name, value in estimate._asdict().items()}


def _counts(model: str, environment: str, outputs: Outputs, since: datetime) -> Counts:
    """What the service counts: on the laptop since it was started, in the cloud since `since`."""
    if environment != "local":
        return _cloudwatch(model, outputs, since)
    url = endpoint(model, environment, outputs).url.partition("/v2/")[0]
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    counts: Counts = {}
    for name, version, code, count in _COUNTED.findall(text):
        if name == model:
            requests, errors = counts.get(version, (0, 0))
            number = int(float(count))
            counts[version] = (requests + number, errors + (number if int(code) >= 500 else 0))
    return counts


def _cloudwatch(model: str, outputs: Outputs, since: datetime) -> Counts:
    """The metrics that the service writes into its log, wherever it runs; contract/metrics.py names them."""
    import boto3

    cloudwatch, namespace = boto3.client("cloudwatch"), outputs.service_settings.metrics_namespace
    if not namespace:
        return {}
    found: dict[str, dict[str, int]] = {}
    for name in ("mlp_requests", "mlp_errors"):
        pages = cloudwatch.get_paginator("list_metrics").paginate(
            Namespace=namespace, MetricName=name, Dimensions=[{"Name": "model", "Value": model}, {"Name": "version"}]
        )
        for metric in (metric for page in pages for metric in page["Metrics"]):
            version = next(each["Value"] for each in metric["Dimensions"] if each["Name"] == "version")
            points = cloudwatch.get_metric_statistics(
                **metric, StartTime=since, EndTime=datetime.now(UTC), Period=86_400, Statistics=["Sum"]
            )["Datapoints"]
            found.setdefault(version, {})[name] = int(sum(point["Sum"] for point in points))
    return {version: (of.get("mlp_requests", 0), of.get("mlp_errors", 0)) for version, of in found.items()}


def _print(quality: str, versions: list[dict[str, Any]]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("version", "captured", "requests", "errors", *(f"{q} ms" for q in _QUANTILES), "labelled", quality):
        table.add_column(column)
    for column in ("p", "verdict"):
        table.add_column(column)
    for of in versions:
        table.add_row(
            f"{of['version']}{'' if of['live'] else ' (not live)'}",
            str(of["captured"]),
            "?" if of["requests"] is None else str(of["requests"]),
            "?" if of["errors"] is None else str(of["errors"]),
            *(_text(of["latency_ms"][q], ".2f") for q in _QUANTILES),
            str(of["labelled"]),
            _text(of["quality"], ".4g") if of["quality"] else "no labels",
            "" if of["p_value"] is None else f"{of['p_value']:.3g}",
            of["verdict"],
        )
    results.print(table)


def _text(estimate: dict[str, float | None], form: str) -> str:
    low, high = (format(bound, form) if bound is not None else "?" for bound in (estimate["low"], estimate["high"]))
    return f"{estimate['value']:{form}} \\[{low}, {high}]"
