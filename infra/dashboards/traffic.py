"""A model's traffic as its runtime tells it: the same questions to Prometheus (ECS) and CloudWatch (the others)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from infra.dashboards.platform import Platform, ServedModel
from infra.dashboards.queries import Query, calculated, metric, promql


class Traffic(Protocol):
    """What the dashboards ask of a model's traffic."""

    @property
    def latency_unit(self) -> str:
        """Grafana's name of the unit of `latency` and `slowest`."""

    def requests(self) -> list[Query]:
        """Requests a minute of each version."""

    def errors(self) -> list[Query]:
        """The share of each version's requests that failed, or of the model's, in percent."""

    def latency(self, percentile: int) -> list[Query]:
        """A percentile of each version's latency, in `latency_unit`."""

    def total(self) -> list[Query]:
        """Requests a minute of the model."""

    def error_percent(self) -> list[Query]:
        """The share of the model's requests that failed."""

    def slowest(self) -> list[Query]:
        """The 99th percentile of the latency of the slowest version."""


def traffic(model: ServedModel, platform: Platform) -> Traffic:
    """Where the traffic of a model can be read."""
    if model.runtime == "ecs":
        return PrometheusTraffic(model.name)
    if model.runtime == "lambda":
        names = _Names("mlp_requests", "mlp_errors", "mlp_request_seconds", "version")
        return CloudWatchTraffic(model.name, platform.namespace("inference"), {"model": model.name}, names, "s")
    names = _Names("Invocations", "Invocation5XXErrors", "ModelLatency", "VariantName")
    return CloudWatchTraffic(model.name, "AWS/SageMaker", model.dimensions, names, "µs")


@dataclass(frozen=True)
class PrometheusTraffic:
    """Traffic that the service itself counts."""

    model: str
    latency_unit: str = "s"

    def requests(self) -> list[Query]:
        """Requests a minute of each version."""
        return [promql(f"60 * sum by (version) ({self._rate()})", "version {{version}}")]

    def errors(self) -> list[Query]:
        """The share of each version's requests that failed."""
        failed, all_ = (f"sum by (version) ({self._rate(code)})" for code in (',code=~"5.."', ""))
        # A version without an error has no such series: its share is 0, not unknown.
        return [promql(f"100 * ({failed} or 0 * {all_}) / {all_}", "version {{version}}")]

    def latency(self, percentile: int) -> list[Query]:
        """A percentile of each version's latency."""
        return [promql(self._quantile(percentile, "version, le"), f"version {{{{version}}}} p{percentile}")]

    def total(self) -> list[Query]:
        """Requests a minute of the model."""
        return [promql(f"60 * sum({self._rate()})", self.model)]

    def error_percent(self) -> list[Query]:
        """The share of the model's requests that failed."""
        failed, all_ = (f"sum({self._rate(code)})" for code in (',code=~"5.."', ""))
        return [promql(f"100 * ({failed} or 0 * {all_}) / {all_}", self.model)]

    def slowest(self) -> list[Query]:
        """The 99th percentile of the latency of the slowest version."""
        return [promql(f"max({self._quantile(99, 'version, le')})", self.model)]

    def _rate(self, more: str = "") -> str:
        return f'rate(mlp_requests_total{{model="{self.model}"{more}}}[$__rate_interval])'

    def _quantile(self, percentile: int, by: str) -> str:
        buckets = f'rate(mlp_request_seconds_bucket{{model="{self.model}"}}[$__rate_interval])'
        return f"histogram_quantile({percentile / 100:g}, sum by ({by}) ({buckets}))"


@dataclass(frozen=True)
class _Names:
    requests: str
    errors: str
    latency: str
    version: str
    """The dimension that tells the versions apart."""


@dataclass(frozen=True)
class CloudWatchTraffic:
    """Traffic as metrics in CloudWatch, one of each for every version."""

    model: str
    namespace: str
    dimensions: Mapping[str, str]
    names: _Names
    latency_unit: str

    def requests(self) -> list[Query]:
        """Requests a minute of each version."""
        return [self._by_version(self.names.requests, "Sum", "")]

    def errors(self) -> list[Query]:
        """The share of the model's requests that failed: CloudWatch cannot divide one search by another."""
        return self.error_percent()

    def latency(self, percentile: int) -> list[Query]:
        """A percentile of each version's latency."""
        return [self._by_version(self.names.latency, f"p{percentile}", f" p{percentile}")]

    def total(self) -> list[Query]:
        """Requests a minute of the model."""
        return [self._hidden("total", self.names.requests, "Sum"), self._sum(f"SUM({self._id('total')})")]

    def error_percent(self) -> list[Query]:
        """The share of the model's requests that failed."""
        failed, all_ = self._id("failed"), self._id("all")
        return [
            self._hidden("failed", self.names.errors, "Sum"),
            self._hidden("all", self.names.requests, "Sum"),
            self._sum(f"100 * SUM({failed}) / SUM({all_})"),
        ]

    def slowest(self) -> list[Query]:
        """The 99th percentile of the latency of the slowest version."""
        expression = f"MAX({self._id('slow')})"
        return [self._hidden("slow", self.names.latency, "p99"), self._sum(expression)]

    def _by_version(self, name: str, statistic: str, suffix: str) -> Query:
        label = f"version ${{PROP('Dim.{self.names.version}')}}{suffix}"
        return metric(self.namespace, name, self._any_version, statistic, label)

    def _hidden(self, what: str, name: str, statistic: str) -> Query:
        return metric(self.namespace, name, self._any_version, statistic, "", id=self._id(what), hide=True)

    def _sum(self, expression: str) -> Query:
        return calculated(expression, self.model)

    @property
    def _any_version(self) -> dict[str, str]:
        return dict(self.dimensions) | {self.names.version: "*"}

    def _id(self, what: str) -> str:
        # An id begins with a small letter and has neither hyphens nor dots; a panel may show many models.
        return f"{what}_{self.model.replace('-', '_')}"
