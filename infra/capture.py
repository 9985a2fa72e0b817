"""Capture: what a model was asked and what it answered, as files in the lake."""

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.foundation import Foundation, objects
from infra.policies import allow

BUFFER_SECONDS, BUFFER_MB = 300, 64
"""Firehose writes a file when one of the two is reached."""


@dataclass
class CaptureArgs:
    """Whose predictions are captured."""

    model: str


class Capture(pulumi.ComponentResource):
    """A Firehose stream that writes a model's predictions into the curated bucket, a folder a day.

    The files are gzipped lines of JSON, under `captures/<model>/date=<day>/`; what could not be written is under
    `captures-failed/<model>/`.
    """

    stream_name: str
    stream_arn: pulumi.Output[str]

    def __init__(
        self, name: str, args: CaptureArgs, foundation: Foundation, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ml-platform:infra:Capture", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        what = f"capture-{args.model}"
        bucket = foundation.storage.buckets["curated"]
        log_group = foundation.log_group(f"capture/{args.model}", child)
        stream = aws.cloudwatch.LogStream(
            foundation.naming(what), name="delivery", log_group_name=log_group.name, opts=child
        )
        folders = [f"captures/{args.model}/", f"captures-failed/{args.model}/"]
        role = foundation.role(
            what,
            "firehose.amazonaws.com",
            [
                allow(["s3:ListBucket", "s3:GetBucketLocation", "s3:ListBucketMultipartUploads"], bucket.arn),
                allow(["s3:PutObject", "s3:AbortMultipartUpload"], [objects(bucket, folder) for folder in folders]),
                foundation.use_key("Decrypt", "GenerateDataKey"),
                foundation.write_logs(foundation.naming.path(f"capture/{args.model}")),
            ],
            child,
        )
        self.stream_name = foundation.naming(what)
        delivery = aws.kinesis.FirehoseDeliveryStream(
            self.stream_name,
            name=self.stream_name,
            destination="extended_s3",
            server_side_encryption={
                "enabled": True,
                "key_type": "CUSTOMER_MANAGED_CMK",
                "key_arn": foundation.storage.key_arn,
            },
            extended_s3_configuration={
                "role_arn": role.arn,
                "bucket_arn": bucket.arn,
                "prefix": f"{folders[0]}date=!{{timestamp:yyyy-MM-dd}}/",
                "error_output_prefix": f"{folders[1]}!{{firehose:error-output-type}}/date=!{{timestamp:yyyy-MM-dd}}/",
                "buffering_interval": BUFFER_SECONDS,
                "buffering_size": BUFFER_MB,
                "compression_format": "GZIP",
                "cloudwatch_logging_options": {
                    "enabled": True,
                    "log_group_name": log_group.name,
                    "log_stream_name": stream.name,
                },
            },
            opts=child,
        )
        self.stream_arn = delivery.arn
        self.register_outputs({"stream_arn": self.stream_arn})
