"""Grafana as AWS runs it: the workspace, who signs in, what it may read, and its content as code."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumiverse_grafana as grafana

from infra.catalog import Catalog
from infra.dashboards.grafana import text
from infra.dashboards.queries import PROMETHEUS
from infra.foundation import Foundation
from infra.grafana_access import data_sources, read_statements
from infra.policies import allow
from infra.regions import host
from infra.settings.observability import ObservabilitySettings, SamlSettings

TOKEN_LIFE = timedelta(days=14)


@dataclass
class GrafanaArgs:
    """What the workspace is told."""

    settings: ObservabilitySettings
    workspace: aws.amp.Workspace
    catalog: Catalog
    dashboards: Mapping[str, dict[str, Any]]
    """As `infra.dashboards.grafana.dashboards` builds them."""
    folder: str
    """Identifier and title of the folder that holds them."""
    topic_arn: pulumi.Input[str] | None = None
    """Of the SNS topic that alerts made in Grafana go to."""


class ManagedGrafana(pulumi.ComponentResource):
    """A workspace of Amazon Managed Grafana with data sources, a folder, dashboards and the way of its alerts.

    People sign in with IAM Identity Center or by SAML; there is no password. Its content is made through Grafana's own
    API, with the token of a service account that lives for two weeks and is replaced by the first up of each week: it
    is in Pulumi's state, encrypted, and of no use for long. A preview that is run before the workspace exists knows
    neither its address nor the token, and shows the content all the same.
    """

    url: pulumi.Output[str]

    def __init__(
        self, name: str, args: GrafanaArgs, foundation: Foundation, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ml-platform:infra:ManagedGrafana", name, None, opts)
        self._on, self._args = foundation, args
        self._child = pulumi.ResourceOptions(parent=self)
        self._workspace = self._make_workspace()
        self.url = pulumi.Output.concat("https://", self._workspace.endpoint)
        if args.settings.saml:
            self._saml(args.settings.saml)
        else:
            self._groups(args.settings)
        self._content = pulumi.ResourceOptions(parent=self, provider=self._api())
        self._data_sources()
        self._dashboards()
        if args.topic_arn is not None:
            self._alert_routing(args.topic_arn)
        self.register_outputs({"url": self.url})

    def _make_workspace(self) -> aws.grafana.Workspace:
        settings, naming = self._args.settings, self._on.naming
        statements = read_statements(self._on, self._args.workspace, self._args.catalog)
        if self._args.topic_arn is not None:
            statements.append(allow(["sns:Publish"], self._args.topic_arn))
            through_sns = {"StringEquals": {"kms:ViaService": host("sns", self._on.region)}}
            statements.append(allow(["kms:Decrypt", "kms:GenerateDataKey"], self._on.storage.key_arn, through_sns))
        role = self._on.role("grafana", "grafana.amazonaws.com", statements, self._child)
        return aws.grafana.Workspace(
            naming("grafana"),
            name=naming("grafana"),
            description=f"Dashboards of {naming('')[:-1]}",
            account_access_type="CURRENT_ACCOUNT",
            permission_type="CUSTOMER_MANAGED",  # the role above rather than one that AWS makes
            authentication_providers=["SAML" if settings.saml else "AWS_SSO"],
            role_arn=role.arn,
            data_sources=["PROMETHEUS", "CLOUDWATCH", "ATHENA"],
            notification_destinations=["SNS"],
            grafana_version=settings.grafana_version,
            kms_key_id=self._on.storage.key_arn,
            configuration=json.dumps({"plugins": {"pluginAdminEnabled": True}, "unifiedAlerting": {"enabled": True}}),
            opts=pulumi.ResourceOptions(parent=self, protect=self._on.protect),
        )

    def _saml(self, saml: SamlSettings) -> None:
        aws.grafana.WorkspaceSamlConfiguration(
            self._on.naming("grafana"),
            workspace_id=self._workspace.id,
            idp_metadata_url=saml.metadata_url,
            role_assertion=saml.role_attribute,
            admin_role_values=list(saml.admin_values),
            editor_role_values=list(saml.editor_values),
            opts=self._child,
        )

    def _groups(self, settings: ObservabilitySettings) -> None:
        groups = {"ADMIN": settings.admins, "EDITOR": settings.editors, "VIEWER": settings.viewers}
        for role, ids in groups.items():
            if ids:
                aws.grafana.RoleAssociation(
                    self._on.naming(f"grafana-{role.lower()}"),
                    role=role,
                    group_ids=list(ids),
                    workspace_id=self._workspace.id,
                    opts=self._child,
                )

    def _api(self) -> grafana.Provider:
        """Grafana's API, as an administrator of this workspace."""
        naming = self._on.naming
        account = aws.grafana.WorkspaceServiceAccount(
            naming("grafana"),
            name="pulumi",
            # Data sources and contact points are an administrator's.
            grafana_role="ADMIN",
            workspace_id=self._workspace.id,
            opts=self._child,
        )
        token = aws.grafana.WorkspaceServiceAccountToken(
            naming("grafana"),
            service_account_id=account.service_account_id,
            seconds_to_live=int(TOKEN_LIFE.total_seconds()),
            workspace_id=self._workspace.id,
            opts=pulumi.ResourceOptions(
                parent=self,
                additional_secret_outputs=["key"],
                # An expired token would stop every later up; a new one each week is always young enough.
                replacement_trigger=week(datetime.now(UTC).date()),
            ),
        )
        return grafana.Provider(naming("grafana"), url=self.url, auth=token.key, opts=self._child)

    def _data_sources(self) -> None:
        described = data_sources(self._on, self._args.workspace, self._args.catalog, auth="ec2_iam_role")
        for what, source in zip(("prometheus", "cloudwatch", "athena"), described, strict=True):
            grafana.oss.DataSource(
                self._on.naming(what),
                name=source["name"],
                uid=source["uid"],
                type=source["type"],
                url=source.get("url"),
                is_default=source["uid"] == PROMETHEUS.uid,
                json_data_encoded=pulumi.Output.json_dumps(source["jsonData"]),
                opts=self._content,
            )

    def _dashboards(self) -> None:
        folder = grafana.oss.Folder(
            self._on.naming("dashboards"), uid=self._args.folder, title=self._args.folder, opts=self._content
        )
        for name, dashboard in self._args.dashboards.items():
            grafana.oss.Dashboard(
                self._on.naming(name),
                folder=folder.uid,
                config_json=text(dashboard),
                overwrite=True,  # what stands in the repository wins over what somebody changed by hand
                opts=self._content,
            )

    def _alert_routing(self, topic_arn: pulumi.Input[str]) -> None:
        """The way of alerts that people make in Grafana; the platform's own are Prometheus' (`infra.alert_rules`)."""
        point = grafana.alerting.ContactPoint(
            self._on.naming("topic"),
            name="topic",
            sns=[{"topic": topic_arn, "auth_provider": "default", "message_format": "text"}],
            opts=self._content,
        )
        grafana.alerting.NotificationPolicy(
            self._on.naming("topic"),
            contact_point=point.name,
            group_bies=["alertname", "grafana_folder"],
            repeat_interval="12h",
            opts=self._content,
        )


def week(day: date) -> str:
    """The week of a day, such as `2026-W47`."""
    year, number, _ = day.isocalendar()
    return f"{year}-W{number:02}"
