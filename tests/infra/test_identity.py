"""The roles: each may do what its job needs, on what it needs it on."""

import pytest

from contract.manifest import model_names
from tests.infra.conftest import as_list, only, statements

UNSCOPED = {
    "ecr:GetAuthorizationToken",
    "cloudwatch:PutMetricData",
    "sagemaker:ListModelPackages",
    "ec2:DescribeDhcpOptions",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcs",
}  # AWS knows no resource for them


@pytest.fixture
def policies(build):
    deployment = build()
    roles = {r.id: r for r in deployment.of_type("aws:iam/role:Role")}
    found = {}
    for policy in deployment.of_type("aws:iam/rolePolicy:RolePolicy"):
        found.setdefault(roles[policy.inputs["role"]].name, []).extend(statements(policy.inputs["policy"]))
    return found


def granted(policy):
    return {
        (action, resource)
        for statement in policy
        for action in as_list(statement["Action"])
        for resource in as_list(statement["Resource"])
    }


def test_no_wildcard_action_and_no_wildcard_resource(policies):
    for policy in policies.values():
        for action, resource in granted(policy):
            assert "*" not in action
            assert resource != "*" or action in UNSCOPED


def test_no_managed_policy_is_attached(build):
    deployment = build()
    assert not deployment.of_type("aws:iam/rolePolicyAttachment:RolePolicyAttachment")
    assert not any(role.inputs.get("managedPolicyArns") for role in deployment.of_type("aws:iam/role:Role"))


def test_inference_reads_its_models_artifacts_and_writes_nothing_but_logs_and_captures(policies):
    grants = granted(policies["acme-test-inference-digits"])
    assert ("s3:GetObject", "arn:aws:s3:::acme-test-artifacts/digits/*") in grants
    assert {action for action, _ in grants} == {
        "s3:GetObject",
        "kms:Decrypt",
        "ssm:GetParameter",
        "firehose:PutRecordBatch",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
    }
    parameters = [resource for action, resource in grants if action == "ssm:GetParameter"]
    assert parameters == ["arn:aws:ssm:eu-west-1:123456789012:parameter/acme/test/models/digits"]


def test_training_cannot_change_raw_data_or_delete_anything(policies):
    grants = granted(policies["acme-test-training"])
    # SageMaker takes its network interfaces away again.
    deletes = {action for action, _ in grants if "Delete" in action}
    assert deletes == {"ec2:DeleteNetworkInterface", "ec2:DeleteNetworkInterfacePermission"}
    written = {resource for action, resource in grants if action == "s3:PutObject"}
    assert written == {"arn:aws:s3:::acme-test-curated/*", "arn:aws:s3:::acme-test-artifacts/*"}
    read = {resource for action, resource in grants if action == "s3:GetObject"}
    assert "arn:aws:s3:::acme-test-artifacts/_work/*" in read
    assert "arn:aws:s3:::acme-test-artifacts/*" not in read


def test_training_may_look_at_the_live_version_to_compare_with_it(policies):
    grants = granted(policies["acme-test-training"])
    assert ("s3:GetObject", "arn:aws:s3:::acme-test-artifacts/digits/*") in grants
    assert ("ssm:GetParameter", "arn:aws:ssm:eu-west-1:123456789012:parameter/acme/test/models/*") in grants


def test_the_first_training_job_of_an_account_can_make_its_log_group(policies):
    groups = {
        resource for action, resource in granted(policies["acme-test-training"]) if action == "logs:CreateLogGroup"
    }
    assert groups == {"arn:aws:logs:eu-west-1:123456789012:log-group:/aws/sagemaker/TrainingJobs:*"}


def test_the_key_is_used_through_s3_only_or_granted_to_aws_itself(policies):
    for policy in policies.values():
        for statement in policy:
            actions = [action for action in statement["Action"] if action.startswith("kms:")]
            if actions == ["kms:CreateGrant"]:
                assert statement["Condition"] == {"Bool": {"kms:GrantIsForAWSResource": "true"}}
            elif actions and actions != ["kms:DescribeKey"]:
                assert statement["Condition"] == {"StringEquals": {"kms:ViaService": "s3.eu-west-1.amazonaws.com"}}


OURS = {"StringEquals": {"aws:SourceAccount": "123456789012"}}


@pytest.mark.parametrize(
    ("role", "service", "condition"),
    [
        ("training", "sagemaker.amazonaws.com", OURS),
        ("pipeline", "states.amazonaws.com", OURS),
        ("monitor", "lambda.amazonaws.com", None),  # Lambda does not say for whom it acts
        ("inference-digits", "lambda.amazonaws.com", None),
        ("deploy-digits", "codedeploy.amazonaws.com", OURS),
        ("capture-digits", "firehose.amazonaws.com", None),
    ],
)
def test_a_role_is_taken_on_by_its_service_only(build, role, service, condition):
    (statement,) = statements(only(build(), "aws:iam/role:Role", role).inputs["assumeRolePolicy"])
    assert statement.pop("Condition", None) == condition
    assert statement == {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}


def test_the_pipeline_hands_on_the_training_role_and_to_sagemaker_only(policies):
    (passing,) = [s for s in policies["acme-test-pipeline"] if "iam:PassRole" in s["Action"]]
    assert passing["Resource"] == "arn:aws:iam::123456789012:role/acme-test-training"
    assert passing["Condition"] == {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}


def test_the_monitor_writes_metrics_of_its_own_namespace_only(policies):
    (writing,) = [s for s in policies["acme-test-monitor"] if "cloudwatch:PutMetricData" in s["Action"]]
    assert writing["Condition"] == {"StringEquals": {"cloudwatch:namespace": "acme/test/monitor"}}


def test_every_role_has_the_boundary_that_the_company_demands(build):
    boundary = "arn:aws:iam::123456789012:policy/boundary"
    bounded = build(permissions_boundary=boundary, data={"mlflow": {}}).of_type("aws:iam/role:Role")
    assert len(bounded) == 4 + 3 * len(model_names())
    assert all(role.inputs["permissionsBoundary"] == boundary for role in bounded)
    assert not any("permissionsBoundary" in role.inputs for role in build().of_type("aws:iam/role:Role"))
