"""Nodes that come when jobs are admitted and go when they are done: Karpenter, its pools, and what GPUs need on a node.

Karpenter rather than EKS Auto Mode, which is Karpenter run by AWS: Auto Mode adds about a tenth to the price of every
instance (GPUs are most of a bill), restarts nodes after 21 days at the latest, and lets nobody choose the release of
its image or place nodes by a placement group. What that costs is here: a role, a queue of notices and two charts.
"""

from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as kubernetes

from contract.kubernetes import CAPACITY, GPU, POOL
from infra import cluster_policies
from infra.cluster import Cluster, custom
from infra.events import event_queue
from infra.foundation import Foundation
from infra.regions import partition
from infra.settings.cluster import ClusterSettings, NodePool
from infra.versions import DCGM_EXPORTER, DEVICE_PLUGIN, EFA_PLUGIN, KARPENTER, KARPENTER_CRDS, NODE_IMAGE

NAMESPACE = "kube-system"
"""Of Karpenter and the plug-ins: pods there may use the priorities of what a cluster cannot do without."""
NOTICES = (
    "AWS Health Event",
    "EC2 Capacity Reservation Instance Interruption Warning",
    "EC2 Instance Rebalance Recommendation",
    "EC2 Instance State-change Notification",
    "EC2 Spot Instance Interruption Warning",
)
"""What EC2 says before it takes an instance away: two minutes in which a node is emptied, and its successor started."""
GPU_PRESENT = "nvidia.com/gpu.present"
"""Label of nodes with GPUs, by which the charts of NVIDIA find them."""
CAPACITY_TYPES = {"reservation": "reserved", "block": "reserved", "spot": "spot", "on-demand": "on-demand"}
EVERYWHERE = [{"operator": "Exists"}]
"""Toleration of what belongs on every node of its kind, whatever keeps others off it."""


@dataclass
class NodePoolsArgs:
    """The pools, and the cluster that they belong to."""

    settings: ClusterSettings
    cluster: Cluster
    prometheus: bool = False
    """Whether Prometheus collects the GPUs' metrics, from NVIDIA's exporter."""


