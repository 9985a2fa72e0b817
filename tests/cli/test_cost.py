"""What the environments cost: from the graph and the list prices, and the page in the docs is that very table."""

import pytest

from cli.cost import FILE, SHIPPED, idle, page, resources
from embedded.project import run_environment
from infra.pricing import FREE, PRICED, Load, Resource, monthly, read_prices
from tests.cli.test_cli import mlp

PRICES = read_prices().prices


@pytest.fixture(scope="module")
def deployments():
    return {environment: run_environment(environment) for environment in SHIPPED}


def test_dev_costs_less_than_75_dollars_with_nothing_running(deployments):
    dev, staging, prod = (idle(deployments[environment])[0] for environment in SHIPPED)
    assert 0 < dev < 75
    assert dev < staging < prod


def test_every_resource_of_every_environment_is_priced_or_known_to_be_free(deployments):
    for deployment in deployments.values():
        assert monthly(resources(deployment), Load(), PRICES)[1] == set()
    assert not FREE & PRICED.keys()


def test_the_page_is_what_the_command_makes():
    assert FILE.read_text() == page(list(SHIPPED), Load(requests=1_000_000, stored_gb=100, nat_gb=50)), (
        "run `mlp cost --write`"
    )


def costs(load, *found):
    return {each.component: each for each in monthly(found, load, PRICES)[0]}


def test_a_nat_gateway_costs_by_the_hour_and_by_the_gigabyte():
    nat = Resource("aws:ec2/natGateway:NatGateway", "nat", "network", {})
    cost = costs(Load(nat_gb=100), nat, nat)["network"]
    assert cost.idle == pytest.approx(2 * 730 * PRICES["nat_gateway_hour"])
    assert cost.loaded - cost.idle == pytest.approx(2 * 100 * PRICES["nat_gateway_gb"])


def test_an_endpoint_costs_in_each_zone_and_the_gateway_of_s3_nothing():
    inputs = {"vpcEndpointType": "Interface", "subnetIds": ["a", "b", "c"]}
    endpoint = Resource("aws:ec2/vpcEndpoint:VpcEndpoint", "kms", "network", inputs)
    gateway = Resource(endpoint.type, "s3", "free", {"vpcEndpointType": "Gateway"})
    assert costs(Load(), endpoint, gateway).keys() == {"network"}
    assert costs(Load(), endpoint)["network"].idle == pytest.approx(3 * 730 * PRICES["interface_endpoint_hour"])


def test_a_service_costs_by_its_tasks():
    size = {"requiresCompatibilities": ["FARGATE"], "runtimePlatform": {"cpuArchitecture": "X86_64"}}
    task = Resource(
        "aws:ecs/taskDefinition:TaskDefinition", "it", "inference", size | {"cpu": "1024", "memory": "2048"}
    )
    service = Resource("aws:ecs/service:Service", "it", "inference", {"desiredCount": 3})
    one = 730 * (PRICES["fargate_x86_vcpu_hour"] + 2 * PRICES["fargate_x86_gb_hour"])
    assert costs(Load(), task, service)["inference"].idle == pytest.approx(3 * one)


def test_the_models_share_the_requests():
    both = {"architectures": ["arm64"], "memorySize": 1024, "name": "acme-predictions-x"}
    stack = [
        Resource(type_, f"acme-predictions-{model}", "inference", both)
        for model in range(2)
        for type_ in ("aws:lambda/function:Function", "aws:kinesis/firehoseDeliveryStream:FirehoseDeliveryStream")
    ]
    load = Load(requests=1_000_000, milliseconds=100, kilobytes=1)
    compute = 100_000 * PRICES["lambda_arm_gb_second"] + PRICES["lambda_request_million"] + PRICES["firehose_gb"]
    assert costs(load, *stack)["inference"].loaded == pytest.approx(compute)


def test_what_has_no_price_is_named():
    _, unpriced = monthly([Resource("aws:redshift/cluster:Cluster", "x", "y", {})], Load(), PRICES)
    assert unpriced == {"aws:redshift/cluster:Cluster"}


def test_the_command_takes_another_load():
    done = mlp("cost", "dev", "--requests", "0", "--stored-gb", "0")
    assert done.returncode == 0
    assert "| **all** |" in done.stdout
    assert mlp("cost", "dev", "--write").returncode == 2
    assert "unknown environment 'nope'" in mlp("cost", "nope").stderr
