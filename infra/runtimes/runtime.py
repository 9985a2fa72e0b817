"""What a runtime is told of a model, and what it tells the API and the alarms."""

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from contract.manifest import Manifest
from infra.alarms import Signals
from infra.foundation import Foundation
from infra.settings.inference import InferenceSettings


@dataclass(frozen=True)
class RuntimeArgs:
    """A model, and how it is served."""

    model: str
    manifest: Manifest
    settings: InferenceSettings
    role: aws.iam.Role
    environment: Mapping[str, pulumi.Input[str]]
    """What the service reads its own settings from."""

    def image(self, foundation: Foundation) -> pulumi.Output[str] | None:
        """The image by digest, or None as long as the settings name none."""
        if not self.settings.image_digest:
            return None
        repository = foundation.registry.repositories["inference"]
        return pulumi.Output.concat(repository.repository_url, "@", self.settings.image_digest)


class Runtime(pulumi.ComponentResource):
    """Something that serves one model."""

    signals: Signals
    """What CloudWatch knows of it."""

    def integrate(self, api: aws.apigatewayv2.Api) -> aws.apigatewayv2.Integration | None:
        """How the API reaches it; None if it is not called through the API, or nothing runs yet."""
        raise NotImplementedError

    def roll_back_on(self, alarms: list[pulumi.Output[str]]) -> None:
        """Undo a deployment when one of these alarms goes off during it."""
        raise NotImplementedError
