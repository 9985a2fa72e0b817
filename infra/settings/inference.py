"""Settings of what serves the models."""

from typing import Literal

from pydantic import Field

from contract.strict import Strict
from infra.settings.section import Digest, Section


class Throttling(Strict):
    """What an endpoint takes before it answers 429."""

    rate: int = Field(default=100, ge=1, le=10_000, description="requests a second")
    burst: int = Field(default=200, ge=1, le=5_000, description="requests at once")


class InferenceSettings(Section):
    """The functions that serve, and the API before them."""

    architecture: Literal["arm64", "x86_64"] = "arm64"
    image_digest: Digest | None = None
    throttling: Throttling = Throttling()
    max_rows: int = Field(default=1024, ge=1, le=100_000, description="rows in one request")
    max_body_mb: int = Field(default=4, ge=1, le=6, description="size of a request; Lambda takes 6 MB")
