"""Settings of audit, alarms and cost."""

from collections.abc import Iterator

from pydantic import Field, model_validator

from infra.settings.section import Email, LogRetention, Place, Section


class AuditSettings(Section):
    """What is recorded beside the access logs, which are always on, and how long logs are kept."""

    log_retention_days: LogRetention = 30
    trail: bool = Field(default=False, description="a CloudTrail of each access to the artifacts")

    def mistakes(self, place: Place, /) -> Iterator[str]:
        """What production needs."""
        if place.tier == "prod" and self.log_retention_days < 90:
            yield f"log_retention_days: prod needs at least 90, but it is {self.log_retention_days}"


class AlertSettings(Section):
    """When an alarm goes off, and who is told."""

    emails: tuple[Email, ...] = Field(default=(), max_length=10)
    error_percent: float = Field(default=1, gt=0, le=100, description="of the requests, over five minutes")
    no_traffic_minutes: int = Field(default=0, ge=0, le=1440, description="0 for models that nobody need ask")
    capture_lag_minutes: int = Field(default=15, ge=5, le=1440, description="age of what waits to be written")

    @model_validator(mode="after")
    def _whole(self) -> "AlertSettings":
        if self.no_traffic_minutes % 5:
            raise ValueError(f"no_traffic_minutes must be a multiple of 5, but it is {self.no_traffic_minutes}")
        return self

    def mistakes(self, place: Place, /) -> Iterator[str]:
        """What production needs."""
        if place.tier == "prod" and not self.emails:
            yield "emails: prod needs at least one, or nobody hears its alarms"


class BudgetSettings(Section):
    """What the environment may cost, and who is told."""

    monthly_usd: int = Field(ge=1)
    emails: tuple[Email, ...] = Field(min_length=1, max_length=10)
