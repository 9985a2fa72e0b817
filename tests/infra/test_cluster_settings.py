"""Settings of the cluster that could not work are refused before anything is registered: file, key, what is allowed."""

import copy

import pytest
import yaml

from contract.errors import PlatformError
from contract.paths import ROOT
from infra.settings.cluster import ClusterSettings
from infra.settings.network import NetworkSettings
from infra.settings.section import Place
from tests.infra.conftest import PROD

CLUSTER = {
    "admins": ["deployer"],
    "pools": {"gpu": {"instances": ["g5.xlarge"], "limit": 8}, "cpu": {"instances": ["m7i"], "limit": 192}},
    "teams": {"default": {"quota": {"gpu": 8}}},
}


def with_(path, value):
    """The settings above, with another value at a path such as `pools.gpu.limit`."""
    found = copy.deepcopy(CLUSTER)
    part = found
    *way, last = path.split(".")
    for key in way:
        part = part.setdefault(key, {})
    part[last] = value
    return found


@pytest.fixture
def said(preview):
    """What a preview with these settings says."""

    def refuse(cluster, network=None, **more):
        with pytest.raises(PlatformError) as caught:
            preview(cluster=cluster, network=network or {"nat": "single"}, **more)
        message = str(caught.value)
        assert "Pulumi.test.yaml is not valid:" in message
        return message

    return refuse


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (
            "pools.gpu.instances",
            ["p5"],
            "cluster.pools.gpu.instances.0: eu-west-1 has no p5 instances; allowed there are",
        ),
        (
            "pools.gpu.instances",
            ["g5.tiny"],
            "pools.gpu.instances.0: unknown instance type 'g5.tiny'; allowed in eu-west-1",
        ),
        ("pools.gpu.instances", ["g6e.xlarge"], "eu-west-1 has no g6e instances; allowed there instead of g6e.xlarge"),
        ("pools.gpu.instances", ["g5", "m7i"], "pools.gpu.instances: a pool has GPUs or has none"),
        ("pools.gpu.instances", [], "cluster.pools.gpu.instances"),
        ("pools.gpu.limit", 0, "cluster.pools.gpu.limit"),
        ("pools.cpu.limit", 1, "pools.cpu.limit: 1 is less than the 2 vCPUs of one node; allowed are 2 and more"),
        ("pools.gpu.capacity", ["cheap"], "pools.gpu.capacity.0"),
        ("pools.gpu.capacity", ["reservation"], "capacity reservation needs reservations: the ids, such as cr-"),
        ("pools.gpu.reservations", ["cr-0123456789abcdef0"], "reservations are used only if capacity has reservation"),
        ("pools.gpu.reservations", ["abc"], "pools.gpu.reservations.0"),
        ("pools.gpu.efa", True, "efa connects the nodes of one zone: name it as zone"),
        ("pools.gpu.zone", "d", "pools.gpu.zone: the network has no zone d; network.zones are a, b, c"),
        ("pools.gpu.pods_per_node", 4, "pools.gpu.pods_per_node"),
        ("pools.GPU", {"instances": ["g5"], "limit": 8}, "pools.GPU"),
        ("pools", {}, "cluster.pools"),
        ("teams.default.quota", {}, "teams.default.quota: the team has none, so its jobs would wait for ever"),
        ("teams.default.quota", {"gpu": 0}, "allowed are one or more of the pools gpu, cpu, with a number above 0"),
        ("teams.default.quota", {"h100": 8}, "teams.default.quota: there is no pool h100; allowed are gpu, cpu"),
        ("teams.default.quota", {"gpu": 9}, "they have 9 of the pool gpu together, but pools.gpu.limit is 8"),
        ("teams.default.weight", 0, "teams.default.weight"),
        ("teams.default.members", ["arn:aws:sts::1:assumed-role/x/y"], "teams.default.members.0"),
        ("teams.my-team", {"quota": {"gpu": 1}}, "teams.my-team"),
        ("admins", [], "cluster.admins"),
        ("admins", ["me", "arn:aws:iam::123456789012:role/me"], "are called alike; write a role in one way everywhere"),
        ("public_access_cidrs", ["0.0.0.0/0"], "an allow-list names ranges of /16 or narrower"),
        ("public_access_cidrs", ["10.0.0.1/24"], "public_access_cidrs.0"),
        ("system.instance_type", "g5.xlarge", "system.instance_type: system nodes need 8 GiB or more and no GPU"),
        ("system.min_nodes", 4, "min_nodes 4 is greater than max_nodes 3"),
        ("priorities", {"Urgent": 1}, "priorities.Urgent"),
        ("start_minutes", 1, "cluster.start_minutes"),
        ("lustre", {"zone": "a", "storage_gib": 1000}, "storage_gib: allowed are 1200 and multiples of 2400"),
        ("lustre", {"zone": "d"}, "lustre.zone: the network has no zone d"),
        ("nodes", 3, "cluster: unknown key 'nodes'; allowed: admins, lustre, max_hours, pools"),
    ],
)
def test_a_mistake_is_refused(said, path, value, expected):
    assert expected in said(with_(path, value))


