"""Experiment tracking: SageMaker's managed MLflow."""

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.foundation import Foundation, objects
from infra.policies import allow


@dataclass
class TrackingArgs:
    """How large the server is: Small, Medium or Large."""

    size: str


class Tracking(pulumi.ComponentResource):
    """An MLflow tracking server with its artifacts in the artifact bucket, under `mlflow/`."""

    uri: pulumi.Output[str]
    """What MLFLOW_TRACKING_URI takes."""

    def __init__(
        self, name: str, args: TrackingArgs, foundation: Foundation, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ml-platform:infra:Tracking", name, None, opts)
        naming, artifacts = foundation.naming, foundation.storage.buckets["artifacts"]
        statements = [
            allow(["s3:ListBucket"], artifacts.arn, {"StringLike": {"s3:prefix": ["mlflow/*"]}}),
            allow(["s3:GetObject", "s3:PutObject", "s3:DeleteObject"], objects(artifacts, "mlflow/")),
            foundation.use_key("Decrypt", "GenerateDataKey"),
        ]
        role = foundation.role("mlflow", "sagemaker.amazonaws.com", statements, pulumi.ResourceOptions(parent=self))
        self.server = aws.sagemaker.MlflowTrackingServer(
            naming("mlflow"),
            tracking_server_name=naming("mlflow"),
            tracking_server_size=args.size,
            artifact_store_uri=pulumi.Output.concat("s3://", artifacts.bucket, "/mlflow"),
            role_arn=role.arn,
            automatic_model_registration=False,  # what is registered went through the gates
            opts=pulumi.ResourceOptions(parent=self, protect=foundation.protect),
        )
        self.uri = self.server.arn  # which MLflow's client takes as the address of a managed server
        self.register_outputs({"uri": self.uri})
