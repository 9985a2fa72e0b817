"""A team's namespace, and a job in it from its submission to its node: nothing on the way keeps it from running."""

import pytest

from contract.outputs import Outputs
from contract.training import Compute
from tests.infra.conftest import CLUSTER, ON_EKS, only, statements
from training import jobs
from training.fitting import Job

NAMESPACE, QUOTA = "kubernetes:core/v1:Namespace", "kubernetes:core/v1:ResourceQuota"
POLICY, BINDING = (
    "kubernetes:networking.k8s.io/v1:NetworkPolicy",
    "kubernetes:rbac.authorization.k8s.io/v1:RoleBinding",
)
KUEUE, KARPENTER = "kubernetes:kueue.x-k8s.io/v1beta2", "kubernetes:karpenter.sh/v1"
TEAMS = {f"team-{team}" for team in CLUSTER["teams"]}
LARGE = {"gpus": 8, "instances": 4, "vcpus": 90, "memory_gib": 1000, "spot": False}


@pytest.fixture
def deployment(build):
    return build("prod", **ON_EKS)


def inside(deployment, type_, namespace="team-default"):
    return {
        r.inputs["metadata"]["name"]: r.inputs
        for r in deployment.of_type(type_)
        if r.inputs["metadata"].get("namespace") == namespace
    }


def submitted(deployment, team="default", **compute):
    outputs = Outputs.model_validate(deployment.outputs)
    job = Job("a-job", "digits", "train", Compute(team=team, **compute), priority="high")
    return jobs.request(job, outputs, "eks")


def pod_of(manifest):
    return manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]


def named(deployment, type_, name):
    (found,) = [r.inputs for r in deployment.of_type(type_) if r.inputs["metadata"]["name"] == name]
    return found


def tolerated(taint, tolerations):
    return any(
        each.get("key") in (None, taint["key"])
        and each.get("effect") in (None, taint["effect"])
        and (each["operator"] == "Exists" or each.get("value") == taint["value"])
        for each in tolerations
    )


