"""How each Pulumi resource type maps to AWS operations: one row of data a type, as far as that goes.

A row's parameters fit by name (see `embedded/calls.py`); what is written out here is only what does not.
"""

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pulumi.runtime import rpc

ACCOUNT = "123456789012"
"""The account that moto gives to every caller."""


@dataclass(frozen=True)
class Call:
    """An AWS operation, with the parameters that do not fit by name.

    `rename` maps a property to the name AWS has for it; `parameters` holds templates in which `{property}` stands for
    a value. With `takes`, only those properties are sent, and a follow-up call is left out when one is missing.
    """

    operation: str
    rename: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    takes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One resource type.

    Attributes:
        service: boto3 name of the service.
        create: the call that makes it.
        id: template of the Pulumi id, over the inputs and the answer.
        delete: the call or calls that remove it, if there are any.
        answer: the member of the create call's answer that describes the resource, if it is not the whole answer.
        auto_name: the property that Pulumi fills with a random name when the program leaves it out.
        then: follow-up calls, each made if its `takes` are given.
        update: property to the call that changes it in place; a change of any other property replaces the resource.
        put: the create call overwrites, so every change but one of `identity` is made by repeating it.
        identity: properties that say which thing a put call writes.
        outputs: templates of outputs that the answer lacks.
        prepare: turns the inputs into what the create call takes, where names alone cannot.
        left_out: what `prepare` leaves out because the emulator would get it wrong; shown to the user.
        no_effect: properties that tell the provider how to act rather than AWS what to make.
    """

    service: str
    create: Call
    id: str
    delete: Call | tuple[Call, ...] = ()
    answer: str = ""
    auto_name: str = ""
    then: tuple[Call, ...] = ()
    update: Mapping[str, Call] = field(default_factory=dict)
    put: bool = False
    identity: frozenset[str] = frozenset({"bucket"})
    outputs: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    left_out: tuple[str, ...] = ()
    no_effect: frozenset[str] = frozenset({"forceDestroy", "forceDelete", "skipDestroy"})

    def prepared(self, properties: dict[str, Any]) -> dict[str, Any]:
        """The properties as a call takes them."""
        return self.prepare(properties) if self.prepare else properties


TAGGING: dict[str, Call] = {
    "ec2": Call("CreateTags", parameters={"Resources": "{id}"}, takes=("tags",)),
    "ecr": Call("TagResource", parameters={"resourceArn": "{arn}"}, takes=("tags",)),
    "iam": Call("TagRole", parameters={"RoleName": "{id}"}, takes=("tags",)),
    "kms": Call("TagResource", parameters={"KeyId": "{id}"}, takes=("tags",)),
    "lambda": Call("TagResource", parameters={"Resource": "{arn}"}, takes=("tags",)),
    "logs": Call("TagResource", parameters={"resourceArn": "{arn}"}, takes=("tags",)),
    "s3": Call("PutBucketTagging", rename={"tags": "tagSet"}, parameters={"Bucket": "{id}"}, takes=("tags",)),
    "sagemaker": Call("AddTags", parameters={"ResourceArn": "{arn}"}, takes=("tags",)),
    "ssm": Call(
        "AddTagsToResource",
        parameters={"ResourceType": "Parameter", "ResourceId": "{id}"},
        takes=("tags",),
    ),
}
"""Per service, the call that tags a resource: after a create that takes no tags, and when only tags have changed."""


def _ec2_arn(kind: str) -> dict[str, str]:
    return {"arn": f"arn:aws:ec2:{{region}}:{{account}}:{kind}/{{id}}"}


def _bucket_part(operation: str, undo: str | None = None) -> Row:
    """A part of a bucket's configuration: a put call, named by its bucket."""
    return Row("s3", Call(operation), id="{bucket}", delete=Call(undo) if undo else (), put=True)


def _without_conditional_denials(properties: dict[str, Any]) -> dict[str, Any]:
    """Leave out what moto takes for a plain denial: it does not evaluate conditions (and speaks plain HTTP)."""
    policy = json.loads(properties["policy"])
    kept = [s for s in policy["Statement"] if not (s["Effect"] == "Deny" and "Condition" in s)]
    return properties | {"policy": json.dumps(policy | {"Statement": kept})}


