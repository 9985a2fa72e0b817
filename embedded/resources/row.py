"""What a row is: how one Pulumi resource type maps to AWS operations."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

ACCOUNT = "123456789012"
"""The account that moto gives to every caller."""


@dataclass(frozen=True)
class Call:
    """An AWS operation, with the parameters that do not fit by name.

    `rename` maps a property to the name AWS has for it; `parameters` holds templates in which `{property}` stands for
    a value. With `takes`, only those properties are sent, and a follow-up call is left out when one is missing.
    """

    operation: str
    rename: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    takes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One resource type.

    Attributes:
        service: boto3 name of the service.
        create: the call that makes it.
        id: template of the Pulumi id, over the inputs and the answer.
        delete: the call or calls that remove it, if there are any.
        answer: the member of the create call's answer that describes the resource, if it is not the whole answer.
        auto_name: the property that Pulumi fills with a random name when the program leaves it out.
        then: follow-up calls, each made if its `takes` are given.
        update: property to the call that changes it in place; a change of any other property replaces the resource.
        put: the create call overwrites, so every change but one of `identity` is made by repeating it.
        identity: properties that say which thing a put call writes.
        outputs: templates of outputs that the answer lacks.
        prepare: turns the inputs into what the create call takes, where names alone cannot.
        left_out: by the property that it is in, what `prepare` leaves out because the emulator would get it wrong; it
            is shown to the user.
        linked_role: the service whose own role AWS goes by if the property `serviceRole` is left out; the emulator
            wants it named.
        unasked: makes with a client what AWS makes by itself beside the resource; returns outputs that tell of it.
        no_effect: properties that tell the provider how to act rather than AWS what to make.
    """

    service: str
    create: Call
    id: str
    delete: Call | tuple[Call, ...] = ()
    answer: str = ""
    auto_name: str = ""
    then: tuple[Call, ...] = ()
    update: Mapping[str, Call] = field(default_factory=dict)
    put: bool = False
    identity: frozenset[str] = frozenset({"bucket"})
    outputs: Mapping[str, Any] = field(default_factory=dict)
    prepare: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    linked_role: str = ""
    unasked: Callable[[Callable[[str], Any], Mapping[str, Any]], dict[str, Any]] | None = None
    no_effect: frozenset[str] = frozenset({"forceDestroy", "forceDelete", "skipDestroy"})

    def prepared(self, properties: dict[str, Any]) -> dict[str, Any]:
        """The properties as a call takes them."""
        return self.prepare(properties) if self.prepare else properties


TAGGING: dict[str, Call] = {
    "ec2": Call("CreateTags", parameters={"Resources": "{id}"}, takes=("tags",)),
    "ecr": Call("TagResource", parameters={"resourceArn": "{arn}"}, takes=("tags",)),
    "iam": Call("TagRole", parameters={"RoleName": "{id}"}, takes=("tags",)),
    "kms": Call("TagResource", parameters={"KeyId": "{id}"}, takes=("tags",)),
    "lambda": Call("TagResource", parameters={"Resource": "{arn}"}, takes=("tags",)),
    "logs": Call("TagResource", parameters={"resourceArn": "{arn}"}, takes=("tags",)),
    "s3": Call("PutBucketTagging", rename={"tags": "tagSet"}, parameters={"Bucket": "{id}"}, takes=("tags",)),
    "sagemaker": Call("AddTags", parameters={"ResourceArn": "{arn}"}, takes=("tags",)),
    "ssm": Call(
        "AddTagsToResource",
        parameters={"ResourceType": "Parameter", "ResourceId": "{id}"},
        takes=("tags",),
    ),
}
"""Per service, the call that tags a resource: after a create that takes no tags, and when only tags have changed."""
