"""The foundation: what everything that runs in an environment stands on, and what is made on it in one way only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.naming import Naming
from infra.network import Network
from infra.policies import allow, document, trust
from infra.regions import arn, host
from infra.registry import Registry
from infra.storage import Storage

UNNAMED = {"lambda.amazonaws.com", "ec2.amazonaws.com", "ecs.amazonaws.com", "firehose.amazonaws.com"}
"""Services that do not say for which account they take a role on."""


@dataclass(frozen=True)
class Foundation:
    """An environment's network, data lake and registries, and how roles, log groups and ARNs are made in it."""

    naming: Naming
    region: str
    storage: Storage
    network: Network
    registry: Registry
    log_retention_days: int
    protect: bool
    """Whether what holds state must not be deleted or replaced by an up."""
    permissions_boundary: str | None = None
    """ARN of the policy that bounds every role."""
    managed_mlflow: bool = False
    """Whether SageMaker tracks the experiments."""

    def role(
        self, what: str, service: str, statements: Sequence[dict[str, Any]], opts: pulumi.ResourceOptions
    ) -> aws.iam.Role:
        """A role that an AWS service takes on, with the permissions of these statements.

        Args:
            what: what the role is for; its name begins with it.
            service: the service's principal, such as `sagemaker.amazonaws.com`.
            statements: what it may do, from `infra.policies.allow`.
            opts: options of the role and its policy.
        """
        return self.role_and_policy(what, service, statements, opts)[0]

    def role_and_policy(
        self, what: str, service: str, statements: Sequence[dict[str, Any]], opts: pulumi.ResourceOptions
    ) -> tuple[aws.iam.Role, aws.iam.RolePolicy]:
        """As `role`, with the policy: for what has to keep its permissions until it is deleted itself."""
        role = aws.iam.Role(
            self.naming(what),
            assume_role_policy=trust(service, None if service in UNNAMED else self.storage.account_id),
            permissions_boundary=self.permissions_boundary,
            opts=opts,
        )
        return role, aws.iam.RolePolicy(self.naming(what), role=role.id, policy=document(*statements), opts=opts)

    def log_group(self, what: str, opts: pulumi.ResourceOptions, name: str | None = None) -> aws.cloudwatch.LogGroup:
        """A log group, encrypted, that forgets: `/<prefix>/<environment>/<what>`, or one whose name AWS gives."""
        return aws.cloudwatch.LogGroup(
            self.naming(what.replace("/", "-")),
            name=name or self.naming.path(what),
            retention_in_days=self.log_retention_days,
            kms_key_id=self.storage.key_arn,
            opts=opts,
        )

    def arn(self, service: str, resource: pulumi.Input[str]) -> pulumi.Output[str]:
        """The ARN of something in the environment's account and region that the program does not hold itself."""
        return arn(service, self.region, self.storage.account_id, resource)

    def subnet_arns(self) -> list[pulumi.Output[str]]:
        """The ARNs of the private subnets. A preview knows the form of those of our own, but not their IDs."""
        ours = [subnet.arn for subnet in self.network.private_subnets]
        return ours or [
            self.arn("ec2", pulumi.Output.concat("subnet/", subnet)) for subnet in self.network.private_subnet_ids
        ]

    def write_logs(self, group: pulumi.Input[str]) -> dict[str, Any]:
        """A statement that lets its holder write to a log group that is there."""
        return allow(
            ["logs:CreateLogStream", "logs:PutLogEvents"],
            self.arn("logs", pulumi.Output.concat("log-group:", group, ":*")),
        )

    def use_key(self, *actions: str) -> dict[str, Any]:
        """A statement that gives the environment's key to its holder, for what S3 keeps encrypted with it."""
        through_s3 = {"StringEquals": {"kms:ViaService": host("s3", self.region)}}
        return allow([f"kms:{action}" for action in actions], self.storage.key_arn, through_s3)

    def pull(self, image: str) -> list[dict[str, Any]]:
        """Statements that let their holder pull an image of the registry."""
        return [
            # The token is the account's; AWS knows no narrower resource for it.
            allow(["ecr:GetAuthorizationToken"], "*"),
            allow(
                ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
                self.registry.repositories[image].arn,
            ),
        ]


def objects(bucket: aws.s3.Bucket, prefix: str = "") -> pulumi.Output[str]:
    """The ARN of all objects of a bucket, or of those below a prefix such as `mlflow/`."""
    return pulumi.Output.concat(bucket.arn, f"/{prefix}*")


def awslogs(group: pulumi.Input[str], region: str, stream: str) -> dict[str, Any]:
    """The `logConfiguration` of a container on ECS or Batch: a log group, and what its streams' names begin with."""
    options = {"awslogs-group": group, "awslogs-region": region, "awslogs-stream-prefix": stream}
    return {"logDriver": "awslogs", "options": options}
