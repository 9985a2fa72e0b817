"""Who may do what: one role a job, each with the few permissions that the job needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.naming import Naming
from infra.policies import allow, document, trust
from infra.registry import Registry
from infra.storage import Storage


@dataclass
class IdentityArgs:
    """What the roles may be given access to."""

    storage: Storage
    registry: Registry
    region: str
    permissions_boundary: str | None = None


class Identity(pulumi.ComponentResource):
    """The roles of training jobs, of the pipeline that starts them, of the monitor, and of each model's function."""

    training: aws.iam.Role
    pipeline: aws.iam.Role
    monitor: aws.iam.Role
    inference: Mapping[str, aws.iam.Role]

    def __init__(
        self, name: str, args: IdentityArgs, naming: Naming, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ml-platform:infra:Identity", name, None, opts)
        self._naming, self._args = naming, args
        self.training = self._role("training", "sagemaker.amazonaws.com", self._training_statements())
        self.pipeline = self._role("pipeline", "states.amazonaws.com", self._pipeline_statements())
        self.monitor = self._role("monitor", "lambda.amazonaws.com", self._monitor_statements())
        self.inference = {
            model: self._role(f"inference-{model}", "lambda.amazonaws.com", self._inference_statements(model))
            for model in args.registry.model_package_groups
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
        child = pulumi.ResourceOptions(parent=self)
        names_its_account = service != "lambda.amazonaws.com"
        role = aws.iam.Role(
            self._naming(what),
            assume_role_policy=trust(service, self._args.storage.account_id if names_its_account else None),
            permissions_boundary=self._args.permissions_boundary,
            opts=child,
        )
        aws.iam.RolePolicy(self._naming(what), role=role.id, policy=document(*statements), opts=child)
        return role

    def _training_statements(self) -> list[dict[str, Any]]:
        buckets, registry = self._args.storage.buckets, self._args.registry
        groups = [group.arn for group in registry.model_package_groups.values()]
        packages = [
            arn.apply(lambda arn: arn.replace(":model-package-group/", ":model-package/") + "/*") for arn in groups
        ]
        return [
            allow(["s3:ListBucket"], [buckets["raw"].arn, buckets["curated"].arn]),
            allow(["s3:GetObject"], [_objects(buckets["raw"]), _objects(buckets["curated"])]),
            allow(["s3:PutObject"], [_objects(buckets["curated"]), _objects(buckets["artifacts"])]),
            self._use_key(["kms:Decrypt", "kms:GenerateDataKey"]),
            allow(["sagemaker:CreateModelPackage"], groups + packages),
            allow(["sagemaker:ListModelPackages"], "*"),  # AWS knows no narrower resource for it
            allow(["sagemaker:DescribeModelPackage"], packages),
            *self._pull("training"),
            # SageMaker's log group is the account's: whichever job comes first makes it, no environment owns it.
            allow(["logs:CreateLogGroup", "logs:DescribeLogStreams"], self._log_group("/aws/sagemaker/TrainingJobs")),
            self._write_logs("/aws/sagemaker/TrainingJobs"),
        ]

    def _pipeline_statements(self) -> list[dict[str, Any]]:
        job = self._arn("sagemaker", f"training-job/{self._naming('')}*")
        # Step Functions waits for a job through a rule of this name, which it makes itself.
        rule = self._arn("events", "rule/StepFunctionsGetEventsForSageMakerTrainingJobsRule")
        to_sagemaker = {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}
        return [
            allow(["sagemaker:CreateTrainingJob", "sagemaker:DescribeTrainingJob", "sagemaker:StopTrainingJob"], job),
            allow(["sagemaker:AddTags"], job),
            allow(["iam:PassRole"], self.training.arn, to_sagemaker),
            allow(["events:PutTargets", "events:PutRule", "events:DescribeRule"], rule),
        ]

    def _monitor_statements(self) -> list[dict[str, Any]]:
        curated = self._args.storage.buckets["curated"]
        own_metrics = {"StringEquals": {"cloudwatch:namespace": self._naming.path("monitor").strip("/")}}
        return [
            allow(["s3:ListBucket"], curated.arn),
            allow(["s3:GetObject"], _objects(curated)),
            self._use_key(["kms:Decrypt"]),
            allow(["ssm:GetParameter"], self._arn("ssm", f"parameter{self._naming.path('models')}/*")),
            # Metrics have no ARN; the condition holds the role to its own namespace.
            allow(["cloudwatch:PutMetricData"], "*", own_metrics),
            self._write_logs(self._naming.path("monitor")),
        ]

    def _inference_statements(self, model: str) -> list[dict[str, Any]]:
        artifacts = self._args.storage.buckets["artifacts"]
        return [
            allow(["s3:GetObject"], pulumi.Output.concat(artifacts.arn, f"/{model}/*")),
            self._use_key(["kms:Decrypt"]),
            allow(["ssm:GetParameter"], self._arn("ssm", f"parameter{self._naming.path(f'models/{model}')}")),
            self._write_logs(self._naming.path(f"inference/{model}")),
        ]

    def _use_key(self, actions: list[str]) -> dict[str, Any]:
        through_s3 = {"StringEquals": {"kms:ViaService": f"s3.{self._args.region}.amazonaws.com"}}
        return allow(actions, self._args.storage.key_arn, through_s3)

    def _pull(self, image: str) -> list[dict[str, Any]]:
        return [
            # The token is the account's; AWS knows no narrower resource for it.
            allow(["ecr:GetAuthorizationToken"], "*"),
            allow(
                ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
                self._args.registry.repositories[image].arn,
            ),
        ]

    def _write_logs(self, group: str) -> dict[str, Any]:
        return allow(["logs:CreateLogStream", "logs:PutLogEvents"], self._log_group(group))

    def _log_group(self, group: str) -> pulumi.Output[str]:
        return self._arn("logs", f"log-group:{group}:*")

    def _arn(self, service: str, resource: str) -> pulumi.Output[str]:
        return pulumi.Output.concat(
            f"arn:aws:{service}:{self._args.region}:", self._args.storage.account_id, f":{resource}"
        )


def _objects(bucket: aws.s3.Bucket) -> pulumi.Output[str]:
    return pulumi.Output.concat(bucket.arn, "/*")
