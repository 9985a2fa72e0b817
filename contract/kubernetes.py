"""What the cluster's queues and the jobs in them must agree on: names, and where a job's pods go.

A job names the pool of nodes that it wants; Kueue's flavors and Karpenter's node pools have the pools' labels and
taints.
"""

from collections.abc import Mapping
from typing import Any

from contract.strict import Strict

POOL = "ml-platform/pool"
"""Label and taint of a pool's nodes. Kueue gives a job's pods the toleration when it admits them, so that nothing gets
onto those nodes past the queues."""
TEAM = "ml-platform/team"
"""Label of a team's namespace."""
GPU = "nvidia.com/gpu"
"""Resource, and taint of nodes with GPUs: a job that asks for none does not tolerate it, and stays off them."""
EFA = "vpc.amazonaws.com/efa"
"""Resource: network interfaces that NCCL uses past the kernel."""
QUEUE = "kueue.x-k8s.io/queue-name"
PRIORITY = "kueue.x-k8s.io/priority-class"
KEEP = "karpenter.sh/do-not-disrupt"
"""Annotation of a pod whose node Karpenter leaves alone."""
LUSTRE_CLAIM = "lake"
"""Name of the volume claim in a team's namespace through which its pods see the lake's file system."""


class PoolType(Strict):
    """What one node of an instance type offers to the pods on it."""

    vcpus: int
    memory_gib: int
    gpus: int = 0
    efa: int = 0
    """Network interfaces for NCCL, 0 if the pool does without them."""


class Pool(Strict):
    """A pool of nodes: its instance types."""

    instance_types: dict[str, PoolType]


def pool_for(pools: Mapping[str, Pool], gpus: int, vcpus: int, memory_gib: float) -> str | None:
    """The pool whose smallest fitting node is the smallest of all, None if a pod fits on no node of any.

    Args:
        pools: the cluster's, by name.
        gpus: that the pod asks for.
        vcpus: that the pod asks for.
        memory_gib: that the pod asks for.
    """
    found = [
        (type_.gpus, type_.vcpus, name)
        for name, pool in pools.items()
        for type_ in pool.instance_types.values()
        # Some of a node's processor and memory is the system's.
        if gpus <= type_.gpus and vcpus < type_.vcpus and memory_gib < type_.memory_gib and (gpus or not type_.gpus)
    ]
    return min(found)[2] if found else None


def placement(pool: str, gpus: int) -> dict[str, Any]:
    """What the spec of a job's pod says about where it runs: `nodeSelector`, `tolerations`.

    Args:
        pool: name of the pool that the job wants.
        gpus: that the pod asks for.
    """
    spec: dict[str, Any] = {"nodeSelector": {POOL: pool}}
    if gpus:
        spec["tolerations"] = [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}]
    return spec


def interfaces(pool: Pool, gpus: int) -> int:
    """How many EFA interfaces a pod asks for: all of the node if it takes all its GPUs, otherwise none."""
    return max((type_.efa for type_ in pool.instance_types.values() if gpus and type_.gpus == gpus), default=0)
