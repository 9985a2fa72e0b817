"""Alarms: what is watched of each model, whatever it runs on, and one alarm above them all that is sent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.naming import Naming
from infra.settings.operations import AlertSettings

PERIOD_S = 60
WINDOW = 5
"""Minutes over which errors and latency are looked at."""

Query = aws.cloudwatch.MetricAlarmMetricQueryArgsDict


@dataclass(frozen=True)
class Metric:
    """A metric of AWS's, summed over several sets of dimensions if there are several."""

    name: str
    dimensions: Sequence[Mapping[str, pulumi.Input[str]]]
    scale: float = 1
    """What one unit of the alarm's threshold is in the metric's unit: seconds are 0.001 of a millisecond."""


@dataclass(frozen=True)
class Signals:
    """What a runtime tells CloudWatch of a model: requests, failed ones, and how long they took."""

    namespace: str
    requests: Metric
    errors: Metric
    latency: Metric


@dataclass
class AlarmsArgs:
    """What is watched, and when it is too much."""

    model: str
    signals: Signals
    stream_name: str
    latency_ms: int
    settings: AlertSettings
    topic_arn: pulumi.Input[str]


class Alarms(pulumi.ComponentResource):
    """A model's alarms: errors, latency, no traffic, capture lag; a composite one goes off with any of them.

    Only the composite alarm is sent, so that one trouble is one mail. `rollback` names those that undo a deployment.
    """

    rollback: list[pulumi.Output[str]]

    def __init__(self, name: str, args: AlarmsArgs, naming: Naming, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ml-platform:infra:Alarms", name, None, opts)
        self._args, self._naming = args, naming
        self._child = pulumi.ResourceOptions(parent=self)
        errors, latency = self._errors(), self._latency()
        alarms = [errors, latency, self._capture_lag()]
        if args.settings.no_traffic_minutes:
            alarms.append(self._no_traffic())
        self.rollback = [errors.name, latency.name]
        rule = pulumi.Output.all(*(alarm.name for alarm in alarms)).apply(
            lambda names: " OR ".join(f'ALARM("{each}")' for each in names)
        )
        aws.cloudwatch.CompositeAlarm(
            naming(args.model),
            alarm_name=naming(args.model),
            alarm_description=f"Something is wrong with {args.model}: its other alarms say what",
            alarm_rule=rule,
            alarm_actions=[args.topic_arn],
            ok_actions=[args.topic_arn],
            opts=self._child,
        )
        self.register_outputs({"rollback": self.rollback})

    def _errors(self) -> aws.cloudwatch.MetricAlarm:
        signals = self._args.signals
        requests, errors = self._sum("r", signals.requests), self._sum("e", signals.errors)
        share: Query = {
            "id": "share",
            "expression": f"100 * ({_plus('e', signals.errors)}) / MAX([{_plus('r', signals.requests)}, 1])",
            "label": "percent of the requests",
            "return_data": True,
        }
        return self._alarm(
            "errors",
            f"More than {self._args.settings.error_percent:g}% of the requests failed",
            threshold=self._args.settings.error_percent,
            queries=[*requests, *errors, share],
        )

    def _latency(self) -> aws.cloudwatch.MetricAlarm:
        metric = self._args.signals.latency
        slowest = ", ".join(f"l{index}" for index in range(len(metric.dimensions)))
        worst: Query = {
            "id": "worst",
            "expression": f"MAX([{slowest}])",
            "label": "99th percentile",
            "return_data": True,
        }
        return self._alarm(
            "latency",
            f"One request in a hundred takes longer than {self._args.latency_ms} ms",
            threshold=self._args.latency_ms * metric.scale,
            queries=[*self._queries("l", metric, "p99"), worst],
        )

    def _no_traffic(self) -> aws.cloudwatch.MetricAlarm:
        minutes = self._args.settings.no_traffic_minutes
        metric = self._args.signals.requests
        total: Query = {
            "id": "total",
            "expression": _plus("r", metric),
            "label": "requests",
            "return_data": True,
        }
        return self._alarm(
            "no-traffic",
            f"Nobody has asked for {minutes} minutes",
            threshold=0,
            queries=[*self._queries("r", metric, "Sum", 300), total],
            comparison="LessThanOrEqualToThreshold",
            periods=minutes // 5,
            missing="breaching",
        )

    def _capture_lag(self) -> aws.cloudwatch.MetricAlarm:
        minutes = self._args.settings.capture_lag_minutes
        name = self._naming(f"{self._args.model}-capture-lag")
        return aws.cloudwatch.MetricAlarm(
            name,
            name=name,
            alarm_description=f"Captured predictions have waited {minutes} minutes to be written to the lake",
            namespace="AWS/Firehose",
            metric_name="DeliveryToS3.DataFreshness",
            dimensions={"DeliveryStreamName": self._args.stream_name},
            statistic="Maximum",
            period=300,
            evaluation_periods=1,
            threshold=minutes * 60,
            comparison_operator="GreaterThanThreshold",
            treat_missing_data="notBreaching",
            opts=self._child,
        )

    def _alarm(
        self,
        what: str,
        description: str,
        threshold: float,
        queries: Sequence[Query],
        comparison: str = "GreaterThanThreshold",
        periods: int = WINDOW,
        missing: str = "notBreaching",
    ) -> aws.cloudwatch.MetricAlarm:
        name = self._naming(f"{self._args.model}-{what}")
        return aws.cloudwatch.MetricAlarm(
            name,
            name=name,
            alarm_description=description,
            metric_queries=list(queries),
            threshold=threshold,
            comparison_operator=comparison,
            evaluation_periods=periods,
            datapoints_to_alarm=max(1, periods - 2) if missing == "notBreaching" else periods,
            treat_missing_data=missing,
            opts=self._child,
        )

    def _sum(self, id_: str, metric: Metric) -> list[Query]:
        return self._queries(id_, metric, "Sum")

    def _queries(self, id_: str, metric: Metric, statistic: str, period: int = PERIOD_S) -> list[Query]:
        return [
            {
                "id": f"{id_}{index}",
                "metric": {
                    "namespace": self._args.signals.namespace,
                    "metric_name": metric.name,
                    "dimensions": dict(dimensions),
                    "stat": statistic,
                    "period": period,
                },
                "return_data": False,
            }
            for index, dimensions in enumerate(metric.dimensions)
        ]


def _plus(id_: str, metric: Metric) -> str:
    """The sum of a metric's queries; one without data counts as nothing."""
    return " + ".join(f"FILL({id_}{index}, 0)" for index in range(len(metric.dimensions)))
