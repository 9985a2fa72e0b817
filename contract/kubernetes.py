"""What the cluster's queues and the jobs in them must agree on: names, and where a job's pods go.

A job names the pool of nodes that it wants; Kueue's flavors and Karpenter's node pools have the pools' labels and
taints.
"""

from typing import Any

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
JOB = "jobset.sigs.k8s.io/jobset-name"
"""Label that JobSet gives each pod of a job."""
LAKE_CLAIM = "lake"
"""Name of the volume claim in a team's namespace through which its pods see the lake's file system."""
LAKE = "/lake"
"""Where a job's pods see it."""


def kubeconfig(cluster: str, region: str, endpoint: str, certificate: str) -> dict[str, Any]:
    """The way into a cluster. It holds no credentials: a token is asked for at each use, by the AWS CLI.

    Args:
        cluster: name of the EKS cluster.
        region: where it is.
        endpoint: URL of its API server.
        certificate: of the authority that vouches for the server, in base64.
    """
    token = {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": "aws",
        "args": ["eks", "get-token", "--cluster-name", cluster, "--region", region],
        "interactiveMode": "Never",
    }
    server = {"server": endpoint, "certificate-authority-data": certificate}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": cluster,
        "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": cluster}}],
        "clusters": [{"name": cluster, "cluster": server}],
        "users": [{"name": cluster, "user": {"exec": token}}],
    }


CAPACITY = "karpenter.sh/capacity-type"
"""Label of a node: `reserved`, `spot` or `on-demand`."""


def placement(pool: str, gpus: int, *, spot: bool = True) -> dict[str, Any]:
    """What the spec of a job's pod says about where it runs: `nodeSelector`, `tolerations`, `affinity`.

    Args:
        pool: name of the pool that the job wants.
        gpus: that the pod asks for.
        spot: whether spare capacity will do.
    """
    spec: dict[str, Any] = {"nodeSelector": {POOL: pool}}
    if gpus:
        spec["tolerations"] = [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}]
    if not spot:
        kept = {"matchExpressions": [{"key": CAPACITY, "operator": "NotIn", "values": ["spot"]}]}
        required = {"nodeSelectorTerms": [kept]}
        spec["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    return spec
