"""What an account needs before its first environment: where Pulumi keeps its state, and who in GitHub may do what."""

from dataclasses import dataclass
from typing import Annotated, Any

import pulumi
import pulumi_aws as aws
from pydantic import Field, StringConstraints

from contract.strict import Strict, parse
from infra.buckets import secure
from infra.naming import Naming
from infra.policies import allow, deny, document
from infra.regions import arn, domain, host, partition

NAME = "bootstrap"
"""Stands in names where an environment's name stands; so no environment may be called that."""
GITHUB = "token.actions.githubusercontent.com"

EnvironmentName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,15}$")]


class BootstrapSettings(Strict):
    """The configuration of `stacks/bootstrap`, one file `Pulumi.<account>.yaml` an account."""

    region: str
    prefix: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,11}$")]
    # An owner cannot hold an underscore in GitHub, so the placeholder of the file that comes with this is refused.
    repository: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]+/[A-Za-z0-9._-]+$")]
    environments: tuple[EnvironmentName, ...] = Field(min_length=1)
    lock_days: int = Field(ge=1, le=365)
    github_provider_arn: Annotated[str, StringConstraints(pattern=r"^(arn:[a-z-]+:iam::\d{12}:oidc-provider/.+)?$")]
    permissions_boundary: Annotated[str, StringConstraints(pattern=r"^(arn:[a-z-]+:iam::(\d{12}|aws):policy/.+)?$")]


def load_bootstrap() -> BootstrapSettings:
    """Read and check the configuration of the running program.

    Raises:
        PlatformError: naming the file, the key and what is allowed.
    """
    config = pulumi.Config()
    given = {
        "region": pulumi.Config("aws").require("region"),
        "prefix": config.require("prefix"),
        "repository": config.require("repository"),
        "environments": config.require_object("environments"),
        "lock_days": config.require_int("lock_days"),
        "github_provider_arn": config.get("github_provider_arn") or "",
        "permissions_boundary": config.get("permissions_boundary") or "",
    }
    return parse(BootstrapSettings, given, f"stacks/bootstrap/Pulumi.{pulumi.get_stack()}.yaml")


@dataclass
class BootstrapArgs:
    """What the account is told."""

    settings: BootstrapSettings


