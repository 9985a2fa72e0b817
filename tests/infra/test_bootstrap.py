"""The account's bootstrap: who may take on its roles and what those may do, and a state that cannot get lost."""

import fnmatch
import json
import re
import runpy

import boto3
import pytest

from cli.preview_output import plain
from contract.errors import PlatformError
from contract.paths import ROOT
from contract.strict import read_yaml
from embedded.aws import EmulatedAws
from embedded.monitor import run
from embedded.project import run_environment
from embedded.state import State
from infra.guardrails import rule as guardrails
from infra.guardrails.evaluate import evaluate
from tests.conftest import REGION
from tests.infra.conftest import ON_EKS, KnownIds, _build, as_list, statements
from tests.infra.test_policies import actions as known_actions
from tests.infra.test_policies import applies
from tests.infra.test_scoring import SCORING

FOLDER = ROOT / "stacks" / "bootstrap"
CONFIG = {
    "prefix": "acme",
    "repository": "acme-org/ml.platform",
    "environments": json.dumps(["dev", "prod"]),
    "lock_days": "30",
}


def build(provider=None, **changes):
    config = {f"ml-platform-bootstrap:{name}": value for name, value in (CONFIG | changes).items()}
    return run(
        lambda: runpy.run_path(str(FOLDER / "__main__.py"), run_name="__main__") and None,
        project="ml-platform-bootstrap",
        stack="main",
        config=config | {"aws:region": REGION},
        provider=provider,
    )


@pytest.fixture(scope="module")
def deployment():
    return build(KnownIds())


def only(deployment, type_, name=None):
    (resource,) = [r for r in deployment.of_type(type_) if name is None or r.name == f"acme-bootstrap-{name}"]
    return resource


def policy_of(deployment, role):
    return statements(only(deployment, "aws:iam/rolePolicy:RolePolicy", role).inputs["policy"])


def actions(policy, effect="Allow"):
    return {action for statement in policy if statement["Effect"] == effect for action in as_list(statement["Action"])}


@pytest.mark.parametrize(
    ("role", "subjects"),
    [
        ("preview", ["repo:acme-org/ml.platform:pull_request"]),
        ("deploy", ["repo:acme-org/ml.platform:environment:dev", "repo:acme-org/ml.platform:environment:prod"]),
    ],
)
def test_a_role_is_taken_on_by_its_workflows_only(deployment, role, subjects):
    (statement,) = statements(only(deployment, "aws:iam/role:Role", role).inputs["assumeRolePolicy"])
    provider = only(deployment, "aws:iam/openIdConnectProvider:OpenIdConnectProvider")
    assert statement == {
        "Effect": "Allow",
        "Principal": {"Federated": provider.outputs["arn"]},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {
            "StringEquals": {
                "token.actions.githubusercontent.com:aud": "sts.amazonaws.com",
                "token.actions.githubusercontent.com:sub": subjects,
            }
        },
    }


def test_the_identity_provider_is_githubs(deployment):
    provider = only(deployment, "aws:iam/openIdConnectProvider:OpenIdConnectProvider")
    assert provider.inputs["url"] == "https://token.actions.githubusercontent.com"
    assert provider.inputs["clientIdLists"] == ["sts.amazonaws.com"]


def test_an_identity_provider_that_is_there_is_used():
    arn = "arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com"
    deployment = build(KnownIds(), github_provider_arn=arn)
    assert not deployment.of_type("aws:iam/openIdConnectProvider:OpenIdConnectProvider")
    (statement,) = statements(only(deployment, "aws:iam/role:Role", "preview").inputs["assumeRolePolicy"])
    assert statement["Principal"] == {"Federated": arn}


def test_the_preview_role_writes_nothing_at_all(deployment):
    allowed = actions(policy_of(deployment, "preview"))
    harmless = r"[a-z0-9-]+:(Describe|Get|List|View|GET$)|kms:Decrypt$"
    assert [action for action in allowed if not re.match(harmless, action)] == []


