"""The network: what is private has no way in, and the ways out are the chosen ones."""

from ipaddress import ip_network

import pytest

from infra.network import plan_subnets
from tests.infra.conftest import only


def routes(deployment, table):
    return [r.inputs for r in deployment.of_type("aws:ec2/route:Route") if r.inputs["routeTableId"] == table.id]


def test_subnets_do_not_overlap_and_leave_room():
    plan = plan_subnets(ip_network("10.0.0.0/16"), 4)
    subnets = plan.private + plan.public
    assert all(not a.overlaps(b) for i, a in enumerate(subnets) for b in subnets[i + 1 :])
    assert all(subnet.subnet_of(ip_network("10.0.0.0/16")) for subnet in subnets)
    assert [subnet.num_addresses for subnet in plan.private] == [8192] * 4
    assert sum(subnet.num_addresses for subnet in subnets) <= 65536 * 5 / 8


def test_a_zone_more_renumbers_nothing():
    small, large = (plan_subnets(ip_network("10.0.0.0/16"), zones) for zones in (2, 3))
    assert large.private[:2] == small.private
    assert large.public[:2] == small.public


def test_more_zones_than_the_plan_has_room_for_are_refused():
    with pytest.raises(ValueError, match="room for 4 zones, not 5"):
        plan_subnets(ip_network("10.0.0.0/16"), 5)


@pytest.mark.parametrize(("nat", "gateways"), [("none", 0), ("single", 1), ("per-zone", 3)])
def test_private_subnets_leave_through_the_chosen_nat_gateways(build, nat, gateways):
    deployment = build(network={"nat": nat})
    assert len(deployment.of_type("aws:ec2/natGateway:NatGateway")) == gateways
    assert len(deployment.of_type("aws:ec2/eip:Eip")) == gateways
    used = set()
    for zone in "abc":
        for route in routes(deployment, only(deployment, "aws:ec2/routeTable:RouteTable", f"private-{zone}")):
            assert "gatewayId" not in route, "a private subnet must not reach the internet gateway"
            used.add(route["natGatewayId"])
    assert len(used) == gateways


def test_a_nat_gateway_a_zone_serves_its_own_zone(build):
    deployment = build(network={"nat": "per-zone"})
    for zone in "abc":
        (route,) = routes(deployment, only(deployment, "aws:ec2/routeTable:RouteTable", f"private-{zone}"))
        assert route["natGatewayId"] == f"acme-test-nat-{zone}"
        assert (
            only(deployment, "aws:ec2/natGateway:NatGateway", f"nat-{zone}")
            .inputs["subnetId"]
            .endswith(f"public-{zone}")
        )


def test_only_public_subnets_reach_the_internet_gateway(build):
    deployment = build(network={"nat": "single"})
    (table,) = {r.inputs["routeTableId"] for r in deployment.of_type("aws:ec2/route:Route") if "gatewayId" in r.inputs}
    associated = {
        r.inputs["subnetId"]
        for r in deployment.of_type("aws:ec2/routeTableAssociation:RouteTableAssociation")
        if r.inputs["routeTableId"] == table
    }
    assert associated == {f"acme-test-public-{zone}" for zone in "abc"}


def test_no_subnet_hands_out_public_addresses(build):
    for subnet in build().of_type("aws:ec2/subnet:Subnet"):
        assert subnet.inputs["mapPublicIpOnLaunch"] is False


def test_every_subnet_has_a_zone_and_a_route_table(build):
    deployment = build()
    subnets = deployment.of_type("aws:ec2/subnet:Subnet")
    assert {subnet.inputs["availabilityZone"] for subnet in subnets} == {f"eu-west-1{zone}" for zone in "abc"}
    associations = deployment.of_type("aws:ec2/routeTableAssociation:RouteTableAssociation")
    assert sorted(a.inputs["subnetId"] for a in associations) == sorted(subnet.id for subnet in subnets)


def test_s3_is_reached_without_leaving_the_network(build):
    deployment = build()
    (endpoint,) = deployment.of_type("aws:ec2/vpcEndpoint:VpcEndpoint")
    assert endpoint.inputs["vpcEndpointType"] == "Gateway"
    assert endpoint.inputs["serviceName"] == "com.amazonaws.eu-west-1.s3"
    tables = {table.id for table in deployment.of_type("aws:ec2/routeTable:RouteTable")}
    assert set(endpoint.inputs["routeTableIds"]) == tables


def test_the_default_security_group_allows_nothing(build):
    (group,) = build().of_type("aws:ec2/defaultSecurityGroup:DefaultSecurityGroup")
    assert not group.inputs.get("ingress")
    assert not group.inputs.get("egress")


def test_flow_logs_go_to_the_logs_bucket_once_delivery_is_allowed(build):
    deployment = build()
    (flow_log,) = deployment.of_type("aws:ec2/flowLog:FlowLog")
    assert flow_log.inputs["logDestination"] == "arn:aws:s3:::acme-test-logs"
    assert only(deployment, "aws:s3/bucketPolicy:BucketPolicy", "logs").urn in flow_log.dependencies
    assert not build(network={"flow_logs": False}).of_type("aws:ec2/flowLog:FlowLog")


def test_services_are_reached_inside_the_network_if_the_settings_say_so(build):
    deployment = build(network={"endpoints": ["ecr", "sagemaker", "sts"]})
    endpoints = [
        endpoint.inputs
        for endpoint in deployment.of_type("aws:ec2/vpcEndpoint:VpcEndpoint")
        if endpoint.inputs["vpcEndpointType"] == "Interface"
    ]
    assert {endpoint["serviceName"] for endpoint in endpoints} == {
        f"com.amazonaws.eu-west-1.{service}"
        for service in ("ecr.api", "ecr.dkr", "sagemaker.api", "sagemaker.runtime", "sts")
    }
    assert all(endpoint["privateDnsEnabled"] for endpoint in endpoints)
    assert all(sorted(e["subnetIds"]) == [f"acme-test-private-{zone}" for zone in "abc"] for e in endpoints)
    (rule,) = only(deployment, "aws:ec2/securityGroup:SecurityGroup", "endpoints").inputs["ingress"]
    assert rule["cidrBlocks"] == ["10.0.0.0/16"]
    assert rule["fromPort"] == rule["toPort"] == 443


def test_an_existing_vpc_is_used_and_nothing_is_made_in_it(build):
    existing = {"vpc_id": "vpc-0a", "private_subnet_ids": ["subnet-0a", "subnet-0b"]}
    deployment = build(network={"cidr": None, "existing": existing}, data={"aurora": {"min_acu": 0, "max_acu": 1}})
    made = {r.type for r in deployment.resources.values() if r.type.startswith("aws:ec2/")}
    assert made == {"aws:ec2/securityGroup:SecurityGroup"}  # the database's own
    (subnets,) = deployment.of_type("aws:rds/subnetGroup:SubnetGroup")
    assert subnets.inputs["subnetIds"] == ["subnet-0a", "subnet-0b"]
