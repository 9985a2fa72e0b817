"""Settings of the network."""

from collections.abc import Iterator
from ipaddress import IPv4Network
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from contract.strict import Strict
from infra.regions import zones
from infra.settings.section import Place, Section

Endpoint = Literal["ecr", "firehose", "kms", "logs", "sagemaker", "secretsmanager", "ssm", "sts", "aps"]

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


class NetworkSettings(Section):
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

    @property
    def private_addresses(self) -> int:
        """Addresses of one private subnet: of an eighth of the range (`infra.network.plan_subnets`), AWS keeps five."""
        return 2 ** (32 - self.cidr.prefixlen - 3) - 5 if self.cidr else 0

    def mistakes(self, place: Place, /) -> Iterator[str]:
        """Zones that the region lacks, and what production needs."""
        known = zones(place.region)
        if missing := [zone for zone in self.zones if zone not in known]:
            yield f"zones: {place.region} has no zone {', '.join(missing)}; its zones are {', '.join(known)}"
        if place.tier != "prod":
            return
        if self.existing is None and len(self.zones) < 3:
            yield f"zones: prod needs at least 3, but they are {', '.join(self.zones)}"
        if self.existing is None and self.nat == "single":
            yield "nat: prod takes per-zone or none, since one zone must not cut off the others"
        if not self.flow_logs:
            yield "flow_logs: prod needs them"
