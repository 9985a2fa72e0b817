"""Karpenter's pools: from zero to zero, with the capacity, the image and the network that the settings choose."""

import json

import pytest

from infra import versions
from tests.infra.conftest import ON_EKS, as_list, only, statements

CLASS, POOL = "kubernetes:karpenter.k8s.aws/v1:EC2NodeClass", "kubernetes:karpenter.sh/v1:NodePool"
RELEASE = "kubernetes:helm.sh/v3:Release"


@pytest.fixture
def deployment(build):
    return build("prod", **ON_EKS)


def pool(deployment, name):
    return only(deployment, POOL, f"node-pool-{name}").inputs["spec"]


def node_class(deployment, name):
    return only(deployment, CLASS, f"node-class-{name}").inputs["spec"]


def requirements(deployment, name):
    return {each["key"]: each["values"] for each in pool(deployment, name)["template"]["spec"]["requirements"]}


def test_gpus_come_from_zero_and_go_to_zero(deployment):
    for name, minutes in (("a100", 5), ("a10g", 5), ("cpu", 1)):
        spec = pool(deployment, name)
        assert "replicas" not in spec  # which would keep nodes that nobody uses
        assert spec["disruption"]["consolidationPolicy"] == "WhenEmpty"
        assert spec["disruption"]["consolidateAfter"] == f"{minutes}m"
        assert {"nodes": "100%", "reasons": ["Empty"]} in spec["disruption"]["budgets"]
    gpu = ("g4", "g5", "g6", "p4", "p5", "p6")
    for group in deployment.of_type("aws:eks/nodeGroup:NodeGroup"):
        assert not any(type_.startswith(gpu) for type_ in group.inputs["instanceTypes"])


def test_there_is_a_limit(deployment):
    assert pool(deployment, "a100")["limits"] == {"nvidia.com/gpu": "32"}
    assert pool(deployment, "cpu")["limits"] == {"cpu": "192"}


def test_families_are_the_settings(deployment):
    assert requirements(deployment, "a100")["node.kubernetes.io/instance-type"] == ["p4d.24xlarge"]
    assert "g5.48xlarge" in requirements(deployment, "a10g")["node.kubernetes.io/instance-type"]
    assert requirements(deployment, "cpu")["node.kubernetes.io/instance-type"] == ["m7i.2xlarge", "m7i.8xlarge"]


def test_blocks_reservations_spot_and_on_demand_are_the_settings(deployment):
    capacity = {name: requirements(deployment, name)["karpenter.sh/capacity-type"] for name in ("a100", "a10g", "cpu")}
    assert capacity == {"a100": ["reserved"], "a10g": ["on-demand", "reserved", "spot"], "cpu": ["on-demand"]}
    reserved = [{"id": "cr-0123456789abcdef0"}], [{"id": "cr-0fedcba9876543210"}]
    assert node_class(deployment, "a100")["capacityReservationSelectorTerms"] == reserved[0]
    assert node_class(deployment, "a10g")["capacityReservationSelectorTerms"] == reserved[1]
    assert "capacityReservationSelectorTerms" not in node_class(deployment, "cpu")


def test_efa_is_for_nodes_that_stand_close_together(deployment):
    (group,) = deployment.of_type("aws:ec2/placementGroup:PlacementGroup")
    assert group.inputs["strategy"] == "cluster"
    assert node_class(deployment, "a100")["placementGroupSelector"] == {"name": group.inputs["name"]}
    assert requirements(deployment, "a100")["topology.kubernetes.io/zone"] == ["eu-west-1a"]
    assert "placementGroupSelector" not in node_class(deployment, "a10g")
    assert "topology.kubernetes.io/zone" not in requirements(deployment, "a10g")


def test_nodes_are_private_encrypted_and_of_the_pinned_image(deployment):
    for name in ("a100", "a10g", "cpu"):
        spec = node_class(deployment, name)
        assert spec["amiSelectorTerms"] == [{"alias": versions.NODE_IMAGE}]
        assert spec["associatePublicIPAddress"] is False
        assert [term["id"] for term in spec["subnetSelectorTerms"]] == [f"acme-prod-private-{zone}" for zone in "abc"]
        assert spec["securityGroupSelectorTerms"] == [{"id": "sg-0123456789abcdef0"}]
        assert spec["metadataOptions"] == {
            "httpEndpoint": "enabled",
            "httpTokens": "required",
            "httpPutResponseHopLimit": 1,
        }
        assert all(disk["ebs"]["encrypted"] for disk in spec["blockDeviceMappings"])
        assert spec["tags"].items() >= {"Project": "acme", "Environment": "prod", "ManagedBy": "pulumi"}.items()


def test_plugins_come_where_they_are_needed(deployment, build):
    names = {release.inputs["name"] for release in deployment.of_type(RELEASE)}
    assert {"nvidia-device-plugin", "dcgm-exporter", "aws-efa-k8s-device-plugin"} <= names
    cluster = {
        "admins": ["deployer"],
        "pools": {"cpu": {"instances": ["m7i"], "limit": 64}},
        "teams": {"default": {"quota": {"cpu": 64}}},
    }
    plain = build("dev", network={"nat": "single"}, cluster=cluster)
    names = {release.inputs["name"] for release in plain.of_type(RELEASE)}
    assert names == {"karpenter", "karpenter-crd", "kueue", "jobset"}
    assert not any(r.name.endswith("idle-gpu-eks") for r in plain.resources.values())


def test_what_must_run_on_gpu_nodes_tolerates_their_taints(deployment):
    for name in ("nvidia-device-plugin", "dcgm-exporter", "aws-efa-k8s-device-plugin"):
        assert only(deployment, RELEASE, name).inputs["values"]["tolerations"] == [{"operator": "Exists"}]


def test_karpenter_hears_of_interruptions(deployment):
    release = only(deployment, RELEASE, "karpenter").inputs
    queue = only(deployment, "aws:sqs/queue:Queue", "karpenter")
    assert release["values"]["settings"]["interruptionQueue"] == queue.inputs["name"]
    rule = only(deployment, "aws:cloudwatch/eventRule:EventRule", "karpenter").inputs
    noticed = json.loads(rule["eventPattern"])["detail-type"]
    assert "EC2 Spot Instance Interruption Warning" in noticed
    assert "EC2 Capacity Reservation Instance Interruption Warning" in noticed
    assert only(deployment, "aws:cloudwatch/eventTarget:EventTarget", "karpenter").inputs["arn"] == queue.outputs["arn"]


def test_karpenter_stops_no_instance_but_the_clusters_own(deployment):
    (policy,) = [p for p in deployment.of_type("aws:iam/rolePolicy:RolePolicy") if p.name == "acme-prod-karpenter"]
    found = statements(policy.inputs["policy"])
    owned = "kubernetes.io/cluster/acme-prod-training"
    for statement in found:
        actions = set(as_list(statement["Action"]))
        if actions & {"ec2:TerminateInstances", "ec2:DeleteLaunchTemplate"}:
            assert statement["Condition"]["StringEquals"] == {f"aws:ResourceTag/{owned}": "owned"}
        if "iam:PassRole" in actions:
            assert as_list(statement["Resource"]) == ["arn:aws:iam::123456789012:role/acme-prod-eks-nodes"]
    started = [s for s in found if "ec2:RunInstances" in s["Action"] and "instance/*" in json.dumps(s["Resource"])]
    assert started
    assert all(s["Condition"]["StringEquals"][f"aws:RequestTag/{owned}"] == "owned" for s in started)
