"""What every bucket is, whatever it is for: private, without ACLs, versioned and encrypted."""

import pulumi
import pulumi_aws as aws


def secure(
    name: str, bucket: aws.s3.Bucket, opts: pulumi.ResourceOptions, key_arn: pulumi.Input[str] | None = None
) -> aws.s3.BucketVersioning:
    """Shut a bucket to the public, switch its ACLs off, keep old versions and encrypt what is written.

    Args:
        name: name of the resources that do it.
        bucket: the bucket.
        opts: options of those resources.
        key_arn: the KMS key to encrypt with; without one it is S3's own, for buckets that AWS services deliver to.

    Returns:
        The versioning, which an object lock has to wait for.
    """
    aws.s3.BucketPublicAccessBlock(
        name,
        bucket=bucket.id,
        block_public_acls=True,
        block_public_policy=True,
        ignore_public_acls=True,
        restrict_public_buckets=True,
        opts=opts,
    )
    aws.s3.BucketOwnershipControls(name, bucket=bucket.id, rule={"object_ownership": "BucketOwnerEnforced"}, opts=opts)
    encryption: aws.s3.BucketServerSideEncryptionConfigurationRuleApplyServerSideEncryptionByDefaultArgsDict
    encryption = {"sse_algorithm": "AES256"}
    if key_arn is not None:
        encryption = {"sse_algorithm": "aws:kms", "kms_master_key_id": key_arn}
    aws.s3.BucketServerSideEncryptionConfiguration(
        name,
        bucket=bucket.id,
        rules=[{"apply_server_side_encryption_by_default": encryption, "bucket_key_enabled": key_arn is not None}],
        opts=opts,
    )
    return aws.s3.BucketVersioning(name, bucket=bucket.id, versioning_configuration={"status": "Enabled"}, opts=opts)