def test_the_preview_role_reads_no_data_but_pulumis_state(deployment):
    data = {
        "secretsmanager:GetSecretValue",
        "ssm:GetParameter",
        "ssm:GetParameters",
        "ssm:GetParametersByPath",
        "lambda:GetFunction",
        "athena:GetQueryResults",
        "glue:GetConnection",
        "ecr:BatchGetImage",
        "rds-data:ExecuteStatement",
    }
    policy = policy_of(deployment, "preview")
    allowed = actions(policy)
    assert not [a for a in data if any(fnmatch.fnmatchcase(a, pattern) for pattern in allowed)]
    for action, resources in {
        "s3:GetObject": ["arn:aws:s3:::acme-bootstrap-state/*"],
        "s3:ListBucket": ["arn:aws:s3:::acme-bootstrap-state"],
    }.items():
        assert [as_list(s["Resource"]) for s in policy if action in s["Action"]] == [resources]
    decrypting = [s for s in policy if "kms:Decrypt" in s["Action"]]
    assert all(s["Resource"] == "arn:aws:kms:eu-west-1:123456789012:key/1" for s in decrypting)
    through_s3 = {"StringEquals": {"kms:ViaService": "s3.eu-west-1.amazonaws.com"}}
    assert sorted(str(s.get("Condition")) for s in decrypting) == ["None", str(through_s3)]


def test_no_managed_policy_is_attached(deployment):
    assert not deployment.of_type("aws:iam/rolePolicyAttachment:RolePolicyAttachment")
    assert not any("managedPolicyArns" in role.inputs for role in deployment.of_type("aws:iam/role:Role"))
    assert "iam:AttachRolePolicy" not in actions(policy_of(deployment, "deploy"))


def test_neither_role_can_delete_earlier_states_or_lift_the_lock(deployment):
    dangerous = {"s3:DeleteObjectVersion", "s3:BypassGovernanceRetention", "s3:PutBucketObjectLockConfiguration"}
    for role in ("preview", "deploy"):
        for statement in policy_of(deployment, role):
            touched = [
                r
                for r in as_list(statement["Resource"])
                if fnmatch.fnmatchcase("arn:aws:s3:::acme-bootstrap-state", r.removesuffix("/*"))
            ]
            if statement["Effect"] == "Allow" and touched:
                granted = {a for a in dangerous if any(fnmatch.fnmatchcase(a, p) for p in statement["Action"])}
                assert not granted, statement["Sid"]


def test_the_deploy_role_makes_and_passes_roles_of_its_environments_only(deployment):
    for statement in policy_of(deployment, "deploy"):
        roles = [a for a in statement["Action"] if a.startswith("iam:") and not re.match("iam:(Get|List)", a)]
        if not roles or roles == ["iam:CreateServiceLinkedRole"]:
            continue
        for resource in as_list(statement["Resource"]):
            assert re.fullmatch(r"arn:aws:iam::123456789012:(role|instance-profile)/acme-(dev|prod)-\*", resource)
    (passing,) = [s for s in policy_of(deployment, "deploy") if "iam:PassRole" in s["Action"]]
    assert "iam:PassedToService" in passing["Condition"]["StringEquals"]


def test_a_permissions_boundary_bounds_the_roles_and_what_they_make():
    boundary = "arn:aws:iam::123456789012:policy/company"
    deployment = build(KnownIds(), permissions_boundary=boundary)
    assert {r.inputs["permissionsBoundary"] for r in deployment.of_type("aws:iam/role:Role")} == {boundary}
    (making,) = [s for s in policy_of(deployment, "deploy") if "iam:CreateRole" in s["Action"]]
    assert making["Condition"] == {"StringEquals": {"iam:PermissionsBoundary": boundary}}
    assert "iam:DeleteRolePermissionsBoundary" not in actions(policy_of(deployment, "deploy"))


def test_policies_are_within_iams_size(deployment):
    for policy in deployment.of_type("aws:iam/rolePolicy:RolePolicy"):
        assert len(policy.inputs["policy"].replace(" ", "")) < 10_240


