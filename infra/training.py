"""Training: what jobs have in common wherever they run, and what SageMaker's training jobs run with."""

from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.foundation import Foundation
from infra.identity import WORK
from infra.idle import idle_gpu_alarm
from infra.instances import INSTANCES
from infra.network import ANYWHERE
from infra.policies import allow, document
from infra.settings.training import JobLimits, TrainingSettings

SAGEMAKER_UTILISATION = (
    'SELECT AVG(GPUUtilization) FROM SCHEMA("/aws/sagemaker/TrainingJobs", Host) GROUP BY Host ORDER BY AVG() ASC'
)
"""What SageMaker itself writes each minute for the hosts of a job that have GPUs, all GPUs of a host added up."""


@dataclass
class TrainingArgs:
    """What trains, and who is told of GPUs that do nothing."""

    settings: TrainingSettings
    role: aws.iam.Role
    topic_arn: pulumi.Input[str]


class Training(pulumi.ComponentResource):
    """The network's side of training jobs, the role's rights in it, and an alarm for idle GPUs.

    A job itself is no resource: `mlp submit` starts it, with what `outputs` tells.
    """

    security_group: aws.ec2.SecurityGroup
    image: pulumi.Output[str] | None
    """The training image by its digest, None as long as the settings name none."""

    def __init__(
        self, name: str, args: TrainingArgs, foundation: Foundation, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ml-platform:infra:Training", name, None, opts)
        self._on, self._args = foundation, args
        self._child = pulumi.ResourceOptions(parent=self)
        self.image = self._image()
        self.security_group = self._security_group()
        if args.settings.sagemaker:
            self._run_in_vpc()
            idle_gpu_alarm(
                "sagemaker",
                SAGEMAKER_UTILISATION,
                args.settings.idle_minutes,
                args.topic_arn,
                foundation,
                self._child,
            )
        self.register_outputs({"security_group": self.security_group.id, "image": self.image})

    def outputs(self, batch: dict[str, Any] | None, eks: dict[str, Any] | None = None) -> dict[str, Any]:
        """What starts a job; see `contract.outputs.TrainingOutputs`.

        Args:
            batch: what Batch adds, None if it is off.
            eks: what the cluster adds, None if there is none.
        """
        settings, artifacts = self._args.settings, self._on.storage.buckets["artifacts"]
        return {
            "backend": settings.backend,
            "name": self._on.naming("").rstrip("-"),
            "image": self.image,
            "work": pulumi.Output.concat("s3://", artifacts.bucket, f"/{WORK.rstrip('/')}"),
            "subnets": self._on.network.private_subnet_ids,
            "security_group": self.security_group.id,
            "sagemaker": limit_outputs(settings.sagemaker) if settings.sagemaker else None,
            "batch": batch,
            "eks": eks,
        }

    def _image(self) -> pulumi.Output[str] | None:
        digest = self._args.settings.image_digest
        if not digest:
            return None
        return pulumi.Output.concat(self._on.registry.repositories["training"].repository_url, "@", digest)

    def _security_group(self) -> aws.ec2.SecurityGroup:
        """Jobs talk to their own hosts (torchrun, and SageMaker's encryption of it) and to AWS, and nobody to them."""
        name = self._on.naming("training")
        itself: dict[str, Any] = {
            "description": "Hosts of the same job",
            "protocol": "-1",
            "from_port": 0,
            "to_port": 0,
            "self": True,
        }
        return aws.ec2.SecurityGroup(
            name,
            vpc_id=self._on.network.vpc_id,
            description="Training jobs: one another, and AWS over HTTPS",
            ingress=[aws.ec2.SecurityGroupIngressArgs(**itself)],
            egress=[
                aws.ec2.SecurityGroupEgressArgs(**itself),
                {
                    "description": "AWS and its registries",
                    "protocol": "tcp",
                    "from_port": 443,
                    "to_port": 443,
                    "cidr_blocks": [ANYWHERE],
                },
            ],
            tags={"Name": name},
            opts=self._child,
        )

    def _run_in_vpc(self) -> None:
        """SageMaker puts a job into the network in the role's name, and gives its volumes the environment's key."""
        subnets, key = self._on.subnet_arns(), self._on.storage.key_arn
        interfaces = self._on.arn("ec2", "network-interface/*")
        statements = [
            allow(["ec2:CreateNetworkInterface"], [interfaces, *subnets, self.security_group.arn]),
            allow(
                [
                    "ec2:CreateNetworkInterfacePermission",
                    "ec2:DeleteNetworkInterface",
                    "ec2:DeleteNetworkInterfacePermission",
                ],
                interfaces,
                {"ArnEquals": {"ec2:Subnet": subnets}},
            ),
            allow(
                [
                    "ec2:DescribeDhcpOptions",
                    "ec2:DescribeNetworkInterfaces",
                    "ec2:DescribeSecurityGroups",
                    "ec2:DescribeSubnets",
                    "ec2:DescribeVpcs",
                ],
                "*",  # AWS knows no narrower resource for them
            ),
            allow(["kms:CreateGrant"], key, {"Bool": {"kms:GrantIsForAWSResource": "true"}}),
            allow(["kms:DescribeKey"], key),
        ]
        aws.iam.RolePolicy(
            self._on.naming("training-vpc"), role=self._args.role.id, policy=document(*statements), opts=self._child
        )


def limit_outputs(limits: JobLimits) -> dict[str, Any]:
    """What a job on a backend may use, with the sizes of the instances; see `contract.outputs.LimitOutputs`."""
    return {
        "instance_types": {
            type_: {
                "vcpus": INSTANCES[type_].vcpus,
                "memory_gib": INSTANCES[type_].memory_gib,
                "gpus": INSTANCES[type_].gpus,
                "local_gb": INSTANCES[type_].local_gb,
            }
            for type_ in limits.instance_types
        },
        "spot": limits.spot,
        "max_hours": limits.max_hours,
        "volume_gb": limits.volume_gb,
        "team_gpus": {team: limit.gpus for team, limit in limits.teams.items()},
    }
