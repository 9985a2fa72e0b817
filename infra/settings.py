"""An environment's settings: structured Pulumi configuration, typed and checked before any resource is registered."""

from ipaddress import IPv4Network
from typing import Annotated, Literal, TypeVar

import pulumi
from pydantic import AfterValidator, Field, StringConstraints, TypeAdapter, ValidationError, model_validator

from contract.errors import PlatformError
from contract.strict import Strict, parse

Zone = Annotated[str, StringConstraints(pattern="^[a-f]$")]
Section = TypeVar("Section", bound=Strict)
Days = Annotated[int, Field(ge=1, le=3650)]
LogRetention = Literal[
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653
]


# Narrower than IPv4Network.is_private, which takes in loopback, link-local and documentation ranges.
PRIVATE_RANGES = [IPv4Network(cidr) for cidr in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")]


def _private(network: IPv4Network) -> IPv4Network:
    if not any(network.subnet_of(private) for private in PRIVATE_RANGES):
        raise ValueError(f"must be a private range: inside {', '.join(map(str, PRIVATE_RANGES))}")
    if not 16 <= network.prefixlen <= 20:
        raise ValueError("must be between /16 and /20")
    return network


class NetworkSettings(Strict):
    """The VPC."""

    cidr: Annotated[IPv4Network, AfterValidator(_private)]
    zones: tuple[Zone, ...] = Field(min_length=2, max_length=4, description="letters of the availability zones")
    nat: Literal["none", "single", "per-zone"] = "none"
    flow_logs: bool = True

    @model_validator(mode="after")
    def _distinct_zones(self) -> "NetworkSettings":
        if len(set(self.zones)) < len(self.zones):
            raise ValueError(f"zones must differ, but they are {', '.join(self.zones)}")
        return self


class StorageSettings(Strict):
    """The lake's buckets."""

    noncurrent_days: Days = Field(default=30, description="how long an overwritten or deleted object can be restored")
    log_days: Days = Field(default=90, description="how long access and flow logs are kept")
    force_destroy: bool = Field(default=False, description="let a destroy empty the buckets and repositories")


class Throttling(Strict):
    """What an endpoint takes before it answers 429."""

    rate: int = Field(default=100, ge=1, le=10_000, description="requests a second")
    burst: int = Field(default=200, ge=1, le=5_000, description="requests at once")


class InferenceSettings(Strict):
    """The functions that serve, and the API before them."""

    architecture: Literal["arm64", "x86_64"] = "arm64"
    image_digest: Annotated[str, StringConstraints(pattern="^sha256:[0-9a-f]{64}$")] | None = None
    log_retention_days: LogRetention = 30
    throttling: Throttling = Throttling()
    max_rows: int = Field(default=1024, ge=1, le=100_000, description="rows in one request")
    max_body_mb: int = Field(default=4, ge=1, le=6, description="size of a request; Lambda takes 6 MB")


class Settings(Strict):
    """All that an environment can be told."""

    environment: str
    region: str
    prefix: str
    network: NetworkSettings
    storage: StorageSettings
    inference: InferenceSettings

    @property
    def protect(self) -> bool:
        """Whether what holds state must not be deleted or replaced by an up."""
        return self.environment == "prod"


# Names are <prefix>-<environment>-<what>-<random>; a bucket's may have 63 characters, and `what` and the random part
# take up to 25 of them.
Prefix = Annotated[str, StringConstraints(pattern="^[a-z][a-z0-9-]{1,14}[a-z0-9]$")]


def load() -> Settings:
    """Read the settings of the stack that is being run.

    Raises:
        PlatformError: naming the file, the key, what was given and what is allowed.
    """
    config, environment = pulumi.Config(), pulumi.get_stack()
    file = f"Pulumi.{environment}.yaml"
    prefix = config.require("prefix")
    try:
        TypeAdapter(Prefix).validate_python(prefix)
    except ValidationError:
        raise PlatformError(
            f"{file} is not valid:\n  ml-platform:prefix: must be 3 to 16 lower-case letters, digits and hyphens, "
            f"starting with a letter, but it is {prefix!r}"
        ) from None

    def section(name: str, model: type[Section]) -> Section:
        return parse(model, config.require_object(name), file, under=f"ml-platform:{name}")

    return Settings(
        environment=environment,
        region=pulumi.Config("aws").require("region"),
        prefix=prefix,
        network=section("network", NetworkSettings),
        storage=section("storage", StorageSettings),
        inference=section("inference", InferenceSettings),
    )
