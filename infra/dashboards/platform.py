"""What the dashboards are told of an environment: plain names, so that they can be built and looked at without one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from contract.manifest import Manifest
from contract.metrics import namespace
from infra.naming import Naming
from infra.regions import partition
from infra.settings.observability import ObservabilitySettings

Runtime = Literal["lambda", "ecs", "sagemaker"]


@dataclass(frozen=True)
class ServedModel:
    """One model, as far as its dashboard depends on how it is served.

    Attributes:
        name: the model's.
        runtime: what serves it.
        dimensions: of its runtime's own metrics in CloudWatch, such as `{"FunctionName": "mlp-dev-inference-digits"}`.
    """

    name: str
    runtime: Runtime
    dimensions: Mapping[str, str]


@dataclass(frozen=True)
class Platform:
    """An environment.

    Attributes:
        naming: its names.
        region: where it is.
        settings: the limits that its dashboards draw.
        models: those that it serves.
        gpu_training: whether GPUs train on its cluster.
        monthly_usd: its budget.
    """

    naming: Naming
    region: str
    settings: ObservabilitySettings
    models: tuple[ServedModel, ...]
    gpu_training: bool
    monthly_usd: int

    @property
    def uid(self) -> str:
        """What the identifiers of its folder and dashboards begin with: they never change, so that links last."""
        return f"{self.naming.prefix}-{self.naming.environment}"

    @property
    def charges(self) -> bool:
        """Whether AWS publishes the account's charges as a metric."""
        return partition(self.region) == "aws"

    def namespace(self, part: str) -> str:
        """CloudWatch's namespace of the metrics of a part."""
        return namespace(self.naming.prefix, self.naming.environment, part)


_DIMENSIONS = {
    "lambda": ("FunctionName",),
    "ecs": ("ClusterName", "ServiceName"),
    "sagemaker": ("EndpointName",),
}
"""Those by which a runtime's own metrics name what serves a model: all have the same name."""


def served(models: Mapping[str, Manifest], naming: Naming) -> tuple[ServedModel, ...]:
    """The models of an environment, each with the runtime that its manifest names."""
    return tuple(
        ServedModel(
            model,
            manifest.serving.runtime,
            dict.fromkeys(_DIMENSIONS[manifest.serving.runtime], naming(f"inference-{model}")),
        )
        for model, manifest in models.items()
    )
