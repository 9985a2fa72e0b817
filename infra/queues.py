"""The queues of the Kubernetes cluster: Kueue, which admits jobs by their team's quota, and JobSet, which runs them.

JobSet rather than Kubeflow's Trainer, which makes JobSets of its own TrainJobs: a run of torchrun on several nodes
needs no more than a JobSet has (pods that start together, find each other in DNS and fail as one), and every layer
less is one less to update. Both are admitted by Kueue, so that a company that wants Trainer adds it beside.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes
import yaml

from contract.kubernetes import GPU, POOL, TEAM
from infra.cluster import Cluster, custom, pod_security
from infra.foundation import Foundation
from infra.instances import INSTANCES
from infra.settings.cluster import ClusterSettings, NodePool, TeamSettings
from infra.versions import JOBSET, KUEUE

API = "kueue.x-k8s.io/v1beta2"
COHORT = "teams"
"""All teams lend one another what they leave idle."""
SYSTEM = "kueue-system"
JOBSETS = "jobset-system"


@dataclass
class QueuesArgs:
    """Pools, teams and priorities, and the cluster that they are on."""

    settings: ClusterSettings
    cluster: Cluster


class Queues(pulumi.ComponentResource):
    """A cluster queue for each team, all in one cohort.

    A job is admitted whole or not at all. While a large one waits for its GPUs, smaller ones behind it pass. What is
    lent is taken back (the borrower's job starts again from its checkpoint), and within a team a job of higher
    priority takes the place of one of lower.
    """

    ready: list[pulumi.Resource]
    """What the teams' own queues need."""

    def __init__(
        self, name: str, args: QueuesArgs, foundation: Foundation, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ml-platform:infra:Queues", name, None, opts)
        self._on, self._args = foundation, args
        settings = args.settings
        kueue = self._controllers()
        flavors = [
            self._object("flavor", "ResourceFlavor", pool, {"spec": flavor(pool, each)}, kueue)
            for pool, each in settings.pools.items()
        ]
        for priority, value in settings.priorities.items():
            self._object("priority", "WorkloadPriorityClass", priority, {"value": value}, kueue)
        self.ready = [
            self._object("queue", "ClusterQueue", team, {"spec": cluster_queue(team, settings)}, kueue, *flavors)
            for team in settings.teams
        ]
        self.register_outputs({"teams": list(settings.teams)})

    def _in_cluster(self, *after: pulumi.Resource) -> pulumi.ResourceOptions:
        cluster = self._args.cluster
        return pulumi.ResourceOptions(parent=self, provider=cluster.provider, depends_on=[*cluster.ready, *after])

    def _object(
        self, what: str, kind: str, name: str, content: Mapping[str, Any], *after: pulumi.Resource
    ) -> pulumi.Resource:
        """One of Kueue's objects, which none of them can be before its definition is."""
        return custom(self._on.naming(f"{what}-{name}"), API, kind, {"name": name}, content, self._in_cluster(*after))

    def _controllers(self) -> pulumi.Resource:
        cluster = self._args.cluster
        jobsets, system = (self._namespace(name) for name in (JOBSETS, SYSTEM))
        small = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}
        jobset = cluster.release(
            "jobset", JOBSET, JOBSETS, {"controller": {"resources": small}}, self._in_cluster(jobsets)
        )
        values = {
            "controllerManager": {
                "manager": {
                    "resources": {"requests": {"cpu": "250m", "memory": "512Mi"}, "limits": {"memory": "1Gi"}},
                    "priorityClassName": "system-cluster-critical",
                }
            },
            "managerConfig": {
                "controllerManagerConfigYaml": yaml.safe_dump(
                    configuration(self._args.settings.start_minutes), sort_keys=False
                )
            },
        }
        return cluster.release("kueue", KUEUE, SYSTEM, values, self._in_cluster(system, jobset))

    def _namespace(self, name: str) -> kubernetes.core.v1.Namespace:
        return kubernetes.core.v1.Namespace(
            name,
            metadata={"name": name, "labels": pod_security()},
            opts=self._in_cluster(),
        )


def configuration(start_minutes: int) -> dict[str, Any]:
    """Kueue's own configuration: what differs from the chart's.

    Args:
        start_minutes: in which all pods of a job must be ready, or its nodes go to others and it back to its queue.
    """
    return {
        "apiVersion": "config.kueue.x-k8s.io/v1beta2",
        "kind": "Configuration",
        "health": {"healthProbeBindAddress": ":8081"},
        "metrics": {"bindAddress": ":8443", "enableClusterQueueResources": True},
        "webhook": {"port": 9443},
        "leaderElection": {"leaderElect": True, "resourceName": "c1f6bfd2.kueue.x-k8s.io"},
        "controller": {
            "groupKindConcurrency": {
                "Job.batch": 5,
                "Pod": 5,
                "Workload.kueue.x-k8s.io": 10,
                "LocalQueue.kueue.x-k8s.io": 5,
                "ClusterQueue.kueue.x-k8s.io": 5,
                "ResourceFlavor.kueue.x-k8s.io": 1,
            }
        },
        "clientConnection": {"qps": 300, "burst": 500},
        # In a team's namespace nothing runs past the queue, whatever its labels and tolerations say.
        "manageJobsWithoutQueueName": True,
        "managedJobsNamespaceSelector": {"matchExpressions": [{"key": TEAM, "operator": "Exists"}]},
        "waitForPodsReady": {
            "timeout": f"{start_minutes}m",
            "recoveryTimeout": f"{start_minutes}m",
            "blockAdmission": False,  # small jobs start while a large one waits for its nodes
            "requeuingStrategy": {"timestamp": "Eviction", "backoffBaseSeconds": 60, "backoffMaxSeconds": 3600},
        },
        "integrations": {"frameworks": ["batch/job", "jobset.x-k8s.io/jobset", "pod"]},
        "fairSharing": {"preemptionStrategies": ["LessThanOrEqualToFinalShare", "LessThanInitialShare"]},
        # What comes with GPUs and processors by itself is not counted.
        "resources": {"excludeResourcePrefixes": ["memory", "ephemeral-storage", "hugepages", "vpc.amazonaws.com"]},
    }


def flavor(pool: str, settings: NodePool) -> dict[str, Any]:
    """A pool as Kueue sees it. Who is admitted to it gets its label and the toleration of its taint."""
    spec: dict[str, Any] = {
        "nodeLabels": {POOL: pool},
        "tolerations": [{"key": POOL, "operator": "Equal", "value": pool, "effect": "NoSchedule"}],
    }
    if settings.gpu:
        spec["nodeTaints"] = [{"key": GPU, "value": "true", "effect": "NoSchedule"}]
    return spec


def cluster_queue(team: str, settings: ClusterSettings) -> dict[str, Any]:
    """A team's quota of each of its pools, and what it lends and borrows.

    Without a limit everything that is idle is lent; what a team does not borrow, `borrowingLimit` says.
    """
    own = settings.teams[team]
    return {
        "cohortName": COHORT,
        "namespaceSelector": {"matchLabels": {TEAM: team}},
        "queueingStrategy": "BestEffortFIFO",  # a job that does not fit yet lets those behind it pass
        "preemption": {"reclaimWithinCohort": "Any", "withinClusterQueue": "LowerPriority"},
        "fairSharing": {"weight": f"{own.weight:g}"},
        "resourceGroups": [
            {
                "coveredResources": [GPU, "cpu"],
                "flavors": [
                    {"name": pool, "resources": _resources(settings.pools[pool], quota, own)}
                    for pool, quota in own.quota.items()
                ],
            }
        ],
    }


def _resources(pool: NodePool, quota: int, team: TeamSettings) -> list[dict[str, Any]]:
    """A quota is of GPUs, and of the processors that are beside them; or of processors alone."""
    gpus, cpus = (quota, quota * _cpus_beside_a_gpu(pool)) if pool.gpu else (0, quota)
    limit = {} if team.borrow else {"borrowingLimit": "0"}
    return [{"name": name, "nominalQuota": str(number)} | limit for name, number in ((GPU, gpus), ("cpu", cpus))]


def _cpus_beside_a_gpu(pool: NodePool) -> int:
    return max(INSTANCES[type_].vcpus // INSTANCES[type_].gpus for type_ in pool.types)
