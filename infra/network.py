"""The network: a VPC with public and private subnets, and the ways out of it; or a VPC that is there already."""

from dataclasses import dataclass
from ipaddress import IPv4Network

import pulumi
import pulumi_aws as aws

from infra.naming import Naming
from infra.regions import endpoint_service
from infra.settings.network import NetworkSettings

ANYWHERE = "0.0.0.0/0"

# What each choice in the settings stands for: the names of AWS's endpoint services.
ENDPOINT_SERVICES = {
    "ecr": ("ecr.api", "ecr.dkr"),
    "firehose": ("kinesis-firehose",),
    "kms": ("kms",),
    "logs": ("logs",),
    "sagemaker": ("sagemaker.api", "sagemaker.runtime"),
    "secretsmanager": ("secretsmanager",),
    "ssm": ("ssm",),
    "sts": ("sts",),
    "aps": ("aps-workspaces",),
}


@dataclass(frozen=True)
class SubnetPlan:
    """The ranges of the subnets, one of each kind a zone."""

    private: list[IPv4Network]
    public: list[IPv4Network]


def plan_subnets(cidr: IPv4Network, zones: int) -> SubnetPlan:
    """Divide a VPC's range so that zones can be added later without renumbering.

    The range is cut into eight parts. A zone's private subnet is one of the first four (8,192 addresses in a /16, room
    for the pods of a Kubernetes cluster); the public subnets, which hold little more than gateways, are cut from the
    fifth part; three eighths stay free.

    Args:
        cidr: range of the VPC.
        zones: how many zones, at most four.

    Raises:
        ValueError: for more than four zones.
    """
    if zones > 4:
        raise ValueError(f"the plan has room for 4 zones, not {zones}")
    parts = list(cidr.subnets(prefixlen_diff=3))
    return SubnetPlan(private=parts[:zones], public=list(parts[4].subnets(prefixlen_diff=3))[:zones])


@dataclass
class NetworkArgs:
    """What the network is made of."""

    settings: NetworkSettings
    region: str
    flow_log_bucket_arn: pulumi.Input[str]


