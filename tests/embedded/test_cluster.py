"""Of the Kubernetes cluster the emulated AWS has what moto knows, really created; what is in it is recorded only."""

import json
import runpy
from collections import Counter

import boto3
import pytest

from contract.paths import ROOT
from embedded.aws import EmulatedAws
from embedded.monitor import run
from embedded.resources import ROWS
from embedded.state import State
from tests.infra.conftest import CLUSTER, SETTINGS

REALLY = {
    "aws:cloudwatch/eventRule:EventRule",
    "aws:cloudwatch/eventTarget:EventTarget",
    "aws:eks/cluster:Cluster",
    "aws:eks/nodeGroup:NodeGroup",
    "aws:fsx/lustreFileSystem:LustreFileSystem",
    "aws:sqs/queue:Queue",
    "aws:sqs/queuePolicy:QueuePolicy",
}
LACKING = {
    "aws:cloudwatch/compositeAlarm:CompositeAlarm",
    "aws:codedeploy/deploymentConfig:DeploymentConfig",
    "aws:ec2/placementGroup:PlacementGroup",
    "aws:eks/accessEntry:AccessEntry",
    "aws:eks/accessPolicyAssociation:AccessPolicyAssociation",
    "aws:eks/addon:Addon",
    "aws:eks/podIdentityAssociation:PodIdentityAssociation",
    "aws:fsx/dataRepositoryAssociation:DataRepositoryAssociation",
    "pulumi:providers:kubernetes",
}


@pytest.fixture
def up(emulated_aws, tmp_path):
    def run_it(cluster):
        state = State.load(tmp_path / "state.json", emulated_aws.identity)
        provider = EmulatedAws(emulated_aws.url, "eu-west-1", state)
        settings = SETTINGS | {
            "network": SETTINGS["network"] | {"nat": "single"},
            "cluster": cluster,
        }
        config = {
            f"ml-platform:{name}": json.dumps(value) if isinstance(value, dict) else str(value)
            for name, value in settings.items()
        }
        deployment = run(
            lambda: runpy.run_path(str(ROOT / "stacks" / "__main__.py"), run_name="__main__") and None,
            project="ml-platform",
            stack="test",
            config=config | {"aws:region": "eu-west-1"},
            provider=provider,
        )
        provider.finish(deployment.resources)
        return provider

    return run_it


def test_the_cluster_is_created_changed_by_nothing_and_deleted(up):
    first = up(CLUSTER)
    recorded = {step.type for step in first.steps if step.note == "recorded only"}
    assert {type_ for type_ in recorded if not type_.startswith("kubernetes:")} == LACKING
    assert {step.type for step in first.steps} - recorded >= REALLY
    assert ROWS.keys() >= REALLY
    eks = boto3.client("eks")
    cluster = eks.describe_cluster(name="acme-test-training")["cluster"]
    assert cluster["resourcesVpcConfig"]["endpointPrivateAccess"] is True
    assert cluster["encryptionConfig"][0]["resources"] == ["secrets"]
    assert "audit" in cluster["logging"]["clusterLogging"][0]["types"]
    (name,) = eks.list_nodegroups(clusterName="acme-test-training")["nodegroups"]
    nodes = eks.describe_nodegroup(clusterName="acme-test-training", nodegroupName=name)["nodegroup"]
    assert nodes["scalingConfig"]["minSize"] == 2
    assert nodes["launchTemplate"]["id"].startswith("lt-")
    (system,) = boto3.client("fsx").describe_file_systems()["FileSystems"]
    assert system["LustreConfiguration"]["DeploymentType"] == "PERSISTENT_2"
    (url,) = boto3.client("sqs").list_queues()["QueueUrls"]
    attributes = boto3.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert attributes["MessageRetentionPeriod"] == "300"
    assert "aws:SecureTransport" in attributes["Policy"]
    (target,) = boto3.client("events").list_targets_by_rule(Rule="acme-test-karpenter")["Targets"]
    assert target["Arn"] == attributes["QueueArn"]
    assert set(Counter(step.action for step in up(CLUSTER).steps)) == {"same"}

    up({})
    assert eks.list_clusters()["clusters"] == []
    assert boto3.client("fsx").describe_file_systems()["FileSystems"] == []
    assert "QueueUrls" not in boto3.client("sqs").list_queues()
    assert boto3.client("events").list_rules()["Rules"] == []