def _glue_table(properties: dict[str, Any]) -> dict[str, Any]:
    """Put what describes a table where the API wants it."""
    outer = {name: value for name, value in properties.items() if name == "databaseName"}
    return outer | {"tableInput": {name: value for name, value in properties.items() if name not in outer}}


def _budget(properties: dict[str, Any]) -> dict[str, Any]:
    """Arrange a budget as the API has it; Pulumi's property names follow Terraform's here."""
    moved = ("limitAmount", "limitUnit", "notifications", "costFilters")
    return {name: value for name, value in properties.items() if name not in moved} | {
        "budgetLimit": {"amount": properties["limitAmount"], "unit": properties["limitUnit"]},
        "costFilters": {each["name"]: each["values"] for each in properties["costFilters"]},
        "notificationsWithSubscribers": [
            {
                "notification": each,
                "subscribers": [
                    {"subscriptionType": "EMAIL", "address": email} for email in each["subscriberEmailAddresses"]
                ],
            }
            for each in properties["notifications"]
        ],
    }


def _lambda_code(properties: dict[str, Any]) -> dict[str, Any]:
    """Zip an archive of text assets, as the provider does before it uploads."""
    archive = properties.pop("code", None)
    if archive is None:
        return properties
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name, asset in archive["assets"].items():
            if asset.get(rpc._special_sig_key) != rpc._special_asset_sig or "text" not in asset:
                raise ValueError(f"code: {name} is not a text asset; the emulated AWS takes only those")
            file.writestr(name, asset["text"])
    return properties | {"zipFile": content.getvalue()}


