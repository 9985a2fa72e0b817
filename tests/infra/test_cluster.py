"""The Kubernetes cluster: private, encrypted, pinned, entered by those alone who are named, and destroyed in order."""

import base64
import email
import json
import re
import runpy
from itertools import takewhile
from typing import Any

import pytest
import yaml

from cli.cost import idle
from cli.preview import check
from contract.paths import ROOT
from embedded.foresight import arns
from embedded.monitor import UNKNOWN, run
from embedded.project import read_config, run_environment
from infra import versions
from tests.infra.conftest import CLUSTER, ON_EKS, as_list, only, statements

EKS, ADDON = "aws:eks/cluster:Cluster", "aws:eks/addon:Addon"
ENTRY, ASSOCIATION = "aws:eks/accessEntry:AccessEntry", "aws:eks/accessPolicyAssociation:AccessPolicyAssociation"
RELEASE, PROVIDER = "kubernetes:helm.sh/v3:Release", "pulumi:providers:kubernetes"
SMALL: dict[str, Any] = {
    "network": {"nat": "single"},
    "training": {"backend": "eks"},
    "cluster": {
        "admins": ["deployer"],
        "public_access_cidrs": ["192.0.2.0/24"],
        "system": {"min_nodes": 1},
        "pools": {"gpu": {"instances": ["g5.xlarge"], "limit": 4}},
        "teams": {"default": {"quota": {"gpu": 4}, "members": ["deployer"]}},
        "start_minutes": 45,
    },
}
"""A development environment with a cluster, where CloudWatch collects the GPUs' metrics."""


@pytest.fixture
def deployment(build):
    return build("prod", **ON_EKS)


@pytest.fixture
def small(build):
    return build("dev", **SMALL)


def one(deployment, type_):
    (resource,) = deployment.of_type(type_)
    return resource


def needed(deployment, resource):
    """The URNs of all that a resource depends on, directly or not."""
    found, left = set(), [resource]
    while left:
        for urn in left.pop().dependencies - found:
            found.add(urn)
            left.append(deployment.resources[urn])
    return found


def test_the_endpoint_is_private_and_opens_to_an_allow_list(deployment, small):
    cluster = one(deployment, EKS).inputs["vpcConfig"]
    assert (cluster["endpointPrivateAccess"], cluster["endpointPublicAccess"]) == (True, False)
    assert not cluster.get("publicAccessCidrs")
    assert all(subnet.startswith("acme-prod-private-") for subnet in cluster["subnetIds"])
    opened = one(small, EKS).inputs["vpcConfig"]
    assert (opened["endpointPrivateAccess"], opened["endpointPublicAccess"]) == (True, True)
    assert opened["publicAccessCidrs"] == ["192.0.2.0/24"]


def test_secrets_and_logs_are_encrypted_and_nothing_goes_unlogged(deployment):
    cluster = one(deployment, EKS)
    (key,) = deployment.of_type("aws:kms/key:Key")
    assert cluster.inputs["encryptionConfig"] == {
        "provider": {"keyArn": key.outputs["arn"]},
        "resources": ["secrets"],
    }
    assert set(cluster.inputs["enabledClusterLogTypes"]) == {
        "api",
        "audit",
        "authenticator",
        "controllerManager",
        "scheduler",
    }
    groups = {group.inputs["name"]: group for group in deployment.of_type("aws:cloudwatch/logGroup:LogGroup")}
    # EKS makes the group itself if it is not there yet: one that is not encrypted, and keeps everything.
    assert groups["/aws/eks/acme-prod-training/cluster"].urn in needed(deployment, cluster)
    agent = only(deployment, ADDON, "amazon-cloudwatch-observability")
    for what in ("application", "dataplane", "host", "performance"):
        group = groups[f"/aws/containerinsights/acme-prod-training/{what}"]
        assert group.urn in needed(deployment, agent)
        assert group.inputs["kmsKeyId"] == key.outputs["arn"]


