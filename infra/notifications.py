"""Notifications: the topic that alarms are sent to, and who hears of them."""

from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.foundation import Foundation
from infra.policies import allow, document
from infra.settings.operations import AlertSettings


@dataclass
class NotificationsArgs:
    """Who hears of an alarm."""

    settings: AlertSettings
    prometheus: bool = False
    """Whether Prometheus' alerts are sent as well."""


class Notifications(pulumi.ComponentResource):
    """One encrypted topic an environment; only the environment's alarms publish to it, and its Prometheus.

    AWS asks each address once whether it wants the mails.
    """

    topic_arn: pulumi.Output[str]

    def __init__(
        self, name: str, args: NotificationsArgs, foundation: Foundation, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ml-platform:infra:Notifications", name, None, opts)
        naming, child = foundation.naming, pulumi.ResourceOptions(parent=self)
        topic = aws.sns.Topic(
            naming("alarms"), name=naming("alarms"), kms_master_key_id=foundation.storage.key_arn, opts=child
        )
        aws.sns.TopicPolicy(
            naming("alarms"),
            arn=topic.arn,
            policy=document(
                allow(
                    ["sns:Publish"],
                    topic.arn,
                    {"ArnLike": {"aws:SourceArn": foundation.arn("cloudwatch", f"alarm:{naming('')}*")}},
                    {"Service": "cloudwatch.amazonaws.com"},
                    sid="Alarms",
                ),
                *([_from_prometheus(topic, foundation)] if args.prometheus else []),
            ),
            opts=child,
        )
        for index, email in enumerate(args.settings.emails):
            aws.sns.TopicSubscription(
                naming(f"alarms-{index}"), topic=topic.arn, protocol="email", endpoint=email, opts=child
            )
        self.topic_arn = topic.arn
        self.register_outputs({"topic_arn": topic.arn})


def _from_prometheus(topic: aws.sns.Topic, foundation: Foundation) -> dict[str, Any]:
    """What lets the alert managers of the account's workspaces publish; without it their alerts are lost."""
    return allow(
        ["sns:Publish", "sns:GetTopicAttributes"],
        topic.arn,
        {
            "StringEquals": {"aws:SourceAccount": foundation.storage.account_id},
            "ArnLike": {"aws:SourceArn": foundation.arn("aps", "workspace/*")},
        },
        {"Service": "aps.amazonaws.com"},
        sid="Prometheus",
    )
