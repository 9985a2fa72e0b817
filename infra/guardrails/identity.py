"""Rules for who may do what: roles, policies, keys, secrets."""

import re
from collections.abc import Iterator

from infra.guardrails.documents import allows, anyone, texts, wildcard
from infra.guardrails.rule import Resource, rule, unknown

POLICIES = (
    "aws:iam/policy:Policy",
    "aws:iam/rolePolicy:RolePolicy",
    "aws:iam/userPolicy:UserPolicy",
    "aws:iam/groupPolicy:GroupPolicy",
)
ATTACHMENTS = {
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": "policyArn",
    "aws:iam/userPolicyAttachment:UserPolicyAttachment": "policyArn",
    "aws:iam/groupPolicyAttachment:GroupPolicyAttachment": "policyArn",
    "aws:iam/policyAttachment:PolicyAttachment": "policyArn",
    "aws:iam/role:Role": "managedPolicyArns",
}
# Actions for which AWS knows no resource, or whose resource does not exist before the call.
WITHOUT_RESOURCE = re.compile(
    r"ecr:GetAuthorizationToken|ecs:DiscoverPollEndpoint|sts:GetCallerIdentity|xray:Put(TraceSegments|TelemetryRecords)"
    r"|cloudwatch:(PutMetricData|GetMetricData|ListMetrics|DescribeAlarmsForMetric)"
    r"|s3:ListAllMyBuckets|sagemaker:List\w+|logs:(Create|Get|Update|Delete|List)LogDeliver\w+"
    r"|logs:(Put|Describe)ResourcePolic\w+|(ec2|autoscaling|elasticloadbalancing):Describe\w+|pricing:GetProducts"
    r"|iam:ListInstanceProfiles"
    r"|ec2:(Create|Delete)NetworkInterface|ec2:(Assign|Unassign)PrivateIpAddresses"  # as Lambda in a VPC needs them
)


@rule("key-rotates", "Set enableKeyRotation to true.", "aws:kms/key:Key")
def _(key: Resource, _tier: str) -> Iterator[str]:
    # AWS rotates neither asymmetric keys nor those that make message authentication codes.
    if (
        key.is_("keyUsage", None, "ENCRYPT_DECRYPT")
        and key.is_("customerMasterKeySpec", None, "SYMMETRIC_DEFAULT")
        and (not key.is_("enableKeyRotation", True))
    ):
        yield "the key does not rotate"


@rule("iam-no-wildcard-action", "Name the actions; neither * nor service:*, nor NotAction.", *POLICIES)
def _(policy: Resource, _tier: str) -> Iterator[str]:
    for statement in allows(policy):
        for action in filter(wildcard, texts(statement.get("Action"))):
            yield f"the policy allows {action}"
        if "NotAction" in statement:
            yield "the policy allows all but some actions"


@rule(
    "iam-no-wildcard-resource",
    "Name the ARNs, or narrow the statement by a condition; * only for actions without a resource.",
    *POLICIES,
)
def _(policy: Resource, _tier: str) -> Iterator[str]:
    for statement in allows(policy):
        actions = [a for a in texts(statement.get("Action")) if not unknown(a) and not WITHOUT_RESOURCE.fullmatch(a)]
        everything = "*" in texts(statement.get("Resource")) or "NotResource" in statement
        if actions and everything and not statement.get("Condition"):
            yield f"the policy allows {', '.join(actions)} on every resource"


@rule("iam-no-broad-managed-policy", "Write a policy of the few actions that are needed.", *ATTACHMENTS)
def _(attachment: Resource, _tier: str) -> Iterator[str]:
    for arn in texts(attachment.items(ATTACHMENTS[attachment.type])):
        if re.search(r"FullAccess|AdministratorAccess|PowerUserAccess", arn):
            yield f"{arn.rpartition('/')[2]} is attached"


@rule("role-trusts-no-stranger", "Name the service or the ARN in the trust policy.", "aws:iam/role:Role")
def _(role: Resource, _tier: str) -> Iterator[str]:
    if any(anyone(statement) for statement in allows(role, "assumeRolePolicy")):
        yield "anybody can take on the role"


@rule("secret-own-key", "Set kmsKeyId to the environment's key.", "aws:secretsmanager/secret:Secret")
def _(secret: Resource, _tier: str) -> Iterator[str]:
    if not secret.has("kmsKeyId"):
        yield "the secret is encrypted with the account's default key"


@rule(
    "parameter-no-plain-secret",
    "Make it a SecureString with keyId set to the environment's key.",
    "aws:ssm/parameter:Parameter",
)
def _(parameter: Resource, _tier: str) -> Iterator[str]:
    secret = re.search(r"password|passwd|secret|token|credential|api[-_]?key", str(parameter.get("name")).lower())
    if secret and not parameter.is_("type", "SecureString"):
        yield "its name speaks of a secret, and its type is not SecureString"
    if parameter.get("type") == "SecureString" and not parameter.has("keyId"):
        yield "it is encrypted with the account's default key"
