"""docs/serving.md says what the code does: routes, settings, metrics and columns."""

import re

from contract.capture import FEEDBACK_COLUMNS, PREDICTION_COLUMNS
from contract.metrics import SERVICE
from contract.paths import ROOT
from contract.service import ServiceSettings
from tests.services.conftest import serve_directory

DOC = (ROOT / "docs/serving.md").read_text()


def rows(heading):
    """The rows of the first table below a heading."""
    table = re.search(rf"^## {heading}\n.*?^\|[-|]+\|\n((?:\|[^\n]*\n)+)", DOC, re.MULTILINE | re.DOTALL)[1]
    return [tuple(cell.strip(" `") for cell in line.strip("|").split("|")) for line in table.splitlines()]


def shown(field):
    if field.is_required():
        return "required"
    if field.default in (None, ""):
        return "none"
    return str(field.default).lower() if isinstance(field.default, bool) else str(field.default)


def test_every_setting_is_there_with_its_default():
    fields = ServiceSettings.model_fields.items()
    assert rows("Settings") == [(f"MLP_{name.upper()}", shown(field), field.description) for name, field in fields]


def test_every_metric_is_there_with_its_labels():
    expected = [(metric.name, ", ".join(sorted(metric.labels)) or "none", metric.what) for metric in SERVICE]
    assert rows("Metrics") == expected


def test_every_captured_column_is_there():
    assert rows("Captured predictions") == [*PREDICTION_COLUMNS.items()]
    for column in FEEDBACK_COLUMNS:
        assert f"`{column}`" in DOC


def test_every_route_is_there(tmp_path, linear):
    document = serve_directory(tmp_path, linear).openapi()
    routes = {
        (f"{method.upper()} {path}", operation["summary"])
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    assert set(rows("Routes")) == routes