class Bootstrap(pulumi.ComponentResource):
    """The state bucket, the keys, GitHub's identity provider and the two roles that workflows take on.

    Everything but the roles is protected: who loses the state or the keys loses every environment of the account.
    """

    state: aws.s3.Bucket
    backend_url: pulumi.Output[str]
    """What `pulumi login` takes."""
    secrets_provider: pulumi.Output[str]
    """What `pulumi stack init --secrets-provider` takes."""
    preview_role: aws.iam.Role
    deploy_role: aws.iam.Role

    def __init__(
        self, name: str, args: BootstrapArgs, naming: Naming, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ml-platform:infra:Bootstrap", name, None, opts)
        self._settings, self._naming = args.settings, naming
        self._child = pulumi.ResourceOptions(parent=self)
        self._stateful = pulumi.ResourceOptions(parent=self, protect=True)
        self._audience = f"sts.{domain(self._settings.region)}"  # what GitHub's token must be meant for
        self._state_key = self._key("state", "Encrypts the bucket that holds Pulumi's state")
        self._secrets_key = self._key("secrets", "Encrypts the secrets within Pulumi's state and configuration")
        # The key's own ARN tells the account, which a program that looks nothing up cannot know otherwise.
        self._account = self._state_key.arn.apply(lambda key: key.split(":")[4])
        self.state = self._state_bucket()
        provider = self._github_provider()
        repository = f"repo:{self._settings.repository}"
        self.preview_role = self._role("preview", provider, [f"{repository}:pull_request"], self._preview_statements())
        self.deploy_role = self._role(
            "deploy",
            provider,
            [f"{repository}:environment:{name}" for name in self._settings.environments],
            self._deploy_statements(),
        )
        region = self._settings.region
        self.backend_url = pulumi.Output.concat("s3://", self.state.bucket, f"?region={region}")
        self.secrets_provider = pulumi.Output.concat(
            "awskms://", self._secrets_key.arn.apply(lambda key: key.split("/")[-1]), f"?region={region}"
        )
        self.register_outputs(
            {
                "backend_url": self.backend_url,
                "secrets_provider": self.secrets_provider,
                "preview_role": self.preview_role.arn,
                "deploy_role": self.deploy_role.arn,
            }
        )

    def _key(self, what: str, description: str) -> aws.kms.Key:
        """A key whose use IAM decides: the default policy of KMS, which trusts the account and nobody else."""
        key = aws.kms.Key(
            self._naming(what),
            description=description,
            enable_key_rotation=True,
            deletion_window_in_days=30,
            opts=self._stateful,
        )
        aws.kms.Alias(
            self._naming(what), name=f"alias/{self._naming(what)}", target_key_id=key.key_id, opts=self._child
        )
        return key

    def _state_bucket(self) -> aws.s3.Bucket:
        name = self._naming("state")
        # The lock can be switched on for a new bucket only. It suits Pulumi: an update overwrites its state and deletes
        # its lock file, which in a versioned bucket makes a new version and a delete marker, and both are allowed. What
        # it forbids is to delete an earlier version for good. Governance rather than compliance, so that an
        # administrator (with s3:BypassGovernanceRetention, which neither role has) can close the account's stack.
        bucket = aws.s3.Bucket(name, object_lock_enabled=True, opts=self._stateful)
        versioning = secure(name, bucket, self._child, self._state_key.arn)
        after_versioning = pulumi.ResourceOptions(parent=self, depends_on=[versioning])
        aws.s3.BucketObjectLockConfiguration(
            name,
            bucket=bucket.id,
            rule={"default_retention": {"mode": "GOVERNANCE", "days": self._settings.lock_days}},
            opts=after_versioning,
        )
        aws.s3.BucketLifecycleConfiguration(
            name,
            bucket=bucket.id,
            rules=[
                {
                    "id": "old-versions",
                    "status": "Enabled",
                    "filter": {"prefix": ""},
                    # Long after the lock has gone: the way back to a state of three months ago.
                    "noncurrent_version_expiration": {"noncurrent_days": self._settings.lock_days + 90},
                    "abort_incomplete_multipart_upload": {"days_after_initiation": 7},
                }
            ],
            opts=after_versioning,
        )
        everything = [bucket.arn, pulumi.Output.concat(bucket.arn, "/*")]
        aws.s3.BucketPolicy(
            name,
            bucket=bucket.id,
            policy=document(
                deny(["s3:*"], everything, {"Bool": {"aws:SecureTransport": "false"}}, {"AWS": "*"}, sid="TlsOnly")
            ),
            opts=self._child,
        )
        return bucket

    def _github_provider(self) -> pulumi.Input[str]:
        """ARN of the identity provider; an account can have only one for GitHub, so another team's may be given."""
        if self._settings.github_provider_arn:
            return self._settings.github_provider_arn
        provider = aws.iam.OpenIdConnectProvider(
            self._naming("github"), url=f"https://{GITHUB}", client_id_lists=[self._audience], opts=self._stateful
        )
        return provider.arn

    def _role(
        self, what: str, provider: pulumi.Input[str], subjects: list[str], statements: list[dict[str, Any]]
    ) -> aws.iam.Role:
        """A role for workflows with one of these subjects, compared letter by letter: a pattern could be matched."""
        name = self._naming(what)
        trust = {
            "Effect": "Allow",
            "Principal": {"Federated": provider},
            "Action": "sts:AssumeRoleWithWebIdentity",
            "Condition": {"StringEquals": {f"{GITHUB}:aud": self._audience, f"{GITHUB}:sub": subjects}},
        }
        role = aws.iam.Role(
            name,
            name=name,  # known beforehand, so that it can be written into GitHub's variables and into other policies
            description=f"GitHub Actions of {self._settings.repository}: {what}",
            assume_role_policy=document(trust),
            max_session_duration=3600 if what == "preview" else 4 * 3600,  # a database takes its time
            permissions_boundary=self._settings.permissions_boundary or None,
            opts=self._child,
        )
        aws.iam.RolePolicy(name, name=what, role=role.id, policy=document(*statements), opts=self._child)
        return role

    def _preview_statements(self) -> list[dict[str, Any]]:
        """What `pulumi preview --refresh` needs: the state, and a look at what is there; no write at all.

        A preview of a self-managed backend takes no lock and saves nothing. Whoever may open a pull request from a
        branch runs their code with this role, so it sees how things are set up, never the data in them. That is why it
        is not ReadOnlyAccess, which reads objects, parameters and tables.
        """
        return [
            *self._read_state(),
            allow(["kms:Decrypt"], self._secrets_key.arn, sid="DecryptSecrets"),
            # Listing and describing know no narrower resource in most services.
            allow(_LOOK, "*", sid="Look"),
        ]

    def _deploy_statements(self) -> list[dict[str, Any]]:
        """What `pulumi up` of these environments needs, in this region, under their names where AWS has names.

        It makes roles, so without a permissions boundary it could make one that may do more than itself. Where that
        matters, set `permissions_boundary`: then every role it makes must carry it.
        """
        region, boundary = self._settings.region, self._settings.permissions_boundary
        here = {"StringEquals": {"aws:RequestedRegion": region}}
        roles = [self._arn("iam", f"{kind}/{n}-*") for kind in ("role", "instance-profile") for n in self._names]
        bounded = {"StringEquals": {"iam:PermissionsBoundary": boundary}} if boundary else None
        buckets = [f"arn:{partition(region)}:s3:::{name}-*" for name in self._names]
        passed_to = [f"{service}.amazonaws.com" for service in _ROLE_USERS]
        return [
            *self._read_state(),
            # No deletion of versions: a delete is a marker, and what a mistake overwrites can be had back.
            allow(["s3:PutObject", "s3:DeleteObject"], self._state_objects, sid="WriteState"),
            self._use_state_key(["kms:GenerateDataKey"], "EncryptState"),
            allow(["kms:Encrypt", "kms:Decrypt", "kms:DescribeKey"], self._secrets_key.arn, sid="UseSecrets"),
            allow([f"{service}:*" for service in _REGIONAL], "*", here, sid="Regional"),
            allow(["budgets:*"], self._arn("budgets", "budget/*"), sid="Budgets"),
            # Names within the network. Route 53 is in no region, and its zones have no names in their ARNs.
            allow(_ZONES, "*", sid="Zones"),
            allow(["s3:*"], buckets + [f"{bucket}/*" for bucket in buckets], sid="Buckets"),
            allow(_KEYS, "*", here, sid="Keys"),
            allow(_LOOK, "*", sid="Look"),
            # Identity Center's own list of what a workspace of Managed Grafana and its groups need there.
            allow(_SIGN_IN, "*", sid="SignIn"),
            allow(["iam:CreateRole", "iam:PutRolePermissionsBoundary"], roles, bounded, sid="MakeRoles"),
            allow(_ROLES, roles, sid="Roles"),
            allow(["iam:PassRole"], roles, {"StringEquals": {"iam:PassedToService": passed_to}}, sid="PassRoles"),
            allow(
                ["iam:CreateServiceLinkedRole"],
                self._arn("iam", "role/aws-service-role/*"),
                sid="ServiceLinkedRoles",
            ),
            # A key's administrator could otherwise hand these two to anyone.
            {
                "Sid": "NotTheBootstrap",
                "Effect": "Deny",
                "Action": ["kms:PutKeyPolicy", "kms:ScheduleKeyDeletion", "kms:DisableKey", "kms:CreateGrant"],
                "Resource": [self._state_key.arn, self._secrets_key.arn],
            },
        ]

    @property
    def _names(self) -> list[str]:
        return [f"{self._settings.prefix}-{environment}" for environment in self._settings.environments]

    @property
    def _state_objects(self) -> pulumi.Output[str]:
        return pulumi.Output.concat(self.state.arn, "/*")

    def _read_state(self) -> list[dict[str, Any]]:
        return [
            allow(["s3:ListBucket", "s3:GetBucketLocation"], self.state.arn, sid="FindState"),
            allow(["s3:GetObject"], self._state_objects, sid="ReadState"),
            self._use_state_key(["kms:Decrypt"], "DecryptState"),
        ]

    def _use_state_key(self, actions: list[str], sid: str) -> dict[str, Any]:
        through_s3 = {"StringEquals": {"kms:ViaService": host("s3", self._settings.region)}}
        return allow(actions, self._state_key.arn, through_s3, sid=sid)

    def _arn(self, service: str, resource: str) -> pulumi.Output[str]:
        return arn(service, self._settings.region, self._account, resource, everywhere=True)


_LOOK = [
    "apigateway:GET",
    "aps:Describe*",
    "aps:ListTagsForResource",
    "athena:GetWorkGroup",
    "athena:ListTagsForResource",
    "batch:Describe*",
    "batch:ListTagsForResource",
    "budgets:ViewBudget",
    "cloudtrail:DescribeTrails",
    "cloudtrail:GetEventSelectors",
    "cloudtrail:GetTrailStatus",
    "cloudtrail:ListTags",
    "cloudwatch:DescribeAlarms",
    "cloudwatch:GetDashboard",
    "cloudwatch:ListTagsForResource",
    "ec2:Describe*",
    "cloudwatch:DescribeAlarms",
    "codedeploy:Get*",
    "cognito-idp:DescribeResourceServer",
    "cognito-idp:DescribeUserPool",
    "cognito-idp:DescribeUserPoolDomain",
    "ecr:DescribeRepositories",
    "ecr:GetLifecyclePolicy",
    "ecr:ListTagsForResource",
    "ecs:Describe*",
    "ecs:ListTagsForResource",
    "eks:Describe*",
    "eks:List*",
    "elasticloadbalancing:Describe*",
    "events:DescribeRule",
    "events:ListTagsForResource",
    "events:ListTargetsByRule",
    "firehose:DescribeDeliveryStream",
    "firehose:ListTagsForDeliveryStream",
    "fsx:Describe*",
    "fsx:ListTagsForResource",
    "glue:GetDatabase",
    "glue:GetTable",
    "glue:GetTags",
    "grafana:Describe*",
    "grafana:List*",
    "iam:GetInstanceProfile",
    "iam:GetRole",
    "iam:GetRolePolicy",
    "iam:ListAttachedRolePolicies",
    "iam:ListInstanceProfilesForRole",
    "iam:ListRolePolicies",
    "kms:DescribeKey",
    "kms:GetKeyPolicy",
    "kms:GetKeyRotationStatus",
    "kms:ListAliases",
    "kms:ListResourceTags",
    "lambda:GetFunctionConfiguration",
    "lambda:GetPolicy",
    "lambda:ListTags",
    "logs:DescribeLogGroups",
    "logs:ListTagsForResource",
    "rds:Describe*",
    "rds:ListTagsForResource",
    "route53:GetHostedZone",
    "route53:ListResourceRecordSets",
    "route53:ListTagsForResource",
    "s3:GetAccelerateConfiguration",
    "s3:GetBucket*",
    "s3:GetEncryptionConfiguration",
    "s3:GetLifecycleConfiguration",
    "s3:GetReplicationConfiguration",
    "sagemaker:Describe*",
    "sagemaker:ListTags",
    "scheduler:GetSchedule",
    "secretsmanager:DescribeSecret",
    "secretsmanager:GetResourcePolicy",
    "servicequotas:GetAWSDefaultServiceQuota",
    "servicequotas:GetServiceQuota",
    "servicequotas:ListServiceQuotas",
    "sns:GetSubscriptionAttributes",
    "sns:GetTopicAttributes",
    "sns:ListTagsForResource",
    "sqs:GetQueueAttributes",
    "sqs:ListQueueTags",
    "ssm:DescribeParameters",
    "ssm:ListTagsForResource",
    "wafv2:GetLoggingConfiguration",
    "wafv2:GetWebACL",
    "wafv2:GetWebACLForResource",
    "wafv2:ListTagsForResource",
]
"""How things are set up, and never what is in them: no object, parameter value, secret, row or function code."""

_REGIONAL = [
    "apigateway",
    "application-autoscaling",
    "aps",
    "athena",
    "autoscaling",
    "batch",
    "cloudtrail",
    "cloudwatch",
    "codedeploy",
    "cognito-idp",
    "ec2",
    "ecr",
    "ecs",
    "eks",
    "elasticloadbalancing",
    "events",
    "firehose",
    "fsx",
    "glue",
    "grafana",
    "lambda",
    "logs",
    "rds",
    "sagemaker",
    "scheduler",
    "secretsmanager",
    "sns",
    "sqs",
    "ssm",
    "states",
    "wafv2",
]
"""Services of which an environment may make anything in its region."""

_ZONES = [
    "route53:AssociateVPCWithHostedZone",
    "route53:ChangeResourceRecordSets",
    "route53:ChangeTagsForResource",
    "route53:CreateHostedZone",
    "route53:DeleteHostedZone",
    "route53:DisassociateVPCFromHostedZone",
    "route53:GetChange",
    "route53:GetHostedZone",
    "route53:ListResourceRecordSets",
    "route53:ListTagsForResource",
]

_ROLE_USERS = [
    "apigateway",
    "codedeploy",
    "ec2",
    "ecs",
    "ecs-tasks",
    "eks",
    "events",
    "firehose",
    "glue",
    "grafana",
    "lambda",
    "monitoring.rds",
    "pods.eks",
    "sagemaker",
    "scheduler",
    "states",
    "vpc-flow-logs",
]
"""Services to which an environment's roles may be given."""

_KEYS = [
    "kms:CreateAlias",
    "kms:CreateGrant",
    "kms:CreateKey",
    "kms:Decrypt",
    "kms:DeleteAlias",
    "kms:DisableKey",
    "kms:EnableKeyRotation",
    "kms:Encrypt",
    "kms:GenerateDataKey",
    "kms:PutKeyPolicy",
    "kms:ScheduleKeyDeletion",
    "kms:TagResource",
    "kms:UntagResource",
    "kms:UpdateAlias",
    "kms:UpdateKeyDescription",
]

_SIGN_IN = [
    "sso-directory:DescribeGroup",
    "sso:AssociateProfile",
    "sso:CreateManagedApplicationInstance",
    "sso:DeleteManagedApplicationInstance",
    "sso:DescribeRegisteredRegions",
    "sso:DisassociateProfile",
    "sso:GetManagedApplicationInstance",
    "sso:GetProfile",
    "sso:GetSharedSsoConfiguration",
    "sso:ListDirectoryAssociations",
    "sso:ListProfileAssociations",
    "sso:ListProfiles",
]

_ROLES = [
    "iam:AddRoleToInstanceProfile",
    "iam:CreateInstanceProfile",
    "iam:DeleteInstanceProfile",
    "iam:DeleteRole",
    "iam:DeleteRolePolicy",
    "iam:GetInstanceProfile",
    "iam:PutRolePolicy",
    "iam:RemoveRoleFromInstanceProfile",
    "iam:TagInstanceProfile",
    "iam:TagRole",
    "iam:UntagRole",
    "iam:UpdateAssumeRolePolicy",
    "iam:UpdateRole",
    "iam:UpdateRoleDescription",
]
"""Without AttachRolePolicy: an environment's policies are built from statements, no managed one is attached."""
