"""What a preview can tell of a resource before it is there."""

import json

import pulumi
import pulumi_aws as aws
import pytest

from cli.preview import check
from embedded.foresight import arns
from embedded.monitor import UNKNOWN, run
from embedded.project import environments, run_environment
from infra.policies import allow, document

CONFIG = {"aws:region": "eu-west-1"}


def outputs_of(type_: str, region: str) -> dict:
    found = {}

    def program():
        pulumi.CustomResource(type_, "it", {})

    def foresee(resource):
        found.update(arns(region)(resource))
        return found

    run(program, project="p", stack="s", config=CONFIG, foresee=foresee)
    return found


@pytest.mark.parametrize(
    ("type_", "region", "arn"),
    [
        ("aws:kms/key:Key", "eu-west-1", "arn:aws:kms:eu-west-1:?:key/?"),
        ("aws:iam/role:Role", "eu-west-1", "arn:aws:iam::?:role/?"),
        ("aws:s3/bucket:Bucket", "us-gov-west-1", "arn:aws-us-gov:s3:::?"),
        (
            "aws:sagemaker/modelPackageGroup:ModelPackageGroup",
            "cn-north-1",
            "arn:aws-cn:sagemaker:cn-north-1:?:model-package-group/?",
        ),
    ],
)
def test_an_arn_has_its_form_with_account_and_identity_left_open(type_, region, arn):
    assert outputs_of(type_, region) == {"arn": arn.replace("?", UNKNOWN)}


def test_what_is_not_of_aws_is_left_alone():
    assert outputs_of("random:index/randomId:RandomId", "eu-west-1") == {}


@pytest.mark.parametrize("environment", environments())
def test_every_policy_document_can_be_read_in_a_preview(environment):
    documents = [
        value
        for resource in run_environment(environment).resources.values()
        for name, value in resource.inputs.items()
        if name in ("policy", "assumeRolePolicy")
    ]
    assert len(documents) > 10
    for each in documents:
        json.loads(each)


def test_a_policy_too_broad_breaks_a_rule_in_a_preview():
    """The document holds an ARN that only an up would know, and is looked into all the same."""

    def program():
        bucket = aws.s3.Bucket("data")
        role = aws.iam.Role("reader", assume_role_policy=document(allow(["sts:AssumeRole"], "*")))
        aws.iam.RolePolicy("reader", role=role.id, policy=document(allow(["s3:*"], bucket.arn)))

    deployment = run(program, project="p", stack="dev", config=CONFIG, foresee=arns("eu-west-1"))
    broken = {violation.rule for violation in check("dev", deployment).violations}
    assert "iam-no-wildcard-action" in broken
