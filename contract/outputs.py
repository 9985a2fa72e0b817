"""The stack's outputs: all that the pipeline, the service and the CLI may know about an environment."""

from contract.service import ServiceSettings
from contract.strict import Strict


class Buckets(Strict):
    """Names of the lake's buckets."""

    raw: str
    curated: str
    artifacts: str
    queries: str
    logs: str


class ModelOutputs(Strict):
    """What the environment holds for one model."""

    package_group: str
    live_parameter: str
    endpoint: str


class Outputs(Strict):
    """The outputs of a stack, as `stacks/__main__.py` exports them."""

    environment: str
    region: str
    buckets: Buckets
    key_arn: str
    training_role: str
    tracking_uri: str = ""
    images: dict[str, str]
    models: dict[str, ModelOutputs]
    service: dict[str, str]

    @property
    def service_settings(self) -> ServiceSettings:
        """The settings of an inference service that serves every model."""
        return ServiceSettings.from_environment(self.service)