def test_who_made_the_cluster_has_no_rights_in_it_for_that(deployment):
    access = one(deployment, EKS).inputs["accessConfig"]
    assert access == {"authenticationMode": "API", "bootstrapClusterCreatorAdminPermissions": False}


def test_those_who_are_named_are_let_in_and_nobody_else(deployment):
    entries = {entry.inputs["principalArn"]: entry.inputs for entry in deployment.of_type(ENTRY)}
    role = "arn:aws:iam::123456789012:role/{}".format
    people = {arn: entry for arn, entry in entries.items() if entry.get("type") != "EC2_LINUX"}
    assert people.keys() == {role(name) for name in ("acme-bootstrap-deploy", "platform", "researchers", "vision")}
    # A role of two teams has one entry, since AWS takes no second one.
    assert people[role("researchers")]["kubernetesGroups"] == ["team-default", "team-vision"]
    assert people[role("vision")]["kubernetesGroups"] == ["team-vision"]
    admins = {each.inputs["principalArn"]: each.inputs for each in deployment.of_type(ASSOCIATION)}
    assert admins.keys() == {role("acme-bootstrap-deploy"), role("platform")}
    for given in admins.values():
        assert given["policyArn"] == "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"
        assert given["accessScope"] == {"type": "cluster"}
    (nodes,) = entries.keys() - people.keys()
    assert nodes == role("acme-prod-eks-nodes")


def test_an_admin_who_is_in_a_team_has_one_entry(small):
    (entry,) = [e for e in small.of_type(ENTRY) if "type" not in e.inputs]
    assert entry.inputs["kubernetesGroups"] == ["team-default"]


def test_nothing_is_made_in_the_cluster_before_its_administrators_are_let_in_nor_after_they_have_gone(deployment):
    granted = {each.urn for each in deployment.of_type(ASSOCIATION)}
    provider = one(deployment, PROVIDER)
    assert granted <= needed(deployment, provider)
    inside = [r for r in deployment.resources.values() if r.type.startswith("kubernetes:")]
    assert inside
    for resource in inside:
        assert resource.provider.startswith(provider.urn), resource
        assert provider.urn in resource.dependencies | {resource.provider.rpartition("::")[0]}


def test_versions_are_pinned(deployment):
    assert one(deployment, EKS).inputs["version"] == versions.KUBERNETES
    addons = {addon.inputs["addonName"]: addon.inputs["addonVersion"] for addon in deployment.of_type(ADDON)}
    assert addons == versions.ADDONS
    assert all(re.fullmatch(r"v\d+\.\d+\.\d+-eksbuild\.\d+", version) for version in addons.values())
    nodes = one(deployment, "aws:eks/nodeGroup:NodeGroup").inputs
    assert (nodes["version"], nodes["releaseVersion"]) == (versions.KUBERNETES, versions.NODE_RELEASE)
    assert addons["kube-proxy"].startswith(f"v{versions.KUBERNETES}.")
    assert versions.NODE_RELEASE.startswith(f"{versions.KUBERNETES}.")
    for release in deployment.of_type(RELEASE):
        assert re.fullmatch(r"v?\d+\.\d+\.\d+", release.inputs["version"])
    # Extended support costs six times as much: better to be told, and to be updated, than to pay it unawares.
    assert one(deployment, EKS).inputs["upgradePolicy"] == {"supportType": "STANDARD"}


def test_the_systems_nodes_are_few_private_and_keep_their_credentials_to_themselves(deployment):
    nodes = one(deployment, "aws:eks/nodeGroup:NodeGroup")
    assert nodes.inputs["scalingConfig"] == {"minSize": 2, "maxSize": 3, "desiredSize": 2}
    assert nodes.ignore_changes == ("scalingConfig.desiredSize",)
    assert all(subnet.startswith("acme-prod-private-") for subnet in nodes.inputs["subnetIds"])
    template = only(deployment, "aws:ec2/launchTemplate:LaunchTemplate", "system").inputs
    assert template["metadataOptions"]["httpTokens"] == "required"
    assert template["metadataOptions"]["httpPutResponseHopLimit"] == 1
    (disk,) = template["blockDeviceMappings"]
    assert disk["ebs"]["encrypted"] == "true"
    message = email.message_from_bytes(base64.b64decode(template["userData"]))
    (part,) = message.get_payload()
    assert part.get_content_type() == "application/node.eks.aws"
    config = yaml.safe_load(part.get_payload())
    assert (config["apiVersion"], config["kind"]) == ("node.eks.aws/v1alpha1", "NodeConfig")
    assert config["spec"] == {"kubelet": {"config": {"maxPods": 58}}}


