"""The data lake: one KMS key, and buckets for raw and curated data, artifacts, query results and logs."""

from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.buckets import secure
from infra.naming import Naming
from infra.policies import allow, deny, document
from infra.regions import arn, host
from infra.settings.data import StorageSettings

LAKE = ("raw", "curated", "artifacts", "queries")

BALANCERS = "balancers"
"""Prefix of the load balancers' access logs in the logs bucket."""
FIREWALLS = "aws-waf-logs-"
"""What the name of a firewall's log group begins with: AWS takes no other."""
BALANCER_LOGS = "logdelivery.elasticloadbalancing.amazonaws.com"

QUERY_DAYS = 7
"""How long Athena's results are kept: they can be had again."""


@dataclass
class StorageArgs:
    """What the lake is told."""

    settings: StorageSettings
    region: str
    protect: bool
    lustre: bool = False
    """Whether a file system of FSx is linked to the lake, and so reads what the key encrypts."""


class Storage(pulumi.ComponentResource):
    """Private, encrypted, versioned buckets that refuse plain HTTP, and log who reads them.

    The lake's buckets are encrypted with the environment's own key. The logs bucket uses S3's: the services that
    deliver access logs cannot use a key of the customer's.
    """

    key_arn: pulumi.Output[str]
    """ARN of the key, known once its policy is in force: a log group that comes earlier is refused the key."""
    account_id: pulumi.Output[str]
    buckets: dict[str, aws.s3.Bucket]
    log_delivery_arn: pulumi.Output[str]
    """ARN of the logs bucket, known once log delivery to it is allowed."""

    def __init__(
        self, name: str, args: StorageArgs, naming: Naming, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ml-platform:infra:Storage", name, None, opts)
        self._naming, self._args = naming, args
        self._child = pulumi.ResourceOptions(parent=self)
        self._stateful = pulumi.ResourceOptions(parent=self, protect=args.protect)
        self._key = self._make_key()
        self.buckets = {what: self._bucket(what) for what in ("logs", *LAKE)}
        self.log_delivery_arn = self._allow_log_delivery(self.buckets["logs"])
        for what in LAKE:
            self._bucket_policy(what, *_tls_only(self.buckets[what]))
            self._log_access(what)
        self.register_outputs(
            {"key_arn": self.key_arn, "buckets": {what: bucket.bucket for what, bucket in self.buckets.items()}}
        )

    def _make_key(self) -> aws.kms.Key:
        key = aws.kms.Key(
            self._naming("lake"),
            description=f"Data of the environment {self._naming.environment}",
            enable_key_rotation=True,
            deletion_window_in_days=30 if self._args.protect else 7,
            opts=self._stateful,
        )
        aws.kms.Alias(
            self._naming("lake"), name=f"alias/{self._naming('lake')}", target_key_id=key.key_id, opts=self._child
        )
        # The key's own ARN tells the account, which a program that looks nothing up cannot know otherwise.
        self.account_id = key.arn.apply(lambda key: key.split(":")[4])
        region = self._args.region
        root = arn("iam", region, self.account_id, "root", everywhere=True)
        # EKS names its log groups itself: after its cluster, whose name begins as all names here.
        services = ["/aws/eks/", "/aws/containerinsights/", FIREWALLS]
        named = [self._naming.path(""), *(f"{service}{self._naming('')}" for service in services)]
        groups = [arn("logs", region, self.account_id, f"log-group:{name}*") for name in named]
        alarms = arn("cloudwatch", region, self.account_id, f"alarm:{self._naming('')}*")
        workspaces = arn("aps", region, self.account_id, "workspace/*")
        self._trails = arn("cloudtrail", region, self.account_id, f"trail/{self._naming('')}*")
        policy = aws.kms.KeyPolicy(
            self._naming("lake"),
            key_id=key.key_id,
            policy=document(
                # In a key policy "*" is the key itself. Without the account's own statement IAM could not give anyone
                # the key, and nobody could ever change this policy again.
                allow(["kms:*"], "*", principal={"AWS": root}, sid="Account"),
                allow(
                    ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"],
                    "*",
                    principal={"Service": host("logs", region)},
                    condition={"ArnLike": {"kms:EncryptionContext:aws:logs:arn": groups}},
                    sid="LogGroups",
                ),
                allow(
                    ["kms:GenerateDataKey*", "kms:DescribeKey"],
                    "*",
                    principal={"Service": "cloudtrail.amazonaws.com"},
                    condition={"ArnLike": {"aws:SourceArn": self._trails}},
                    sid="Trails",
                ),
                # What may not use the key cannot publish to an encrypted topic, and says so nowhere.
                allow(
                    ["kms:Decrypt", "kms:GenerateDataKey*"],
                    "*",
                    principal={"Service": "cloudwatch.amazonaws.com"},
                    condition={"ArnLike": {"aws:SourceArn": alarms}},
                    sid="Alarms",
                ),
                allow(
                    ["kms:Decrypt", "kms:GenerateDataKey*"],
                    "*",
                    principal={"Service": "aps.amazonaws.com"},
                    condition={"ArnLike": {"aws:SourceArn": workspaces}},
                    sid="Prometheus",
                ),
                *self._lustre(),
            ),
            opts=self._child,
        )
        self.key_arn = pulumi.Output.all(key.arn, policy.urn).apply(lambda values: str(values[0]))
        return key

    def _lustre(self) -> list[dict[str, Any]]:
        """The role with which FSx reads and writes the lake is made by FSx, when the first file system is linked."""
        if not self._args.lustre:
            return []
        region = self._args.region
        roles = "role/aws-service-role/s3.data-source.lustre.fsx.amazonaws.com/*"
        condition = {
            "StringEquals": {"kms:ViaService": host("s3", region), "kms:CallerAccount": self.account_id},
            "ArnLike": {"aws:PrincipalArn": arn("iam", region, self.account_id, roles, everywhere=True)},
        }
        return [allow(["kms:Decrypt", "kms:GenerateDataKey*"], "*", condition, {"AWS": "*"}, sid="Lustre")]

    def _bucket(self, what: str) -> aws.s3.Bucket:
        name = self._naming(what)
        bucket = aws.s3.Bucket(name, force_destroy=self._args.settings.force_destroy, opts=self._stateful)
        secure(name, bucket, self._child, None if what == "logs" else self._key.arn)
        aws.s3.BucketLifecycleConfiguration(name, bucket=bucket.id, rules=self._lifecycle(what), opts=self._child)
        return bucket

    def _lifecycle(self, what: str) -> list[aws.s3.BucketLifecycleConfigurationRuleArgsDict]:
        rules: list[aws.s3.BucketLifecycleConfigurationRuleArgsDict] = [
            {
                "id": "leftovers",
                "status": "Enabled",
                "filter": {"prefix": ""},
                "noncurrent_version_expiration": {"noncurrent_days": self._args.settings.noncurrent_days},
                "abort_incomplete_multipart_upload": {"days_after_initiation": 7},
            }
        ]
        days = {"logs": self._args.settings.log_days, "queries": QUERY_DAYS}
        if what in days:
            rules.append(
                {
                    "id": "expire",
                    "status": "Enabled",
                    "filter": {"prefix": ""},
                    "expiration": {"days": days[what]},
                }
            )
        return rules

    def _bucket_policy(self, what: str, *statements: dict[str, Any]) -> aws.s3.BucketPolicy:
        return aws.s3.BucketPolicy(
            self._naming(what), bucket=self.buckets[what].id, policy=document(*statements), opts=self._child
        )

    def _allow_log_delivery(self, logs: aws.s3.Bucket) -> pulumi.Output[str]:
        ours = {"StringEquals": {"aws:SourceAccount": self.account_id}}
        objects = pulumi.Output.concat(logs.arn, "/*")
        of_balancers = pulumi.Output.concat(logs.arn, f"/{BALANCERS}/AWSLogs/", self.account_id, "/*")
        our_trails = {"ArnLike": {"aws:SourceArn": self._trails}}
        access, flow = {"Service": "logging.s3.amazonaws.com"}, {"Service": "delivery.logs.amazonaws.com"}
        trail, balancers = {"Service": "cloudtrail.amazonaws.com"}, {"Service": BALANCER_LOGS}
        policy = self._bucket_policy(
            "logs",
            *_tls_only(logs),
            allow(["s3:PutObject"], objects, ours, access, sid="AccessLogs"),
            allow(["s3:PutObject"], objects, ours, flow, sid="FlowLogs"),
            allow(["s3:GetBucketAcl"], logs.arn, ours, flow, sid="FlowLogsCheck"),
            # Load balancers say no account; the path they write to holds them to ours.
            allow(["s3:PutObject"], of_balancers, principal=balancers, sid="BalancerLogs"),
            allow(["s3:PutObject"], objects, our_trails, trail, sid="Trail"),
            allow(["s3:GetBucketAcl"], logs.arn, our_trails, trail, sid="TrailCheck"),
        )
        return pulumi.Output.all(logs.arn, policy.urn).apply(lambda values: str(values[0]))

    def _log_access(self, what: str) -> None:
        target = pulumi.Output.all(self.buckets["logs"].id, self.log_delivery_arn).apply(lambda values: str(values[0]))
        aws.s3.BucketLogging(
            self._naming(what),
            bucket=self.buckets[what].id,
            target_bucket=target,
            target_prefix=f"s3/{what}/",
            opts=self._child,
        )


def _tls_only(bucket: aws.s3.Bucket) -> list[dict[str, Any]]:
    everything = [bucket.arn, pulumi.Output.concat(bucket.arn, "/*")]
    return [deny(["s3:*"], everything, {"Bool": {"aws:SecureTransport": "false"}}, {"AWS": "*"}, sid="TlsOnly")]
