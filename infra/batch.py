"""AWS Batch: queues that the teams share fairly, on instances that come with the jobs and go with them."""

import base64
import json
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.foundation import Foundation, awslogs
from infra.identity import training_access
from infra.idle import idle_gpu_alarm
from infra.policies import allow
from infra.settings.training import BatchSettings
from infra.training import Training, limit_outputs

SHARED_MEMORY_MIB = 1024
"""What the worker processes of a data loader hand their batches over in; Docker gives a container 64 MiB."""

NEVER_RUNS = ("MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE", "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT")
"""Why a job would stay at the head of its queue for ever, with the others behind it."""

AGENT = "/opt/aws/amazon-cloudwatch-agent"

USER_DATA = """MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="==BOUNDARY=="

--==BOUNDARY==
Content-Type: text/x-shellscript; charset="us-ascii"

#!/bin/bash
dnf install --assumeyes amazon-cloudwatch-agent
cat > {agent}/etc/gpu.json <<'EOF'
{config}
EOF
{agent}/bin/amazon-cloudwatch-agent-ctl -a fetch-config -m ec2 -s -c file:{agent}/etc/gpu.json
--==BOUNDARY==--
"""


@dataclass
class BatchArgs:
    """What the queues run on, what they share with the other backends, and who is told of idle GPUs."""

    settings: BatchSettings
    training: Training
    idle_minutes: int
    topic_arn: pulumi.Input[str]


