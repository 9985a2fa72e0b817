"""The Kubernetes cluster: EKS with a private endpoint, its system nodes and add-ons, and the way in for Pulumi."""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as kubernetes

from contract.kubernetes import kubeconfig
from infra import cluster_policies
from infra.foundation import Foundation
from infra.policies import PODS
from infra.regions import arn
from infra.settings.cluster import SYSTEM_DISK_GB, SYSTEM_PODS, ClusterSettings
from infra.versions import ADDONS, KUBERNETES, NODE_RELEASE, Chart

LOGS = ("api", "audit", "authenticator", "controllerManager", "scheduler")
INSIGHTS = ("application", "dataplane", "host", "performance")
"""The log groups of Container Insights: what jobs print, and what their nodes say."""
ROLES = {"vpc-cni": "vpc-cni", "amazon-cloudwatch-observability": "insights", "aws-fsx-csi-driver": "fsx-csi"}
"""What the roles of add-ons are called, in which those that need one act in AWS."""
USER_DATA = f"""MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="BOUNDARY"

--BOUNDARY
Content-Type: application/node.eks.aws

apiVersion: node.eks.aws/v1alpha1
kind: NodeConfig
spec:
  kubelet:
    config:
      maxPods: {SYSTEM_PODS}
--BOUNDARY--
"""


def group(team: str) -> str:
    """The Kubernetes group of a team's members."""
    return f"team-{team}"


def pod_security() -> dict[str, str]:
    """Labels of a namespace in which pods keep to the restricted standard, as this Kubernetes has it."""
    mode = "pod-security.kubernetes.io"
    return {f"{mode}/enforce": "restricted", f"{mode}/enforce-version": f"v{KUBERNETES}"}


def custom(
    name: str,
    api: str,
    kind: str,
    metadata: Mapping[str, Any],
    content: Mapping[str, Any],
    opts: pulumi.ResourceOptions,
) -> pulumi.CustomResource:
    """A custom resource, also of a kind that has no `spec` (which `kubernetes.apiextensions.CustomResource` wants).

    Args:
        name: of the resource in Pulumi.
        api: group and version.
        kind: of the object.
        metadata: of the object.
        content: what it has beside these, such as its `spec`.
        opts: options, which name the cluster's provider, and what brings the definition of the kind.
    """
    properties = {"apiVersion": api, "kind": kind, "metadata": dict(metadata), **content}
    return pulumi.CustomResource(f"kubernetes:{api}:{kind}", name, properties, opts)


@dataclass
class ClusterArgs:
    """What the cluster is like, and how its GPUs are watched."""

    settings: ClusterSettings
    prometheus: bool = False
    """Whether Prometheus collects the GPUs' metrics, from NVIDIA's own exporter; otherwise CloudWatch does."""


