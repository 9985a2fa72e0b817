"""Settings of what holds data: buckets, databases, experiment tracking."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, model_validator

from contract.strict import Strict
from infra.settings.section import Days, Place, Section


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


class DataSettings(Section):
    """Databases and servers that hold data; each of them is there only if it is named."""

    aurora: AuroraSettings | None = None
    mlflow: Literal["Small", "Medium", "Large"] | None = Field(default=None, description="size of SageMaker's MLflow")

    def mistakes(self, place: Place, /) -> Iterator[str]:
        """What production needs."""
        if place.tier == "prod" and self.aurora and self.aurora.backup_days < 7:
            yield f"aurora.backup_days: prod needs at least 7, but it is {self.aurora.backup_days}"
