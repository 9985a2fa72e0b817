"""Rules for the Kubernetes cluster: who may enter, what its nodes are like, what runs on it."""

from collections.abc import Iterator, Mapping
from typing import Any

from infra.guardrails.rule import Resource, rule, unknown

CLUSTER = "aws:eks/cluster:Cluster"
NODE_CLASS = "kubernetes:karpenter.k8s.aws/v1:EC2NodeClass"
NODE_POOL = "kubernetes:karpenter.sh/v1:NodePool"
NAMESPACE = "kubernetes:core/v1:Namespace"
STANDARD = "pod-security.kubernetes.io/enforce"


@rule("cluster-secrets-encrypted", "Give encryptionConfig a key for the resources secrets.", CLUSTER)
def _(cluster: Resource, _tier: str) -> Iterator[str]:
    if not cluster.has("encryptionConfig"):
        yield "Kubernetes secrets are not encrypted with a key of ours"


@rule("cluster-endpoint-private", "Set endpointPublicAccess to false, or publicAccessCidrs to an allow-list.", CLUSTER)
def _(cluster: Resource, _tier: str) -> Iterator[str]:
    ranges = cluster.get("vpcConfig.publicAccessCidrs")
    listed = unknown(ranges) or (bool(ranges) and "0.0.0.0/0" not in ranges)
    if not cluster.is_("vpcConfig.endpointPublicAccess", False) and not listed:
        yield "the API server answers the whole world"


@rule("cluster-logs", "Add api, audit and authenticator to enabledClusterLogTypes.", CLUSTER)
def _(cluster: Resource, _tier: str) -> Iterator[str]:
    enabled = cluster.get("enabledClusterLogTypes")
    if unknown(enabled) or any(map(unknown, enabled or [])):
        return
    missing = [kind for kind in ("api", "audit", "authenticator") if kind not in (enabled or [])]
    if missing:
        yield f"no logs of {', '.join(missing)}"


@rule(
    "cluster-entered-by-the-listed",
    "Set accessConfig.authenticationMode to API and bootstrapClusterCreatorAdminPermissions to false, and name who may "
    "enter in access entries.",
    CLUSTER,
)
def _(cluster: Resource, _tier: str) -> Iterator[str]:
    if not cluster.is_("accessConfig.authenticationMode", "API"):
        yield "a ConfigMap within the cluster could let somebody in, and lock everybody out"
    if not cluster.is_("accessConfig.bootstrapClusterCreatorAdminPermissions", False):
        yield "who made it has all rights in it, listed nowhere"


@rule(
    "node-class-hardened",
    "Set metadataOptions.httpTokens to required and encrypted on each of blockDeviceMappings, and leave "
    "associatePublicIPAddress false.",
    NODE_CLASS,
)
def _(nodes: Resource, _tier: str) -> Iterator[str]:
    if not nodes.is_("spec.metadataOptions.httpTokens", "required", None):  # as Karpenter has it by itself
        yield "a forged request could read the node's credentials"
    if not nodes.is_("spec.associatePublicIPAddress", False, None):
        yield "its nodes can be reached from the internet"
    for disk in nodes.items("spec.blockDeviceMappings"):
        volume = disk.get("ebs") if isinstance(disk, Mapping) else None
        encrypted = volume.get("encrypted") if isinstance(volume, Mapping) else None
        if not unknown(volume) and not unknown(encrypted) and encrypted is not True:
            yield "a volume is not encrypted"


@rule("node-pool-bounded", "Set limits, to nvidia.com/gpu or cpu, and leave replicas out.", NODE_POOL)
def _(pool: Resource, _tier: str) -> Iterator[str]:
    if not pool.has("spec.limits"):
        yield "a mistake could buy instances without end"
    if not pool.is_("spec.replicas", None, 0):
        yield "its nodes are paid for while nobody uses them"


@rule("namespace-pod-security", f"Set the label {STANDARD} to restricted or baseline.", NAMESPACE)
def _(namespace: Resource, _tier: str) -> Iterator[str]:
    labels = namespace.get("metadata.labels")
    standard = labels.get(STANDARD) if isinstance(labels, Mapping) else labels
    if not unknown(standard) and standard not in ("restricted", "baseline"):
        yield "a pod in it may be privileged"


def _pods(resource: Resource) -> Iterator[Mapping[str, Any]]:
    """The pod specs of a Kubernetes workload, whatever its kind."""
    if not resource.type.startswith("kubernetes:"):
        return
    for path in ("spec", "spec.template.spec", "spec.jobTemplate.spec.template.spec"):
        spec = resource.get(path)
        if isinstance(spec, Mapping) and "containers" in spec:
            yield spec


def _containers(spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for kind in ("containers", "initContainers"):
        found = spec.get(kind)
        yield from (c for c in (found if isinstance(found, list) else []) if isinstance(c, Mapping))


@rule("pod-not-privileged", "Leave securityContext.privileged and allowPrivilegeEscalation false.")
def _(workload: Resource, _tier: str) -> Iterator[str]:
    for container in (c for spec in _pods(workload) for c in _containers(spec)):
        context = container.get("securityContext")
        for switch in ("privileged", "allowPrivilegeEscalation"):
            if isinstance(context, Mapping) and context.get(switch) is True:
                yield f"the container {container.get('name')} has {switch}"


@rule("pod-not-on-host", "Leave hostNetwork, hostPID and hostIPC false.")
def _(workload: Resource, _tier: str) -> Iterator[str]:
    for spec in _pods(workload):
        for switch in ("hostNetwork", "hostPID", "hostIPC"):
            if spec.get(switch) is True:
                yield f"it has {switch}"


@rule("pod-image-pinned", "Name the image by digest (name@sha256:...), or at least by a version.")
def _(workload: Resource, _tier: str) -> Iterator[str]:
    for container in (c for spec in _pods(workload) for c in _containers(spec)):
        image = str(container.get("image"))
        tag = image.rpartition("/")[2].partition(":")[2]
        if not unknown(image) and "@sha256:" not in image and tag in ("", "latest", "main", "master", "stable", "dev"):
            yield f"{image} may be another image tomorrow"
