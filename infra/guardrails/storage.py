"""Rules for what holds data: buckets, repositories, file systems, databases, queues."""

from collections.abc import Iterator

from infra.guardrails.documents import allows, anyone, statements
from infra.guardrails.rule import Resource, Stack, rule, stack_rule, unknown

BUCKET = "aws:s3/bucket:Bucket"
ENCRYPTION = "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration"
PUBLIC_ACCESS_BLOCK = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
VERSIONING = "aws:s3/bucketVersioning:BucketVersioning"
BUCKET_POLICY = "aws:s3/bucketPolicy:BucketPolicy"
REPOSITORY = "aws:ecr/repository:Repository"
FILE_SYSTEMS = (
    "aws:efs/fileSystem:FileSystem",
    "aws:fsx/lustreFileSystem:LustreFileSystem",
    "aws:fsx/ontapFileSystem:OntapFileSystem",
    "aws:fsx/openZfsFileSystem:OpenZfsFileSystem",
    "aws:fsx/windowsFileSystem:WindowsFileSystem",
)
DB_INSTANCE, DB_CLUSTER = "aws:rds/instance:Instance", "aws:rds/cluster:Cluster"
DB_MEMBER = "aws:rds/clusterInstance:ClusterInstance"
QUEUES = {
    "aws:sns/topic:Topic": ("kmsMasterKeyId",),
    "aws:sqs/queue:Queue": ("kmsMasterKeyId", "sqsManagedSseEnabled"),
    "aws:kinesis/stream:Stream": ("kmsKeyId",),
    "aws:kinesis/firehoseDeliveryStream:FirehoseDeliveryStream": (
        "serverSideEncryption.enabled",
        "kinesisSourceConfiguration",
    ),
}
STATEFUL = (
    BUCKET,
    REPOSITORY,
    *FILE_SYSTEMS,
    DB_INSTANCE,
    DB_CLUSTER,
    "aws:kms/key:Key",
    "aws:dynamodb/table:Table",
    "aws:eks/cluster:Cluster",
    "aws:amp/workspace:Workspace",
    "aws:sagemaker/mlflowTrackingServer:MlflowTrackingServer",
    "aws:sagemaker/modelPackageGroup:ModelPackageGroup",
)


def _without(stack: Stack, *companions: Resource) -> Iterator[Resource]:
    for bucket in stack.of_type(BUCKET):
        name = bucket.get("bucket")
        if not any(c.refers_to("bucket", bucket) or (name and c.get("bucket") == name) for c in companions):
            yield bucket


@stack_rule("bucket-public-access-block", "Give each bucket a BucketPublicAccessBlock.")
def _(stack: Stack) -> Iterator[tuple[Resource, str]]:
    for bucket in _without(stack, *stack.of_type(PUBLIC_ACCESS_BLOCK)):
        yield bucket, "the bucket has no public access block"


@rule("public-access-block-complete", "Set all four switches of a public access block to true.", PUBLIC_ACCESS_BLOCK)
def _(block: Resource, _tier: str) -> Iterator[str]:
    for switch in ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets"):
        if not block.is_(switch, True):
            yield f"{switch} is not true"


@stack_rule("bucket-encrypted", "Give each bucket a BucketServerSideEncryptionConfiguration.")
def _(stack: Stack) -> Iterator[tuple[Resource, str]]:
    for bucket in _without(stack, *stack.of_type(ENCRYPTION)):
        yield bucket, "the bucket has no encryption of its own"


@stack_rule("bucket-versioned", "Give each bucket a BucketVersioning whose status is Enabled.")
def _(stack: Stack) -> Iterator[tuple[Resource, str]]:
    enabled = [v for v in stack.of_type(VERSIONING) if v.is_("versioningConfiguration.status", "Enabled")]
    for bucket in _without(stack, *enabled):
        yield bucket, "the bucket keeps no versions"


