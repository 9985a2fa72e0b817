"""What the parts of the Kubernetes cluster may do in AWS: the statements of their roles.

They are AWS's managed policies of the same purpose, narrowed to this cluster, its account and region: an environment's
roles are made of statements, so that whoever deploys need not be allowed to attach any policy to any role.
"""

from typing import Any

import pulumi

from infra.foundation import Foundation
from infra.policies import allow
from infra.regions import arn, partition

REGISTRIES = {
    "aws": "602401143452.dkr.ecr.us-west-2.amazonaws.com",
    "aws-cn": "918309763551.dkr.ecr.cn-north-1.amazonaws.com.cn",
    "aws-us-gov": "013241004608.dkr.ecr.us-gov-west-1.amazonaws.com",
}
"""Per partition, a registry of AWS's with the images of EKS; another region's will do."""


def control_plane(on: Foundation) -> list[dict[str, Any]]:
    """For the control plane, which AWS runs: to know the nodes, tag them, and decrypt secrets."""
    return [
        allow(
            ["ec2:CreateTags"],
            on.arn("ec2", "instance/*"),
            {"ForAnyValue:StringLike": {"aws:TagKeys": ["kubernetes.io/cluster/*"]}},
        ),
        _describe("AvailabilityZones", "DhcpOptions", "InstanceTopology", "Instances", "NetworkInterfaces", "Vpcs"),
        allow(["kms:DescribeKey", "kms:Encrypt", "kms:Decrypt"], on.storage.key_arn),
    ]


def node(on: Foundation) -> list[dict[str, Any]]:
    """For a node: to join, to hand out the roles of its pods, and to pull images, those of AWS's accounts too."""
    return [
        _describe("Instances", "InstanceTypes", "NetworkInterfaces", "Subnets", "Vpcs"),
        allow(["eks:DescribeCluster"], on.arn("eks", f"cluster/{on.naming('')}*")),
        allow(["eks-auth:AssumeRoleForPodIdentity"], on.arn("eks", f"cluster/{on.naming('')}*")),
        allow(["ecr:GetAuthorizationToken"], "*"),  # AWS knows no narrower resource for it
        allow(
            ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
            f"arn:{partition(on.region)}:ecr:*:*:repository/*",
        ),
    ]


def network_plugin(on: Foundation) -> list[dict[str, Any]]:
    """For the VPC CNI, which gives pods addresses of the network: nothing but network interfaces."""
    interfaces, instances, groups, subnets = (
        on.arn("ec2", f"{kind}/*") for kind in ("network-interface", "instance", "security-group", "subnet")
    )
    addresses = ["ec2:AssignPrivateIpAddresses", "ec2:UnassignPrivateIpAddresses"]
    return [
        _describe("Instances", "InstanceTypes", "NetworkInterfaces", "SecurityGroups", "Subnets", "Tags"),
        allow([*addresses, "ec2:DeleteNetworkInterface", "ec2:CreateTags"], interfaces),
        allow(["ec2:CreateNetworkInterface"], [interfaces, subnets, groups]),
        allow(["ec2:AttachNetworkInterface", "ec2:DetachNetworkInterface"], [interfaces, instances]),
        allow(["ec2:ModifyNetworkInterfaceAttribute"], [interfaces, instances, subnets, groups]),
    ]


def logs_and_metrics(on: Foundation, groups: list[pulumi.Output[str]]) -> list[dict[str, Any]]:
    """For the CloudWatch agent and Fluent Bit: to write to the cluster's log groups, which are there already."""
    return [
        *(on.write_logs(group) for group in groups),
        allow(["logs:DescribeLogStreams"], [on.arn("logs", pulumi.Output.concat("log-group:", g)) for g in groups]),
        allow(["cloudwatch:PutMetricData"], "*", {"StringEquals": {"cloudwatch:namespace": "ContainerInsights"}}),
        _describe("Tags", "Volumes"),
    ]


