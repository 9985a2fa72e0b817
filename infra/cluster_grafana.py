"""Grafana on the EKS cluster, where the managed one is not wanted: the same data sources and the same dashboards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as kubernetes

from infra.catalog import Catalog
from infra.dashboards.grafana import text
from infra.foundation import Foundation
from infra.grafana_access import data_sources, read_statements
from infra.policies import document

NAMESPACE = "grafana"
# The community's chart, in which Grafana's own went on in 2026: github.com/grafana-community/helm-charts.
REPOSITORY, CHART_VERSION = "https://grafana-community.github.io/helm-charts", "12.11.1"
PLUGINS = ("grafana-amazonprometheus-datasource", "grafana-athena-datasource")
LARGEST_CONFIG_MAP = 2**20
"""Bytes; what the API server takes of one object."""


@dataclass
class ClusterGrafanaArgs:
    """What Grafana on the cluster is told."""

    workspace: aws.amp.Workspace
    catalog: Catalog
    dashboards: Mapping[str, dict[str, Any]]
    """As `infra.dashboards.grafana.dashboards` builds them."""
    folder: str
    """Title of the folder that holds them."""
    cluster_name: pulumi.Input[str]
    provider: kubernetes.Provider
    ready: Sequence[pulumi.Resource] = ()
    """What has to be there before its pod can run."""


class ClusterGrafana(pulumi.ComponentResource):
    """Grafana by Helm, with a role of its own by Pod Identity, and each dashboard as a ConfigMap.

    A container beside Grafana reads the ConfigMaps with the label `grafana_dashboard` in its own namespace alone. There
    is no way in from outside the cluster: `kubectl port-forward -n grafana svc/grafana 3000:80`, with the password that
    the chart made up and keeps in the secret `grafana`. It keeps no state, since everything it shows is code.
    """

    def __init__(
        self, name: str, args: ClusterGrafanaArgs, foundation: Foundation, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ml-platform:infra:ClusterGrafana", name, None, opts)
        self._on, self._args = foundation, args
        self._child = pulumi.ResourceOptions(parent=self)
        self._on_cluster = pulumi.ResourceOptions(parent=self, provider=args.provider, depends_on=list(args.ready))
        identity = self._identity()
        namespace = kubernetes.core.v1.Namespace(
            NAMESPACE,
            metadata={
                "name": NAMESPACE,
                "labels": {
                    "pod-security.kubernetes.io/enforce": "restricted",
                    "pod-security.kubernetes.io/enforce-version": "latest",
                },
            },
            opts=self._on_cluster,
        )
        after_namespace = pulumi.ResourceOptions.merge(
            self._on_cluster, pulumi.ResourceOptions(depends_on=[namespace, identity])
        )
        for what, dashboard in args.dashboards.items():
            self._config_map(what, dashboard, after_namespace)
        self._release(after_namespace)
        self.register_outputs({"namespace": NAMESPACE})

    def _identity(self) -> aws.eks.PodIdentityAssociation:
        """The role of Grafana's pods: what they may read, and nothing else."""
        name = self._on.naming("grafana")
        trust = {
            "Effect": "Allow",
            "Principal": {"Service": "pods.eks.amazonaws.com"},
            "Action": ["sts:AssumeRole", "sts:TagSession"],
            "Condition": {"StringEquals": {"aws:SourceAccount": self._on.storage.account_id}},
        }
        role = aws.iam.Role(
            name,
            assume_role_policy=document(trust),
            permissions_boundary=self._on.permissions_boundary,
            opts=self._child,
        )
        statements = read_statements(self._on, self._args.workspace, self._args.catalog)
        aws.iam.RolePolicy(name, role=role.id, policy=document(*statements), opts=self._child)
        return aws.eks.PodIdentityAssociation(
            name,
            cluster_name=self._args.cluster_name,
            namespace=NAMESPACE,
            service_account=NAMESPACE,
            role_arn=role.arn,
            opts=self._child,
        )

    def _config_map(self, what: str, dashboard: dict[str, Any], opts: pulumi.ResourceOptions) -> None:
        content = text(dashboard)
        if len(content.encode()) > LARGEST_CONFIG_MAP:
            raise ValueError(f"the dashboard {what} has {len(content):,} characters: more than a ConfigMap takes")
        kubernetes.core.v1.ConfigMap(
            f"{NAMESPACE}-{what}",
            metadata={
                "name": f"dashboard-{what}",
                "namespace": NAMESPACE,
                "labels": {"grafana_dashboard": "1"},
                "annotations": {"grafana_folder": self._args.folder},
            },
            data={f"{what}.json": content},
            opts=opts,
        )

    def _release(self, opts: pulumi.ResourceOptions) -> None:
        sources = data_sources(self._on, self._args.workspace, self._args.catalog, auth="default")
        provisioned = [source | {"access": "proxy", "editable": False} for source in sources]
        provisioned[0] |= {"isDefault": True}
        kubernetes.helm.v3.Release(
            NAMESPACE,
            name=NAMESPACE,
            chart="grafana",
            version=CHART_VERSION,
            namespace=NAMESPACE,
            repository_opts={"repo": REPOSITORY},
            values=values() | {"datasources": {"datasources.yaml": {"apiVersion": 1, "datasources": provisioned}}},
            atomic=True,
            opts=opts,
        )


def values() -> dict[str, Any]:
    """The chart's values but for the data sources: without state, with dashboards from ConfigMaps.

    What is not named is as the chart has it: its pods keep to the restricted pod security standard.
    """
    return {
        "replicas": 1,
        "plugins": list(PLUGINS),
        "serviceAccount": {"create": True, "name": NAMESPACE},
        # Only what the sidecar needs: the ConfigMaps of its own namespace.
        "rbac": {"create": True, "namespaced": True},
        "persistence": {"enabled": False},
        "testFramework": {"enabled": False},
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "512Mi"}},
        "grafana.ini": {
            "analytics": {"reporting_enabled": False, "check_for_updates": False},
            "auth.anonymous": {"enabled": False},
            "users": {"allow_sign_up": False},
            "security": {"cookie_secure": False},  # a port-forward speaks plain HTTP, on the own machine
            "aws": {"allowed_auth_providers": "default"},
        },
        "sidecar": {
            "dashboards": {
                "enabled": True,
                "resource": "configmap",
                "label": "grafana_dashboard",
                "labelValue": "1",
                "searchNamespace": NAMESPACE,
                "folderAnnotation": "grafana_folder",
                "provider": {"foldersFromFilesStructure": True, "allowUiUpdates": False},
            },
        },
    }
