"""Settings of the Kubernetes cluster that trains: who may reach it, its pools of nodes, what each team gets of them."""

from collections.abc import Iterator
from ipaddress import IPv4Network
from math import ceil
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from contract.strict import Strict
from contract.training import Team
from infra.instances import EFA, INSTANCES, REGIONS, family_types, offered, problem
from infra.settings.network import NetworkSettings
from infra.settings.section import Place, Section

PoolName = Annotated[str, StringConstraints(pattern="^[a-z][a-z0-9]{0,19}$")]
PriorityName = Annotated[str, StringConstraints(pattern="^[a-z][a-z0-9-]{0,30}[a-z0-9]$")]
Zone = Annotated[str, StringConstraints(pattern="^[a-f]$")]
Role = Annotated[
    str, StringConstraints(pattern=r"^(arn:[a-z-]+:iam::\d{12}:role/)?[A-Za-z0-9_+=,.@/-]+$", max_length=256)
]
"""Name of a role of the account, or the ARN of one; not a user's, nor that of a session (`arn:aws:sts::...`)."""
Reservation = Annotated[str, StringConstraints(pattern="^cr-[0-9a-f]{8,17}$")]

SYSTEM_PODS = 58
"""Pods that a system node takes: add-ons, controllers, Grafana."""
SYSTEM_DISK_GB = 50
"""Of a system node: images and logs."""
PREFIX = 16
"""Addresses that the VPC CNI takes from a subnet at a time (a /28)."""
OTHERS = 64
"""Addresses of a subnet that are left to what else is in it: endpoints, functions, databases, load balancers."""


def _narrow(cidr: IPv4Network) -> IPv4Network:
    if cidr.prefixlen < 16:
        raise ValueError("an allow-list names ranges of /16 or narrower")
    return cidr


class SystemNodes(Strict):
    """The nodes that are always there: for the add-ons, Karpenter, Kueue, JobSet."""

    instance_type: str = "m7i.large"
    min_nodes: int = Field(default=2, ge=1, le=10)
    max_nodes: int = Field(default=3, ge=1, le=10)

    @model_validator(mode="after")
    def _ordered(self) -> "SystemNodes":
        if self.min_nodes > self.max_nodes:
            raise ValueError(f"min_nodes {self.min_nodes} is greater than max_nodes {self.max_nodes}")
        return self

    def mistakes(self, place: Place, /) -> Iterator[str]:
        """A type that is not there or has GPUs, and what production needs."""
        if wrong := problem(self.instance_type, place.region):
            yield f"instance_type: {wrong}"
        elif INSTANCES[self.instance_type].gpus or INSTANCES[self.instance_type].memory_gib < 8:
            yield f"instance_type: system nodes need 8 GiB or more and no GPU, but it is {self.instance_type}"
        if place.tier == "prod" and self.min_nodes < 2:
            yield f"min_nodes: prod needs at least 2, but it is {self.min_nodes}"


