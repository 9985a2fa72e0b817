"""A team's place in the Kubernetes cluster: a namespace that its pods cannot leave, and its way to the queue."""

from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes

from contract.kubernetes import JOB, LAKE_CLAIM, TEAM
from infra.cluster import Cluster, custom, group, pod_security
from infra.foundation import Foundation
from infra.identity import training_access
from infra.lustre import Lustre
from infra.node_pools import pool_outputs
from infra.queues import API
from infra.settings.cluster import ClusterSettings
from infra.settings.training import JobLimits
from infra.training import limit_outputs

ACCOUNT = "training"
"""Name of the service account of a team's jobs."""
QUEUE = "default"
"""Name of a team's queue in its namespace: Kueue puts jobs there that name none."""
DNS: list[kubernetes.networking.v1.NetworkPolicyPortArgsDict] = [
    {"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")
]
METADATA = "169.254.169.254/32"
"""Where an instance tells its role's credentials: no pod's business."""
IDENTITY = "169.254.170.23/32"
"""Where the Pod Identity agent hands pods the credentials of their own role."""
MEMBERS = "ml-platform-team"
"""The cluster role of a team's members, each in their own namespace."""


@dataclass
class TeamsArgs:
    """Who the teams are, and what they share."""

    settings: ClusterSettings
    cluster: Cluster
    ready: list[pulumi.Resource]
    """What has to be there before a job can be queued: cluster queues, node pools."""
    lustre: Lustre | None = None


