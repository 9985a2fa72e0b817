"""The lake: private, encrypted, versioned, and over TLS only."""

import pytest

from tests.infra.conftest import PROD, as_list, only, statements

BUCKETS = ("raw", "curated", "artifacts", "queries", "logs")


@pytest.mark.parametrize("bucket", BUCKETS)
def test_a_bucket_is_private_versioned_and_has_no_acls(build, bucket):
    deployment = build()
    block = only(deployment, "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock", bucket).inputs
    switches = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
    assert all(block[switch] is True for switch in switches)
    assert block["bucket"] == f"acme-test-{bucket}"
    versioning = only(deployment, "aws:s3/bucketVersioning:BucketVersioning", bucket).inputs
    assert versioning["versioningConfiguration"] == {"status": "Enabled"}
    ownership = only(deployment, "aws:s3/bucketOwnershipControls:BucketOwnershipControls", bucket).inputs
    assert ownership["rule"] == {"objectOwnership": "BucketOwnerEnforced"}


@pytest.mark.parametrize("bucket", BUCKETS)
def test_a_bucket_refuses_plain_http(build, bucket):
    policy = statements(only(build(), "aws:s3/bucketPolicy:BucketPolicy", bucket).inputs["policy"])
    (deny,) = [statement for statement in policy if statement["Effect"] == "Deny"]
    assert deny["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert deny["Action"] == ["s3:*"]
    assert deny["Principal"] == {"AWS": "*"}
    assert deny["Resource"] == [f"arn:aws:s3:::acme-test-{bucket}", f"arn:aws:s3:::acme-test-{bucket}/*"]


@pytest.mark.parametrize("bucket", BUCKETS)
def test_nobody_outside_the_account_is_let_in(build, bucket):
    for statement in statements(only(build(), "aws:s3/bucketPolicy:BucketPolicy", bucket).inputs["policy"]):
        if statement["Effect"] == "Allow":
            assert statement["Principal"].keys() == {"Service"}
            if statement["Sid"] == "BalancerLogs":  # whose deliveries say no account: the path holds them to ours
                assert statement["Resource"] == "arn:aws:s3:::acme-test-logs/balancers/AWSLogs/123456789012/*"
                continue
            assert statement["Condition"] in (
                {"StringEquals": {"aws:SourceAccount": "123456789012"}},
                {"ArnLike": {"aws:SourceArn": "arn:aws:cloudtrail:eu-west-1:123456789012:trail/acme-test-*"}},
            )


@pytest.mark.parametrize("bucket", BUCKETS)
def test_a_bucket_is_encrypted(build, bucket):
    type_ = "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration"
    (rule,) = only(build(), type_, bucket).inputs["rules"]
    if bucket == "logs":
        assert rule["applyServerSideEncryptionByDefault"] == {"sseAlgorithm": "AES256"}
    else:
        assert rule["applyServerSideEncryptionByDefault"] == {
            "sseAlgorithm": "aws:kms",
            "kmsMasterKeyId": "arn:aws:kms:eu-west-1:123456789012:key/1",
        }
        assert rule["bucketKeyEnabled"] is True


@pytest.mark.parametrize("bucket", BUCKETS)
def test_old_versions_expire(build, bucket):
    type_ = "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration"
    rules = only(build(), type_, bucket).inputs["rules"]
    assert rules[0]["noncurrentVersionExpiration"] == {"noncurrentDays": 7}
    assert rules[0]["abortIncompleteMultipartUpload"] == {"daysAfterInitiation": 7}
    expiring = [rule["expiration"] for rule in rules if "expiration" in rule]
    assert expiring == {"logs": [{"days": 30}], "queries": [{"days": 7}]}.get(bucket, [])


def test_access_to_the_lake_is_logged(build):
    deployment = build()
    logging = deployment.of_type("aws:s3/bucketLogging:BucketLogging")
    assert {log.inputs["bucket"] for log in logging} == {f"acme-test-{b}" for b in BUCKETS if b != "logs"}
    assert {log.inputs["targetBucket"] for log in logging} == {"acme-test-logs"}


def test_the_key_rotates_and_only_the_account_and_what_writes_or_tells_of_it_use_it(build):
    deployment = build()
    (key,) = deployment.of_type("aws:kms/key:Key")
    assert key.inputs["enableKeyRotation"] is True
    account, logs, trails, alarms, metrics = statements(
        deployment.of_type("aws:kms/keyPolicy:KeyPolicy")[0].inputs["policy"]
    )
    assert account["Principal"] == {"AWS": "arn:aws:iam::123456789012:root"}
    assert logs["Principal"] == {"Service": "logs.eu-west-1.amazonaws.com"}
    assert trails["Principal"] == {"Service": "cloudtrail.amazonaws.com"}
    assert trails["Condition"]["ArnLike"]["aws:SourceArn"].endswith(":trail/acme-test-*")
    assert alarms["Condition"]["ArnLike"]["aws:SourceArn"].endswith(":alarm:acme-test-*")
    assert metrics["Condition"]["ArnLike"]["aws:SourceArn"].endswith(":workspace/*")
    (patterns,) = logs["Condition"]["ArnLike"].values()
    groups = [pattern.removeprefix("arn:aws:logs:eu-west-1:123456789012:log-group:") for pattern in patterns]
    assert groups == [
        "/acme/test/*",
        "/aws/eks/acme-test-*",
        "/aws/containerinsights/acme-test-*",
        "aws-waf-logs-acme-test-*",
    ]
    assert not any(action == "*" for action in as_list(logs["Action"]))


def test_production_is_protected_and_development_can_be_destroyed(build):
    production = build("prod", **PROD)
    for resource in production.resources.values():
        if resource.type in ("aws:s3/bucket:Bucket", "aws:kms/key:Key", "aws:ecr/repository:Repository"):
            assert resource.protect, resource
    development = build("dev", storage={"force_destroy": True})
    assert not any(resource.protect for resource in development.resources.values())
    assert all(bucket.inputs["forceDestroy"] for bucket in development.of_type("aws:s3/bucket:Bucket"))
