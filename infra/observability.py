"""Observability: metrics with their alerts, and the dashboards, wherever this environment has them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pulumi
import pulumi_aws as aws

from infra.catalog import Catalog
from infra.dashboards.cloudwatch import body
from infra.dashboards.platform import Platform, ServedModel
from infra.foundation import Foundation
from infra.limits import Limits
from infra.prometheus import Prometheus, PrometheusArgs, ScrapedCluster
from infra.settings.observability import ObservabilitySettings
from infra.settings.training import Backend

if TYPE_CHECKING:
    import pulumi_kubernetes


@dataclass
class Cluster:
    """The EKS cluster that trains: its GPUs and queues are collected, and Grafana may run on it."""

    name: pulumi.Input[str]
    scraped: ScrapedCluster
    provider: "pulumi_kubernetes.Provider"
    ready: Sequence[pulumi.Resource] = ()
    """What has to be there before pods can run."""


@dataclass
class ObservabilityArgs:
    """What is watched."""

    settings: ObservabilitySettings
    limits: Limits
    models: Sequence[ServedModel]
    catalog: Catalog
    monthly_usd: int
    topic_arn: pulumi.Input[str] | None = None
    """Of the SNS topic that alerts go to."""
    cluster: Cluster | None = None
    gpus: frozenset[Backend] = frozenset()
    """The backends beside the cluster whose GPUs are shown."""


class Observability(pulumi.ComponentResource):
    """Prometheus if the settings want it, and dashboards in Grafana or, without one, in CloudWatch."""

    prometheus: Prometheus | None = None

    def __init__(
        self, name: str, args: ObservabilityArgs, foundation: Foundation, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ml-platform:infra:Observability", name, None, opts)
        self._on, self._args = foundation, args
        self._child = pulumi.ResourceOptions(parent=self)
        gpus: frozenset[Backend] = args.gpus | {"eks"} if args.cluster else args.gpus
        self._platform = Platform(
            foundation.naming, foundation.region, args.limits, tuple(args.models), gpus, args.monthly_usd
        )
        if args.settings.prometheus:
            self.prometheus = self._prometheus()
        url = self._grafana()
        self.register_outputs({"grafana": url})

    def _prometheus(self) -> Prometheus:
        on_ecs = [model for model in self._args.models if model.runtime == "ecs"]
        scraped = self._args.cluster.scraped if self._args.cluster else None
        args = PrometheusArgs(self._args.settings, self._args.limits, on_ecs, self._args.topic_arn, scraped)
        return Prometheus("prometheus", args, self._on, self._child)

    def _grafana(self) -> pulumi.Output[str] | None:
        """The dashboards; the address of the managed Grafana, if it is that."""
        where, args = self._args.settings.grafana, self._args
        if where == "none" or self.prometheus is None:
            self._cloudwatch()
            return None
        # The builders of the dashboards and Grafana's and Kubernetes' packages are loaded only where they are used.
        from infra.dashboards.grafana import dashboards

        built, folder, workspace = dashboards(self._platform), self._platform.uid, self.prometheus.workspace
        if where == "managed":
            from infra.grafana import GrafanaArgs, ManagedGrafana

            managed = GrafanaArgs(args.settings, workspace, args.catalog, built, folder, args.topic_arn)
            return ManagedGrafana("grafana", managed, self._on, self._child).url
        if args.cluster is None:
            raise ValueError("grafana: cluster needs a cluster")  # the settings' check comes before this
        from infra.cluster_grafana import ClusterGrafana, ClusterGrafanaArgs

        cluster = args.cluster
        on_cluster = ClusterGrafanaArgs(
            workspace, args.catalog, built, folder, cluster.name, cluster.provider, cluster.ready
        )
        ClusterGrafana("grafana", on_cluster, self._on, self._child)
        return None

    def _cloudwatch(self) -> None:
        for model in self._args.models:
            name = self._on.naming(f"model-{model.name}")
            aws.cloudwatch.Dashboard(
                name,
                dashboard_name=name,
                dashboard_body=pulumi.Output.json_dumps(body(model, self._platform)),
                opts=self._child,
            )
