"""Who may do what: one role a job, each with the few permissions that the job needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from contract.manifest import Manifest
from infra.capture import stream_name
from infra.foundation import Foundation, objects
from infra.policies import allow

SERVICES = {
    "lambda": "lambda.amazonaws.com",
    "ecs": "ecs-tasks.amazonaws.com",
    "sagemaker": "sagemaker.amazonaws.com",
}
"""Who takes on the role of a model, by its runtime."""


WORK = "_work/"
"""Below it in the artifact bucket, a folder a model, jobs leave what lies between steps; no model can be called so."""


TRACK = (
    "CreateExperiment",
    "CreateRun",
    "GetExperiment",
    "GetExperimentByName",
    "GetRun",
    "LogBatch",
    "LogMetric",
    "LogParam",
    "SearchExperiments",
    "SearchRuns",
    "SetTag",
    "UpdateRun",
)
"""What a job does with the managed MLflow: it begins runs and writes them down, and deletes nothing."""


def training_access(foundation: Foundation) -> list[dict[str, Any]]:
    """What a training job may do with the environment's data, wherever it runs: statements for its role."""
    buckets, registry = foundation.storage.buckets, foundation.registry
    artifacts = buckets["artifacts"]
    groups = {model: group.arn for model, group in registry.model_package_groups.items()}
    packages = [
        arn.apply(lambda arn: arn.replace(":model-package-group/", ":model-package/") + "/*") for arn in groups.values()
    ]
    server = foundation.arn("sagemaker", f"mlflow-tracking-server/{foundation.naming('mlflow')}")
    return [
        *([allow([f"sagemaker-mlflow:{action}" for action in TRACK], server)] if foundation.managed_mlflow else []),
        allow(["s3:ListBucket"], [buckets["raw"].arn, buckets["curated"].arn]),
        allow(["s3:ListBucket"], artifacts.arn, {"StringLike": {"s3:prefix": [f"{WORK}*"]}}),
        allow(
            ["s3:GetObject"],
            [
                *(objects(bucket) for bucket in (buckets["raw"], buckets["curated"])),
                # A new version is compared with the live one.
                *(objects(artifacts, prefix) for prefix in (WORK, *(f"{model}/" for model in groups))),
            ],
        ),
        allow(["ssm:GetParameter"], foundation.arn("ssm", f"parameter{foundation.naming.path('models')}/*")),
        allow(["s3:PutObject"], [objects(buckets["curated"]), objects(artifacts)]),
        foundation.use_key("Decrypt", "GenerateDataKey"),
        allow(["sagemaker:CreateModelPackage"], [*groups.values(), *packages]),
        allow(["sagemaker:ListModelPackages"], "*"),  # AWS knows no narrower resource for it
        allow(["sagemaker:DescribeModelPackage"], packages),
    ]


@dataclass
class IdentityArgs:
    """The models, each of which has a role."""

    models: Mapping[str, Manifest]