def test_a_capacity_block_needs_its_zone(said):
    block = {"instances": ["p4d"], "limit": 8, "capacity": ["block"], "reservations": ["cr-0123456789abcdef0"]}
    assert "a capacity block is in one zone: name it as zone" in said(with_("pools.gpu", block))
    both = block | {"zone": "a", "capacity": ["block", "reservation"]}
    assert "a pool has reservations or blocks, not both" in said(with_("pools.gpu", both))


def test_efa_is_for_types_that_have_it(said):
    pool = {"instances": ["g5"], "limit": 8, "efa": True, "zone": "a"}
    message = said(with_("pools.gpu", pool))
    assert "pools.gpu.efa: g5.xlarge, g5.2xlarge, g5.4xlarge has none; allowed in eu-west-1 are g4dn.8xlarge" in message


def test_more_pods_than_the_subnets_have_addresses_are_refused(said):
    large = with_("pools.gpu", {"instances": ["g5.xlarge"], "limit": 500, "pods_per_node": 110})
    message = said(large, {"cidr": "10.0.0.0/16", "nat": "single", "zones": ["a", "b"]})
    assert "cluster.pools: their nodes and pods take up to" in message
    assert "but the private subnets of 10.0.0.0/16 in 2 zones have 16246 for them" in message
    assert (
        "allowed is less of pools.*.limit or pods_per_node, or a larger network.cidr or more network.zones" in message
    )


def test_more_pods_than_one_zone_has_addresses_are_refused(said):
    pool = {"instances": ["g5.xlarge"], "limit": 150, "pods_per_node": 60, "zone": "b"}
    message = said(with_("pools.gpu", pool) | {"teams": {"default": {"quota": {"gpu": 8}}}})
    assert "pools: gpu take up to 12150 addresses of the zone b, but its private subnet has 8123 for them" in message


def test_nodes_that_could_not_reach_the_cluster_are_refused(said):
    assert "network.nat is none, so none would ever join; set network.nat to single or per-zone" in said(
        CLUSTER, {"nat": "none"}
    )


def test_the_backend_needs_a_cluster(said):
    message = said({}, training={"backend": "eks"})
    assert "training.backend: eks needs a cluster; allowed without one are sagemaker, batch" in message
    assert "observability.grafana: cluster needs an EKS cluster" in said(
        {}, observability={"prometheus": True, "grafana": "cluster"}
    )


def test_production_has_two_system_nodes(said):
    settings = PROD | {"network": {"nat": "per-zone"}}
    message = said(with_("system.min_nodes", 1), settings.pop("network"), **settings)
    assert "cluster.system.min_nodes: prod needs at least 2, but it is 1" in message


def test_a_model_of_a_team_that_the_cluster_does_not_know_is_refused(preview):
    cluster = CLUSTER | {"teams": {"vision": {"quota": {"gpu": 8}}}}
    with pytest.raises(PlatformError) as caught:
        preview(cluster=cluster, network={"nat": "single"}, training={"backend": "eks"})
    assert "Pulumi.test.yaml: ml-platform:cluster.teams: there is no quota for the team 'default'" in str(caught.value)


def test_all_mistakes_are_told_at_once(said):
    message = said(with_("pools.gpu.instances", ["p5"]) | {"system": {"instance_type": "t9.nano"}})
    assert "system.instance_type" in message
    assert "pools.gpu.instances.0" in message


def test_the_section_in_the_documentation_is_valid():
    text = (ROOT / "docs" / "training-on-eks.md").read_text()
    given = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    settings = ClusterSettings.model_validate(given["ml-platform:cluster"])
    network = NetworkSettings(cidr="10.48.0.0/16", zones=("a", "b", "c"), nat="per-zone")
    assert [*settings.mistakes(Place("prod", "eu-west-1")), *settings.misfits(network)] == []
