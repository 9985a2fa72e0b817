"""All of Grafana's dashboards of an environment, built from plain names: no cloud is needed to look at or test them.

They are classic dashboards (schema v1), which every Grafana takes by its API, from a file and from a ConfigMap.
"""

import json
from collections.abc import Callable
from typing import Any

from grafana_foundation_sdk.builders.dashboard import Dashboard, DashboardLink
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DashboardLinkType

from infra.dashboards import cost, gpu, model, overview
from infra.dashboards.platform import Platform, ServedModel


def dashboards(platform: Platform) -> dict[str, dict[str, Any]]:
    """All dashboards of an environment as Grafana's JSON, by file name without its ending.

    The same environment always gives the same dashboards, so that an up changes only those that have changed.
    """
    fill: dict[str, tuple[str, Callable[[Dashboard], Dashboard]]] = {
        "overview": ("Platform overview", lambda empty: overview.build(empty, platform))
    }
    for served in platform.models:
        fill[f"model-{served.name}"] = (f"Model {served.name}", _of_model(served, platform))
    if platform.gpu_training:
        fill["gpu"] = ("GPU training", gpu.build)
    if platform.charges or platform.gpu_training:
        fill["cost"] = ("Cost", lambda empty: cost.build(empty, platform))
    return {name: _built(build(_empty(name, title, platform))) for name, (title, build) in fill.items()}


def text(dashboard: dict[str, Any]) -> str:
    """A dashboard as a file holds it."""
    return json.dumps(dashboard, indent=2, ensure_ascii=False) + "\n"


def _of_model(served: ServedModel, platform: Platform) -> Callable[[Dashboard], Dashboard]:
    return lambda empty: model.build(empty, served, platform)


def _empty(name: str, title: str, platform: Platform) -> Dashboard:
    tag = platform.uid
    others = DashboardLink("Other dashboards").type(DashboardLinkType.DASHBOARDS).tags([tag])
    dashboard = Dashboard(f"{title} ({tag})").uid(f"{tag}-{name}").tags(["ml-platform", tag])
    dashboard.link(others.as_dropdown(True).keep_time(True)).timezone("browser").refresh("1m").time("now-6h", "now")
    return dashboard.tooltip(DashboardCursorSync.CROSSHAIR).editable()


def _built(dashboard: Dashboard) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(json.dumps(dashboard.build(), cls=JSONEncoder))
    for number, panel in enumerate(document["panels"], 1):
        panel["id"] = number  # Grafana numbers them itself otherwise, and a panel's link must last
        panel.get("options", {}).pop("footer", None)  # the library gives it to tables, Grafana 13 knows it no more
    return document
