"""What the dashboards are told of an environment: plain names, so that they can be built and looked at without one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from contract.manifest import Manifest
from contract.metrics import namespace
from infra.limits import Limits
from infra.naming import Naming
from infra.regions import partition
from infra.settings.training import Backend, TrainingSettings

Runtime = Literal["lambda", "ecs", "sagemaker"]


@dataclass(frozen=True)
class ServedModel:
    """One model, as far as its dashboard depends on how it is served.

    Attributes:
        name: the model's.
        runtime: what serves it.
        latency_ms: what 99 of 100 requests are to be answered within.
        dimensions: of its runtime's own metrics in CloudWatch, such as `{"FunctionName": "mlp-dev-inference-digits"}`.
    """

    name: str
    runtime: Runtime
    latency_ms: int
    dimensions: Mapping[str, str]


@dataclass(frozen=True)
class Platform:
    """An environment.

    Attributes:
        naming: its names.
        region: where it is.
        limits: those that its dashboards draw.
        models: those that it serves.
        gpus: the backends whose GPUs are shown.
        monthly_usd: its budget.
    """

    naming: Naming
    region: str
    limits: Limits
    models: tuple[ServedModel, ...]
    gpus: frozenset[Backend]
    monthly_usd: int

    @property
    def gpu_cluster(self) -> bool:
        """Whether GPUs train on its EKS cluster, whose exporter says the most of them."""
        return "eks" in self.gpus

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


def gpu_backends(training: TrainingSettings) -> frozenset[Backend]:
    """The backends of an environment, its cluster left out, that say what their GPUs do."""
    on: dict[Backend, bool] = {
        "sagemaker": training.sagemaker is not None,
        "batch": training.batch is not None and bool(training.batch.gpu_types(gpu=True)),
    }
    return frozenset(name for name, is_on in on.items() if is_on)


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
            manifest.serving.latency_ms,
            dict.fromkeys(_DIMENSIONS[manifest.serving.runtime], naming(f"inference-{model}")),
        )
        for model, manifest in models.items()
    )
