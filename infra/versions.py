"""Versions of what runs on the Kubernetes cluster, pinned in one place.

The comments tell an update bot (Renovate) where newer ones are found. Raise KUBERNETES one minor version at a time,
with the nodes' and the add-ons' versions, which `aws eks describe-addon-versions --kubernetes-version 1.35` lists. The
schemas that the tests hold manifests against (tests/infra/kubernetes) are of these versions; see the note there.
"""

from typing import NamedTuple


class Chart(NamedTuple):
    """A Helm chart: its name or OCI address, its version, and the repository of one that has no address."""

    chart: str
    version: str
    repository: str = ""


# Standard support of EKS until March 2027. renovate: datasource=endoflife-date depName=amazon-eks
KUBERNETES = "1.35"
# renovate: datasource=github-releases depName=awslabs/amazon-eks-ami
NODE_RELEASE = "1.35.6-20260714"
NODE_IMAGE = "al2023@v20260714"
"""The same release for Karpenter, which takes its accelerated variant, with NVIDIA's driver, for nodes with GPUs."""

ADDONS = {
    "vpc-cni": "v1.22.4-eksbuild.3",  # renovate: datasource=aws-eks-addon depName=vpc-cni
    "kube-proxy": "v1.35.3-eksbuild.21",  # renovate: datasource=aws-eks-addon depName=kube-proxy
    "eks-pod-identity-agent": "v1.3.10-eksbuild.3",  # renovate: datasource=aws-eks-addon depName=eks-pod-identity-agent
    "coredns": "v1.13.2-eksbuild.21",  # renovate: datasource=aws-eks-addon depName=coredns
    # renovate: datasource=aws-eks-addon depName=eks-node-monitoring-agent
    "eks-node-monitoring-agent": "v1.6.4-eksbuild.1",
    # renovate: datasource=aws-eks-addon depName=amazon-cloudwatch-observability
    "amazon-cloudwatch-observability": "v6.4.0-eksbuild.1",
    "aws-fsx-csi-driver": "v1.10.0-eksbuild.2",  # renovate: datasource=aws-eks-addon depName=aws-fsx-csi-driver
}

# renovate: datasource=docker depName=public.ecr.aws/karpenter/karpenter
KARPENTER = Chart("oci://public.ecr.aws/karpenter/karpenter", "1.14.1")
KARPENTER_CRDS = Chart("oci://public.ecr.aws/karpenter/karpenter-crd", "1.14.1")
# renovate: datasource=docker depName=registry.k8s.io/kueue/charts/kueue
KUEUE = Chart("oci://registry.k8s.io/kueue/charts/kueue", "0.19.2")
# renovate: datasource=docker depName=registry.k8s.io/jobset/charts/jobset
JOBSET = Chart("oci://registry.k8s.io/jobset/charts/jobset", "0.12.0")
# renovate: datasource=helm depName=nvidia-device-plugin registryUrl=https://nvidia.github.io/k8s-device-plugin
DEVICE_PLUGIN = Chart("nvidia-device-plugin", "0.20.0", "https://nvidia.github.io/k8s-device-plugin")
# renovate: datasource=helm depName=dcgm-exporter registryUrl=https://nvidia.github.io/dcgm-exporter/helm-charts
DCGM_EXPORTER = Chart("dcgm-exporter", "4.8.2", "https://nvidia.github.io/dcgm-exporter/helm-charts")
# renovate: datasource=helm depName=aws-efa-k8s-device-plugin registryUrl=https://aws.github.io/eks-charts
EFA_PLUGIN = Chart("aws-efa-k8s-device-plugin", "v0.5.30", "https://aws.github.io/eks-charts")
