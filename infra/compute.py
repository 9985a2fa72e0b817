"""Training on Kubernetes, whole: the cluster, its nodes, its queues, its teams, and the lake as a file system."""

from dataclasses import dataclass
from typing import Any

import pulumi

from infra.cluster import Cluster, ClusterArgs
from infra.foundation import Foundation
from infra.idle import idle_gpu_alarm
from infra.lustre import Lustre, LustreArgs
from infra.node_pools import NodePools, NodePoolsArgs
from infra.observability import Cluster as Watched
from infra.prometheus import ScrapedCluster
from infra.queues import Queues, QueuesArgs
from infra.settings.cluster import ClusterSettings
from infra.teams import Teams, TeamsArgs


@dataclass
class ComputeArgs:
    """What the settings say of the cluster, and who is told of GPUs that do nothing."""

    settings: ClusterSettings
    zones: tuple[str, ...]
    prometheus: bool
    """Whether Prometheus collects the GPUs' metrics, and tells of idle ones; otherwise CloudWatch does both."""
    idle_minutes: int
    topic_arn: pulumi.Input[str]


class Compute(pulumi.ComponentResource):
    """The Kubernetes cluster on which training jobs run."""

    watched: Watched
    """The cluster as observability knows it."""

    def __init__(
        self, name: str, args: ComputeArgs, foundation: Foundation, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ml-platform:infra:Compute", name, None, opts)
        child, settings = pulumi.ResourceOptions(parent=self), args.settings
        cluster = Cluster("cluster", ClusterArgs(settings, args.prometheus), foundation, child)
        pools = NodePools("pools", NodePoolsArgs(settings, cluster, args.prometheus), foundation, child)
        queues = Queues("queues", QueuesArgs(settings, cluster), foundation, child)
        lustre = None
        if settings.lustre:
            lake = LustreArgs(settings.lustre, args.zones, cluster.security_group_id)
            lustre = Lustre("lake", lake, foundation, child)
        ready = [*pools.ready, *queues.ready]
        self._teams = Teams("teams", TeamsArgs(settings, cluster, ready, lustre), foundation, child)
        if not args.prometheus and any(pool.gpu for pool in settings.pools.values()):
            # What the add-on's agent writes for each GPU, by the node's instance.
            query = (
                'SELECT AVG(node_gpu_utilization) FROM "ContainerInsights" '
                f"WHERE ClusterName = '{cluster.name}' GROUP BY InstanceId ORDER BY AVG() ASC"
            )
            idle_gpu_alarm("eks", query, args.idle_minutes, args.topic_arn, foundation, child)
        scraped = ScrapedCluster(cluster.cluster.arn, cluster.security_group_id)
        self.watched = Watched(cluster.name, scraped, cluster.provider, cluster.ready)
        self.register_outputs({"cluster": cluster.name})

    def outputs(self) -> dict[str, Any]:
        """What starts a job; see `contract.outputs.EksOutputs`."""
        return self._teams.outputs()
