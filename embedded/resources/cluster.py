"""The Kubernetes cluster: what AWS has of it. There is no API server behind it, so what is in it is recorded only."""

from collections.abc import Callable, Mapping
from typing import Any

from embedded.resources.row import Call, Row


def _cluster(properties: dict[str, Any]) -> dict[str, Any]:
    """A cluster as the API has it, where lists and switches are Terraform's in Pulumi."""
    changed = {name: value for name, value in properties.items() if name not in ("vpcConfig", "enabledClusterLogTypes")}
    encryption = properties.get("encryptionConfig")
    return changed | {
        "resourcesVpcConfig": {name: value for name, value in properties["vpcConfig"].items() if value is not None},
        "logging": {"clusterLogging": [{"types": properties.get("enabledClusterLogTypes", []), "enabled": True}]},
        "encryptionConfig": [encryption] if encryption else [],
    }


def _security_group(client: Callable[[str], Any], outputs: Mapping[str, Any]) -> dict[str, Any]:
    """The security group that EKS makes for a cluster's nodes."""
    ec2 = client("ec2")
    (subnet, *_) = ec2.describe_subnets(SubnetIds=outputs["vpcConfig"]["subnetIds"])["Subnets"]
    group = ec2.create_security_group(
        GroupName=f"eks-cluster-sg-{outputs['name']}", Description="Made by EKS", VpcId=subnet["VpcId"]
    )
    return {"vpcConfig": outputs["vpcConfig"] | {"clusterSecurityGroupId": group["GroupId"]}}


def _lustre(properties: dict[str, Any]) -> dict[str, Any]:
    """A file system as the API has it: what is Lustre's alone stands in a structure of its own."""
    own = ("automaticBackupRetentionDays", "dataCompressionType", "deploymentType", "perUnitStorageThroughput")
    return {name: value for name, value in properties.items() if name not in own} | {
        "subnetIds": [properties["subnetIds"]],
        "lustreConfiguration": {name: properties[name] for name in own if name in properties},
    }


ROWS: dict[str, Row] = {
    "aws:eks/cluster:Cluster": Row(
        "eks",
        Call("CreateCluster"),
        id="{name}",
        delete=Call("DeleteCluster", parameters={"name": "{id}"}),
        answer="cluster",
        prepare=_cluster,
        outputs={"certificateAuthority": {"data": ""}},  # nothing answers at the endpoint
        unasked=_security_group,
    ),
    "aws:eks/nodeGroup:NodeGroup": Row(
        "eks",
        Call(
            "CreateNodegroup",
            rename={"nodeGroupName": "nodegroupName", "nodeRoleArn": "nodeRole", "subnetIds": "subnets"},
        ),
        id="{clusterName}:{nodeGroupName}",
        delete=Call("DeleteNodegroup", parameters={"clusterName": "{clusterName}", "nodegroupName": "{nodeGroupName}"}),
        answer="nodegroup",
        auto_name="nodeGroupName",
        outputs={"arn": "{nodegroupArn}"},
    ),
    "aws:fsx/lustreFileSystem:LustreFileSystem": Row(
        "fsx",
        Call("CreateFileSystem", parameters={"FileSystemType": "LUSTRE"}),
        id="{fileSystemId}",
        delete=Call("DeleteFileSystem", parameters={"FileSystemId": "{id}"}),
        answer="FileSystem",
        prepare=_lustre,
        outputs={"arn": "{resourceArn}", "mountName": "fsx"},
    ),
    "aws:sqs/queue:Queue": Row(
        "sqs",
        Call(
            "CreateQueue",
            rename={"name": "QueueName"},
            parameters={
                "Attributes": {
                    "MessageRetentionPeriod": "{messageRetentionSeconds}",
                    "SqsManagedSseEnabled": "{sqsManagedSseEnabled}",
                }
            },
        ),
        id="{queueUrl}",
        delete=Call("DeleteQueue", parameters={"QueueUrl": "{id}"}),
        outputs={"url": "{queueUrl}", "arn": "arn:aws:sqs:{region}:{account}:{name}"},
        no_effect=frozenset({"messageRetentionSeconds", "sqsManagedSseEnabled"}),
    ),
    "aws:sqs/queuePolicy:QueuePolicy": Row(
        "sqs",
        Call(
            "SetQueueAttributes", parameters={"QueueUrl": "{queueUrl}", "Attributes": {"Policy": "{policy}"}}, takes=()
        ),
        id="{queueUrl}",
        put=True,
        identity=frozenset({"queueUrl"}),
        no_effect=frozenset({"policy"}),
    ),
    "aws:cloudwatch/eventRule:EventRule": Row(
        "events",
        Call("PutRule"),
        id="{name}",
        delete=Call("DeleteRule", parameters={"Name": "{id}"}),
        put=True,
        identity=frozenset({"name"}),
        outputs={"arn": "{ruleArn}"},
    ),
    "aws:cloudwatch/eventTarget:EventTarget": Row(
        "events",
        Call("PutTargets", parameters={"Targets": [{"Id": "{rule}", "Arn": "{arn}"}]}),
        id="{rule}",
        delete=Call("RemoveTargets", parameters={"Rule": "{rule}", "Ids": ["{rule}"]}),
        put=True,
        identity=frozenset({"rule"}),
        no_effect=frozenset({"arn"}),
    ),
}