def test_pods_keep_to_the_restricted_standard(deployment):
    spaces = [n for n in deployment.of_type(NAMESPACE) if n.name in TEAMS]
    assert {space.name for space in spaces} == TEAMS
    for space in spaces:
        labels = space.inputs["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
        assert labels["pod-security.kubernetes.io/enforce-version"] == "v1.35"


@pytest.mark.parametrize("compute", [{}, {"gpus": 1}, LARGE])
def test_a_jobs_pods_do(deployment, compute):
    """The restricted pod security standard, rule by rule."""
    pod = pod_of(submitted(deployment, **compute))
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    assert {kind for volume in pod["volumes"] for kind in volume.keys() - {"name"}} <= allowed
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True
        assert not any("hostPort" in port for port in container.get("ports", []))


@pytest.mark.parametrize(
    ("compute", "pool"), [({"vcpus": 4}, "cpu"), ({"gpus": 1, "spot": False}, "a10g"), (LARGE, "a100")]
)
def test_a_job_gets_through_the_queue_onto_a_node(deployment, compute, pool):
    """What Kueue, the scheduler and Karpenter each ask of it, as their documentation has it."""
    manifest = submitted(deployment, **compute)
    pod, space = pod_of(manifest), manifest["metadata"]["namespace"]
    # Its queue and its priority are there, and the queue takes jobs of this namespace.
    labels = manifest["metadata"]["labels"]
    queue = inside(deployment, f"{KUEUE}:LocalQueue", space)[labels["kueue.x-k8s.io/queue-name"]]
    named(deployment, f"{KUEUE}:WorkloadPriorityClass", labels["kueue.x-k8s.io/priority-class"])
    cluster_queue = named(deployment, f"{KUEUE}:ClusterQueue", queue["spec"]["clusterQueue"])["spec"]
    namespace = named(deployment, NAMESPACE, space)["metadata"]["labels"]
    assert cluster_queue["namespaceSelector"]["matchLabels"].items() <= namespace.items()
    # Kueue knows all that it asks for, or leaves it out of account; and the team may have it.
    (group,) = cluster_queue["resourceGroups"]
    asked = pod["containers"][0]["resources"]["requests"]
    excluded = ("memory", "vpc.amazonaws.com")
    assert {name for name in asked if not name.startswith(excluded)} <= set(group["coveredResources"])
    flavors = [named(deployment, f"{KUEUE}:ResourceFlavor", each["name"]) for each in group["flavors"]]
    # One flavor alone suits: by the pool's label, and because its nodes' taints are tolerated.
    suits = [
        flavor
        for flavor in flavors
        if pod["nodeSelector"].items() <= flavor["spec"]["nodeLabels"].items()
        and all(tolerated(taint, pod.get("tolerations", [])) for taint in flavor["spec"].get("nodeTaints", []))
    ]
    assert [flavor["metadata"]["name"] for flavor in suits] == [pool]
    # Karpenter has a pool for it, once Kueue has added what the flavor adds.
    node = named(deployment, f"{KARPENTER}:NodePool", pool)["spec"]["template"]
    assert pod["nodeSelector"].items() <= node["metadata"]["labels"].items()
    tolerations = [*pod.get("tolerations", []), *suits[0]["spec"]["tolerations"]]
    assert all(tolerated(taint, tolerations) for taint in node["spec"]["taints"])
    # Not before: nothing gets onto these nodes past the queue.
    assert not all(tolerated(taint, pod.get("tolerations", [])) for taint in node["spec"]["taints"])
    capacity = next(r["values"] for r in node["spec"]["requirements"] if r["key"] == "karpenter.sh/capacity-type")
    if not compute.get("spot", True):
        assert set(capacity) - {"spot"}
    # What it mounts and who it is are there.
    claims = inside(deployment, "kubernetes:core/v1:PersistentVolumeClaim", space)
    assert {v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v} <= set(
        claims
    )
    assert pod["serviceAccountName"] in inside(deployment, "kubernetes:core/v1:ServiceAccount", space)


def test_several_nodes_get_all_their_interfaces(deployment):
    limits = pod_of(submitted(deployment, **LARGE))["containers"][0]["resources"]["limits"]
    assert (limits["nvidia.com/gpu"], limits["vpc.amazonaws.com/efa"]) == ("8", "4")
    alone = pod_of(submitted(deployment, **LARGE | {"instances": 1}))["containers"][0]["resources"]["limits"]
    assert "vpc.amazonaws.com/efa" not in alone


def test_jobs_have_the_role_of_training_by_pod_identity(deployment):
    associations = [
        each.inputs
        for each in deployment.of_type("aws:eks/podIdentityAssociation:PodIdentityAssociation")
        if each.inputs["serviceAccount"] == "training"
    ]
    assert {each["namespace"] for each in associations} == TEAMS
    (arn,) = {each["roleArn"] for each in associations}
    role = only(deployment, "aws:iam/role:Role", "eks-training")
    assert role.outputs["arn"] == arn
    (trust,) = statements(role.inputs["assumeRolePolicy"])
    assert trust["Principal"] == {"Service": "pods.eks.amazonaws.com"}
    for account in deployment.of_type("kubernetes:core/v1:ServiceAccount"):
        assert account.inputs["automountServiceAccountToken"] is False


def test_a_namespace_is_closed_but_for_aws_and_the_teams_own_jobs(deployment):
    for team in TEAMS:
        policies = inside(deployment, POLICY, team)
        assert policies.keys() == {"deny-all", "aws", "jobs"}
        deny = policies["deny-all"]["spec"]
        assert deny["podSelector"] == {}
        assert set(deny["policyTypes"]) == {"Ingress", "Egress"}
        assert not {"ingress", "egress"} & deny.keys()
        blocks = [to["ipBlock"] for rule in policies["aws"]["spec"]["egress"] for to in rule["to"] if "ipBlock" in to]
        assert {"cidr": "0.0.0.0/0", "except": ["169.254.169.254/32"]} in blocks
        # From nobody but pods of the same namespace: a peer without a namespace selector.
        ((peer,),) = [rule["from"] for rule in policies["jobs"]["spec"]["ingress"]]
        assert peer.keys() == {"podSelector"}


def test_a_namespace_holds_no_more_than_its_quota(deployment):
    hard = {team: next(iter(inside(deployment, QUOTA, team).values()))["spec"]["hard"] for team in TEAMS}
    assert hard["team-default"]["requests.nvidia.com/gpu"] == "32"  # its own and what it may borrow
    assert hard["team-ops"]["requests.nvidia.com/gpu"] == "0"
    assert all(each["services.loadbalancers"] == each["services.nodeports"] == "0" for each in hard.values())


def test_members_see_their_own_namespace_and_may_change_no_bounds(deployment):
    for team in CLUSTER["teams"]:
        (binding,) = inside(deployment, BINDING, f"team-{team}").values()
        assert [subject["name"] for subject in binding["subjects"]] == [f"team-{team}"]
    (role,) = deployment.of_type("kubernetes:rbac.authorization.k8s.io/v1:ClusterRole")
    for rule in role.inputs["rules"]:
        assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
        if {"create", "delete", "patch"} & set(rule["verbs"]):
            assert rule["resources"] == ["jobsets"]
        assert "secrets" not in rule["resources"]


def test_there_is_no_way_to_the_queue_before_the_policies_that_hold_a_pod(deployment):
    for queue in deployment.of_type(f"{KUEUE}:LocalQueue"):
        space = queue.inputs["metadata"]["namespace"]
        bounds = [
            r.urn
            for type_ in (POLICY, QUOTA, "kubernetes:core/v1:LimitRange", "kubernetes:core/v1:ServiceAccount")
            for r in deployment.of_type(type_)
            if r.inputs["metadata"].get("namespace") == space
        ]
        assert len(bounds) == 6
        assert set(bounds) <= queue.dependencies
