"""Experiment tracking: SageMaker's managed MLflow."""

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.naming import Naming
from infra.policies import allow, document, trust
from infra.storage import Storage


@dataclass
class TrackingArgs:
    """How large the server is and where it keeps artifacts."""

    size: str
    storage: Storage
    region: str
    permissions_boundary: str | None
    protect: bool


class Tracking(pulumi.ComponentResource):
    """An MLflow tracking server with its artifacts in the artifact bucket, under `mlflow/`."""

    def __init__(
        self, name: str, args: TrackingArgs, naming: Naming, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ml-platform:infra:Tracking", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        artifacts = args.storage.buckets["artifacts"]
        role = aws.iam.Role(
            naming("mlflow"),
            assume_role_policy=trust("sagemaker.amazonaws.com", args.storage.account_id),
            permissions_boundary=args.permissions_boundary,
            opts=child,
        )
        through_s3 = {"StringEquals": {"kms:ViaService": f"s3.{args.region}.amazonaws.com"}}
        aws.iam.RolePolicy(
            naming("mlflow"),
            role=role.id,
            policy=document(
                allow(["s3:ListBucket"], artifacts.arn, {"StringLike": {"s3:prefix": ["mlflow/*"]}}),
                allow(
                    ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"],
                    pulumi.Output.concat(artifacts.arn, "/mlflow/*"),
                ),
                allow(["kms:Decrypt", "kms:GenerateDataKey"], args.storage.key_arn, through_s3),
            ),
            opts=child,
        )
        self.server = aws.sagemaker.MlflowTrackingServer(
            naming("mlflow"),
            tracking_server_name=naming("mlflow"),
            tracking_server_size=args.size,
            artifact_store_uri=pulumi.Output.concat("s3://", artifacts.bucket, "/mlflow"),
            role_arn=role.arn,
            automatic_model_registration=False,  # what is registered went through the gates
            opts=pulumi.ResourceOptions(parent=self, protect=args.protect),
        )
        self.register_outputs({"url": self.server.tracking_server_url})