@stack_rule("bucket-tls-only", "Give each bucket a policy that denies s3:* when aws:SecureTransport is false.")
def _(stack: Stack) -> Iterator[tuple[Resource, str]]:
    for bucket in _without(stack, *(p for p in stack.of_type(BUCKET_POLICY) if _refuses_plain_http(p))):
        yield bucket, "the bucket answers plain HTTP"


def _refuses_plain_http(policy: Resource) -> bool:
    if unknown(policy.get("policy")):
        return True
    return any(
        s.get("Effect") == "Deny"
        and str((s.get("Condition") or {}).get("Bool", {}).get("aws:SecureTransport")).lower() == "false"
        for s in statements(policy)
    )


@rule("bucket-policy-not-public", "Name the principal, or give the statement a condition.", BUCKET_POLICY)
def _(policy: Resource, _tier: str) -> Iterator[str]:
    if any(anyone(statement) and not statement.get("Condition") for statement in allows(policy)):
        yield "the policy allows everybody, without a condition"


@rule("repository-immutable-tags", "Set imageTagMutability to IMMUTABLE: a tag must name one image.", REPOSITORY)
def _(repository: Resource, _tier: str) -> Iterator[str]:
    if not repository.is_("imageTagMutability", "IMMUTABLE"):
        yield "tags can be moved"


@rule("repository-scans-images", "Set imageScanningConfiguration.scanOnPush to true.", REPOSITORY)
def _(repository: Resource, _tier: str) -> Iterator[str]:
    if not repository.is_("imageScanningConfiguration.scanOnPush", True):
        yield "images are not scanned when they are pushed"


@rule("repository-encrypted", "Give encryptionConfigurations the type KMS and the environment's key.", REPOSITORY)
def _(repository: Resource, _tier: str) -> Iterator[str]:
    if not repository.is_("encryptionConfigurations.0.encryptionType", "KMS"):
        yield "images are not encrypted with a key of ours"


@rule("file-system-encrypted", "Set encrypted to true (EFS) or kmsKeyId to the environment's key.", *FILE_SYSTEMS)
def _(file_system: Resource, _tier: str) -> Iterator[str]:
    if not (
        file_system.get("encrypted") is True or unknown(file_system.get("encrypted")) or file_system.has("kmsKeyId")
    ):
        yield "the file system is not encrypted with a key of ours"


@rule("database-encrypted", "Set storageEncrypted to true.", DB_INSTANCE, DB_CLUSTER)
def _(database: Resource, _tier: str) -> Iterator[str]:
    if not database.is_("storageEncrypted", True):
        yield "the storage is not encrypted"


@rule("database-private", "Leave publiclyAccessible false.", DB_INSTANCE, DB_MEMBER)
def _(database: Resource, _tier: str) -> Iterator[str]:
    if not database.is_("publiclyAccessible", False, None):
        yield "the database has a public address"


@rule(
    "database-kept-in-prod",
    "In prod set deletionProtection, a backupRetentionPeriod of 7 days or more, and no skipFinalSnapshot.",
    DB_INSTANCE,
    DB_CLUSTER,
)
def _(database: Resource, tier: str) -> Iterator[str]:
    if tier != "prod":
        return
    if not database.is_("deletionProtection", True):
        yield "deletion protection is off"
    if not database.is_("skipFinalSnapshot", False, None):
        yield "it would be deleted without a last snapshot"
    days = database.get("backupRetentionPeriod") or 0
    if not unknown(days) and int(days) < 7:
        yield f"backups are kept for {int(days)} days"


@rule("queue-encrypted", "Name a KMS key (SNS, Kinesis), or switch on server-side encryption (SQS, Firehose).", *QUEUES)
def _(queue: Resource, _tier: str) -> Iterator[str]:
    if not any(queue.has(path) for path in QUEUES[queue.type]):
        yield "what passes through is not encrypted"


@rule("stateful-protected-in-prod", "In prod pass ResourceOptions(protect=True).", *STATEFUL)
def _(resource: Resource, tier: str) -> Iterator[str]:
    if tier == "prod" and not resource.protect:
        yield "an up could delete or replace it with what it holds"