class Batch(pulumi.ComponentResource):
    """A queue for jobs on CPUs and one for jobs on GPUs, each on demand and, if the settings allow it, on spot.

    A job that bears an interruption goes to the spot queue, which falls back to instances on demand when spot has none.
    Nothing runs, or is paid for, while the queues are empty. Names of what may have to be replaced end in a random
    suffix, so that the new one is there before the old one goes.
    """

    queues: dict[str, aws.batch.JobQueue]
    job_definitions: dict[str, aws.batch.JobDefinition]

    def __init__(
        self, name: str, args: BatchArgs, foundation: Foundation, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ml-platform:infra:Batch", name, None, opts)
        self._on, self._naming, self._args = foundation, foundation.naming, args
        self._child = pulumi.ResourceOptions(parent=self)
        self._logs = foundation.log_group("training/batch", self._child)
        self._metrics = self._naming.path("gpu").strip("/")
        self._profile = self._instance_profile()
        self._fair_share = self._scheduling_policy()
        self.queues = {}
        if args.settings.gpu_types(gpu=False):
            self._queues("cpu", self._template("cpu", None))
        if args.settings.gpu_types(gpu=True):
            self._queues("gpu", self._template("gpu", self._measure_gpus()))
            query = (
                f'SELECT AVG(nvidia_smi_utilization_gpu) FROM SCHEMA("{self._metrics}", InstanceId) '
                "GROUP BY InstanceId ORDER BY AVG() ASC"
            )
            idle_gpu_alarm("batch", query, args.idle_minutes, args.topic_arn, foundation, self._child)
        self.job_definitions = self._job_definitions(args.training.image) if args.training.image else {}
        self.register_outputs({"queues": {kind: queue.name for kind, queue in self.queues.items()}})

    def outputs(self) -> dict[str, Any]:
        """What starts a job; see `contract.outputs.BatchOutputs`."""
        return limit_outputs(self._args.settings) | {
            "max_vcpus": self._args.settings.max_vcpus,
            "queues": {kind: queue.name for kind, queue in self.queues.items()},
            "job_definitions": {kind: definition.arn for kind, definition in self.job_definitions.items()},
        }

    def _scheduling_policy(self) -> aws.batch.SchedulingPolicy:
        return aws.batch.SchedulingPolicy(
            self._naming("teams"),
            fair_share_policy={
                "share_decay_seconds": 3600,  # what a team used an hour ago counts half
                "share_distributions": [
                    {"share_identifier": team, "weight_factor": round(1 / limit.share, 4)}  # less is more
                    for team, limit in sorted(self._args.settings.teams.items())
                ],
            },
            opts=self._child,
        )

    def _queues(self, kind: str, template: aws.ec2.LaunchTemplate) -> None:
        on_demand = self._compute_environment(kind, template, spot=False)
        self._queue(kind, [on_demand])
        if self._args.settings.spot:
            spot = self._compute_environment(kind, template, spot=True)
            self._queue(f"{kind}-spot", [spot, on_demand])

    def _queue(self, what: str, environments: list[aws.batch.ComputeEnvironment]) -> None:
        self.queues[what] = aws.batch.JobQueue(
            self._naming(f"training-{what}"),
            state="ENABLED",
            priority=1,
            scheduling_policy_arn=self._fair_share.arn,
            compute_environment_orders=[
                {"order": order, "compute_environment": environment.arn}
                for order, environment in enumerate(environments, 1)
            ],
            job_state_time_limit_actions=[
                {"reason": reason, "state": "RUNNABLE", "max_time_seconds": 600, "action": "CANCEL"}
                for reason in NEVER_RUNS
            ],
            opts=self._child,
        )

    def _compute_environment(
        self, kind: str, template: aws.ec2.LaunchTemplate, *, spot: bool
    ) -> aws.batch.ComputeEnvironment:
        settings = self._args.settings
        return aws.batch.ComputeEnvironment(
            self._naming(f"{kind}-spot" if spot else kind),
            type="MANAGED",
            state="ENABLED",
            # Without a service role Batch uses its own service-linked one, without which it cannot update in place.
            compute_resources={
                "type": "SPOT" if spot else "EC2",
                "allocation_strategy": "SPOT_PRICE_CAPACITY_OPTIMIZED" if spot else "BEST_FIT_PROGRESSIVE",
                "min_vcpus": 0,
                "max_vcpus": settings.max_vcpus,
                "instance_types": list(settings.gpu_types(gpu=kind == "gpu")),
                "instance_role": self._profile.arn,
                "subnets": self._on.network.private_subnet_ids,
                "security_group_ids": [self._args.training.security_group.id],
                "launch_template": {
                    "launch_template_id": template.id,
                    "version": template.latest_version.apply(str),
                },
                "ec2_configurations": [{"image_type": "ECS_AL2023_NVIDIA" if kind == "gpu" else "ECS_AL2023"}],
            },
            # A change lets jobs go on for as long as Batch grants it, and new ones start on new instances.
            update_policy={"terminate_jobs_on_update": False, "job_execution_timeout_minutes": 360},
            opts=self._child,
        )

    def _template(self, kind: str, user_data: str | None) -> aws.ec2.LaunchTemplate:
        name = self._naming(f"training-{kind}")
        tags = self._naming.tags | {"Name": name}
        return aws.ec2.LaunchTemplate(
            name,
            # Hops: a job on several instances has a network namespace of its own, from which that is one further.
            metadata_options={"http_endpoint": "enabled", "http_tokens": "required", "http_put_response_hop_limit": 2},
            block_device_mappings=[
                {
                    "device_name": "/dev/xvda",
                    # EBS's own key: Auto Scaling, which starts the instances, may not use the environment's.
                    "ebs": {
                        "volume_size": self._args.settings.volume_gb,
                        "volume_type": "gp3",
                        "encrypted": "true",
                        "delete_on_termination": "true",
                    },
                }
            ],
            tag_specifications=[{"resource_type": what, "tags": tags} for what in ("instance", "volume")],
            user_data=base64.b64encode(user_data.encode()).decode() if user_data else None,
            opts=self._child,
        )

    def _measure_gpus(self) -> str:
        """Start CloudWatch's agent: EC2 measures no GPUs."""
        config = {
            "metrics": {
                "namespace": self._metrics,
                "append_dimensions": {"InstanceId": "${aws:InstanceId}"},
                "aggregation_dimensions": [["InstanceId"]],
                "metrics_collected": {
                    "nvidia_gpu": {"measurement": ["utilization_gpu"], "metrics_collection_interval": 60}
                },
            }
        }
        return USER_DATA.format(agent=AGENT, config=json.dumps(config, indent=1))

    def _instance_profile(self) -> aws.iam.InstanceProfile:
        """What the instances may do: be part of Batch's cluster, pull the image, write logs and GPU metrics."""
        clusters = self._on.arn("ecs", "cluster/*")  # Batch makes them, and names them
        instances = self._on.arn("ecs", "container-instance/*")
        own_metrics = {"StringEquals": {"cloudwatch:namespace": self._metrics}}
        statements = [
            allow(["ecs:DiscoverPollEndpoint"], "*"),  # AWS knows no narrower resource for it
            allow(
                [
                    "ecs:DeregisterContainerInstance",
                    "ecs:RegisterContainerInstance",
                    "ecs:SubmitAttachmentStateChanges",
                    "ecs:SubmitContainerStateChange",
                    "ecs:SubmitTaskStateChange",
                ],
                clusters,
            ),
            allow(["ecs:Poll", "ecs:StartTelemetrySession", "ecs:UpdateContainerInstancesState"], instances),
            *self._on.pull("training"),
            allow(["logs:CreateLogStream", "logs:PutLogEvents"], pulumi.Output.concat(self._logs.arn, ":*")),
            allow(["cloudwatch:PutMetricData"], "*", own_metrics),
        ]
        role = self._on.role("batch-instance", "ec2.amazonaws.com", statements, self._child)
        return aws.iam.InstanceProfile(self._naming("batch-instance"), role=role.name, opts=self._child)

    def _job_definitions(self, image: pulumi.Output[str]) -> dict[str, aws.batch.JobDefinition]:
        """What a job is made from; how much it takes of an instance comes with it."""
        role = self._on.role("batch-job", "ecs-tasks.amazonaws.com", training_access(self._on), self._child)
        container = {
            "image": image,
            "jobRoleArn": role.arn,
            "resourceRequirements": [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "2048"}],
            "linuxParameters": {"sharedMemorySize": SHARED_MEMORY_MIB},
            "logConfiguration": awslogs(self._logs.name, self._on.region, "job"),
        }
        nodes = {
            "numNodes": 2,
            "mainNode": 0,
            # Open at the end, or a job could not say how many it takes.
            "nodeRangeProperties": [{"targetNodes": "0:", "container": container}],
        }
        return {
            "instance": self._job_definition("training", type="container", container_properties=container),
            "nodes": self._job_definition("training-nodes", type="multinode", node_properties=nodes),
        }

    def _job_definition(self, what: str, **properties: Any) -> aws.batch.JobDefinition:
        documents = {
            name: pulumi.Output.json_dumps(value) for name, value in properties.items() if name.endswith("_properties")
        }
        return aws.batch.JobDefinition(
            self._naming(what),
            name=self._naming(what),
            **properties | documents,
            # An instance that goes takes its job along, which goes on from its checkpoint; a mistake is made once.
            retry_strategy={
                "attempts": 5,
                "evaluate_on_exits": [
                    {"on_status_reason": "Host EC2*", "action": "RETRY"},
                    {"on_reason": "*", "action": "EXIT"},
                ],
            },
            timeout={"attempt_duration_seconds": self._args.settings.max_hours * 3600},
            propagate_tags=True,
            opts=self._child,
        )
