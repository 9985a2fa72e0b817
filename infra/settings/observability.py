"""Settings of metrics, dashboards and alerts."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from contract.metrics import LATENCY_BOUNDS
from contract.strict import Strict
from infra.regions import offering
from infra.settings.section import Place, Section

GroupId = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{10}-)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
BOUNDS_MS = tuple(round(bound * 1000, 2) for bound in LATENCY_BOUNDS)


class SamlSettings(Strict):
    """Sign-in by a SAML identity provider rather than IAM Identity Center."""

    metadata_url: str = Field(pattern=r"^https://\S+$", description="where the provider describes itself")
    role_attribute: str = Field(default="role", description="attribute that says what a person may do")
    admin_values: tuple[str, ...] = Field(min_length=1, description="its values that make an administrator")
    editor_values: tuple[str, ...] = ()


class ObservabilitySettings(Section):
    """Prometheus, Grafana, and when somebody is told.

    An empty workspace of Amazon Managed Prometheus costs nothing; it is paid by samples taken in (about 0.9 USD for ten
    million), kept and queried. Managed Grafana costs about 9 USD a month for each person (and each token) that may
    edit, and 5 USD for each that looks. Grafana on the cluster costs the pod it runs in.
    """

    prometheus: bool = Field(default=False, description="a managed Prometheus workspace, with rules and collectors")
    grafana: Literal["managed", "cluster", "none"] = Field(
        default="none", description="where dashboards are; with none, each model has one in CloudWatch"
    )
    grafana_version: Literal["12.4", "13.2"] = Field(
        default="13.2", description="of the managed one; it never goes back"
    )
    saml: SamlSettings | None = Field(default=None, description="instead of IAM Identity Center")
    admins: tuple[GroupId, ...] = Field(default=(), description="IDs of Identity Center groups that may do anything")
    editors: tuple[GroupId, ...] = Field(default=(), description="IDs of groups that may change dashboards")
    viewers: tuple[GroupId, ...] = Field(default=(), description="IDs of groups that may look")
    retention_days: int = Field(default=150, ge=1, le=1095, description="how long Prometheus keeps metrics")
    error_percent: float = Field(default=1, gt=0, lt=100, description="errors in five minutes that raise an alert")
    latency_ms: float = Field(default=100, description="99% of requests are to be answered within it")
    drift_score: float = Field(default=0.2, gt=0, le=10, description="drift of a feature that raises an alert")
    idle_gpu_minutes: int = Field(default=30, ge=5, le=1440, description="how long a GPU may do nothing")
    pending_minutes: int = Field(default=30, ge=5, le=1440, description="how long training jobs may wait in a queue")

    @model_validator(mode="after")
    def _consistent(self) -> "ObservabilitySettings":
        if self.grafana != "none" and not self.prometheus:
            raise ValueError(f"grafana: {self.grafana} shows what Prometheus holds, so it needs prometheus: true")
        groups = [name for name in ("admins", "editors", "viewers") if getattr(self, name)]
        if self.grafana != "managed" and (self.saml or groups):
            said = ", ".join([*(["saml"] if self.saml else []), *groups])
            raise ValueError(f"{said}: only grafana: managed has a sign-in of its own, but grafana is {self.grafana}")
        if self.saml and groups:
            raise ValueError(f"{', '.join(groups)}: with saml, the identity provider's attribute says who may do what")
        if self.latency_ms not in BOUNDS_MS:
            allowed = ", ".join(f"{bound:g}" for bound in BOUNDS_MS)
            raise ValueError(f"latency_ms is {self.latency_ms:g}, which the service does not count; allowed: {allowed}")
        return self

    def mistakes(self, place: Place, /) -> Iterator[str]:
        """What the region lacks."""
        if self.prometheus and place.region not in offering("aps"):
            yield f"prometheus: {place.region} has no Managed Prometheus; set it to false, and grafana to none"
        if self.grafana == "managed" and place.region not in offering("grafana"):
            near = ", ".join(sorted(offering("grafana")))
            yield f"grafana: {place.region} has no Managed Grafana; take cluster or none, or one of {near}"
