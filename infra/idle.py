"""An alarm for GPUs that are paid for and do nothing."""

import pulumi
import pulumi_aws as aws

from infra.foundation import Foundation

IDLE_PERCENT = 5
"""Below this a GPU counts as idle: a job that waits for something still touches it now and then."""
PERIOD_S = 300


def idle_gpu_alarm(
    what: str,
    query: str,
    minutes: int,
    topic_arn: pulumi.Input[str],
    foundation: Foundation,
    opts: pulumi.ResourceOptions,
) -> aws.cloudwatch.MetricAlarm:
    """An alarm over all instances at once, which come and go: each of those the query finds is judged on its own.

    Only CloudWatch's Metrics Insights can do that: an alarm on a metric names its dimensions, and the host of a job is
    not known before it runs. That there is no instance, and so no data, is what should be.

    Args:
        what: which GPUs they are; the alarm's name ends with it.
        query: a query that groups the GPUs' utilisation, in percent, by the instance.
        minutes: how long they may be idle, a multiple of five.
        topic_arn: who is told.
        foundation: names the alarm.
        opts: options of the alarm.
    """
    name = foundation.naming(f"idle-gpu-{what}")
    return aws.cloudwatch.MetricAlarm(
        name,
        name=name,
        alarm_description=f"A GPU has been below {IDLE_PERCENT}% for {minutes} minutes: stop its job, or find out why",
        comparison_operator="LessThanThreshold",
        threshold=IDLE_PERCENT,
        evaluation_periods=minutes * 60 // PERIOD_S,
        metric_queries=[{"id": "utilisation", "expression": query, "period": PERIOD_S, "return_data": True}],
        treat_missing_data="notBreaching",
        alarm_actions=[topic_arn],
        ok_actions=[topic_arn],
        opts=opts,
    )
