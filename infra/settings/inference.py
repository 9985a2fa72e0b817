"""Settings of what serves the models."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, model_validator

from contract.strict import Strict
from infra.settings.section import Digest, Place, Section

CERTIFICATE = r"^arn:[a-z-]+:acm:[a-z0-9-]+:\d{12}:certificate/.+$"
DOMAIN = r"^([a-z0-9-]+\.){2,}[a-z]+$"


class Throttling(Strict):
    """What an endpoint takes before it answers 429."""

    rate: int = Field(default=100, ge=1, le=10_000, description="requests a second")
    burst: int = Field(default=200, ge=1, le=5_000, description="requests at once")


class Oidc(Strict):
    """An identity provider of the company's own, whose tokens open the API."""

    issuer: str = Field(pattern=r"^https://[^\s/]+(/[^\s]*)?$")
    audience: tuple[str, ...] = Field(min_length=1)


class Domain(Strict):
    """A name under which something answers, and the certificate for it, of AWS's Certificate Manager."""

    name: str = Field(pattern=DOMAIN)
    certificate_arn: str = Field(pattern=CERTIFICATE)


class InferenceSettings(Section):
    """What serves, and the API before it."""

    architecture: Literal["arm64", "x86_64"] = "arm64"
    image_digest: Digest | None = None
    auth: Literal["cognito", "oidc", "iam"] = Field(default="cognito", description="whose tokens or keys open the API")
    oidc: Oidc | None = None
    throttling: Throttling = Throttling()
    per_model: dict[str, Throttling] = Field(default={}, description="other limits for the routes of a model")
    domain: Domain | None = Field(default=None, description="a name of the API's own; AWS's is switched off then")
    balancer: Domain | None = Field(default=None, description="of the internal load balancer before models on ECS")
    max_rows: int = Field(default=1024, ge=1, le=100_000, description="rows in one request")
    max_body_mb: int = Field(default=4, ge=1, le=6, description="size of a request; Lambda takes 6 MB")

    @model_validator(mode="after")
    def _consistent(self) -> "InferenceSettings":
        if (self.auth == "oidc") != (self.oidc is not None):
            raise ValueError("auth: oidc and the section oidc (issuer, audience) go together; give both or neither")
        return self

    def mistakes(self, place: Place, /) -> Iterator[str]:
        """Certificates that are in another region than what they are for."""
        for key in ("domain", "balancer"):
            domain = getattr(self, key)
            if domain and (region := domain.certificate_arn.split(":")[3]) != place.region:
                yield f"{key}.certificate_arn is in {region}; it must be in {place.region}"