def test_agents_have_roles_of_their_own_by_pod_identity(deployment):
    for addon, account in (("vpc-cni", "aws-node"), ("amazon-cloudwatch-observability", "cloudwatch-agent")):
        (identity,) = only(deployment, ADDON, addon).inputs["podIdentityAssociations"]
        assert identity["serviceAccount"] == account
        role = next(r for r in deployment.of_type("aws:iam/role:Role") if r.outputs["arn"] == identity["roleArn"])
        (trust,) = statements(role.inputs["assumeRolePolicy"])
        assert trust["Principal"] == {"Service": "pods.eks.amazonaws.com"}
        assert trust["Condition"] == {"StringEquals": {"aws:SourceAccount": "123456789012"}}
    # So the nodes themselves may next to nothing.
    (policy,) = [p for p in deployment.of_type("aws:iam/rolePolicy:RolePolicy") if p.name == "acme-prod-eks-system"]
    services = {action.partition(":")[0] for s in statements(policy.inputs["policy"]) for action in s["Action"]}
    assert services == {"ec2", "eks", "eks-auth", "ecr"}


def test_the_network_plugin_enforces_policies(deployment):
    values = json.loads(only(deployment, ADDON, "vpc-cni").inputs["configurationValues"])
    assert values["enableNetworkPolicy"] == "true"


def test_changes_by_hand_are_put_back(deployment):
    for addon in deployment.of_type(ADDON):
        assert addon.inputs["resolveConflictsOnUpdate"] == "OVERWRITE"


def test_the_state_holds_no_credentials(deployment):
    config = json.loads(one(deployment, PROVIDER).inputs["kubeconfig"])
    ((user,),) = [config["users"]]
    assert user["user"].keys() == {"exec"}
    assert user["user"]["exec"]["args"][:2] == ["eks", "get-token"]


def test_a_changed_kubeconfig_does_not_replace_what_is_in_the_cluster(deployment):
    provider = one(deployment, PROVIDER).inputs
    assert provider["clusterIdentifier"] == one(deployment, EKS).outputs["endpoint"]


def test_a_destroy_goes_on_without_the_cluster_but_production_never_forgets_what_it_cannot_reach(deployment, small):
    assert one(small, PROVIDER).inputs["deleteUnreachable"] in (True, "true")
    assert one(deployment, PROVIDER).inputs["deleteUnreachable"] in (False, "false")


def test_production_is_protected(deployment, small):
    assert one(deployment, EKS).protect
    assert one(deployment, EKS).inputs["deletionProtection"] is True
    assert not one(small, EKS).protect


def test_a_preview_needs_no_cluster(foresee, deployment):
    """What only an up knows of the cluster stays unknown; all that is in it is planned nevertheless."""
    planned = foresee("prod", **ON_EKS)
    assert planned.resources.keys() == deployment.resources.keys()
    provider = one(planned, PROVIDER).inputs
    assert provider["kubeconfig"] == provider["clusterIdentifier"] == UNKNOWN


@pytest.mark.parametrize(
    ("definitions", "kinds"),
    [
        ("karpenter-crd", ("karpenter.sh/v1:NodePool", "karpenter.k8s.aws/v1:EC2NodeClass")),
        ("kueue", ("ClusterQueue", "LocalQueue", "ResourceFlavor", "WorkloadPriorityClass")),
    ],
)
def test_a_custom_resource_comes_after_the_definition_of_its_kind(deployment, definitions, kinds):
    release = only(deployment, RELEASE, definitions)
    for kind in kinds:
        found = [r for r in deployment.resources.values() if r.type.endswith(f":{kind}")]
        assert found, kind
        for resource in found:
            assert release.urn in needed(deployment, resource), resource


