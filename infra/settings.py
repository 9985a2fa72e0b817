"""An environment's settings: structured Pulumi configuration, typed and checked before any resource is registered."""

from collections.abc import Iterator
from datetime import date
from ipaddress import IPv4Network
from typing import Annotated, Any, Literal

import pulumi
from pydantic import AfterValidator, Field, StringConstraints, model_validator

from contract.strict import Strict, parse
from infra.guardrails.rules import NAMES
from infra.guardrails.waivers import read_waivers
from infra.regions import is_region, zones

VERSION = 1
"""Of the environment files' format; a change that old files do not survive counts it up."""

Days = Annotated[int, Field(ge=1, le=3650)]
Email = Annotated[str, StringConstraints(pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$")]
LogRetention = Literal[
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653
]
Endpoint = Literal["ecr", "kms", "logs", "sagemaker", "secretsmanager", "ssm", "sts"]

# Narrower than IPv4Network.is_private, which takes in loopback, link-local and documentation ranges.
PRIVATE_RANGES = [IPv4Network(cidr) for cidr in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")]


def _private(network: IPv4Network) -> IPv4Network:
    if not any(network.subnet_of(private) for private in PRIVATE_RANGES):
        raise ValueError(f"must be a private range: inside {', '.join(map(str, PRIVATE_RANGES))}")
    if not 16 <= network.prefixlen <= 20:
        raise ValueError("must be between /16 and /20")
    return network


class ExistingVpc(Strict):
    """A VPC that is there already, with its subnets; nothing in it is changed."""

    vpc_id: str = Field(pattern="^vpc-[0-9a-f]+$")
    private_subnet_ids: tuple[Annotated[str, StringConstraints(pattern="^subnet-[0-9a-f]+$")], ...] = Field(
        min_length=2
    )


class NetworkSettings(Strict):
    """The VPC: one of our own, or an existing one."""

    cidr: Annotated[IPv4Network, AfterValidator(_private)] | None = None
    reserved: tuple[IPv4Network, ...] = Field(default=(), description="ranges in use elsewhere, to be kept clear of")
    zones: tuple[Annotated[str, StringConstraints(pattern="^[a-f]$")], ...] = Field(default=("a", "b"), max_length=4)
    nat: Literal["none", "single", "per-zone"] = "none"
    endpoints: tuple[Endpoint, ...] = Field(default=(), description="services reached without leaving the network")
    flow_logs: bool = True
    existing: ExistingVpc | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "NetworkSettings":
        if (self.cidr is None) == (self.existing is None):
            raise ValueError("give either cidr, for a VPC of its own, or existing, for one that is there")
        if len(set(self.zones)) < max(2, len(self.zones)):
            raise ValueError(f"zones must be 2 to 4 different letters, but they are {', '.join(self.zones)}")
        for other in self.reserved:
            if self.cidr and self.cidr.overlaps(other):
                raise ValueError(f"cidr {self.cidr} overlaps the reserved range {other}; choose another one")
        return self


class StorageSettings(Strict):
    """The lake's buckets."""

    noncurrent_days: Days = Field(default=30, description="how long an overwritten or deleted object can be restored")
    log_days: Days = Field(default=90, description="how long access and flow logs are kept")
    force_destroy: bool = Field(default=False, description="let a destroy empty the buckets and repositories")


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


class DataSettings(Strict):
    """Databases and servers that hold data; each of them is there only if it is named."""

    aurora: AuroraSettings | None = None
    mlflow: Literal["Small", "Medium", "Large"] | None = Field(default=None, description="size of SageMaker's MLflow")


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


class AuditSettings(Strict):
    """What is recorded beside the access logs, which are always on."""

    trail: bool = Field(default=False, description="a CloudTrail of each access to the artifacts")


class BudgetSettings(Strict):
    """What the environment may cost, and who is told."""

    monthly_usd: int = Field(ge=1)
    emails: tuple[Email, ...] = Field(min_length=1, max_length=10)


class Settings(Strict):
    """All that an environment can be told."""

    environment: Annotated[str, StringConstraints(pattern="^[a-z][a-z0-9-]{0,15}$")]
    region: str
    version: int
    tier: Literal["dev", "staging", "prod"]
    prefix: Annotated[str, StringConstraints(pattern="^[a-z][a-z0-9-]*[a-z0-9]$")]
    permissions_boundary: Annotated[str, StringConstraints(pattern=r"^(arn:[\w-]+:iam::\d{12}:policy/.+)?$")] = ""
    network: NetworkSettings
    storage: StorageSettings
    data: DataSettings
    inference: InferenceSettings
    audit: AuditSettings
    budget: BudgetSettings

    @property
    def protect(self) -> bool:
        """Whether what holds state must not be deleted or replaced by an up."""
        return self.tier == "prod"

    @model_validator(mode="after")
    def _allowed(self) -> "Settings":
        if mistakes := [*self._of_format(), *self._of_place(), *self._of_tier()]:
            raise ValueError("; ".join(mistakes))
        return self

    def _of_format(self) -> Iterator[str]:
        if self.version != VERSION:
            yield f"ml-platform:version is {self.version}, but this checkout reads version {VERSION}: see docs/aws.md"

        if self.environment == "bootstrap":
            yield "an environment cannot be called bootstrap: what an account needs once has that name"

    def _of_place(self) -> Iterator[str]:
        if not is_region(self.region):
            yield f"aws:region {self.region!r} is not a region of AWS (China and GovCloud are not supported yet)"
        elif missing := [zone for zone in self.network.zones if zone not in zones(self.region)]:
            known = ", ".join(zones(self.region))
            yield f"ml-platform:network.zones: {self.region} has no zone {', '.join(missing)}; its zones are {known}"

    def _of_tier(self) -> Iterator[str]:
        """What only a tier below production may have."""
        if self.tier != "prod":
            return
        network, storage, aurora = self.network, self.storage, self.data.aurora
        if storage.force_destroy:
            yield "ml-platform:storage.force_destroy: a prod environment's data must not be destroyed with it"
        if storage.noncurrent_days < 30:
            yield f"ml-platform:storage.noncurrent_days: prod needs at least 30, but it is {storage.noncurrent_days}"
        if network.existing is None and len(network.zones) < 3:
            yield f"ml-platform:network.zones: prod needs at least 3, but they are {', '.join(network.zones)}"
        if network.existing is None and network.nat == "single":
            yield "ml-platform:network.nat: prod takes per-zone or none, since one zone must not cut off the others"
        if not network.flow_logs:
            yield "ml-platform:network.flow_logs: prod needs them"
        if aurora and aurora.backup_days < 7:
            yield f"ml-platform:data.aurora.backup_days: prod needs at least 7, but it is {aurora.backup_days}"
        if self.inference.log_retention_days < 90:
            given = self.inference.log_retention_days
            yield f"ml-platform:inference.log_retention_days: prod needs at least 90, but it is {given}"


SECTIONS = ("network", "storage", "data", "inference", "audit", "budget")


def load() -> Settings:
    """Read the settings of the stack that is being run.

    Raises:
        PlatformError: naming the file, the key, what was given and what is allowed.
    """
    config = pulumi.Config()
    values: dict[str, Any] = {name: config.require_object(name) for name in SECTIONS} | {
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