class NodePools(pulumi.ComponentResource):
    """Karpenter with a node pool for each of the settings', and the plug-ins by which pods see GPUs and EFA.

    A destroy goes the other way: pools first, and each waits until Karpenter has stopped its instances.
    """

    ready: list[pulumi.Resource]
    """What has to be there before a job can be admitted."""

    def __init__(
        self, name: str, args: NodePoolsArgs, foundation: Foundation, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ml-platform:infra:NodePools", name, None, opts)
        self._on, self._args, self._cluster = foundation, args, args.cluster
        self._child = pulumi.ResourceOptions(parent=self)
        pools = args.settings.pools
        profile, joined = self._nodes()
        karpenter = self._karpenter()
        plugins = self._plugins()
        self.ready = [*joined, *plugins]
        for pool, settings in pools.items():
            # The plug-ins, too: a node is of use once they run on it.
            after = [karpenter, *joined, *plugins]
            self.ready.append(self._pool(pool, settings, self._node_class(pool, settings, profile, after)))
        self.register_outputs({"pools": list(pools)})

    def _in_cluster(self, *after: pulumi.Resource) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(
            parent=self, provider=self._cluster.provider, depends_on=[*self._cluster.ready, *after]
        )

    def _nodes(self) -> tuple[aws.iam.InstanceProfile, list[pulumi.Resource]]:
        """What the nodes are in AWS, and their way into the cluster."""
        name = self._on.naming("eks-nodes")
        role, policy = self._on.role_and_policy(
            "eks-nodes", "ec2.amazonaws.com", cluster_policies.node(self._on), self._child
        )
        self._node_role = role
        # Ours rather than Karpenter's, which then needs no rights over profiles.
        profile = aws.iam.InstanceProfile(name, name=name, role=role.name, opts=self._child)
        entry = aws.eks.AccessEntry(
            name,
            cluster_name=self._cluster.cluster.name,
            principal_arn=role.arn,
            type="EC2_LINUX",
            opts=self._child,
        )
        return profile, [policy, entry]

    def _notices(self) -> tuple[aws.sqs.Queue, list[pulumi.Resource]]:
        """A queue of what EC2 is about to do with instances."""
        name = self._on.naming("karpenter")
        pattern = {"source": ["aws.ec2", "aws.health"], "detail-type": list(NOTICES)}
        return event_queue(name, "Tell Karpenter what EC2 is about to do with instances", pattern, 300, self._child)

    def _karpenter(self) -> kubernetes.helm.v3.Release:
        """The controller, on the system nodes; its custom resources' definitions come by a chart of their own.

        Helm never updates definitions from a chart's `crds` folder, and leaves them behind.
        """
        queue, told = self._notices()
        statements = cluster_policies.karpenter(self._on, self._cluster.name, self._node_role.arn, queue.arn)
        identity = self._cluster.pod_role("karpenter", statements, {"": (NAMESPACE, "karpenter")}, self._child)
        definitions = self._cluster.release("karpenter-crd", KARPENTER_CRDS, NAMESPACE, {}, self._in_cluster())
        values = {
            "settings": {
                "clusterName": self._cluster.name,
                "clusterEndpoint": self._cluster.cluster.endpoint,
                "interruptionQueue": queue.name,
            },
            "serviceAccount": {"name": "karpenter"},
            # Two are never on one node: with a single system node the second would wait for ever.
            "replicas": min(2, self._args.settings.system.min_nodes),
            # The VPC's resolver, since it must work before there is a node for CoreDNS.
            "dnsPolicy": "Default",
            "controller": {"resources": {"requests": {"cpu": "250m", "memory": "512Mi"}, "limits": {"memory": "1Gi"}}},
        }
        return self._cluster.release(
            "karpenter",
            KARPENTER,
            NAMESPACE,
            values,
            self._in_cluster(definitions, *identity, *told),
            skip_crds=True,
        )

    def _plugins(self) -> list[pulumi.Resource]:
        """What makes GPUs and EFA interfaces something that pods can ask for, and what measures GPUs."""
        settings, releases = self._args.settings, list[pulumi.Resource]()
        if any(pool.gpu for pool in settings.pools.values()):
            # AWS's accelerated image has the driver and the container toolkit, not the plug-in.
            releases.append(
                self._cluster.release(
                    "nvidia-device-plugin", DEVICE_PLUGIN, NAMESPACE, {"tolerations": EVERYWHERE}, self._in_cluster()
                )
            )
            if self._args.prometheus:
                values = {
                    "nodeSelector": {GPU_PRESENT: "true"},
                    "tolerations": EVERYWHERE,
                    "serviceMonitor": {"enabled": False},  # that is of an operator which is not there
                }
                releases.append(
                    self._cluster.release("dcgm-exporter", DCGM_EXPORTER, NAMESPACE, values, self._in_cluster())
                )
        if any(pool.efa for pool in settings.pools.values()):
            registry = cluster_policies.REGISTRIES[partition(self._on.region)]
            values = {
                "image": {"repository": f"{registry}/eks/aws-efa-k8s-device-plugin"},
                "tolerations": EVERYWHERE,
            }
            releases.append(
                self._cluster.release("aws-efa-k8s-device-plugin", EFA_PLUGIN, NAMESPACE, values, self._in_cluster())
            )
        return releases

    def _node_class(
        self, pool: str, settings: NodePool, profile: aws.iam.InstanceProfile, after: list[pulumi.Resource]
    ) -> pulumi.CustomResource:
        """How a pool's nodes are made: image, disks, network, and the capacity that is reserved for them."""
        spec: dict[str, Any] = {
            "amiFamily": "AL2023",
            "amiSelectorTerms": [{"alias": NODE_IMAGE}],
            "instanceProfile": profile.name,
            "subnetSelectorTerms": [{"id": subnet} for subnet in self._on.network.private_subnet_ids],
            "securityGroupSelectorTerms": [{"id": self._cluster.security_group_id}],
            "associatePublicIPAddress": False,
            # One hop: a pod that is not on the host's network reaches no credentials of the node.
            "metadataOptions": {"httpEndpoint": "enabled", "httpTokens": "required", "httpPutResponseHopLimit": 1},
            "blockDeviceMappings": [
                {
                    "deviceName": "/dev/xvda",
                    "ebs": {
                        "volumeSize": f"{settings.disk_gb}Gi",
                        "volumeType": "gp3",
                        "encrypted": True,
                        "deleteOnTermination": True,
                    },
                }
            ],
            "kubelet": {"maxPods": settings.pods_per_node},
            "tags": self._on.naming.tags | {"Name": self._on.naming(f"pool-{pool}")},
        }
        if settings.gpu:
            spec["instanceStorePolicy"] = "RAID0"  # images and scratch space on the disks that come with the instance
        if settings.reservations:
            spec["capacityReservationSelectorTerms"] = [{"id": id_} for id_ in settings.reservations]
        if settings.efa:
            spec["placementGroupSelector"] = {"name": self._placement_group(pool).name}
        name = self._on.naming(f"node-class-{pool}")
        return custom(
            name, "karpenter.k8s.aws/v1", "EC2NodeClass", {"name": pool}, {"spec": spec}, self._in_cluster(*after)
        )

    def _placement_group(self, pool: str) -> aws.ec2.PlacementGroup:
        """Nodes close together. Their EFA interfaces Karpenter adds itself, as many as the pods ask for."""
        name = self._on.naming(f"pool-{pool}")
        return aws.ec2.PlacementGroup(name, name=name, strategy="cluster", opts=self._child)

    def _pool(self, pool: str, settings: NodePool, node_class: pulumi.CustomResource) -> pulumi.CustomResource:
        """Which nodes may be bought, up to how many GPUs, and when they go."""
        requirements: dict[str, list[str]] = {
            "node.kubernetes.io/instance-type": list(settings.types),
            CAPACITY: sorted({CAPACITY_TYPES[each] for each in settings.capacity}),
            "kubernetes.io/arch": ["amd64"],
        }
        if settings.zone:
            requirements["topology.kubernetes.io/zone"] = [f"{self._on.region}{settings.zone}"]
        taints = [{"key": POOL, "value": pool, "effect": "NoSchedule"}]
        labels = {POOL: pool}
        if settings.gpu:
            taints.append({"key": GPU, "value": "true", "effect": "NoSchedule"})
            labels[GPU_PRESENT] = "true"
        spec = {
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": pool},
                    "requirements": [
                        {"key": key, "operator": "In", "values": values} for key, values in requirements.items()
                    ],
                    "taints": taints,
                    # A node lives as long as the jobs on it, which end by themselves; age alone would kill them.
                    "expireAfter": "Never",
                },
            },
            "limits": {GPU if settings.gpu else "cpu": str(settings.limit)},
            # Only nodes without jobs go: moving a job to a smaller node would send it back to its last checkpoint.
            "disruption": {
                "consolidationPolicy": "WhenEmpty",
                "consolidateAfter": f"{settings.empty_minutes}m",
                "budgets": [{"nodes": "100%", "reasons": ["Empty"]}, {"nodes": "1", "reasons": ["Drifted"]}],
            },
        }
        # Its deletion ends when its last instance has.
        slowly = pulumi.ResourceOptions(custom_timeouts=pulumi.CustomTimeouts(delete="30m"))
        opts = pulumi.ResourceOptions.merge(self._in_cluster(node_class), slowly)
        name = self._on.naming(f"node-pool-{pool}")
        return custom(name, "karpenter.sh/v1", "NodePool", {"name": pool}, {"spec": spec}, opts)


def pool_outputs(settings: ClusterSettings) -> dict[str, dict[str, Any]]:
    """The pools as a job is told of them; see `contract.outputs.EksPool`."""
    return {
        name: {
            "types": {type_: pool.interfaces(type_) for type_ in pool.types},
            "spot_only": set(pool.capacity) == {"spot"},
        }
        for name, pool in settings.pools.items()
    }
