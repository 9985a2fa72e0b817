"""Settings of audit, alerts and cost."""

from collections.abc import Iterator

from pydantic import Field

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
    """Who is told when an alarm goes off; each address gets a mail first, and has to confirm."""

    emails: tuple[Email, ...] = Field(default=(), max_length=10)

    def mistakes(self, place: Place, /) -> Iterator[str]:
        """What production needs."""
        if place.tier == "prod" and not self.emails:
            yield "emails: prod needs at least one, or nobody hears its alarms"


class BudgetSettings(Section):
    """What the environment may cost, and who is told."""

    monthly_usd: int = Field(ge=1)
    emails: tuple[Email, ...] = Field(min_length=1, max_length=10)