class NodePool(Strict):
    """Nodes of a kind, which come when a job is admitted to them, and go when they are empty: from zero, to zero."""

    instances: tuple[str, ...] = Field(min_length=1, description="instance types, or families such as g5")
    capacity: tuple[Literal["reservation", "block", "spot", "on-demand"], ...] = Field(
        default=("on-demand",), min_length=1, description="what may be bought; the cheapest that there is comes first"
    )
    reservations: tuple[Reservation, ...] = Field(default=(), description="capacity reservations or capacity blocks")
    zone: Zone | None = Field(default=None, description="the only zone, where it matters")
    efa: bool = Field(default=False, description="nodes close together, with EFA: for training over several nodes")
    limit: int = Field(ge=1, le=10_000, description="GPUs of all nodes together; vCPUs, for nodes without GPUs")
    pods_per_node: int = Field(default=32, ge=12, le=250)
    disk_gb: int = Field(default=200, ge=50, le=16_000)
    empty_minutes: int = Field(default=5, ge=1, le=60, description="after which an empty node goes")

    @model_validator(mode="after")
    def _consistent(self) -> "NodePool":
        reserved = {"reservation", "block"} & set(self.capacity)
        if len(reserved) == 2:
            raise ValueError("capacity: a pool has reservations or blocks, not both; make two pools")
        if reserved and not self.reservations:
            raise ValueError(
                f"capacity {', '.join(reserved)} needs reservations: the ids, such as cr-0123456789abcdef0"
            )
        if self.reservations and not reserved:
            raise ValueError("reservations are used only if capacity has reservation, or block for capacity blocks")
        if "block" in reserved and self.zone is None:
            raise ValueError("a capacity block is in one zone: name it as zone")
        if self.efa and self.zone is None:
            raise ValueError("efa connects the nodes of one zone: name it as zone")
        return self

    @property
    def types(self) -> tuple[str, ...]:
        """The instance types, those of families among them."""
        return tuple(dict.fromkeys(type_ for name in self.instances for type_ in family_types(name)))

    @property
    def gpu(self) -> bool:
        """Whether the nodes have GPUs."""
        return bool(INSTANCES[self.types[0]].gpus)

    def units(self, type_: str) -> int:
        """What one instance of a type counts towards the limit: GPUs, or vCPUs."""
        return INSTANCES[type_].gpus if self.gpu else INSTANCES[type_].vcpus

    def interfaces(self, type_: str) -> int:
        """EFA interfaces that jobs get on a node of a type."""
        return EFA.get(type_, 0) if self.efa else 0

    @property
    def max_nodes(self) -> int:
        """The most nodes that the limit allows: if all of them are of the smallest type."""
        return max(1, self.limit // min(map(self.units, self.types)))

    @property
    def addresses(self) -> int:
        """Addresses that all nodes take: their own, their EFA interfaces', and whole prefixes for pods, one spare."""
        efa = max(map(self.interfaces, self.types))
        return self.max_nodes * (1 + efa + _pod_addresses(self.pods_per_node))

    def mistakes(self, place: Place) -> Iterator[str]:
        """Instances that are not there, that do not go together, or of which not one fits into the limit."""
        for index, name in enumerate(self.instances):
            if wrong := _unknown(name, place.region):
                yield f"instances.{index}: {wrong}"
        if any(_unknown(name, place.region) for name in self.instances):
            return
        if len({bool(INSTANCES[type_].gpus) for type_ in self.types}) > 1:
            yield f"instances: a pool has GPUs or has none, but {', '.join(self.instances)} are of both kinds"
            return
        if without := [type_ for type_ in self.types if self.efa and type_ not in EFA]:
            able = [type_ for type_ in EFA if offered(type_, place.region)]
            yield f"efa: {', '.join(without)} has none; allowed in {place.region} are {', '.join(able)}"
        smallest = min(map(self.units, self.types))
        if self.limit < smallest:
            unit = "GPUs" if self.gpu else "vCPUs"
            yield f"limit: {self.limit} is less than the {smallest} {unit} of one node; allowed are {smallest} and more"


class TeamSettings(Strict):
    """What a team gets of the pools, and who is in it."""

    quota: dict[PoolName, Annotated[int, Field(ge=0, le=10_000)]] = Field(
        default={}, description="of each pool, in GPUs (vCPUs of a pool without): always the team's, idle ones are lent"
    )
    borrow: bool = Field(default=True, description="let it use what other teams leave idle, until they want it back")
    weight: float = Field(default=1, gt=0, le=100, description="of what is idle, next to the other teams that want it")
    members: tuple[Role, ...] = Field(default=(), description="roles that may start and see the team's jobs")


class LustreSettings(Strict):
    """A file system in front of the curated bucket, for jobs that read faster than S3 answers."""

    zone: Zone
    storage_gib: int = Field(default=1200, description="1200, or a multiple of 2400")
    throughput: Literal[125, 250, 500, 1000] = Field(default=125, description="MB/s for each TiB")

    @model_validator(mode="after")
    def _sized(self) -> "LustreSettings":
        if self.storage_gib != 1200 and (self.storage_gib <= 0 or self.storage_gib % 2400):
            raise ValueError(f"storage_gib: allowed are 1200 and multiples of 2400, but it is {self.storage_gib}")
        return self


class ClusterSettings(Section):
    """A Kubernetes cluster (EKS) with queues for training jobs; without the section there is none."""

    admins: tuple[Role, ...] = Field(min_length=1, description="roles with all rights; who runs the up must be one")
    public_access_cidrs: tuple[Annotated[IPv4Network, AfterValidator(_narrow)], ...] = Field(
        default=(), description="from where the API may be reached past the network; empty for nowhere"
    )
    system: SystemNodes = SystemNodes()
    pools: dict[PoolName, NodePool] = Field(min_length=1, max_length=20)
    teams: dict[Team, TeamSettings] = Field(min_length=1, max_length=100)
    priorities: dict[PriorityName, Annotated[int, Field(ge=-1_000_000, le=1_000_000)]] = Field(
        default={"low": -1000, "high": 1000}, max_length=20, description="a job that names none has 0"
    )
    start_minutes: int = Field(
        default=20, ge=5, le=120, description="in which all nodes of a job must be there, or it goes back to its queue"
    )
    max_hours: int = Field(default=72, ge=1, le=120, description="after which a job is stopped")
    lustre: LustreSettings | None = None

    def mistakes(self, place: Place, /) -> Iterator[str]:
        """What the region lacks, teams that would wait for ever, and what production needs."""
        yield from (f"system.{mistake}" for mistake in self.system.mistakes(place))
        yield from self._role_mistakes()
        wrong = [f"pools.{name}.{m}" for name, pool in self.pools.items() for m in pool.mistakes(place)]
        yield from wrong
        if not wrong:
            yield from self._team_mistakes()

    @property
    def roles(self) -> list[str]:
        """Every role that is let in, once."""
        return list(dict.fromkeys([*self.admins, *(role for team in self.teams.values() for role in team.members)]))

    def _role_mistakes(self) -> Iterator[str]:
        """A role has one access entry, which is called after it."""
        names = [role.rpartition("/")[2] for role in self.roles]
        for name in sorted({name for name in names if names.count(name) > 1}):
            alike = ", ".join(role for role in self.roles if role.rpartition("/")[2] == name)
            yield f"admins and teams.*.members: {alike} are called alike; write a role in one way everywhere"

    def _team_mistakes(self) -> Iterator[str]:
        pools = ", ".join(self.pools)
        for name, team in self.teams.items():
            if unknown := [pool for pool in team.quota if pool not in self.pools]:
                yield f"teams.{name}.quota: there is no pool {', '.join(unknown)}; allowed are {pools}"
            elif not any(team.quota.values()):
                yield (
                    f"teams.{name}.quota: the team has none, so its jobs would wait for ever; "
                    f"allowed are one or more of the pools {pools}, with a number above 0"
                )
        for name, pool in self.pools.items():
            given = sum(team.quota.get(name, 0) for team in self.teams.values())
            if given > pool.limit:
                yield f"teams: they have {given} of the pool {name} together, but pools.{name}.limit is {pool.limit}"

    def misfits(self, network: NetworkSettings) -> Iterator[str]:
        """What does not go together with the network, each beginning with the key within the section."""
        if self.lustre and network.existing:
            yield "lustre: it goes into the subnet of its zone, which is not known of network.existing; leave it out"
        for key, zone in self._zones():
            if network.existing is None and zone not in network.zones:
                yield f"{key}: the network has no zone {zone}; network.zones are {', '.join(network.zones)}"
        if network.existing is not None or network.cidr is None:
            return  # its routes and its sizes are not known here
        if network.nat == "none":
            yield (
                "pools: nodes reach EKS and the registries by the internet, and network.nat is none, so none would "
                "ever join; set network.nat to single or per-zone"
            )
        yield from self._too_many_pods(network)

    def _zones(self) -> Iterator[tuple[str, str]]:
        yield from ((f"pools.{name}.zone", pool.zone) for name, pool in self.pools.items() if pool.zone)
        if self.lustre:
            yield "lustre.zone", self.lustre.zone

    def _too_many_pods(self, network: NetworkSettings) -> Iterator[str]:
        room = network.private_addresses - OTHERS
        system = self.system.max_nodes * (1 + _pod_addresses(SYSTEM_PODS))
        wanted = system + sum(pool.addresses for pool in self.pools.values())
        allowed = "allowed is less of pools.*.limit or pods_per_node, or a larger network.cidr or more network.zones"
        if wanted > room * len(network.zones):
            yield (
                f"pools: their nodes and pods take up to {wanted} addresses, but the private subnets of {network.cidr} "
                f"in {len(network.zones)} zones have {room * len(network.zones)} for them; {allowed}"
            )
        for zone in sorted({pool.zone for pool in self.pools.values() if pool.zone}):
            here = {name: pool for name, pool in self.pools.items() if pool.zone == zone}
            if (needed := sum(pool.addresses for pool in here.values())) > room:
                yield (
                    f"pools: {', '.join(here)} take up to {needed} addresses of the zone {zone}, but its private "
                    f"subnet has {room} for them; {allowed}"
                )

    def most(self, team: str) -> dict[str, int]:
        """The most that one job of a team can get of each of its pools: its own, and the others' if it may borrow."""
        sharing = self.teams.values() if self.teams[team].borrow else [self.teams[team]]
        return {name: sum(each.quota.get(name, 0) for each in sharing) for name in self.teams[team].quota}

    def most_gpus(self, team: str) -> int:
        """The most GPUs that one job of a team can get of a pool."""
        return max((most for name, most in self.most(team).items() if self.pools[name].gpu), default=0)


def _pod_addresses(pods: int) -> int:
    return (ceil(pods / PREFIX) + 1) * PREFIX


def _unknown(name: str, region: str) -> str | None:
    """Why an instance type or family cannot be used in a region, with what is allowed; None if it can."""
    if name not in REGIONS:
        return problem(name, region)
    here = sorted(family for family in REGIONS if offered(family, region))
    return None if name in here else f"{region} has no {name} instances; allowed there are {', '.join(here)}"