class Network(pulumi.ComponentResource):
    """A VPC over N zones.

    Public subnets reach the internet through an internet gateway; private ones through NAT gateways, if the settings
    have any, and S3 through a gateway endpoint, which is free.
    """

    vpc_id: pulumi.Output[str]
    cidr: IPv4Network | None
    """The range of the VPC, if it is one of our own."""
    private_subnet_ids: list[pulumi.Output[str]]
    private_subnets: tuple[aws.ec2.Subnet, ...] = ()
    """Those of a VPC of our own."""

    def __init__(
        self, name: str, args: NetworkArgs, naming: Naming, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ml-platform:infra:Network", name, None, opts)
        self._naming, self._args = naming, args
        self._child = pulumi.ResourceOptions(parent=self)
        self.cidr = args.settings.cidr
        if existing := args.settings.existing:
            self.vpc_id = pulumi.Output.from_input(existing.vpc_id)
            self.private_subnet_ids = [pulumi.Output.from_input(subnet) for subnet in existing.private_subnet_ids]
        else:
            self._build(args.settings)
        self.register_outputs({"vpc_id": self.vpc_id, "private_subnet_ids": self.private_subnet_ids})

    def _build(self, settings: NetworkSettings) -> None:
        naming, zones = self._naming, settings.zones
        assert settings.cidr, "the settings give a range or an existing VPC"
        plan = plan_subnets(settings.cidr, len(zones))
        self._vpc = aws.ec2.Vpc(
            naming("vpc"),
            cidr_block=str(settings.cidr),
            enable_dns_hostnames=True,
            enable_dns_support=True,
            tags={"Name": naming("vpc")},
            opts=self._child,
        )
        self.vpc_id = self._vpc.id
        # Nothing may be reachable by having forgotten a security group.
        aws.ec2.DefaultSecurityGroup(naming("default"), vpc_id=self._vpc.id, opts=self._child)
        public = [self._subnet("public", zone, cidr) for zone, cidr in zip(zones, plan.public, strict=True)]
        private = [self._subnet("private", zone, cidr) for zone, cidr in zip(zones, plan.private, strict=True)]
        tables = [*self._route_public(public), *self._route_private(private, public)]
        self.private_subnets = tuple(private)
        self.private_subnet_ids = [subnet.id for subnet in private]
        aws.ec2.VpcEndpoint(
            naming("s3"),
            vpc_id=self._vpc.id,
            service_name=endpoint_service("s3", self._args.region),
            vpc_endpoint_type="Gateway",
            route_table_ids=[table.id for table in tables],
            tags={"Name": naming("s3")},
            opts=self._child,
        )
        if settings.endpoints:
            self._interface_endpoints(settings)
        if settings.flow_logs:
            aws.ec2.FlowLog(
                naming("flow-log"),
                vpc_id=self._vpc.id,
                traffic_type="ALL",
                log_destination_type="s3",
                log_destination=self._args.flow_log_bucket_arn,
                opts=self._child,
            )

    def _interface_endpoints(self, settings: NetworkSettings) -> None:
        """Private addresses for AWS services, in every private subnet; the network alone may call them."""
        group = aws.ec2.SecurityGroup(
            self._naming("endpoints"),
            vpc_id=self._vpc.id,
            description="HTTPS from the network to the endpoints of AWS services",
            ingress=[
                {
                    "description": "HTTPS from the network",
                    "protocol": "tcp",
                    "from_port": 443,
                    "to_port": 443,
                    "cidr_blocks": [str(settings.cidr)],
                }
            ],
            tags={"Name": self._naming("endpoints")},
            opts=self._child,
        )
        for service in (service for name in settings.endpoints for service in ENDPOINT_SERVICES[name]):
            name = self._naming(service.replace(".", "-"))
            aws.ec2.VpcEndpoint(
                name,
                vpc_id=self._vpc.id,
                service_name=endpoint_service(service, self._args.region),
                vpc_endpoint_type="Interface",
                private_dns_enabled=True,
                subnet_ids=self.private_subnet_ids,
                security_group_ids=[group.id],
                tags={"Name": name},
                opts=self._child,
            )

    def _subnet(self, kind: str, zone: str, cidr: IPv4Network) -> aws.ec2.Subnet:
        name = self._naming(f"{kind}-{zone}")
        return aws.ec2.Subnet(
            name,
            vpc_id=self._vpc.id,
            cidr_block=str(cidr),
            availability_zone=f"{self._args.region}{zone}",
            map_public_ip_on_launch=False,  # what needs a public address asks for one
            tags={"Name": name},
            opts=self._child,
        )

    def _table(self, what: str) -> aws.ec2.RouteTable:
        return aws.ec2.RouteTable(
            self._naming(what), vpc_id=self._vpc.id, tags={"Name": self._naming(what)}, opts=self._child
        )

    def _associate(self, what: str, table: aws.ec2.RouteTable, subnet: aws.ec2.Subnet) -> None:
        aws.ec2.RouteTableAssociation(
            self._naming(what), route_table_id=table.id, subnet_id=subnet.id, opts=self._child
        )

    def _route_public(self, subnets: list[aws.ec2.Subnet]) -> list[aws.ec2.RouteTable]:
        gateway = aws.ec2.InternetGateway(
            self._naming("internet"),
            vpc_id=self._vpc.id,
            tags={"Name": self._naming("internet")},
            opts=self._child,
        )
        table = self._table("public")
        aws.ec2.Route(
            self._naming("public-internet"),
            route_table_id=table.id,
            destination_cidr_block=ANYWHERE,
            gateway_id=gateway.id,
            opts=self._child,
        )
        for zone, subnet in zip(self._args.settings.zones, subnets, strict=True):
            self._associate(f"public-{zone}", table, subnet)
        self._gateway = gateway
        return [table]

    def _route_private(self, subnets: list[aws.ec2.Subnet], public: list[aws.ec2.Subnet]) -> list[aws.ec2.RouteTable]:
        """One table a zone, so that going from one NAT gateway to one a zone changes a route and nothing else."""
        zones, nat = self._args.settings.zones, self._args.settings.nat
        count = {"none": 0, "single": 1, "per-zone": len(zones)}[nat]
        gateways = [self._nat(zone, subnet) for zone, subnet in list(zip(zones, public, strict=True))[:count]]
        tables = []
        for index, (zone, subnet) in enumerate(zip(zones, subnets, strict=True)):
            table = self._table(f"private-{zone}")
            self._associate(f"private-{zone}", table, subnet)
            if gateways:
                aws.ec2.Route(
                    self._naming(f"private-{zone}-nat"),
                    route_table_id=table.id,
                    destination_cidr_block=ANYWHERE,
                    nat_gateway_id=gateways[index % count].id,
                    opts=self._child,
                )
            tables.append(table)
        return tables

    def _nat(self, zone: str, subnet: aws.ec2.Subnet) -> aws.ec2.NatGateway:
        name = self._naming(f"nat-{zone}")
        address = aws.ec2.Eip(name, domain="vpc", tags={"Name": name}, opts=self._child)
        return aws.ec2.NatGateway(
            name,
            allocation_id=address.id,
            subnet_id=subnet.id,
            tags={"Name": name},
            # A NAT gateway without a way out never becomes available.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[self._gateway]),
        )