class Identity(pulumi.ComponentResource):
    """The roles of training jobs, of the pipeline that starts them, of the monitor, and of each model's function."""

    training: aws.iam.Role
    pipeline: aws.iam.Role
    monitor: aws.iam.Role
    inference: Mapping[str, aws.iam.Role]

    def __init__(
        self, name: str, args: IdentityArgs, foundation: Foundation, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ml-platform:infra:Identity", name, None, opts)
        self._on = foundation
        self.training = self._role("training", "sagemaker.amazonaws.com", self._training_statements())
        self.pipeline = self._role("pipeline", "states.amazonaws.com", self._pipeline_statements())
        self.monitor = self._role("monitor", "lambda.amazonaws.com", self._monitor_statements())
        self.inference = {
            model: self._role(
                f"inference-{model}",
                SERVICES[manifest.serving.runtime],
                self._inference_statements(model, manifest.serving.runtime),
            )
            for model, manifest in args.models.items()
        }
        self.register_outputs(
            {
                "training": self.training.arn,
                "pipeline": self.pipeline.arn,
                "monitor": self.monitor.arn,
                "inference": {model: role.arn for model, role in self.inference.items()},
            }
        )

    def _role(self, what: str, service: str, statements: list[dict[str, Any]]) -> aws.iam.Role:
        return self._on.role(what, service, statements, pulumi.ResourceOptions(parent=self))

    def _training_statements(self) -> list[dict[str, Any]]:
        return [
            *training_access(self._on),
            *self._on.pull("training"),
            # SageMaker's log group is the account's: whichever job comes first makes it, no environment owns it.
            allow(
                ["logs:CreateLogGroup", "logs:DescribeLogStreams"],
                self._on.arn("logs", "log-group:/aws/sagemaker/TrainingJobs:*"),
            ),
            self._on.write_logs("/aws/sagemaker/TrainingJobs"),
        ]

    def _pipeline_statements(self) -> list[dict[str, Any]]:
        job = self._on.arn("sagemaker", f"training-job/{self._on.naming('')}*")
        # Step Functions waits for a job through a rule of this name, which it makes itself.
        rule = self._on.arn("events", "rule/StepFunctionsGetEventsForSageMakerTrainingJobsRule")
        to_sagemaker = {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}
        return [
            allow(["sagemaker:CreateTrainingJob", "sagemaker:DescribeTrainingJob", "sagemaker:StopTrainingJob"], job),
            allow(["sagemaker:AddTags"], job),
            allow(["iam:PassRole"], self.training.arn, to_sagemaker),
            allow(["events:PutTargets", "events:PutRule", "events:DescribeRule"], rule),
        ]

    def _monitor_statements(self) -> list[dict[str, Any]]:
        curated = self._on.storage.buckets["curated"]
        own_metrics = {"StringEquals": {"cloudwatch:namespace": self._on.naming.path("monitor").strip("/")}}
        return [
            allow(["s3:ListBucket"], curated.arn),
            allow(["s3:GetObject"], objects(curated)),
            self._on.use_key("Decrypt"),
            allow(["ssm:GetParameter"], self._on.arn("ssm", f"parameter{self._on.naming.path('models')}/*")),
            # Metrics have no ARN; the condition holds the role to its own namespace.
            allow(["cloudwatch:PutMetricData"], "*", own_metrics),
            self._on.write_logs(self._on.naming.path("monitor")),
        ]

    def _inference_statements(self, model: str, runtime: str) -> list[dict[str, Any]]:
        artifacts = self._on.storage.buckets["artifacts"]
        streams = [
            self._on.arn("firehose", f"deliverystream/{stream_name(self._on.naming, what, model)}")
            for what in ("predictions", "feedback")
        ]
        return [
            *self._of_runtime(runtime, model),
            allow(["firehose:PutRecordBatch"], streams),
            allow(["s3:GetObject"], objects(artifacts, f"{model}/")),
            self._on.use_key("Decrypt"),
            allow(["ssm:GetParameter"], self._on.arn("ssm", f"parameter{self._on.naming.path(f'models/{model}')}")),
        ]

    def _of_runtime(self, runtime: str, model: str) -> list[dict[str, Any]]:
        """What the runtime itself does in the role's name; a task of ECS starts with another role."""
        match runtime:
            case "lambda":
                return [self._on.write_logs(self._on.naming.path(f"inference/{model}"))]
            case "sagemaker":
                return self._of_sagemaker(model)
            case _:
                return []

    def _of_sagemaker(self, model: str) -> list[dict[str, Any]]:
        """What SageMaker does in the name of an endpoint's role: its image, logs, captures and network interfaces."""
        group = f"/aws/sagemaker/Endpoints/{self._on.naming(f'inference-{model}')}"
        network = [
            "ec2:CreateNetworkInterface",
            "ec2:CreateNetworkInterfacePermission",
            "ec2:DeleteNetworkInterface",
            "ec2:DeleteNetworkInterfacePermission",
            "ec2:DescribeDhcpOptions",
            "ec2:DescribeNetworkInterfaces",
            "ec2:DescribeSecurityGroups",
            "ec2:DescribeSubnets",
            "ec2:DescribeVpcs",
        ]
        here = {"StringEquals": {"aws:RequestedRegion": self._on.region}}
        return [
            *self._on.pull("inference"),
            allow(["logs:CreateLogGroup"], self._on.arn("logs", f"log-group:{group}:*")),
            self._on.write_logs(group),
            allow(["s3:PutObject"], objects(self._on.storage.buckets["curated"], f"endpoint-captures/{model}/")),
            self._on.use_key("GenerateDataKey"),
            allow(network, "*", here),  # the interfaces are not there yet
        ]