class Cluster(pulumi.ComponentResource):
    """A cluster whose secrets and logs are encrypted, with a few nodes that are always there.

    Nobody has rights in it for having created it: who has any is listed in the settings, as access entries. Those are
    AWS's own, so a cluster that locked everybody out is opened again by whoever may call `eks:CreateAccessEntry`.
    """

    name: str
    cluster: aws.eks.Cluster
    provider: kubernetes.Provider
    security_group_id: pulumi.Output[str]
    """Of the nodes, and of the control plane's side of the network."""
    ready: list[pulumi.Resource]
    """What has to be there before pods can run, and to stay until the last of them has gone."""

    def __init__(
        self, name: str, args: ClusterArgs, foundation: Foundation, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ml-platform:infra:Cluster", name, None, opts)
        self._on, self._naming, self._args = foundation, foundation.naming, args
        self._child = pulumi.ResourceOptions(parent=self)
        self.name = self._naming("training")
        self.cluster = self._control_plane()
        self.security_group_id = self.cluster.vpc_config.apply(lambda vpc: str(vpc.cluster_security_group_id))
        self.provider = self._way_in(self._admit())
        agent = self._addon("eks-pod-identity-agent", [])
        # Without them a node does not become ready. They stay until the nodes have gone: a network interface that
        # nobody detaches keeps its subnet, and so the VPC, from being deleted.
        network = [agent, self._addon("kube-proxy", []), self._network_plugin()]
        nodes = self._system_nodes(network)
        self.ready = [*network, nodes, self._addon("coredns", [nodes], {"replicaCount": 2})]
        self._addon("eks-node-monitoring-agent", [nodes])
        self._insights(nodes)
        if args.settings.lustre:
            self.ready.append(self._addon("aws-fsx-csi-driver", [nodes]))
        self.register_outputs({"name": self.name, "endpoint": self.cluster.endpoint})

    def pod_role(
        self,
        what: str,
        statements: list[dict[str, Any]],
        accounts: Mapping[str, tuple[str, str]],
        opts: pulumi.ResourceOptions,
    ) -> list[pulumi.Resource]:
        """A role for the pods of service accounts (EKS Pod Identity); returns what has to be there before the pods.

        Args:
            what: what the role is for.
            statements: what it may do.
            accounts: by a name for each, the namespace and the name of a service account.
            opts: options of the role and of its associations.
        """
        role, policy = self._on.role_and_policy(what, PODS, statements, opts)
        # The policy, too: a controller that loses its permissions first leaves behind what it made.
        return [policy] + [
            aws.eks.PodIdentityAssociation(
                self._naming(f"{what}-{name}" if name else what),
                cluster_name=self.cluster.name,
                namespace=namespace,
                service_account=account,
                role_arn=role.arn,
                opts=opts,
            )
            for name, (namespace, account) in accounts.items()
        ]

    def release(
        self,
        name: str,
        chart: Chart,
        namespace: pulumi.Input[str],
        values: Mapping[str, Any],
        opts: pulumi.ResourceOptions,
        *,
        skip_crds: bool = False,
    ) -> kubernetes.helm.v3.Release:
        """A Helm release that is given up, and taken back, if it is not ready in time.

        Args:
            name: the release's.
            chart: what is released.
            namespace: where.
            values: what differs from the chart's defaults.
            opts: options, which name the cluster's provider.
            skip_crds: whether the chart's `crds` folder is left out.
        """
        return kubernetes.helm.v3.Release(
            self._naming(name),
            name=name,
            chart=chart.chart,
            version=chart.version,
            repository_opts={"repo": chart.repository} if chart.repository else None,
            namespace=namespace,
            values=dict(values),
            atomic=True,
            skip_crds=skip_crds,
            timeout=600,
            opts=opts,
        )

    def _control_plane(self) -> aws.eks.Cluster:
        public = self._args.settings.public_access_cidrs
        # EKS would make the log group itself, one that is not encrypted and never forgets.
        logs = self._on.log_group("eks", self._child, f"/aws/eks/{self.name}/cluster")
        statements = cluster_policies.control_plane(self._on)
        role, policy = self._on.role_and_policy("eks", "eks.amazonaws.com", statements, self._child)
        return aws.eks.Cluster(
            self.name,
            name=self.name,
            version=KUBERNETES,
            role_arn=role.arn,
            access_config={"authentication_mode": "API", "bootstrap_cluster_creator_admin_permissions": False},
            vpc_config={
                "subnet_ids": self._on.network.private_subnet_ids,
                "endpoint_private_access": True,
                "endpoint_public_access": bool(public),
                "public_access_cidrs": [str(cidr) for cidr in public] if public else None,
            },
            encryption_config={"provider": {"key_arn": self._on.storage.key_arn}, "resources": ["secrets"]},
            enabled_cluster_log_types=LOGS,
            # EKS's own add-ons would be of whatever version it has: they come below, each pinned.
            bootstrap_self_managed_addons=False,
            upgrade_policy={"support_type": "STANDARD"},  # extended support costs six times as much
            deletion_protection=self._on.protect,
            tags={"Name": self.name},
            opts=pulumi.ResourceOptions(parent=self, depends_on=[logs, policy], protect=self._on.protect),
        )

    def role_arn(self, role: str) -> pulumi.Input[str]:
        """The ARN of a role that the settings name."""
        if role.startswith("arn:"):
            return role
        return arn("iam", self._on.region, self._on.storage.account_id, f"role/{role}", everywhere=True)

    def _admit(self) -> list[pulumi.Resource]:
        """Let in administrators, with all rights, and the teams' members; what Pulumi makes waits for the former."""
        policy = arn(
            "eks", self._on.region, "aws", "cluster-access-policy/AmazonEKSClusterAdminPolicy", everywhere=True
        )
        granted: list[pulumi.Resource] = []
        for role, groups in self._groups().items():
            admin = role in self._args.settings.admins
            name = self._naming(f"{'admin' if admin else 'member'}-{role.rpartition('/')[2]}")
            entry = aws.eks.AccessEntry(
                name,
                cluster_name=self.cluster.name,
                principal_arn=self.role_arn(role),
                kubernetes_groups=groups,
                opts=self._child,
            )
            if not admin:
                continue
            granted.append(
                aws.eks.AccessPolicyAssociation(
                    name,
                    cluster_name=self.cluster.name,
                    principal_arn=entry.principal_arn,
                    policy_arn=policy,
                    access_scope={"type": "cluster"},
                    opts=self._child,
                )
            )
        return granted

    def _groups(self) -> dict[str, list[str]]:
        """Each role that is let in, with the groups of its teams: a role has one access entry, whatever it may do."""
        settings = self._args.settings
        return {
            role: [group(team) for team, each in settings.teams.items() if role in each.members]
            for role in settings.roles
        }

    def _way_in(self, granted: list[pulumi.Resource]) -> kubernetes.Provider:
        """The way in: a token is asked for at each run, so the state holds none."""
        return kubernetes.Provider(
            self.name,
            kubeconfig=self._kubeconfig(),
            # What tells this cluster from another, even one of the same name that takes its place. Without it any
            # change of the kubeconfig, such as a new flag, would replace the provider and all that is in the cluster.
            cluster_identifier=self.cluster.endpoint,
            # A destroy goes on when the cluster is gone already. Not in production: there an up from where the private
            # endpoint cannot be reached must not forget what is in the cluster.
            delete_unreachable=not self._on.protect,
            opts=pulumi.ResourceOptions(parent=self, depends_on=granted),
        )

    def _kubeconfig(self) -> pulumi.Output[str]:
        certificate = self.cluster.certificate_authority.data
        return pulumi.Output.all(self.cluster.endpoint, certificate).apply(
            lambda known: json.dumps(kubeconfig(self.name, self._on.region, *known))
        )

    def _addon(
        self,
        addon: str,
        after: Iterable[pulumi.Resource],
        values: Mapping[str, Any] | None = None,
        account: str = "",
        statements: list[dict[str, Any]] | None = None,
    ) -> aws.eks.Addon:
        """An add-on of the pinned version: what it waits for, its settings, what a service account of it may do."""
        after = list(after)
        associations: list[aws.eks.AddonPodIdentityAssociationArgsDict] | None = None
        if statements:
            role, policy = self._on.role_and_policy(ROLES[addon], PODS, statements, self._child)
            associations = [{"service_account": account, "role_arn": role.arn}]
            after.append(policy)
        return aws.eks.Addon(
            self._naming(addon),
            cluster_name=self.cluster.name,
            addon_name=addon,
            addon_version=ADDONS[addon],
            configuration_values=json.dumps(values) if values else None,
            pod_identity_associations=associations,
            # What somebody changed by hand is put back.
            resolve_conflicts_on_create="OVERWRITE",
            resolve_conflicts_on_update="OVERWRITE",
            opts=pulumi.ResourceOptions(parent=self, depends_on=after),
        )

    def _network_plugin(self) -> aws.eks.Addon:
        """Pods get addresses by whole prefixes, which makes them start fast, and network policies are enforced."""
        values = {
            "env": {"ENABLE_PREFIX_DELEGATION": "true", "WARM_PREFIX_TARGET": "1"},
            "enableNetworkPolicy": "true",
        }
        return self._addon("vpc-cni", [], values, "aws-node", cluster_policies.network_plugin(self._on))

    def _system_nodes(self, after: Sequence[pulumi.Resource]) -> aws.eks.NodeGroup:
        name, settings = self._naming("system"), self._args.settings.system
        template = aws.ec2.LaunchTemplate(
            name,
            # A pod that is not on the host's network is one hop further away: it reaches no credentials of the node.
            metadata_options={"http_endpoint": "enabled", "http_tokens": "required", "http_put_response_hop_limit": 1},
            block_device_mappings=[
                {
                    "device_name": "/dev/xvda",
                    # With the account's key for EBS: there are images and logs on it. Our own would have to be given to
                    # the role of Auto Scaling, which is the account's.
                    "ebs": {
                        "volume_size": SYSTEM_DISK_GB,
                        "volume_type": "gp3",
                        "encrypted": "true",
                        "delete_on_termination": "true",
                    },
                }
            ],
            # The tags of a node group do not reach what it launches.
            tag_specifications=[
                {"resource_type": kind, "tags": self._naming.tags | {"Name": name}}
                for kind in ("instance", "volume", "network-interface")
            ],
            user_data=base64.b64encode(USER_DATA.encode()).decode(),
            opts=self._child,
        )
        statements = cluster_policies.node(self._on)
        role, policy = self._on.role_and_policy("eks-system", "ec2.amazonaws.com", statements, self._child)
        return aws.eks.NodeGroup(
            name,
            cluster_name=self.cluster.name,
            node_role_arn=role.arn,
            subnet_ids=self._on.network.private_subnet_ids,
            ami_type="AL2023_x86_64_STANDARD",
            version=KUBERNETES,
            release_version=NODE_RELEASE,
            instance_types=[settings.instance_type],
            launch_template={"id": template.id, "version": template.latest_version.apply(str)},
            scaling_config={
                "min_size": settings.min_nodes,
                "max_size": settings.max_nodes,
                "desired_size": settings.min_nodes,
            },
            update_config={"max_unavailable": 1},
            node_repair_config={"enabled": True},
            opts=pulumi.ResourceOptions(
                parent=self,
                # The way out of the network stays until the nodes have gone: through it Karpenter, which runs on them,
                # stops the instances that it started. One that is left behind keeps the VPC from being deleted.
                depends_on=[*after, policy, self._on.network],
                ignore_changes=["scalingConfig.desiredSize"],
            ),
        )

    def _insights(self, nodes: aws.eks.NodeGroup) -> None:
        """Send what jobs print to CloudWatch, as their nodes go with them; and the GPUs' metrics, unless others do."""
        groups = [
            self._on.log_group(f"eks/{what}", self._child, f"/aws/containerinsights/{self.name}/{what}")
            for what in INSIGHTS
        ]
        statements = cluster_policies.logs_and_metrics(self._on, [group.name for group in groups])
        values = {
            "containerLogs": {"enabled": True},
            "containerInsights": {"enabled": True},
            "dcgmExporter": {"enabled": not self._args.prometheus},
            "applicationSignals": {"enabled": False},
        }
        self._addon("amazon-cloudwatch-observability", [nodes, *groups], values, "cloudwatch-agent", statements)
