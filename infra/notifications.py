"""Notifications: the topic that alarms are sent to, and who hears of them."""

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.foundation import Foundation
from infra.policies import allow, document
from infra.settings.operations import AlertSettings


@dataclass
class NotificationsArgs:
    """Who hears of an alarm."""

    settings: AlertSettings


class Notifications(pulumi.ComponentResource):
    """One encrypted topic an environment; only the account's alarms publish to it.

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
                )
            ),
            opts=child,
        )
        for index, email in enumerate(args.settings.emails):
            aws.sns.TopicSubscription(
                naming(f"alarms-{index}"), topic=topic.arn, protocol="email", endpoint=email, opts=child
            )
        self.topic_arn = topic.arn
        self.register_outputs({"topic_arn": topic.arn})