def test_what_makes_instances_and_interfaces_goes_only_after_all_of_them_have(deployment):
    """The other way round a destroy leaves behind what blocks the deletion of the VPC, or waits for ever."""

    def all_need(type_, *, these):
        found = [r for r in deployment.resources.values() if r.type.endswith(type_)]
        assert found, type_
        for resource in found:
            assert {r.urn for r in these} <= needed(deployment, resource), resource

    karpenter = only(deployment, RELEASE, "karpenter")
    (policy,) = [p for p in deployment.of_type("aws:iam/rolePolicy:RolePolicy") if p.name == "acme-prod-karpenter"]
    nodes = one(deployment, "aws:eks/nodeGroup:NodeGroup")
    plugin = only(deployment, ADDON, "vpc-cni")
    routes = [r for r in deployment.of_type("aws:ec2/route:Route") if "private" in r.name]
    gateways = deployment.of_type("aws:ec2/natGateway:NatGateway")
    pools = deployment.of_type("kubernetes:karpenter.sh/v1:NodePool")
    assert len(routes) == len(gateways) == 3
    # Instances: their pools first, while Karpenter runs, may act, and reaches EC2.
    all_need(":NodePool", these=[karpenter, policy, nodes, plugin, *routes, *gateways])
    # Jobs: their namespace first, while there are nodes, and those who end jobs in order.
    namespaces = [n for n in deployment.of_type("kubernetes:core/v1:Namespace") if n.name.startswith("team-")]
    jobs = only(deployment, RELEASE, "jobset"), only(deployment, RELEASE, "kueue")
    assert {r.urn for r in (*pools, *jobs)} <= set.intersection(*(needed(deployment, n) for n in namespaces))
    # Nodes: before the plug-in that takes their network interfaces away again.
    assert plugin.urn in needed(deployment, nodes)
    for pool in pools:
        assert pool.inputs["spec"]["template"]["spec"]["expireAfter"] == "Never"


def test_nobody_can_make_a_load_balancer_that_outlives_the_cluster(deployment):
    for quota in deployment.of_type("kubernetes:core/v1:ResourceQuota"):
        assert quota.inputs["spec"]["hard"]["services.loadbalancers"] == "0"


def test_grafana_waits_for_nodes(deployment):
    (release,) = [r for r in deployment.of_type(RELEASE) if r.inputs["name"] == "grafana"]
    assert one(deployment, "aws:eks/nodeGroup:NodeGroup").urn in needed(deployment, release)


def test_idle_gpus_raise_an_alarm(small, deployment):
    alarm = only(small, "aws:cloudwatch/metricAlarm:MetricAlarm", "idle-gpu-eks").inputs
    (query,) = alarm["metricQueries"]
    assert (
        "FROM \"ContainerInsights\" WHERE ClusterName = 'acme-dev-training' GROUP BY InstanceId" in query["expression"]
    )
    assert alarm["evaluationPeriods"] * query["period"] == 30 * 60
    assert alarm["alarmActions"]
    agent = json.loads(only(small, ADDON, "amazon-cloudwatch-observability").inputs["configurationValues"])
    assert agent["dcgmExporter"] == {"enabled": True}
    # With Prometheus the rules do it, by the metrics of NVIDIA's own exporter.
    assert not any(r.name.endswith("idle-gpu-eks") for r in deployment.resources.values())
    agent = json.loads(only(deployment, ADDON, "amazon-cloudwatch-observability").inputs["configurationValues"])
    assert agent["dcgmExporter"] == {"enabled": False}
    assert only(deployment, RELEASE, "dcgm-exporter")
    (rules,) = [
        r for r in deployment.of_type("aws:amp/ruleGroupNamespace:RuleGroupNamespace") if r.inputs["name"] == "alerts"
    ]
    assert "GpuIdle" in rules.inputs["data"]
    assert "for: 30m" in rules.inputs["data"]


