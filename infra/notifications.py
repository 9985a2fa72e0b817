"""Notifications: one topic that every alarm of the environment goes to, and the people who listen to it."""

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.foundation import Foundation
from infra.policies import allow, document
from infra.settings.operations import AlertSettings


@dataclass
class NotificationsArgs:
    """Who is told."""

    settings: AlertSettings


class Notifications(pulumi.ComponentResource):
    """An SNS topic, encrypted with the environment's key, to which the environment's CloudWatch alarms may publish.

    Each mail address is sent a request first; until it is confirmed nothing else arrives there.
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
        alarms = foundation.arn("cloudwatch", f"alarm:{naming('')}*")
        policy = aws.sns.TopicPolicy(
            naming("alarms"),
            arn=topic.arn,
            policy=document(
                allow(
                    ["sns:Publish"],
                    topic.arn,
                    {"ArnLike": {"aws:SourceArn": alarms}},
                    {"Service": "cloudwatch.amazonaws.com"},
                    sid="Alarms",
                )
            ),
            opts=child,
        )
        for email in args.settings.emails:
            aws.sns.TopicSubscription(
                naming(f"alarms-{email}"), topic=topic.arn, protocol="email", endpoint=email, opts=child
            )
        # Known once alarms may publish to it.
        self.topic_arn = pulumi.Output.all(topic.arn, policy.id).apply(lambda values: str(values[0]))
        self.register_outputs({"topic_arn": self.topic_arn})
