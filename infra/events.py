"""Queues of what happens in AWS: EventBridge puts the events that match a pattern into them."""

from collections.abc import Mapping
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.policies import allow, deny, document


def event_queue(
    name: str, description: str, pattern: Mapping[str, Any], kept_s: int, opts: pulumi.ResourceOptions
) -> tuple[aws.sqs.Queue, list[pulumi.Resource]]:
    """An encrypted queue of its own for some events.

    Args:
        name: of the queue and of the rule.
        description: what the rule is for.
        pattern: which events go into the queue, in EventBridge's form; it may hold outputs.
        kept_s: how long an event stays there, in seconds, if nobody takes it.
        opts: options of all its resources.

    Returns:
        The queue, and what must be there for events to come: the queue's policy and the rule's target.
    """
    queue = aws.sqs.Queue(name, name=name, message_retention_seconds=kept_s, sqs_managed_sse_enabled=True, opts=opts)
    rule = aws.cloudwatch.EventRule(
        name, name=name, description=description, event_pattern=pulumi.Output.json_dumps(pattern), opts=opts
    )
    told = allow(
        ["sqs:SendMessage"],
        queue.arn,
        {"ArnEquals": {"aws:SourceArn": rule.arn}},
        {"Service": "events.amazonaws.com"},
    )
    plain = deny(["sqs:*"], queue.arn, {"Bool": {"aws:SecureTransport": "false"}}, "*")
    policy = aws.sqs.QueuePolicy(name, queue_url=queue.url, policy=document(told, plain), opts=opts)
    target = aws.cloudwatch.EventTarget(name, rule=rule.name, arn=queue.arn, opts=opts)
    return queue, [policy, target]
