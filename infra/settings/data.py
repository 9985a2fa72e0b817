"""Settings of what holds data: buckets, databases, experiment tracking."""

from collections.abc import Iterator
from ipaddress import IPv4Network
from typing import Literal

from pydantic import Field, model_validator

from contract.strict import Strict
from infra.regions import MANAGED_MLFLOW
from infra.settings.inference import CERTIFICATE, DOMAIN
from infra.settings.section import Days, Digest, Place, Section


class StorageSettings(Section):
    """The lake's buckets."""

    noncurrent_days: Days = Field(default=30, description="how long an overwritten or deleted object can be restored")
    log_days: Days = Field(default=90, description="how long access and flow logs are kept")
    force_destroy: bool = Field(default=False, description="let a destroy empty the buckets and repositories")

    def mistakes(self, place: Place, /) -> Iterator[str]:
        """What production needs."""
        if place.tier != "prod":
            return
        if self.force_destroy:
            yield "force_destroy: a prod environment's data must not be destroyed with it"
        if self.noncurrent_days < 30:
            yield f"noncurrent_days: prod needs at least 30, but it is {self.noncurrent_days}"


class AuroraSettings(Strict):
    """Aurora Serverless v2 PostgreSQL, for sources and for what needs a database."""

    min_acu: float = Field(default=0, ge=0, le=128, multiple_of=0.5, description="0 lets it pause when nobody asks")
    max_acu: float = Field(default=2, ge=1, le=128, multiple_of=0.5)
    backup_days: int = Field(default=1, ge=1, le=35)

    @model_validator(mode="after")
    def _ordered(self) -> "AuroraSettings":
        if self.min_acu > self.max_acu:
            raise ValueError(f"min_acu {self.min_acu} is greater than max_acu {self.max_acu}")
        return self


class MlflowOnEcs(Strict):
    """MLflow as a container of the environment's own, for regions in which SageMaker offers none."""

    domain: str = Field(pattern=DOMAIN, description="name under which it answers within the network")
    certificate_arn: str = Field(
        pattern=CERTIFICATE,
        description="certificate of AWS's Certificate Manager for that name",
    )
    image_digest: Digest | None = Field(default=None, description="the image; until it is set nothing runs")
    clients: tuple[IPv4Network, ...] = Field(default=(), description="who may ask it; the network, if it is empty")


class MlflowSettings(Strict):
    """Experiment tracking: SageMaker's managed MLflow, or a server on ECS."""

    size: Literal["Small", "Medium", "Large"] = "Small"
    ecs: MlflowOnEcs | None = None


class DataSettings(Section):
    """Databases and servers that hold data; each of them is there only if it is named."""

    aurora: AuroraSettings | None = None
    mlflow: MlflowSettings | None = None

    def mistakes(self, place: Place, /) -> Iterator[str]:
        """What production needs, and where MLflow can be had."""
        if place.tier == "prod" and self.aurora and self.aurora.backup_days < 7:
            yield f"aurora.backup_days: prod needs at least 7, but it is {self.aurora.backup_days}"
        if self.mlflow and not self.mlflow.ecs and place.region not in MANAGED_MLFLOW:
            yield (
                f"mlflow: SageMaker has no managed MLflow in {place.region}; set mlflow.ecs (domain, certificate_arn), "
                "or leave mlflow out"
            )
        if self.mlflow and self.mlflow.ecs and not self.aurora:
            yield "mlflow.ecs: it keeps its runs in PostgreSQL; set data.aurora, too"
