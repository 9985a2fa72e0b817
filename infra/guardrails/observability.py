"""Rules for metrics and dashboards."""

from collections.abc import Iterator

from infra.guardrails.rule import Resource, rule

METRICS, GRAFANA = "aws:amp/workspace:Workspace", "aws:grafana/workspace:Workspace"
TOKEN = "aws:grafana/workspaceServiceAccountToken:WorkspaceServiceAccountToken"
LONGEST_TOKEN_S = 30 * 24 * 3600


@rule(
    "metrics-encrypted", "Set kmsKeyArn (Prometheus) or kmsKeyId (Grafana) to the environment's key.", METRICS, GRAFANA
)
def _(workspace: Resource, _tier: str) -> Iterator[str]:
    if not workspace.has("kmsKeyArn" if workspace.type == METRICS else "kmsKeyId"):
        yield "it is not encrypted with a key of ours"


@rule("metrics-log-failures", "Set loggingConfiguration.logGroupArn.", METRICS)
def _(workspace: Resource, _tier: str) -> Iterator[str]:
    if not workspace.has("loggingConfiguration.logGroupArn"):
        yield "a rule that cannot be evaluated, or an alert that cannot be sent, is noticed by nobody"


@rule("grafana-own-role", "Set permissionType to CUSTOMER_MANAGED, with roleArn.", GRAFANA)
def _(workspace: Resource, _tier: str) -> Iterator[str]:
    if not workspace.is_("permissionType", "CUSTOMER_MANAGED"):
        yield "AWS makes it a role that reads the whole account"


@rule("grafana-token-short-lived", "Set secondsToLive to at most 30 days.", TOKEN)
def _(token: Resource, _tier: str) -> Iterator[str]:
    seconds = token.get("secondsToLive")
    if isinstance(seconds, int | float) and seconds > LONGEST_TOKEN_S:
        yield f"an administrator's token stays valid for {seconds / 86400:.0f} days"
