"""Properties find their place in an operation's input by botocore's own model."""

import boto3
import pytest

from embedded.calls import camel_case, fit
from embedded.monitor import Secret


@pytest.fixture(scope="module")
def shape():
    def of(service, operation):
        client = boto3.client(service, region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="x")
        return client.meta.service_model.operation_model(operation).input_shape

    return of


def test_names_fit_whatever_their_case(shape):
    parameters, homeless = fit(shape("ec2", "CreateSubnet"), {"vpcId": "vpc-1", "cidrBlock": "10.0.0.0/24", "odd": 1})
    assert parameters == {"VpcId": "vpc-1", "CidrBlock": "10.0.0.0/24"}
    assert homeless == {"odd"}


def test_tags_become_what_the_service_wants(shape):
    tags = {"tags": {"b": 2, "a": "1"}}
    pairs = [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}]
    assert fit(shape("iam", "CreateRole"), tags)[0] == {"Tags": pairs}
    kms = [{"TagKey": "a", "TagValue": "1"}, {"TagKey": "b", "TagValue": "2"}]
    assert fit(shape("kms", "CreateKey"), tags)[0] == {"Tags": kms}
    assert fit(shape("lambda", "CreateFunction"), tags)[0] == {"Tags": {"a": "1", "b": "2"}}


def test_what_pulumi_flattens_is_nested_again(shape):
    properties = {"bucket": "b", "blockPublicAcls": True}
    assert fit(shape("s3", "PutPublicAccessBlock"), properties)[0] == {
        "Bucket": "b",
        "PublicAccessBlockConfiguration": {"BlockPublicAcls": True},
    }
    assert fit(shape("s3", "PutBucketLogging"), {"targetBucket": "logs"})[0] == {
        "BucketLoggingStatus": {"LoggingEnabled": {"TargetBucket": "logs"}}
    }


def test_singular_and_plural_are_the_same_name(shape):
    rule = {"rule": {"objectOwnership": "BucketOwnerEnforced"}}
    assert fit(shape("s3", "PutBucketOwnershipControls"), rule)[0] == {
        "OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    }


def test_wrapped_values_and_secrets_are_converted(shape):
    value = {"enableDnsSupport": True}
    assert fit(shape("ec2", "ModifyVpcAttribute"), value)[0] == {"EnableDnsSupport": {"Value": True}}
    assert fit(shape("ssm", "PutParameter"), {"value": Secret("hush")})[0] == {"Value": "hush"}
    assert fit(shape("lambda", "CreateFunction"), {"memorySize": "512"})[0] == {"MemorySize": 512}


def test_answers_are_spelt_as_pulumi_spells():
    assert camel_case({"VpcId": 1, "ARNs": 2, "ACL": 3, "KmsKeyId": 4}) == {
        "vpcId": 1,
        "arNs": 2,
        "acl": 3,
        "kmsKeyId": 4,
    }
