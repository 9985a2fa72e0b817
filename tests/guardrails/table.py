"""One row a rule: a stack that breaks it, and one that keeps it. What a row does not mention is no part of its rule."""

import json

from infra.guardrails import compute, identity, kubernetes, network, observability, storage, workflows
from infra.guardrails.rule import Resource


def a(type_, name="it", /, protect=False, references=None, **properties):
    urn = f"urn:pulumi:test::ml-platform::{type_}::{name}"
    refers = {key: frozenset(other.urn for other in others) for key, others in (references or {}).items()}
    return Resource(type_, name, urn, properties, protect, refers)


def doc(effect="Allow", action="s3:GetObject", resource="arn:aws:s3:::lake/*", **more):
    return json.dumps({"Statement": [{"Effect": effect, "Action": action, "Resource": resource, **more}]})


def bucket_with(type_, **properties):
    return [BUCKET, a(type_, references={"bucket": [BUCKET]}, **properties)]


def pod(image="repo/app:1.4.2", host=False, **context):
    container = {"name": "app", "image": image, "securityContext": context}
    spec = {"containers": [container], "hostNetwork": host}
    return [a("kubernetes:apps/v1:Deployment", spec={"template": {"spec": spec}})]


BUCKET = a(storage.BUCKET)
GROUP = a(network.GROUP)
BALANCER = a(network.BALANCERS[0], references={"securityGroups": [GROUP]})
TAGS = {"Project": "mlp", "Environment": "dev", "ManagedBy": "pulumi"}
POLICY, ROLE, ATTACHMENT = (
    identity.POLICIES[0],
    "aws:iam/role:Role",
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
)
TLS = doc("Deny", "s3:*", "*", Principal="*", Condition={"Bool": {"aws:SecureTransport": "false"}})
DEFAULT_GROUP = "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup"
WORLD = {"cidrBlocks": ["0.0.0.0/0"], "fromPort": 22, "toPort": 22}


def of(type_, bad, good):
    """The usual row: one resource with these properties, or those."""
    return [a(type_, **bad)], [a(type_, **good)]