def test_the_state_bucket_is_versioned_locked_encrypted_and_private(deployment):
    bucket = only(deployment, "aws:s3/bucket:Bucket")
    assert bucket.inputs["objectLockEnabled"] is True
    assert bucket.protect
    assert not bucket.inputs.get("forceDestroy")
    versioning = only(deployment, "aws:s3/bucketVersioning:BucketVersioning")
    assert versioning.inputs["versioningConfiguration"] == {"status": "Enabled"}
    lock = only(deployment, "aws:s3/bucketObjectLockConfiguration:BucketObjectLockConfiguration")
    assert lock.inputs["rule"] == {"defaultRetention": {"mode": "GOVERNANCE", "days": 30}}
    assert versioning.urn in lock.dependencies
    encryption = only(
        deployment, "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration"
    )
    (rule,) = encryption.inputs["rules"]
    assert rule["applyServerSideEncryptionByDefault"]["sseAlgorithm"] == "aws:kms"
    private = only(deployment, "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock")
    blocks = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
    assert all(private.inputs[block] is True for block in blocks)
    (tls,) = statements(only(deployment, "aws:s3/bucketPolicy:BucketPolicy").inputs["policy"])
    assert (tls["Effect"], tls["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})


def test_old_versions_are_kept_for_longer_than_the_lock():
    deployment = build(KnownIds(), lock_days="60")
    (rule,) = only(deployment, "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration").inputs["rules"]
    assert rule["noncurrentVersionExpiration"]["noncurrentDays"] > 60


def test_the_keys_rotate_and_are_protected(deployment):
    keys = deployment.of_type("aws:kms/key:Key")
    assert {key.name for key in keys} == {"acme-bootstrap-state", "acme-bootstrap-secrets"}
    assert all(key.protect and key.inputs["enableKeyRotation"] for key in keys)


def test_the_outputs_are_what_pulumi_takes(deployment):
    assert deployment.outputs["backend_url"] == "s3://acme-bootstrap-state?region=eu-west-1"
    assert deployment.outputs["secrets_provider"] == "awskms://1?region=eu-west-1"
    assert deployment.outputs.keys() == {"backend_url", "secrets_provider", "preview_role", "deploy_role"}


def test_everything_is_a_child_of_the_component_and_a_preview_needs_no_id():
    preview = build()
    (component,) = preview.of_type("ml-platform:infra:Bootstrap")
    assert all(resource.parent == component.urn for resource in preview.resources.values() if resource.custom)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"repository": "YOUR_ORG/YOUR_REPO"}, "repository: "),
        ({"repository": "acme-org/*"}, "repository: "),
        ({"environments": '["prod*"]'}, r"environments\.0: "),
        ({"lock_days": "0"}, "lock_days: "),
    ],
)
def test_bad_settings_are_refused_before_anything_is_made(changes, said):
    with pytest.raises(PlatformError, match=rf"stacks/bootstrap/Pulumi\.main\.yaml is not valid:\n  {said}"):
        build(**changes)


def test_the_example_sets_every_key_without_a_default():
    declared = read_yaml(FOLDER / "Pulumi.yaml")["config"]
    needed = {name for name, declaration in declared.items() if "default" not in declaration}
    given = {key.removeprefix("ml-platform-bootstrap:") for key in read_yaml(FOLDER / "Pulumi.main.yaml")["config"]}
    assert needed <= given <= declared.keys() | {"aws:region"}
    assert "aws:region" in given


def test_it_can_be_provisioned(emulated_aws, tmp_path):
    provider = EmulatedAws(emulated_aws.url, REGION, State.load(tmp_path / "state.json", emulated_aws.identity))
    outputs = build(provider).outputs
    held = provider.state.resources.values()
    assert [resource.type for resource in held if resource.recorded_only and resource.type.startswith("aws:")] == []
    bucket = outputs["backend_url"].removeprefix("s3://").partition("?")[0]
    s3, iam = boto3.client("s3"), boto3.client("iam")
    lock = s3.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"]
    assert lock["Rule"]["DefaultRetention"].items() >= {"Mode": "GOVERNANCE", "Days": 30}.items()
    (provider_,) = iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]
    trust = iam.get_role(RoleName="acme-bootstrap-preview")["Role"]["AssumeRolePolicyDocument"]["Statement"][0]
    assert trust["Principal"] == {"Federated": provider_["Arn"]}
    key = outputs["secrets_provider"].removeprefix("awskms://").partition("?")[0]
    assert boto3.client("kms").get_key_rotation_status(KeyId=key)["KeyRotationEnabled"]
    again = EmulatedAws(emulated_aws.url, REGION, State.load(tmp_path / "state.json", emulated_aws.identity))
    build(again)
    assert {step.action for step in again.steps} == {"same"}


