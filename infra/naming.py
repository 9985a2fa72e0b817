"""Names and tags: one place says how everything is called and who it belongs to."""

from dataclasses import dataclass
from typing import Any

import pulumi

from infra.settings import Settings


@dataclass(frozen=True)
class Naming:
    """Gives things their names.

    What is looked up by its name gets the name as it is. What must be unique in the world (buckets) or may have to be
    replaced while in use (roles) is registered under the name, and Pulumi adds a random suffix.
    """

    prefix: str
    environment: str

    @classmethod
    def of(cls, settings: Settings) -> "Naming":
        """The naming of an environment."""
        return cls(settings.prefix, settings.environment)

    def __call__(self, what: str) -> str:
        """The name of something: `mlp-dev-raw`."""
        return f"{self.prefix}-{self.environment}-{what}"

    def path(self, what: str) -> str:
        """A name with slashes, as SSM parameters and log groups have them."""
        return f"/{self.prefix}/{self.environment}/{what}"

    @property
    def tags(self) -> dict[str, str]:
        """Tags of everything that takes tags; the cost reports group by them."""
        return {"Project": self.prefix, "Environment": self.environment, "ManagedBy": "pulumi"}


def tag_everything(naming: Naming) -> None:
    """Put the tags on every resource registered from here on that takes tags.

    A transform rather than the provider's default tags, so that a preview shows them and a policy sees them.
    """

    def tag(args: pulumi.ResourceTransformationArgs) -> pulumi.ResourceTransformationResult | None:
        if not isinstance(args.resource, pulumi.CustomResource) or not hasattr(type(args.resource), "tags"):
            return None
        props = dict(args.props)
        own: Any = props.get("tags") or {}
        props["tags"] = naming.tags | dict(own)
        return pulumi.ResourceTransformationResult(props, args.opts)

    pulumi.runtime.register_stack_transformation(tag)
