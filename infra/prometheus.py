"""Metrics: a workspace of Amazon Managed Prometheus with its rules, its alerts' way to people, and its collectors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws
import yaml

from infra.alert_rules import alerts, recordings, rule_file
from infra.collectors import scrape_configuration, sidecar
from infra.foundation import Foundation
from infra.policies import allow
from infra.settings.observability import ObservabilitySettings

MESSAGE = """\
{{ range .Alerts }}{{ .Status }} ({{ .Labels.severity }}): {{ .Annotations.summary }}
{{ .Annotations.runbook }}

{{ end }}"""
"""What people get: what is wrong, and what to do first."""


@dataclass
class ScrapedCluster:
    """An EKS cluster whose pods are collected from."""

    arn: pulumi.Input[str]
    security_group_id: pulumi.Input[str]
    """A group whose members may call the cluster's API server and its pods, such as the cluster's own."""


@dataclass
class PrometheusArgs:
    """What the workspace is told."""

    settings: ObservabilitySettings
    on_ecs: Sequence[str] = ()
    """Models that are served on ECS, where the service is collected."""
    topic_arn: pulumi.Input[str] | None = None
    """Of the SNS topic that alerts go to; its policy must let `aps.amazonaws.com` publish."""
    cluster: ScrapedCluster | None = None


class Prometheus(pulumi.ComponentResource):
    """A workspace, encrypted with the environment's key, with recording rules, alerts and a collector on EKS.

    On EKS a collector of AWS's own (a scraper) rather than an agent in the cluster: there is nothing to install, to
    scale or to patch there, it needs neither Helm nor the cluster's API during an up, and deleting it leaves nothing
    behind; it costs about 30 USD a month. On ECS the collector is a container beside the service (`ecs_collector`).
    """

    workspace: aws.amp.Workspace

    def __init__(
        self, name: str, args: PrometheusArgs, foundation: Foundation, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ml-platform:infra:Prometheus", name, None, opts)
        self._on, self._args = foundation, args
        self._child = pulumi.ResourceOptions(parent=self)
        self.workspace = self._workspace()
        self._rules("recordings", rule_file(recordings(args.settings)))
        self._rules("alerts", rule_file(alerts(args.settings, args.on_ecs)))
        if args.topic_arn is not None:
            self._alert_manager(args.topic_arn)
        if args.cluster:
            self._scraper(args.cluster)
        self.register_outputs({"workspace": self.workspace.arn, "endpoint": self.workspace.prometheus_endpoint})

    def ecs_collector(self, log_group: pulumi.Input[str], metrics_port: int) -> dict[str, Any]:
        """The container that collects from the service in its task; its task role needs `write`.

        Args:
            log_group: name of the log group for the collector's own log.
            metrics_port: where the service answers `/metrics`.
        """
        return sidecar(self.workspace.prometheus_endpoint, self._on.region, log_group, metrics_port)

    def write(self) -> dict[str, Any]:
        """A statement that lets its holder write metrics into the workspace."""
        return allow(["aps:RemoteWrite"], self.workspace.arn)

    def _workspace(self) -> aws.amp.Workspace:
        naming = self._on.naming
        logs = self._on.log_group("prometheus", self._child)
        workspace = aws.amp.Workspace(
            naming("metrics"),
            alias=naming("metrics"),
            kms_key_arn=self._on.storage.key_arn,
            # Of the rules and the alert manager: without it, a rule that fails fails silently.
            logging_configuration={"log_group_arn": pulumi.Output.concat(logs.arn, ":*")},
            opts=pulumi.ResourceOptions(parent=self, protect=self._on.protect),
        )
        aws.amp.WorkspaceConfiguration(
            naming("metrics"),
            workspace_id=workspace.id,
            retention_period_in_days=self._args.settings.retention_days,
            opts=self._child,
        )
        return workspace

    def _rules(self, what: str, file: dict[str, Any]) -> None:
        aws.amp.RuleGroupNamespace(
            self._on.naming(what),
            name=what,
            workspace_id=self.workspace.id,
            data=yaml.safe_dump(file, sort_keys=False, width=120),
            opts=self._child,
        )

    def _alert_manager(self, topic_arn: pulumi.Input[str]) -> None:
        region = self._on.region
        aws.amp.AlertManagerDefinition(
            self._on.naming("alerts"),
            workspace_id=self.workspace.id,
            definition=pulumi.Output.from_input(topic_arn).apply(lambda arn: alert_manager(arn, region)),
            opts=self._child,
        )

    def _scraper(self, cluster: ScrapedCluster) -> None:
        aws.amp.Scraper(
            self._on.naming("cluster"),
            alias=self._on.naming("cluster"),
            source={
                "eks": {
                    "cluster_arn": cluster.arn,
                    "subnet_ids": self._on.network.private_subnet_ids,
                    "security_group_ids": [cluster.security_group_id],
                }
            },
            destination={"amp": {"workspace_arn": self.workspace.arn}},
            scrape_configuration=yaml.safe_dump(scrape_configuration(), sort_keys=False),
            opts=self._child,
        )


def alert_manager(topic_arn: str, region: str) -> str:
    """The alert manager's configuration: every alert goes to the topic, those of one model in one message."""
    receiver = {
        "name": "topic",
        "sns_configs": [
            {
                "topic_arn": topic_arn,
                "sigv4": {"region": region},
                # SNS takes 100 characters and no line break.
                "subject": "{{ .Status }}: {{ .CommonLabels.alertname }} {{ .CommonLabels.model }}",
                "message": MESSAGE,
            }
        ],
    }
    route = {
        "receiver": "topic",
        "group_by": ["alertname", "model"],
        "group_wait": "30s",
        "group_interval": "5m",
        "repeat_interval": "12h",
    }
    inner = yaml.safe_dump({"route": route, "receivers": [receiver]}, sort_keys=False, width=120)
    return yaml.safe_dump({"alertmanager_config": inner}, sort_keys=False)