ARN = "arn:aws:kms:eu-west-1:123456789012:key/1"
TABLE = {
    "bucket-public-access-block": ([BUCKET], bucket_with(storage.PUBLIC_ACCESS_BLOCK)),
    "public-access-block-complete": of(
        storage.PUBLIC_ACCESS_BLOCK,
        {"blockPublicAcls": True},
        dict.fromkeys(("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets"), True),
    ),
    "bucket-encrypted": ([BUCKET], bucket_with(storage.ENCRYPTION)),
    "bucket-versioned": (
        bucket_with(storage.VERSIONING, versioningConfiguration={"status": "Suspended"}),
        bucket_with(storage.VERSIONING, versioningConfiguration={"status": "Enabled"}),
    ),
    "bucket-tls-only": (
        bucket_with(storage.BUCKET_POLICY, policy=doc()),
        bucket_with(storage.BUCKET_POLICY, policy=TLS),
    ),
    "bucket-policy-not-public": of(
        storage.BUCKET_POLICY, {"policy": doc(Principal={"AWS": "*"})}, {"policy": doc(Principal={"AWS": ARN})}
    ),
    "repository-immutable-tags": of(storage.REPOSITORY, {}, {"imageTagMutability": "IMMUTABLE"}),
    "repository-scans-images": of(storage.REPOSITORY, {}, {"imageScanningConfiguration": {"scanOnPush": True}}),
    "repository-encrypted": of(storage.REPOSITORY, {}, {"encryptionConfigurations": [{"encryptionType": "KMS"}]}),
    "file-system-encrypted": of(storage.FILE_SYSTEMS[0], {"encrypted": False}, {"encrypted": True}),
    "database-encrypted": of(storage.DB_CLUSTER, {}, {"storageEncrypted": True}),
    "database-private": of(storage.DB_MEMBER, {"publiclyAccessible": True}, {}),
    "database-kept-in-prod": of(
        storage.DB_CLUSTER,
        {"deletionProtection": True, "backupRetentionPeriod": 1},
        {"deletionProtection": True, "backupRetentionPeriod": 14},
    ),
    "queue-encrypted": of("aws:sqs/queue:Queue", {}, {"sqsManagedSseEnabled": True}),
    "stateful-protected-in-prod": ([BUCKET], [a(storage.BUCKET, protect=True)]),
    "key-rotates": of("aws:kms/key:Key", {}, {"enableKeyRotation": True}),
    "iam-no-wildcard-action": of(POLICY, {"policy": doc(action=["s3:*"])}, {"policy": doc()}),
    "iam-no-wildcard-resource": of(
        POLICY, {"policy": doc(resource="*")}, {"policy": doc(action="ecr:GetAuthorizationToken", resource="*")}
    ),
    "iam-no-broad-managed-policy": of(
        ATTACHMENT,
        {"policyArn": "arn:aws:iam::aws:policy/AmazonSageMakerFullAccess"},
        {"policyArn": "arn:aws:iam::aws:policy/AmazonEKSClusterPolicy"},
    ),
    "role-trusts-no-stranger": of(
        ROLE,
        {"assumeRolePolicy": doc(action="sts:AssumeRole", Principal={"AWS": "*"})},
        {"assumeRolePolicy": doc(action="sts:AssumeRole", Principal={"Service": "lambda.amazonaws.com"})},
    ),
    "secret-own-key": of("aws:secretsmanager/secret:Secret", {}, {"kmsKeyId": ARN}),
    "parameter-no-plain-secret": of(
        "aws:ssm/parameter:Parameter",
        {"name": "/mlp/dev/db-password", "type": "String"},
        {"name": "/mlp/dev/db-password", "type": "SecureString", "keyId": ARN},
    ),
    "ingress-not-open": (
        [a(network.GROUP, ingress=[WORLD])],
        [
            GROUP,
            BALANCER,
            a(
                network.INGRESS,
                references={"securityGroupId": [GROUP]},
                cidrIpv4="0.0.0.0/0",
                fromPort=443,
                toPort=443,
            ),
        ],
    ),
    "default-security-group-empty": of(DEFAULT_GROUP, {"ingress": [WORLD]}, {}),
    "subnet-no-public-ip": of("aws:ec2/subnet:Subnet", {"mapPublicIpOnLaunch": True}, {}),
    "imdsv2-required": of(network.TEMPLATE, {}, {"metadataOptions": {"httpTokens": "required"}}),
    "volume-encrypted": of(
        network.TEMPLATE,
        {"blockDeviceMappings": [{"ebs": {"volumeSize": 50}}]},
        {"blockDeviceMappings": [{"ebs": {"volumeSize": 50, "encrypted": "true"}}]},
    ),
    "listener-https": of(network.LISTENERS[0], {"protocol": "HTTP"}, {"protocol": "HTTPS"}),
    "balancer-access-logs": of(network.BALANCERS[0], {}, {"accessLogs": {"enabled": True, "bucket": "logs"}}),
    "balancer-kept-in-prod": of(network.BALANCERS[0], {}, {"enableDeletionProtection": True}),
    "api-authenticated": of("aws:apigatewayv2/route:Route", {}, {"authorizationType": "AWS_IAM"}),
    "api-method-authenticated": of(
        "aws:apigateway/method:Method", {"authorization": "NONE"}, {"authorization": "AWS_IAM"}
    ),
    "api-access-logs": of(network.STAGE, {}, {"accessLogSettings": {"destinationArn": ARN, "format": "{}"}}),
    "api-throttled": of(
        network.STAGE, {}, {"defaultRouteSettings": {"throttlingRateLimit": 10, "throttlingBurstLimit": 20}}
    ),
    "function-image-by-digest": of(
        compute.FUNCTION, {"imageUri": "repo/app:latest"}, {"imageUri": "repo/app@sha256:" + "a" * 64}
    ),
    "job-image-by-digest": of(
        "aws:batch/jobDefinition:JobDefinition",
        {"containerProperties": json.dumps({"image": "repo/train:latest"})},
        {"containerProperties": json.dumps({"image": "repo/train@sha256:" + "a" * 64})},
    ),
    "function-runtime-supported": of(compute.FUNCTION, {"runtime": "python3.8"}, {"runtime": "python3.13"}),
    "function-url-authenticated": of(
        "aws:lambda/functionUrl:FunctionUrl", {"authorizationType": "NONE"}, {"authorizationType": "AWS_IAM"}
    ),
    "gpu-scales-to-zero": of(
        compute.NODES,
        {"instanceTypes": ["g5.xlarge"], "scalingConfig": {"minSize": 1}},
        {"instanceTypes": ["g5.xlarge"], "scalingConfig": {"minSize": 0}},
    ),
    "cluster-secrets-encrypted": of(kubernetes.CLUSTER, {}, {"encryptionConfig": {"resources": ["secrets"]}}),
    "cluster-endpoint-private": of(
        kubernetes.CLUSTER,
        {"vpcConfig": {"endpointPublicAccess": True}},
        {"vpcConfig": {"endpointPublicAccess": True, "publicAccessCidrs": ["192.0.2.0/24"]}},
    ),
    "cluster-logs": of(
        kubernetes.CLUSTER,
        {"enabledClusterLogTypes": ["api"]},
        {"enabledClusterLogTypes": ["api", "audit", "authenticator"]},
    ),
    "cluster-entered-by-the-listed": of(
        kubernetes.CLUSTER,
        {},
        {"accessConfig": {"authenticationMode": "API", "bootstrapClusterCreatorAdminPermissions": False}},
    ),
    "node-class-hardened": of(
        kubernetes.NODE_CLASS,
        {"spec": {"blockDeviceMappings": [{"ebs": {"volumeSize": "50Gi"}}]}},
        {
            "spec": {
                "metadataOptions": {"httpTokens": "required"},
                "blockDeviceMappings": [{"ebs": {"volumeSize": "50Gi", "encrypted": True}}],
            }
        },
    ),
    "node-pool-bounded": of(
        kubernetes.NODE_POOL, {"spec": {"template": {}}}, {"spec": {"limits": {"nvidia.com/gpu": "8"}}}
    ),
    "namespace-pod-security": of(
        kubernetes.NAMESPACE,
        {"metadata": {"name": "jobs"}},
        {"metadata": {"labels": {kubernetes.STANDARD: "restricted"}}},
    ),
    "sagemaker-encrypted": of(
        compute.ENDPOINT, {"productionVariants": [{"instanceType": "ml.c7i.large"}]}, {"kmsKeyArn": ARN}
    ),
    "sagemaker-in-vpc": of(compute.DOMAIN, {}, {"appNetworkAccessType": "VpcOnly"}),
    "logs-expire": of(compute.LOG_GROUP, {}, {"retentionInDays": 30}),
    "logs-encrypted": of(compute.LOG_GROUP, {}, {"kmsKeyId": ARN}),
    "tagged": of("aws:ec2/vpc:Vpc", {"tags": {"Project": "mlp"}}, {"tags": TAGS}),
    "metrics-encrypted": of(observability.METRICS, {}, {"kmsKeyArn": ARN}),
    "metrics-log-failures": of(observability.METRICS, {}, {"loggingConfiguration": {"logGroupArn": ARN}}),
    "grafana-own-role": of(
        observability.GRAFANA, {"permissionType": "SERVICE_MANAGED"}, {"permissionType": "CUSTOMER_MANAGED"}
    ),
    "grafana-token-short-lived": of(observability.TOKEN, {"secondsToLive": 90 * 86400}, {"secondsToLive": 14 * 86400}),
    "function-size": of(compute.FUNCTION, {"memorySize": 64}, {"memorySize": 1024, "timeout": 10}),
    "fargate-size": of(
        compute.TASK,
        {"requiresCompatibilities": ["FARGATE"], "cpu": "1024", "memory": "1024"},
        {"requiresCompatibilities": ["FARGATE"], "cpu": "1024", "memory": "2048"},
    ),
    "task-not-privileged": of(
        compute.TASK,
        {"containerDefinitions": json.dumps([{"name": "app", "image": "repo/app:1", "privileged": True}])},
        {"containerDefinitions": json.dumps([{"image": "app@sha256:" + "a" * 64, "readonlyRootFilesystem": True}])},
    ),
    "launched-tagged": of(
        compute.TEMPLATE,
        {"tagSpecifications": [{"resourceType": "instance", "tags": TAGS}]},
        {"tagSpecifications": [{"resourceType": kind, "tags": TAGS} for kind in ("instance", "volume")]},
    ),
    "state-machine-valid": of(
        workflows.MACHINE,
        {"definition": json.dumps({"StartAt": "A", "States": {"A": {"Type": "Pass", "Next": "B"}}})},
        {"definition": json.dumps({"StartAt": "A", "States": {"A": {"Type": "Pass", "End": True}}})},
    ),
    "state-machine-logged": of(workflows.MACHINE, {}, {"loggingConfiguration": {"level": "ALL"}}),
    "pod-not-privileged": (pod(privileged=True), pod(privileged=False)),
    "pod-not-on-host": (pod(host=True), pod()),
    "pod-image-pinned": (pod("repo/app:latest"), pod()),
}