def test_the_lake_is_a_file_system_in_the_zone_of_the_nodes(deployment):
    system = one(deployment, "aws:fsx/lustreFileSystem:LustreFileSystem").inputs
    assert system["subnetIds"] == "acme-prod-private-a"
    assert system["kmsKeyId"]
    link = one(deployment, "aws:fsx/dataRepositoryAssociation:DataRepositoryAssociation").inputs
    assert link["dataRepositoryPath"].startswith("s3://acme-prod-curated")
    assert "autoExportPolicy" not in link["s3"]  # nothing gets into the lake by this way
    rules = [r for r in deployment.resources.values() if "-lustre-" in r.name and "Rule" in r.type]
    assert {(r.inputs["fromPort"], r.inputs["toPort"]) for r in rules} == {(988, 988), (1018, 1023)}
    assert all("cidrIpv4" not in r.inputs for r in rules)
    volumes = deployment.of_type("kubernetes:core/v1:PersistentVolume")
    assert len(volumes) == len(CLUSTER["teams"])
    for volume in volumes:
        assert volume.inputs["spec"]["csi"]["readOnly"] is True
        assert link["fileSystemId"] == volume.inputs["spec"]["csi"]["volumeHandle"]
    assert only(deployment, ADDON, "aws-fsx-csi-driver")


def test_without_the_section_there_is_no_cluster_and_nothing_of_it(build):
    deployment = build()
    assert not [r for r in deployment.resources.values() if "eks" in r.type or r.type.startswith("kubernetes")]
    assert deployment.outputs["training"]["eks"] is None


def test_every_role_of_the_cluster_is_narrow(deployment):
    """A star is only for what knows no narrower resource: looks, tokens, and metrics of one namespace."""
    harmless = re.compile(
        r"ec2:Describe\w+|ecr:GetAuthorizationToken|iam:ListInstanceProfiles|pricing:GetProducts|cloudwatch:PutMetricData"
        r"|sagemaker:ListModelPackages"
    )
    for policy in deployment.of_type("aws:iam/rolePolicy:RolePolicy"):
        if not re.search("eks|karpenter|vpc-cni|insights", policy.name):
            continue
        for statement in statements(policy.inputs["policy"]):
            if "*" in as_list(statement["Resource"]):
                assert all(harmless.fullmatch(action) for action in as_list(statement["Action"])), (
                    policy.name,
                    statement,
                )


def test_the_whole_of_production_with_it_breaks_no_guardrail(foresee, deployment):
    for each in (foresee("prod", **ON_EKS), deployment):
        assert [str(violation) for violation in check("prod", each).violations] == []


def test_the_section_that_production_ships_commented_out_works_as_it_stands():
    lines = (ROOT / "Pulumi.prod.yaml").read_text().splitlines()
    start = lines.index("  # ml-platform:cluster:")
    section = [line.removeprefix("  # ") for line in takewhile(lambda line: line.startswith("  # "), lines[start:])]
    config = read_config("prod") | {"ml-platform:cluster": json.dumps(yaml.safe_load("\n".join(section)).popitem()[1])}
    deployment = run(
        lambda: runpy.run_path(str(ROOT / "stacks" / "__main__.py"), run_name="__main__") and None,
        project="ml-platform",
        stack="prod",
        config=config,
        foresee=arns("eu-west-1"),
    )
    assert one(deployment, EKS).name == "mlp-prod-training"
    assert check("prod", deployment).violations == ()
    usd, unpriced = idle(deployment)
    assert unpriced == []
    without, _ = idle(run_environment("prod"))
    (about,) = re.findall(r"About (\d+) USD a month while nobody trains", "\n".join(lines))
    assert round(usd - without) == pytest.approx(int(about), abs=5), "of the comment"
