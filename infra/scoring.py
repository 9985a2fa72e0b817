"""Scheduled batch inference: a model's file is scored at its times, by the training image in a Batch job on Fargate."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from contract.scoring import SCORES, Scoring
from infra.access import open_to_aws, security_group
from infra.events import event_queue
from infra.foundation import Foundation, awslogs, objects
from infra.policies import allow
from infra.regions import partition

SCHEDULED_TIME = "<aws.scheduler.scheduled-time>"
"""What EventBridge Scheduler puts the time of a run in the place of, such as 2026-11-21T03:00:00Z."""
ATTEMPTS = 3
"""Runs of a job. Each goes on with the chunks that the one before it has left in S3."""
IN_VAIN: list[aws.batch.JobDefinitionRetryStrategyEvaluateOnExitArgsDict] = [
    {"on_exit_code": "1", "action": "EXIT"},
    {"on_exit_code": "2", "action": "EXIT"},
    {"on_reason": "OutOfMemoryError*", "action": "EXIT"},
]
"""Ends that another run would come to as well; after any other one Batch starts the job anew."""
KEPT_S = 14 * 24 * 3600
"""How long the queue remembers what has failed: the longest that SQS takes."""


@dataclass
class ScheduledScoringArgs:
    """What is scored, by which image, and who is told of a failure."""

    models: Mapping[str, Scoring]
    """The sections `scoring`, by the names of the models that have one: at least one."""
    image: pulumi.Output[str] | None
    """The training image, by its digest."""
    outputs: Mapping[str, Any]
    """The stack's, as `contract.outputs.Outputs` has them."""
    topic_arn: pulumi.Input[str]