def karpenter(
    on: Foundation, cluster: str, node_role: pulumi.Input[str], queue: pulumi.Input[str]
) -> list[dict[str, Any]]:
    """For Karpenter: to start instances with this cluster's tags, and to stop those and no others.

    After the policies of its CloudFormation template (1.14), which give the actions of a launch, which follow from one
    another, all of its resources together. It makes no instance profiles: it needs no rights there.
    """

    def ec2(*kinds: str) -> list[pulumi.Output[str]]:
        return [on.arn("ec2", f"{kind}/*") for kind in kinds]

    region = partition(on.region)
    of_amazon = [f"arn:{region}:ec2:{on.region}::{kind}/*" for kind in ("image", "snapshot")]
    owned, pool = f"kubernetes.io/cluster/{cluster}", "karpenter.sh/nodepool"
    ours = {f"aws:RequestTag/{owned}": "owned", "aws:RequestTag/eks:eks-cluster-name": cluster}
    made = {
        "StringEquals": {f"aws:ResourceTag/{owned}": "owned"},
        "StringLike": {f"aws:ResourceTag/{pool}": "*"},
    }
    of_a_pool = {"StringLike": {f"aws:RequestTag/{pool}": "*"}}
    launched = ec2("fleet", "instance", "volume", "network-interface", "launch-template", "spot-instances-request")
    return [
        allow(
            ["ec2:RunInstances", "ec2:CreateFleet"],
            [*of_amazon, *ec2("security-group", "subnet", "capacity-reservation", "placement-group")],
        ),
        allow(["ec2:RunInstances", "ec2:CreateFleet"], ec2("launch-template"), made),
        allow(
            ["ec2:RunInstances", "ec2:CreateFleet", "ec2:CreateLaunchTemplate"],
            launched,
            {"StringEquals": ours} | of_a_pool,
        ),
        allow(
            ["ec2:CreateTags"],
            launched,
            {"StringEquals": ours | {"ec2:CreateAction": ["RunInstances", "CreateFleet", "CreateLaunchTemplate"]}}
            | of_a_pool,
        ),
        allow(
            ["ec2:CreateTags"],
            ec2("instance"),
            made
            | {
                "StringEqualsIfExists": {"aws:RequestTag/eks:eks-cluster-name": cluster},
                "ForAllValues:StringEquals": {
                    "aws:TagKeys": ["eks:eks-cluster-name", "karpenter.sh/nodeclaim", "Name"]
                },
            },
        ),
        allow(["ec2:TerminateInstances", "ec2:DeleteLaunchTemplate"], ec2("instance", "launch-template"), made),
        _describe(
            "CapacityReservations",
            "Images",
            "InstanceStatus",
            "InstanceTypeOfferings",
            "InstanceTypes",
            "Instances",
            "LaunchTemplates",
            "PlacementGroups",
            "SecurityGroups",
            "SpotPriceHistory",
            "Subnets",
        ),
        allow(["iam:PassRole"], node_role, {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}),
        allow(
            ["iam:GetInstanceProfile"],
            arn("iam", on.region, on.storage.account_id, "instance-profile/*", everywhere=True),
        ),
        # It looks for profiles that it made itself once, to tidy up; AWS knows no narrower resource for that.
        allow(["iam:ListInstanceProfiles"], "*"),
        allow(["eks:DescribeCluster"], on.arn("eks", f"cluster/{cluster}")),
        allow(["ssm:GetParameter"], arn("ssm", on.region, "", "parameter/aws/service/*")),
        allow(["pricing:GetProducts"], "*"),  # AWS knows no narrower resource for it
        allow(["sqs:DeleteMessage", "sqs:GetQueueUrl", "sqs:ReceiveMessage"], queue),
    ]


def _describe(*things: str) -> dict[str, Any]:
    """A look at the account's EC2, for which AWS knows no narrower resource."""
    return allow([f"ec2:Describe{thing}" for thing in things], "*")
