"""Capture: what a model was asked and what it answered, as files in the lake."""

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.foundation import Foundation, objects
from infra.naming import Naming
from infra.policies import allow

BUFFER_SECONDS, BUFFER_MB = 300, 64
"""Firehose writes a file when one of the two is reached."""
DAY = "date=!{timestamp:yyyy-MM-dd}"


@dataclass
class CaptureArgs:
    """Whose predictions are captured."""

    model: str


class Capture(pulumi.ComponentResource):
    """Two Firehose streams that write a model's predictions, and the labels that come back, into the curated bucket.

    The files are gzipped lines of JSON (contract/capture.py), a folder a day: `predictions/<model>/date=<day>/` and
    `feedback/<model>/date=<day>/`. What could not be written is under `failed/`.
    """

    predictions: str
    """Name of the stream of predictions."""
    feedback: str
    """Name of the stream of true labels."""

    def __init__(
        self, name: str, args: CaptureArgs, foundation: Foundation, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ml-platform:infra:Capture", name, None, opts)
        self._on, self._model = foundation, args.model
        self._child = pulumi.ResourceOptions(parent=self)
        self._bucket = foundation.storage.buckets["curated"]
        self._log_group = foundation.log_group(f"capture/{args.model}", self._child)
        self._role = self._make_role()
        self.predictions, self.feedback = self._stream("predictions"), self._stream("feedback")
        self.register_outputs({"predictions": self.predictions, "feedback": self.feedback})

    def _make_role(self) -> aws.iam.Role:
        folders = [f"{top}{what}/{self._model}/" for top in ("", "failed/") for what in ("predictions", "feedback")]
        statements = [
            allow(["s3:ListBucket", "s3:GetBucketLocation", "s3:ListBucketMultipartUploads"], self._bucket.arn),
            allow(["s3:PutObject", "s3:AbortMultipartUpload"], [objects(self._bucket, folder) for folder in folders]),
            self._on.use_key("Decrypt", "GenerateDataKey"),
            self._on.write_logs(self._on.naming.path(f"capture/{self._model}")),
        ]
        return self._on.role(f"capture-{self._model}", "firehose.amazonaws.com", statements, self._child)

    def _stream(self, what: str) -> str:
        name = stream_name(self._on.naming, what, self._model)
        log = aws.cloudwatch.LogStream(name, name=what, log_group_name=self._log_group.name, opts=self._child)
        folder = f"{what}/{self._model}/"
        aws.kinesis.FirehoseDeliveryStream(
            name,
            name=name,
            destination="extended_s3",
            server_side_encryption={
                "enabled": True,
                "key_type": "CUSTOMER_MANAGED_CMK",
                "key_arn": self._on.storage.key_arn,
            },
            extended_s3_configuration={
                "role_arn": self._role.arn,
                "bucket_arn": self._bucket.arn,
                "prefix": f"{folder}{DAY}/",
                "error_output_prefix": f"failed/{folder}!{{firehose:error-output-type}}/{DAY}/",
                "buffering_interval": BUFFER_SECONDS,
                "buffering_size": BUFFER_MB,
                "compression_format": "GZIP",
                "cloudwatch_logging_options": {
                    "enabled": True,
                    "log_group_name": self._log_group.name,
                    "log_stream_name": log.name,
                },
            },
            opts=self._child,
        )
        return name


def stream_name(naming: Naming, what: str, model: str) -> str:
    """Name of a model's stream of `predictions` or of `feedback`."""
    return naming(f"{what}-{model}")