class Teams(pulumi.ComponentResource):
    """For each team a namespace with quotas, network policies, a queue, a service account and its members' rights."""

    def __init__(
        self, name: str, args: TeamsArgs, foundation: Foundation, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ml-platform:infra:Teams", name, None, opts)
        self._on, self._args = foundation, args
        self._child = pulumi.ResourceOptions(parent=self)
        # One role for all teams: what a job may do with the lake does not depend on whose it is.
        accounts = {team: (namespace(team), ACCOUNT) for team in args.settings.teams}
        self._identity = args.cluster.pod_role("eks-training", training_access(foundation), accounts, self._child)
        self._members = kubernetes.rbac.v1.ClusterRole(
            MEMBERS, metadata={"name": MEMBERS}, rules=member_rules(), opts=self._in_cluster()
        )
        for team in args.settings.teams:
            self._team(team)
        self.register_outputs({"namespaces": [namespace(team) for team in args.settings.teams]})

    def outputs(self) -> dict[str, Any]:
        """What starts a job; see `contract.outputs.EksOutputs`."""
        settings = self._args.settings
        pools = settings.pools.values()
        types = tuple(dict.fromkeys(type_ for pool in pools for type_ in pool.types))
        spot = any("spot" in pool.capacity for pool in pools)
        limits = JobLimits(instance_types=types, spot=spot, max_hours=settings.max_hours)
        return limit_outputs(limits) | {
            "team_gpus": {team: settings.most_gpus(team) for team in settings.teams},
            "cluster": self._args.cluster.name,
            "teams": {
                team: {
                    "namespace": namespace(team),
                    "queue": QUEUE,
                    "service_account": ACCOUNT,
                    "pools": settings.most(team),
                }
                for team in settings.teams
            },
            "pools": pool_outputs(settings),
            "priorities": list(settings.priorities),
            "lake": self._args.lustre is not None,
        }

    def _in_cluster(self, *after: pulumi.Resource) -> pulumi.ResourceOptions:
        cluster = self._args.cluster
        return pulumi.ResourceOptions(parent=self, provider=cluster.provider, depends_on=[*cluster.ready, *after])

    def _team(self, team: str) -> None:
        name = namespace(team)
        space = kubernetes.core.v1.Namespace(
            name,
            metadata={"name": name, "labels": {TEAM: team} | pod_security()},
            # A destroy deletes what runs in it first, while there still are those who can stop it: Kueue, Karpenter.
            opts=self._in_cluster(*self._args.ready),
        )
        # No pod before the policies that hold it, so the way to the queue comes last.
        inside = self._in_cluster(space)

        def meta(what: str) -> kubernetes.meta.v1.ObjectMetaArgsDict:
            return {"name": what, "namespace": name}

        bounds: list[pulumi.Resource] = [
            kubernetes.core.v1.ResourceQuota(
                name, metadata=meta("jobs"), spec={"hard": quota(team, self._args.settings)}, opts=inside
            ),
            kubernetes.core.v1.LimitRange(name, metadata=meta("containers"), spec={"limits": [limits()]}, opts=inside),
            kubernetes.core.v1.ServiceAccount(
                name, metadata=meta(ACCOUNT), automount_service_account_token=False, opts=inside
            ),
            *(
                kubernetes.networking.v1.NetworkPolicy(f"{name}-{what}", metadata=meta(what), spec=spec, opts=inside)
                for what, spec in network_policies().items()
            ),
        ]
        kubernetes.rbac.v1.RoleBinding(
            name,
            metadata=meta("members"),
            role_ref={"api_group": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": MEMBERS},
            subjects=[{"api_group": "rbac.authorization.k8s.io", "kind": "Group", "name": group(team)}],
            opts=self._in_cluster(space, self._members),
        )
        if self._args.lustre:
            bounds.append(self._lake(team, name, self._args.lustre, space))
        after = [*bounds, *self._identity]
        custom(name, API, "LocalQueue", meta(QUEUE), {"spec": {"clusterQueue": team}}, self._in_cluster(*after))

    def _lake(
        self, team: str, name: str, lustre: Lustre, space: pulumi.Resource
    ) -> kubernetes.core.v1.PersistentVolumeClaim:
        """The lake's file system as a volume, one for each team: a volume is one claim's."""
        size = {"storage": f"{lustre_size(self._args.settings)}Gi"}
        volume = kubernetes.core.v1.PersistentVolume(
            f"lake-{team}",
            metadata={"name": f"lake-{team}"},
            spec={
                "access_modes": ["ReadOnlyMany"],
                "capacity": size,
                "claim_ref": {"name": LAKE_CLAIM, "namespace": name},
                "csi": lustre.volume,
                "mount_options": ["flock"],
                "persistent_volume_reclaim_policy": "Retain",
                "storage_class_name": "",
            },
            opts=self._in_cluster(lustre.linked),
        )
        return kubernetes.core.v1.PersistentVolumeClaim(
            f"lake-{team}",
            metadata={"name": LAKE_CLAIM, "namespace": name},
            spec={
                "access_modes": ["ReadOnlyMany"],
                "resources": {"requests": size},
                "storage_class_name": "",
                "volume_name": volume.metadata["name"],
            },
            opts=self._in_cluster(space, volume),
        )


def namespace(team: str) -> str:
    """The namespace of a team's jobs."""
    return f"team-{team}"


def lustre_size(settings: ClusterSettings) -> int:
    """GiB of the lake's file system."""
    assert settings.lustre, "asked only where there is one"
    return settings.lustre.storage_gib


def quota(team: str, settings: ClusterSettings) -> dict[str, str]:
    """What a namespace may hold, so that a mistake in a loop does not drown the cluster.

    There are no load balancers nor node ports: a load balancer is made by the cluster, unknown to Pulumi, and one that
    is left behind keeps the VPC from being deleted.
    """
    return {
        "requests.nvidia.com/gpu": str(settings.most_gpus(team)),
        "pods": "1000",
        "count/jobsets.jobset.x-k8s.io": "500",
        "count/jobs.batch": "500",
        "services.loadbalancers": "0",
        "services.nodeports": "0",
        "persistentvolumeclaims": "10",
    }


def limits() -> kubernetes.core.v1.LimitRangeItemArgsDict:
    """What a container gets that asks for nothing."""
    return {
        "type": "Container",
        "default": {"cpu": "1", "memory": "2Gi"},
        "default_request": {"cpu": "1", "memory": "2Gi"},
    }


def network_policies() -> dict[str, kubernetes.networking.v1.NetworkPolicySpecArgsDict]:
    """Who may talk to whom: jobs to the jobs of their team, to AWS by HTTPS, and nobody else to anybody.

    A selector cannot say "of the same job as mine", so the jobs of one team can reach one another. EFA goes past the
    kernel, and so past these: there, the nodes' security group is what holds.
    """
    jobs: kubernetes.meta.v1.LabelSelectorArgsDict = {"match_expressions": [{"key": JOB, "operator": "Exists"}]}
    dns: kubernetes.networking.v1.NetworkPolicyPeerArgsDict = {
        "namespace_selector": {"match_labels": {"kubernetes.io/metadata.name": "kube-system"}},
        "pod_selector": {"match_labels": {"k8s-app": "kube-dns"}},
    }
    return {
        "deny-all": {"pod_selector": {}, "policy_types": ["Ingress", "Egress"]},
        "aws": {
            "pod_selector": {},
            "policy_types": ["Egress"],
            "egress": [
                {"to": [dns], "ports": DNS},
                {
                    "to": [{"ip_block": {"cidr": "0.0.0.0/0", "except_": [METADATA]}}],
                    "ports": [{"protocol": "TCP", "port": 443}],
                },
                {"to": [{"ip_block": {"cidr": IDENTITY}}], "ports": [{"protocol": "TCP", "port": 80}]},
            ],
        },
        "jobs": {
            "pod_selector": jobs,
            "policy_types": ["Ingress", "Egress"],
            "ingress": [{"from_": [{"pod_selector": jobs}]}],
            "egress": [{"to": [{"pod_selector": jobs}]}],
        },
    }


def member_rules() -> list[kubernetes.rbac.v1.PolicyRuleArgsDict]:
    """What a team's members may do in their namespace: start and stop jobs, and see why they do not start."""
    look = ["get", "list", "watch"]
    return [
        {"api_groups": ["jobset.x-k8s.io"], "resources": ["jobsets"], "verbs": [*look, "create", "delete", "patch"]},
        {"api_groups": ["batch"], "resources": ["jobs"], "verbs": look},
        {"api_groups": [""], "resources": ["pods", "pods/log", "events", "resourcequotas"], "verbs": look},
        {"api_groups": ["kueue.x-k8s.io"], "resources": ["localqueues", "workloads"], "verbs": look},
    ]
