"""Names and tags: one place says how everything is called and who it belongs to."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pulumi

from contract.errors import PlatformError
from infra.settings import Settings

LONGEST = 64 - len("-1a2b3c4")
"""Characters a name may have: a role takes 64 (a Lambda function, too), and Pulumi adds a random suffix to it."""


@dataclass(frozen=True)
class Naming:
    """Gives things their names.

    What is looked up by its name gets the name as it is. What must be unique in the world (buckets) or may have to be
    replaced while in use (roles) is registered under the name, and Pulumi adds a random suffix.
    """

    prefix: str
    environment: str

    @classmethod
    def of(cls, settings: Settings, models: Iterable[str]) -> "Naming":
        """The naming of an environment.

        Raises:
            PlatformError: if the prefix makes a name longer than IAM, Lambda and S3 take.
        """
        naming = cls(settings.prefix, settings.environment)
        longest = max((naming(f"inference-{model}") for model in models), key=len, default=naming("artifacts"))
        if (excess := len(longest) - LONGEST) > 0:
            raise PlatformError(
                f"Pulumi.{settings.environment}.yaml is not valid:\n  ml-platform:prefix: {settings.prefix!r} makes "
                f"the name {longest!r}, which is {excess} character(s) longer than IAM takes; allowed here are "
                f"{max(0, len(settings.prefix) - excess)}"
            )
        return naming

    def __call__(self, what: str) -> str:
        """The name of something: `mlp-dev-raw`."""
        return f"{self.prefix}-{self.environment}-{what}"

    def path(self, what: str) -> str:
        """A name with slashes, as SSM parameters and log groups have them."""
        return f"/{self.prefix}/{self.environment}/{what}"

    def table(self, what: str) -> str:
        """A name that SQL takes without quotes."""
        return self(what).replace("-", "_")

    @property
    def tags(self) -> dict[str, str]:
        """Tags of everything that takes tags; the cost reports group by them."""
        return {"Project": self.prefix, "Environment": self.environment, "ManagedBy": "pulumi"}


def tag_everything(naming: Naming) -> None:
    """Put the tags on every resource registered from here on that takes tags.

    A transformation rather than the provider's default tags, so that a preview shows them and a policy sees them.
    """

    def tag(args: pulumi.ResourceTransformationArgs) -> pulumi.ResourceTransformationResult | None:
        if not isinstance(args.resource, pulumi.CustomResource) or not hasattr(type(args.resource), "tags"):
            return None
        props = dict(args.props)
        own: Any = props.get("tags") or {}
        if isinstance(own, list):  # an auto scaling group's, which say of each tag whether the instances get it
            return None
        props["tags"] = naming.tags | dict(own)
        return pulumi.ResourceTransformationResult(props, args.opts)

    pulumi.runtime.register_stack_transformation(tag)
