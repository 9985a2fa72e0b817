"""Audit: who read or changed the artifacts, as CloudTrail data events."""

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.naming import Naming
from infra.storage import Storage


@dataclass
class AuditArgs:
    """What is watched, and where the record goes."""

    storage: Storage


class Audit(pulumi.ComponentResource):
    """A trail of each access to the artifact bucket, with files whose integrity can be proven.

    Management events are left out: the first copy of them is free only once an account, and the account's or the
    organisation's own trail has it.
    """

    def __init__(self, name: str, args: AuditArgs, naming: Naming, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ml-platform:infra:Audit", name, None, opts)
        logs = args.storage.buckets["logs"]
        trail = aws.cloudtrail.Trail(
            naming("artifacts"),
            name=naming("artifacts"),
            s3_bucket_name=pulumi.Output.all(logs.id, args.storage.log_delivery_arn).apply(lambda v: str(v[0])),
            enable_log_file_validation=True,
            kms_key_id=args.storage.key_arn,
            advanced_event_selectors=[
                {
                    "name": "Objects of the artifact bucket",
                    "field_selectors": [
                        {"field": "eventCategory", "equals": ["Data"]},
                        {"field": "resources.type", "equals": ["AWS::S3::Object"]},
                        {
                            "field": "resources.ARN",
                            "starts_withs": [pulumi.Output.concat(args.storage.buckets["artifacts"].arn, "/")],
                        },
                    ],
                }
            ],
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({"trail": trail.arn})
