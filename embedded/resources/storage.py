"""The data lake: keys and buckets."""

import json
from dataclasses import replace
from typing import Any

from embedded.resources.row import Call, Row


def _bucket_part(operation: str, undo: str | None = None) -> Row:
    """A part of a bucket's configuration: a put call, named by its bucket."""
    return Row("s3", Call(operation), id="{bucket}", delete=Call(undo) if undo else (), put=True)


def _without_conditional_denials(properties: dict[str, Any]) -> dict[str, Any]:
    """Leave out what moto takes for a plain denial: it does not evaluate conditions (and speaks plain HTTP)."""
    policy = json.loads(properties["policy"])
    kept = [s for s in policy["Statement"] if not (s["Effect"] == "Deny" and "Condition" in s)]
    return properties | {"policy": json.dumps(policy | {"Statement": kept})}


ROWS: dict[str, Row] = {
    "aws:kms/key:Key": Row(
        "kms",
        Call("CreateKey"),
        id="{keyId}",
        answer="KeyMetadata",
        delete=Call("ScheduleKeyDeletion", parameters={"PendingWindowInDays": 7}),
        then=(Call("EnableKeyRotation", parameters={"KeyId": "{id}"}, takes=("enableKeyRotation",)),),
        update={"policy": Call("PutKeyPolicy", parameters={"KeyId": "{id}", "PolicyName": "default"})},
        no_effect=frozenset({"deletionWindowInDays"}),
    ),
    "aws:kms/keyPolicy:KeyPolicy": Row(
        "kms",
        Call("PutKeyPolicy", parameters={"PolicyName": "default"}),
        id="{keyId}",
        put=True,
        identity=frozenset({"keyId"}),
    ),
    "aws:kms/alias:Alias": Row(
        "kms",
        Call("CreateAlias", rename={"name": "AliasName"}),
        id="{name}",
        delete=Call("DeleteAlias", parameters={"AliasName": "{id}"}),
        update={"targetKeyId": Call("UpdateAlias", parameters={"AliasName": "{id}"})},
    ),
    "aws:s3/bucket:Bucket": Row(
        "s3",
        Call("CreateBucket", parameters={"CreateBucketConfiguration": {"LocationConstraint": "{region}"}}),
        id="{bucket}",
        delete=Call("DeleteBucket"),
        auto_name="bucket",
        outputs={
            "arn": "arn:aws:s3:::{bucket}",
            "bucketRegionalDomainName": "{bucket}.s3.{region}.amazonaws.com",
            "bucketDomainName": "{bucket}.s3.amazonaws.com",
        },
    ),
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock": _bucket_part(
        "PutPublicAccessBlock", "DeletePublicAccessBlock"
    ),
    "aws:s3/bucketOwnershipControls:BucketOwnershipControls": _bucket_part(
        "PutBucketOwnershipControls", "DeleteBucketOwnershipControls"
    ),
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration": _bucket_part(
        "PutBucketEncryption", "DeleteBucketEncryption"
    ),
    "aws:s3/bucketVersioning:BucketVersioning": _bucket_part("PutBucketVersioning"),
    "aws:s3/bucketPolicy:BucketPolicy": replace(
        _bucket_part("PutBucketPolicy", "DeleteBucketPolicy"),
        prepare=_without_conditional_denials,
        left_out={"policy": "denials on a condition, such as of plain HTTP"},
    ),
    "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration": _bucket_part(
        "PutBucketLifecycleConfiguration", "DeleteBucketLifecycle"
    ),
    "aws:s3/bucketLogging:BucketLogging": _bucket_part("PutBucketLogging"),
    "aws:s3/bucketObjectLockConfiguration:BucketObjectLockConfiguration": Row(
        "s3",
        Call(
            "PutObjectLockConfiguration",
            parameters={"ObjectLockConfiguration": {"ObjectLockEnabled": "Enabled", "Rule": "{rule}"}},
            takes=("bucket",),
        ),
        id="{bucket}",
        put=True,
    ),
}