ROWS: dict[str, Row] = {
    # Network
    "aws:ec2/vpc:Vpc": Row(
        "ec2",
        Call("CreateVpc"),
        id="{vpcId}",
        answer="Vpc",
        delete=Call("DeleteVpc"),
        then=tuple(  # one attribute a call, says the API
            Call("ModifyVpcAttribute", parameters={"VpcId": "{id}"}, takes=(name,))
            for name in ("enableDnsSupport", "enableDnsHostnames")
        ),
        outputs=_ec2_arn("vpc"),
    ),
    "aws:ec2/subnet:Subnet": Row(
        "ec2",
        Call("CreateSubnet"),
        id="{subnetId}",
        answer="Subnet",
        delete=Call("DeleteSubnet"),
        then=(Call("ModifySubnetAttribute", parameters={"SubnetId": "{id}"}, takes=("mapPublicIpOnLaunch",)),),
        outputs=_ec2_arn("subnet"),
    ),
    "aws:ec2/internetGateway:InternetGateway": Row(
        "ec2",
        Call("CreateInternetGateway"),
        id="{internetGatewayId}",
        answer="InternetGateway",
        delete=(
            Call("DetachInternetGateway", parameters={"InternetGatewayId": "{id}"}, takes=("vpcId",)),
            Call("DeleteInternetGateway"),
        ),
        then=(Call("AttachInternetGateway", parameters={"InternetGatewayId": "{id}"}, takes=("vpcId",)),),
        outputs=_ec2_arn("internet-gateway"),
    ),
    "aws:ec2/eip:Eip": Row(
        "ec2",
        Call("AllocateAddress"),
        id="{allocationId}",
        delete=Call("ReleaseAddress", parameters={"AllocationId": "{id}"}),
        outputs=_ec2_arn("elastic-ip"),
    ),
    "aws:ec2/natGateway:NatGateway": Row(
        "ec2",
        Call("CreateNatGateway"),
        id="{natGatewayId}",
        answer="NatGateway",
        delete=(Call("DeleteNatGateway"), Call("DisassociateAddress", takes=("publicIp",))),
    ),
    "aws:ec2/routeTable:RouteTable": Row(
        "ec2",
        Call("CreateRouteTable"),
        id="{routeTableId}",
        answer="RouteTable",
        delete=Call("DeleteRouteTable"),
        outputs=_ec2_arn("route-table"),
    ),
    "aws:ec2/route:Route": Row(
        "ec2",
        Call("CreateRoute"),
        id="r-{routeTableId}-{destinationCidrBlock}",
        delete=Call("DeleteRoute", parameters={"DestinationCidrBlock": "{destinationCidrBlock}"}),
    ),
    "aws:ec2/routeTableAssociation:RouteTableAssociation": Row(
        "ec2",
        Call("AssociateRouteTable"),
        id="{associationId}",
        delete=Call("DisassociateRouteTable", parameters={"AssociationId": "{id}"}),
    ),
    "aws:ec2/vpcEndpoint:VpcEndpoint": Row(
        "ec2",
        Call("CreateVpcEndpoint"),
        id="{vpcEndpointId}",
        answer="VpcEndpoint",
        delete=Call("DeleteVpcEndpoints", parameters={"VpcEndpointIds": "{id}"}),
        outputs=_ec2_arn("vpc-endpoint"),
    ),
    "aws:ec2/flowLog:FlowLog": Row(
        "ec2",
        Call(
            "CreateFlowLogs",
            rename={"vpcId": "ResourceIds"},
            parameters={"ResourceType": "VPC"},
        ),
        id="{flowLogIds}",
        delete=Call("DeleteFlowLogs", parameters={"FlowLogIds": "{id}"}),
    ),
    "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup": Row(  # every VPC has one: it is found, not made
        "ec2",
        Call(
            "DescribeSecurityGroups",
            parameters={
                "Filters": [
                    {"Name": "vpc-id", "Values": ["{vpcId}"]},
                    {"Name": "group-name", "Values": ["default"]},
                ]
            },
            takes=("vpcId",),
        ),
        id="{groupId}",
        then=(
            Call(
                "RevokeSecurityGroupEgress",
                parameters={
                    "GroupId": "{id}",
                    "IpPermissions": [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}],
                },
                takes=("vpcId",),
            ),
        ),
    ),
    "aws:ec2/securityGroup:SecurityGroup": Row(
        "ec2",
        Call("CreateSecurityGroup", rename={"name": "GroupName"}),
        id="{groupId}",
        delete=Call("DeleteSecurityGroup", parameters={"GroupId": "{id}"}),
        auto_name="name",
        outputs=_ec2_arn("security-group"),
    ),
    # Storage
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
        left_out=("denials on a condition, such as of plain HTTP",),
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
    # Catalog, databases
    "aws:glue/catalogDatabase:CatalogDatabase": Row(
        "glue",
        Call("CreateDatabase"),
        id="{name}",
        delete=Call("DeleteDatabase", parameters={"Name": "{id}"}),
        outputs={"arn": "arn:aws:glue:{region}:{account}:database/{name}"},
    ),
    "aws:glue/catalogTable:CatalogTable": Row(
        "glue",
        Call("CreateTable"),
        id="{databaseName}:{name}",
        delete=Call("DeleteTable", rename={"name": "Name"}),
        outputs={"arn": "arn:aws:glue:{region}:{account}:table/{databaseName}/{name}"},
        prepare=_glue_table,
    ),
    "aws:athena/workgroup:Workgroup": Row(
        "athena",
        Call("CreateWorkGroup"),
        id="{name}",
        delete=Call("DeleteWorkGroup", parameters={"WorkGroup": "{id}", "RecursiveDeleteOption": True}),
        outputs={"arn": "arn:aws:athena:{region}:{account}:workgroup/{name}"},
    ),
    "aws:rds/subnetGroup:SubnetGroup": Row(
        "rds",
        Call(
            "CreateDBSubnetGroup",
            rename={"name": "DBSubnetGroupName", "description": "DBSubnetGroupDescription"},
            parameters={"DBSubnetGroupDescription": "Managed by Pulumi"},
        ),
        id="{name}",
        delete=Call("DeleteDBSubnetGroup", parameters={"DBSubnetGroupName": "{id}"}),
        answer="DBSubnetGroup",
        auto_name="name",
    ),
    "aws:rds/cluster:Cluster": Row(
        "rds",
        Call(
            "CreateDBCluster",
            rename={
                "clusterIdentifier": "DBClusterIdentifier",
                "enabledCloudwatchLogsExports": "EnableCloudwatchLogsExports",
                "iamDatabaseAuthenticationEnabled": "EnableIAMDatabaseAuthentication",
            },
        ),
        id="{clusterIdentifier}",
        delete=Call("DeleteDBCluster", parameters={"DBClusterIdentifier": "{id}", "SkipFinalSnapshot": True}),
        answer="DBCluster",
        outputs={"arn": "arn:aws:rds:{region}:{account}:cluster:{clusterIdentifier}"},
        no_effect=frozenset({"skipFinalSnapshot", "finalSnapshotIdentifier"}),
    ),
    "aws:rds/clusterInstance:ClusterInstance": Row(
        "rds",
        Call(
            "CreateDBInstance",
            rename={
                "identifier": "DBInstanceIdentifier",
                "clusterIdentifier": "DBClusterIdentifier",
                "instanceClass": "DBInstanceClass",
                "performanceInsightsEnabled": "EnablePerformanceInsights",
            },
        ),
        id="{identifier}",
        delete=Call("DeleteDBInstance", parameters={"DBInstanceIdentifier": "{id}", "SkipFinalSnapshot": True}),
        answer="DBInstance",
    ),
    # Audit and cost
    "aws:cloudtrail/trail:Trail": Row(
        "cloudtrail",
        Call("CreateTrail"),
        id="{name}",
        delete=Call("DeleteTrail", parameters={"Name": "{id}"}),
        then=(Call("PutEventSelectors", parameters={"TrailName": "{id}"}, takes=("advancedEventSelectors",)),),
        outputs={"arn": "{trailARN}"},
    ),
    "aws:budgets/budget:Budget": Row(
        "budgets",
        Call("CreateBudget", parameters={"AccountId": "{account}"}, rename={"name": "BudgetName"}),
        id="{account}:{name}",
        delete=Call("DeleteBudget", parameters={"AccountId": "{account}", "BudgetName": "{name}"}),
        prepare=_budget,
    ),
    # Registry
    "aws:ecr/repository:Repository": Row(
        "ecr",
        Call(
            "CreateRepository", rename={"name": "repositoryName", "encryptionConfigurations": "encryptionConfiguration"}
        ),
        id="{name}",
        answer="repository",
        delete=Call("DeleteRepository", parameters={"repositoryName": "{id}", "force": True}),
        outputs={"repositoryUrl": "{account}.dkr.ecr.{region}.amazonaws.com/{name}", "arn": "{repositoryArn}"},
    ),
    "aws:ecr/lifecyclePolicy:LifecyclePolicy": Row(
        "ecr",
        Call(
            "PutLifecyclePolicy",
            rename={"repository": "repositoryName", "policy": "lifecyclePolicyText"},
        ),
        id="{repository}",
        delete=Call("DeleteLifecyclePolicy"),
        put=True,
        identity=frozenset({"repository"}),
    ),
    "aws:sagemaker/modelPackageGroup:ModelPackageGroup": Row(
        "sagemaker",
        Call("CreateModelPackageGroup"),
        id="{modelPackageGroupName}",
        delete=Call("DeleteModelPackageGroup"),
        outputs={"arn": "{modelPackageGroupArn}"},
    ),
    # Identity
    "aws:iam/role:Role": Row(
        "iam",
        Call(
            "CreateRole",
            rename={"name": "RoleName", "assumeRolePolicy": "AssumeRolePolicyDocument"},
        ),
        id="{name}",
        answer="Role",
        delete=Call("DeleteRole", parameters={"RoleName": "{id}"}),
        auto_name="name",
        update={
            "assumeRolePolicy": Call(
                "UpdateAssumeRolePolicy", parameters={"RoleName": "{id}", "PolicyDocument": "{assumeRolePolicy}"}
            )
        },
        no_effect=frozenset({"forceDetachPolicies"}),
    ),
    "aws:iam/rolePolicy:RolePolicy": Row(
        "iam",
        Call("PutRolePolicy", rename={"role": "RoleName", "name": "PolicyName", "policy": "PolicyDocument"}),
        id="{role}:{name}",
        delete=Call("DeleteRolePolicy", rename={"role": "RoleName", "name": "PolicyName"}),
        auto_name="name",
        put=True,
        identity=frozenset({"role", "name"}),
    ),
    "aws:iam/openIdConnectProvider:OpenIdConnectProvider": Row(
        "iam",
        Call("CreateOpenIDConnectProvider", rename={"clientIdLists": "ClientIDList"}),
        id="{openIDConnectProviderArn}",
        delete=Call("DeleteOpenIDConnectProvider", parameters={"OpenIDConnectProviderArn": "{id}"}),
        update={"tags": Call("TagOpenIDConnectProvider", parameters={"OpenIDConnectProviderArn": "{id}"})},
        outputs={"arn": "{id}"},
    ),
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": Row(
        "iam",
        Call("AttachRolePolicy", rename={"role": "RoleName"}),
        id="{role}-{policyArn}",
        delete=Call("DetachRolePolicy", rename={"role": "RoleName"}),
    ),
    # Inference
    "aws:ssm/parameter:Parameter": Row(
        "ssm",
        Call("PutParameter"),
        id="{name}",
        delete=Call("DeleteParameter", parameters={"Name": "{id}"}),
        update={
            name: Call("PutParameter", parameters={"Overwrite": True}, takes=("name", "type", "value", "description"))
            for name in ("value", "description")
        },
        outputs={"arn": "arn:aws:ssm:{region}:{account}:parameter{name}"},
    ),
    "aws:cloudwatch/logGroup:LogGroup": Row(
        "logs",
        Call("CreateLogGroup", rename={"name": "logGroupName"}),
        id="{name}",
        delete=Call("DeleteLogGroup", parameters={"logGroupName": "{id}"}),
        then=(Call("PutRetentionPolicy", parameters={"logGroupName": "{id}"}, takes=("retentionInDays",)),),
        update={"retentionInDays": Call("PutRetentionPolicy", parameters={"logGroupName": "{id}"})},
        outputs={"arn": "arn:aws:logs:{region}:{account}:log-group:{name}"},
    ),
    "aws:lambda/function:Function": Row(
        "lambda",
        Call("CreateFunction", rename={"name": "FunctionName"}),
        id="{name}",
        delete=Call("DeleteFunction", parameters={"FunctionName": "{id}"}),
        prepare=_lambda_code,
        update={
            **{
                name: Call("UpdateFunctionConfiguration", parameters={"FunctionName": "{id}"})
                for name in ("description", "environment", "memorySize", "timeout", "role")
            },
            "imageUri": Call("UpdateFunctionCode", parameters={"FunctionName": "{id}"}),
        },
        outputs={
            "arn": "{functionArn}",
            "invokeArn": "arn:aws:apigateway:{region}:lambda:path/2015-03-31/functions/{functionArn}/invocations",
        },
    ),
    "aws:lambda/permission:Permission": Row(
        "lambda",
        Call("AddPermission", rename={"function": "FunctionName"}),
        id="{statementId}",
        delete=Call("RemovePermission", rename={"function": "FunctionName"}),
        auto_name="statementId",
    ),
    "aws:apigatewayv2/api:Api": Row(
        "apigatewayv2",
        Call("CreateApi"),
        id="{apiId}",
        delete=Call("DeleteApi"),
        update={
            **{
                name: Call("UpdateApi", parameters={"ApiId": "{id}"})
                for name in ("name", "description", "corsConfiguration", "disableExecuteApiEndpoint")
            },
            "tags": Call("TagResource", parameters={"ResourceArn": "{arn}"}, takes=("tags",)),
        },
        outputs={
            "arn": "arn:aws:apigateway:{region}::/apis/{id}",
            "executionArn": "arn:aws:execute-api:{region}:{account}:{id}",
        },
    ),
    "aws:apigatewayv2/integration:Integration": Row(
        "apigatewayv2",
        Call("CreateIntegration"),
        id="{integrationId}",
        delete=Call("DeleteIntegration", parameters={"IntegrationId": "{id}"}),
    ),
    "aws:apigatewayv2/route:Route": Row(
        "apigatewayv2",
        Call("CreateRoute"),
        id="{routeId}",
        delete=Call("DeleteRoute", parameters={"RouteId": "{id}"}),
    ),
    "aws:apigatewayv2/stage:Stage": Row(
        "apigatewayv2",
        Call("CreateStage", rename={"name": "StageName"}),
        id="{name}",
        delete=Call("DeleteStage", parameters={"StageName": "{id}"}),
        update={
            name: Call("UpdateStage", rename={"name": "StageName"}, parameters={"StageName": "{id}"})
            for name in ("accessLogSettings", "defaultRouteSettings", "autoDeploy", "description")
        },
        outputs={
            "arn": "arn:aws:apigateway:{region}::/apis/{apiId}/stages/{name}",
            "invokeUrl": "https://{apiId}.execute-api.{region}.amazonaws.com/",
        },
    ),
}