class ScheduledScoring(pulumi.ComponentResource):
    """A schedule, a job and two roles a model; a queue that they share, and an alarm for whatever did not come off.

    As long as there is no training image, there is nothing of it. Nothing runs, or is paid for, between the runs.
    """

    def __init__(
        self,
        name: str,
        args: ScheduledScoringArgs,
        foundation: Foundation,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("ml-platform:infra:ScheduledScoring", name, None, opts)
        self._on, self._args, self._called = foundation, args, foundation.naming("scoring")
        self._child = pulumi.ResourceOptions(parent=self)
        if args.image is None:
            pulumi.log.warn(
                f"{', '.join(args.models)}: nothing is scored on a schedule until ml-platform:training.image_digest is "
                f"set in Pulumi.{foundation.naming.environment}.yaml"
            )
        else:
            self._logs = foundation.log_group("scoring", self._child)
            self._start = foundation.role(
                "scoring",
                "ecs-tasks.amazonaws.com",
                [*foundation.pull("training"), foundation.write_logs(foundation.naming.path("scoring"))],
                self._child,
            )
            self._queue = self._job_queue()
            self._failed = self._failures()
            for model, scoring in args.models.items():
                self._schedule(model, scoring, self._job(model, scoring))
        self.register_outputs({"models": list(args.models)})

    def _job_queue(self) -> aws.batch.JobQueue:
        """A queue on Fargate with room for one job of each model; one that takes too long makes the next wait."""
        group = security_group("scoring", "Scheduled batch inference: AWS over HTTPS", self._on, self._child)
        open_to_aws("scoring-to-aws", group, self._on, self._child)
        environment = aws.batch.ComputeEnvironment(
            self._called,
            type="MANAGED",
            state="ENABLED",
            compute_resources={
                "type": "FARGATE",
                "max_vcpus": sum(scoring.vcpus for scoring in self._args.models.values()),
                "subnets": self._on.network.private_subnet_ids,
                "security_group_ids": [group.id],
            },
            opts=self._child,
        )
        return aws.batch.JobQueue(
            self._called,
            name=self._called,  # for people who submit a job by hand
            state="ENABLED",
            priority=1,
            compute_environment_orders=[{"order": 1, "compute_environment": environment.arn}],
            opts=self._child,
        )

    def _job(self, model: str, scoring: Scoring) -> aws.batch.JobDefinition:
        curated = self._on.storage.buckets["curated"]
        role = self._on.role(
            f"scoring-{model}", "ecs-tasks.amazonaws.com", self._statements(model, scoring), self._child
        )
        needs = {"VCPU": scoring.vcpus, "MEMORY": 1024 * scoring.memory_gib}
        told = {"AWS_DEFAULT_REGION": self._on.region, "MLP_OUTPUTS": self._outputs(model)}
        container: dict[str, Any] = {
            "image": self._args.image,
            "command": [
                *("score", model),
                *("--input", pulumi.Output.concat("s3://", curated.bucket, f"/{scoring.input}")),
                *("--output", "Ref::output"),  # a parameter of the job
            ],
            "environment": [{"name": name, "value": value} for name, value in told.items()],
            "jobRoleArn": role.arn,
            "executionRoleArn": self._start.arn,
            "resourceRequirements": [{"type": type_, "value": str(value)} for type_, value in needs.items()],
            "networkConfiguration": {"assignPublicIp": "DISABLED"},
            "runtimePlatform": {"operatingSystemFamily": "LINUX", "cpuArchitecture": "X86_64"},
            "logConfiguration": awslogs(self._logs.name, self._on.region, model),
        }
        if scoring.disk_gib > 20:  # which a task has anyway, and must not ask for
            container["ephemeralStorage"] = {"sizeInGiB": scoring.disk_gib}
        return aws.batch.JobDefinition(
            self._on.naming(f"scoring-{model}"),
            name=self._on.naming(f"scoring-{model}"),
            type="container",
            platform_capabilities=["FARGATE"],
            container_properties=pulumi.Output.json_dumps(container),
            retry_strategy={"attempts": ATTEMPTS, "evaluate_on_exits": IN_VAIN},
            timeout={"attempt_duration_seconds": scoring.hours * 3600},
            propagate_tags=True,
            opts=self._child,
        )

    def _outputs(self, model: str) -> pulumi.Output[str]:
        """The stack's outputs for a job: of its model alone, since a container takes few kilobytes of variables."""
        models = {model: self._args.outputs["models"][model]}
        return pulumi.Output.json_dumps({**self._args.outputs, "models": models, "images": {}, "service": {}})

    def _statements(self, model: str, scoring: Scoring) -> list[dict[str, Any]]:
        """What a model's job may do: read its version and its input, and write, go on with and tidy up its output."""
        buckets, own = self._on.storage.buckets, f"{SCORES}/{model}/"
        curated = buckets["curated"]
        return [
            allow(["ssm:GetParameter"], self._on.arn("ssm", f"parameter{self._on.naming.path(f'models/{model}')}")),
            allow(
                ["s3:GetObject"],
                [objects(buckets["artifacts"], f"{model}/"), pulumi.Output.concat(curated.arn, f"/{scoring.input}")],
            ),
            allow(["s3:ListBucket"], curated.arn, {"StringLike": {"s3:prefix": [f"{own}*"]}}),
            allow(["s3:GetObject", "s3:PutObject", "s3:DeleteObject"], objects(curated, own)),
            self._on.use_key("Decrypt", "GenerateDataKey"),
        ]

    def _schedule(self, model: str, scoring: Scoring, job: aws.batch.JobDefinition) -> None:
        name, curated = self._on.naming(f"scoring-{model}"), self._on.storage.buckets["curated"]
        any_revision = self._on.arn("batch", f"job-definition/{name}:*")
        role = self._on.role(
            f"schedule-{model}",
            "scheduler.amazonaws.com",
            [
                allow(["batch:SubmitJob"], [any_revision, self._queue.arn]),
                allow(["sqs:SendMessage"], self._failed.arn),
            ],
            self._child,
        )
        request = {
            "JobName": name,
            "JobQueue": self._queue.arn,
            "JobDefinition": job.arn,
            "Parameters": {
                "output": pulumi.Output.concat("s3://", curated.bucket, f"/{SCORES}/{model}/{SCHEDULED_TIME}.parquet")
            },
        }
        aws.scheduler.Schedule(
            name,
            name=name,
            description=f"Scores {scoring.input} by {model}",
            schedule_expression=scoring.schedule,
            flexible_time_window={"mode": "OFF"},
            target={
                "arn": f"arn:{partition(self._on.region)}:scheduler:::aws-sdk:batch:submitJob",
                "role_arn": role.arn,
                "input": pulumi.Output.json_dumps(request),
                "retry_policy": {"maximum_retry_attempts": 10, "maximum_event_age_in_seconds": 3600},
                "dead_letter_config": {"arn": self._failed.arn},
            },
            opts=self._child,
        )

    def _failures(self) -> aws.sqs.Queue:
        """A queue of what did not come off, also of what could not even be started, and an alarm while it holds any."""
        name = self._on.naming("scoring-failures")
        pattern = {
            "source": ["aws.batch"],
            "detail-type": ["Batch Job State Change"],
            "detail": {"status": ["FAILED"], "jobQueue": [self._queue.arn]},
        }
        queue, _ = event_queue(
            name, "Keep what Batch says of scheduled scoring that has failed", pattern, KEPT_S, self._child
        )
        aws.cloudwatch.MetricAlarm(
            name,
            name=name,
            alarm_description=f"Scheduled scoring has failed: the messages of the queue {name} say what; then purge it",
            namespace="AWS/SQS",
            metric_name="ApproximateNumberOfMessagesVisible",
            dimensions={"QueueName": queue.name},
            statistic="Maximum",
            period=300,
            evaluation_periods=1,
            threshold=0,
            comparison_operator="GreaterThanThreshold",
            treat_missing_data="notBreaching",
            alarm_actions=[self._args.topic_arn],
            ok_actions=[self._args.topic_arn],
            opts=self._child,
        )
        return queue
