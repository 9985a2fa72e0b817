"""What the environment costs: the account's charges, and GPUs that are paid for and not used."""

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from infra.dashboards.platform import Platform
from infra.dashboards.queries import graph, metric, number, promql

BILLING_REGION = "us-east-1"
"""The one region in which AWS publishes charges, of all regions together."""


def build(dashboard: Dashboard, platform: Platform) -> Dashboard:
    """Fill the dashboard of costs.

    Args:
        dashboard: an empty one, with its title and uid.
        platform: the environment.
    """
    if platform.charges:
        _charges(dashboard.with_row(Row("The account's charges")), platform.monthly_usd)
    if platform.gpu_training:
        dashboard.with_row(Row("GPUs"))
        hour = promql("cluster:gpu:usd_per_hour", "all"), promql("cluster:gpu_idle:usd_per_hour", "idle")
        what = "GPUs at list price on demand, and the part of it that their utilisation leaves unused."
        dashboard.with_panel(graph("GPUs, an hour", "currencyUSD", list(hour), what))
    return dashboard


def _charges(dashboard: Dashboard, monthly_usd: int) -> None:
    all_ = metric(
        "AWS/Billing", "EstimatedCharges", {"Currency": "USD"}, "Maximum", "this month", region=BILLING_REGION
    )
    what = (
        "Of the whole account, since the month began. There is such a metric once an administrator of the account "
        "has switched billing alerts on (Billing, Preferences)."
    )
    dashboard.with_panel(number("This month so far", "currencyUSD", [all_], what, limit=monthly_usd))
    service = {"Currency": "USD", "ServiceName": "*"}
    label = "${PROP('Dim.ServiceName')}"
    by = metric("AWS/Billing", "EstimatedCharges", service, "Maximum", label, region=BILLING_REGION)
    what = "Since the month began; the line is this environment's budget."
    dashboard.with_panel(graph("By service", "currencyUSD", [by], what, limit=monthly_usd, span=18))
