"""The key of the hashes that stand for sensitive features in captured predictions."""

from collections.abc import Sequence

import pulumi
import pulumi_aws as aws

from infra.foundation import Foundation
from infra.naming import Naming
from infra.policies import allow, document
from infra.regions import arn

ADMINISTER = [
    f"kms:{action}"
    for action in (
        "CancelKeyDeletion",
        "CreateAlias",
        "DeleteAlias",
        "DescribeKey",
        "DisableKey",
        "EnableKey",
        "GetKeyPolicy",
        "GetKeyRotationStatus",
        "ListResourceTags",
        "PutKeyPolicy",
        "ScheduleKeyDeletion",
        "TagResource",
        "UntagResource",
        "UpdateAlias",
        "UpdateKeyDescription",
    )
]
"""All that IAM may give to others in the account: to look after the key, but not to use it."""


def alias(naming: Naming) -> str:
    """The name by which the service knows the key."""
    return f"alias/{naming('hashes')}"


class HashKey(pulumi.ComponentResource):
    """A key of KMS that makes message authentication codes, and never leaves it.

    The service derives its secret from it, so that the secret is neither in Pulumi's state nor in a task's environment.
    Only the models' roles may use it; who has all rights in IAM must change its policy first, which CloudTrail records.
    """

    def __init__(
        self,
        name: str,
        roles: Sequence[aws.iam.Role],
        foundation: Foundation,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("ml-platform:infra:HashKey", name, None, opts)
        naming, child = foundation.naming, pulumi.ResourceOptions(parent=self)
        root = arn("iam", foundation.region, foundation.storage.account_id, "root", everywhere=True)
        key = aws.kms.Key(
            naming("hashes"),
            description="Hashes of sensitive features: who deletes it cannot compare old captures with new ones",
            key_usage="GENERATE_VERIFY_MAC",
            customer_master_key_spec="HMAC_256",
            deletion_window_in_days=30 if foundation.protect else 7,
            policy=document(
                # In a key policy "*" is the key itself.
                allow(ADMINISTER, "*", principal={"AWS": root}, sid="Account"),
                allow(["kms:GenerateMac"], "*", principal={"AWS": [role.arn for role in roles]}, sid="Models"),
            ),
            opts=pulumi.ResourceOptions(parent=self, protect=foundation.protect),
        )
        aws.kms.Alias(naming("hashes"), name=alias(naming), target_key_id=key.key_id, opts=child)
        self.register_outputs({"key_arn": key.arn})
