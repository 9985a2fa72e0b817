"""An environment's settings: structured Pulumi configuration, typed and checked before any resource is registered.

Each section has a file here, with its defaults and with what it may not hold in a tier or region.
"""

from collections.abc import Iterator
from datetime import date
from typing import Annotated, Any

import pulumi
from pydantic import StringConstraints, model_validator

from contract.strict import Strict, parse
from infra.guardrails.rules import NAMES
from infra.guardrails.waivers import read_waivers
from infra.regions import is_region
from infra.settings.cluster import ClusterSettings
from infra.settings.data import DataSettings, MlflowOnEcs, StorageSettings
from infra.settings.inference import InferenceSettings
from infra.settings.network import NetworkSettings
from infra.settings.observability import ObservabilitySettings
from infra.settings.operations import AlertSettings, AuditSettings, BudgetSettings
from infra.settings.section import Place, Tier
from infra.settings.training import TrainingSettings

VERSION = 1
"""Of the environment files' format; a change that old files do not survive counts it up."""


class Settings(Strict):
    """All that an environment can be told."""

    environment: Annotated[str, StringConstraints(pattern="^[a-z][a-z0-9-]{0,15}$")]
    region: str
    version: int
    tier: Tier
    prefix: Annotated[str, StringConstraints(pattern="^[a-z][a-z0-9-]*[a-z0-9]$")]
    permissions_boundary: Annotated[str, StringConstraints(pattern=r"^(arn:[\w-]+:iam::\d{12}:policy/.+)?$")] = ""
    network: NetworkSettings
    storage: StorageSettings
    data: DataSettings
    inference: InferenceSettings
    training: TrainingSettings
    observability: ObservabilitySettings
    cluster: ClusterSettings | None = None
    audit: AuditSettings
    alerts: AlertSettings
    budget: BudgetSettings

    @property
    def protect(self) -> bool:
        """Whether what holds state must not be deleted or replaced by an up."""
        return self.tier == "prod"

    @model_validator(mode="after")
    def _allowed(self) -> "Settings":
        if mistakes := list(self._mistakes()):
            raise ValueError("; ".join(mistakes))
        return self

    def _mistakes(self) -> Iterator[str]:
        if self.version != VERSION:
            yield f"ml-platform:version is {self.version}, but this checkout reads version {VERSION}: see docs/aws.md"
        if self.environment == "bootstrap":
            yield "an environment cannot be called bootstrap: what an account needs once has that name"
        if not is_region(self.region):
            yield f"aws:region {self.region!r} is not a region that botocore knows; try `pip install -U botocore`"
            return
        place = Place(self.tier, self.region)
        for name in SECTIONS:
            yield from (f"ml-platform:{name}.{mistake}" for mistake in getattr(self, name).mistakes(place))
        if self.cluster:
            # What it makes of the network is known only of pools that can be.
            mistakes = list(self.cluster.mistakes(place)) or self.cluster.misfits(self.network)
            yield from (f"ml-platform:cluster.{mistake}" for mistake in mistakes)
        if self.data.mlflow and self.data.mlflow.ecs:
            yield from self._mistakes_of_ecs(self.data.mlflow.ecs)
        yield from self._training_mistakes()
        if self.observability.grafana == "cluster" and getattr(self, "cluster", None) is None:
            yield "ml-platform:observability.grafana: cluster needs an EKS cluster; allowed without one: managed, none"

    def _mistakes_of_ecs(self, mlflow: MlflowOnEcs) -> Iterator[str]:
        """What a container in the private subnets needs of the network."""
        network = self.network
        if network.existing and not mlflow.clients:
            yield "ml-platform:data.mlflow.ecs.clients: name the ranges that may ask it; network.existing has none"
        if not network.existing and network.nat == "none" and not {"ecr", "logs"} <= set(network.endpoints):
            yield (
                "ml-platform:data.mlflow.ecs: nothing in the private subnets could pull its image or write its logs; "
                "set network.nat, or network.endpoints with ecr and logs"
            )

    def _training_mistakes(self) -> Iterator[str]:
        """Backends that need something of another section."""
        if self.training.backend == "eks" and self.cluster is None:
            yield "ml-platform:training.backend: eks needs a cluster; allowed without one are sagemaker, batch"
        if self.training.batch and self.network.existing is None and self.network.nat == "none":
            yield (
                "ml-platform:training.batch: its instances reach ECS, ECR and CloudWatch by the internet, and "
                "network.nat is none, so jobs would wait for ever; set network.nat to single or per-zone"
            )


SECTIONS = ("network", "storage", "data", "inference", "training", "observability", "audit", "alerts", "budget")


def load() -> Settings:
    """Read the settings of the stack that is being run.

    Raises:
        PlatformError: naming the file, the key, what was given and what is allowed.
    """
    config = pulumi.Config()
    values: dict[str, Any] = {name: config.require_object(name) for name in SECTIONS} | {
        "cluster": config.get_object("cluster") or None,
        "environment": pulumi.get_stack(),
        "region": pulumi.Config("aws").require("region"),
        "version": config.require_int("version"),
        "tier": config.require("tier"),
        "prefix": config.require("prefix"),
        "permissions_boundary": config.get("permissions_boundary") or "",
    }
    file = f"Pulumi.{pulumi.get_stack()}.yaml"
    read_waivers(config.get_object("waivers"), file, date.today(), NAMES)
    return parse(Settings, values, file, under=f"{pulumi.get_project()}:")