def test_pulumi_can_overwrite_and_delete_its_files_under_the_lock(emulated_aws, tmp_path):
    provider = EmulatedAws(emulated_aws.url, REGION, State.load(tmp_path / "state.json", emulated_aws.identity))
    bucket = build(provider).outputs["backend_url"].removeprefix("s3://").partition("?")[0]
    s3 = boto3.client("s3")
    first = s3.put_object(Bucket=bucket, Key=".pulumi/stacks/dev.json", Body=b"1")["VersionId"]
    s3.put_object(Bucket=bucket, Key=".pulumi/stacks/dev.json", Body=b"2")
    s3.delete_object(Bucket=bucket, Key=".pulumi/stacks/dev.json")
    with pytest.raises(s3.exceptions.ClientError, match="AccessDenied"):
        s3.delete_object(Bucket=bucket, Key=".pulumi/stacks/dev.json", VersionId=first)


def test_every_action_is_one_that_aws_has(deployment):
    for role in ("preview", "deploy"):
        for statement in policy_of(deployment, role):
            unknown = [action for action in as_list(statement["Action"]) if not known_actions(action)]
            assert not unknown, f"{role} {statement['Sid']}"


def test_every_arn_is_one_that_its_action_applies_to(deployment):
    for role in ("preview", "deploy"):
        for statement in policy_of(deployment, role):
            for pattern in as_list(statement["Action"]):
                arns = as_list(statement["Resource"])
                assert arns == ["*"] or any(applies(a, arn) for a in known_actions(pattern) for arn in arns), pattern


@pytest.mark.parametrize("environment", ["dev", "staging", "prod"])
def test_the_deploy_role_may_make_what_the_environments_are_made_of(deployment, environment):
    may = {action.partition(":")[0] for action in actions(policy_of(deployment, "deploy"))}
    renamed = {
        "amp": "aps",
        "apigatewayv2": "apigateway",
        "cognito": "cognito-idp",
        "kinesis": "firehose",
        "sfn": "states",
    }
    types = {r.type for r in run_environment(environment).resources.values() if r.type.startswith("aws:")}
    services = {type_.removeprefix("aws:").partition("/")[0] for type_ in types}
    assert {renamed.get(service, service) for service in services} <= may


def test_the_deploy_role_may_make_a_cluster_and_give_its_parts_their_roles(deployment):
    policy = policy_of(deployment, "deploy")
    assert {"eks:*", "fsx:*", "sqs:*", "events:*", "scheduler:*"} <= actions(policy)
    (passed,) = [statement for statement in policy if statement.get("Sid") == "PassRoles"]
    trusts = [
        trust
        for role in _build("prod", "ids", scoring=SCORING, **ON_EKS).of_type("aws:iam/role:Role")
        for trust in statements(role.inputs["assumeRolePolicy"])
    ]
    services = {service for trust in trusts for service in as_list(trust["Principal"]["Service"])}
    assert {"eks.amazonaws.com", "pods.eks.amazonaws.com", "scheduler.amazonaws.com"} <= services
    assert services <= set(passed["Condition"]["StringEquals"]["iam:PassedToService"])


def test_it_breaks_no_guardrail_of_production():
    resources = tuple(
        guardrails.Resource(r.type, r.name, urn, plain(r.inputs, reveal=True), r.protect, r.property_dependencies)
        for urn, r in sorted(build().resources.items())
        if r.custom
    )
    assert [str(violation) for violation in evaluate(guardrails.Stack("prod", resources)).violations] == []
