"""Metrics and dashboards."""

from typing import Any

from embedded.resources.row import Call, Row


def _workspace(properties: dict[str, Any]) -> dict[str, Any]:
    """Take the one value out of the logging configuration."""
    configuration = properties.get("loggingConfiguration") or {}
    kept = {name: value for name, value in properties.items() if name != "loggingConfiguration"}
    return kept | dict(configuration)


def _rules(properties: dict[str, Any]) -> dict[str, Any]:
    """Give the rules as the bytes that the API takes."""
    return properties | {"data": properties["data"].encode()}


ROWS: dict[str, Row] = {
    "aws:amp/workspace:Workspace": Row(
        "amp",
        Call("CreateWorkspace"),
        id="{workspaceId}",
        delete=Call("DeleteWorkspace", parameters={"workspaceId": "{id}"}),
        then=(Call("CreateLoggingConfiguration", parameters={"workspaceId": "{id}"}, takes=("logGroupArn",)),),
        prepare=_workspace,
        outputs={
            "prometheusEndpoint": "https://aps-workspaces.{region}.amazonaws.com/workspaces/{workspaceId}/",
        },
    ),
    "aws:amp/ruleGroupNamespace:RuleGroupNamespace": Row(
        "amp",
        Call("CreateRuleGroupsNamespace"),
        id="{arn}",
        delete=Call("DeleteRuleGroupsNamespace"),
        update={"data": Call("PutRuleGroupsNamespace", takes=("workspaceId", "name", "data"))},
        prepare=_rules,
    ),
    "aws:cloudwatch/dashboard:Dashboard": Row(
        "cloudwatch",
        Call("PutDashboard"),
        id="{dashboardName}",
        delete=Call("DeleteDashboards", parameters={"DashboardNames": ["{id}"]}),
        put=True,
        identity=frozenset({"dashboardName"}),
        outputs={"dashboardArn": "arn:aws:cloudwatch::{account}:dashboard/{dashboardName}"},
    ),
}
