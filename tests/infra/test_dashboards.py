"""Dashboards: their form is Grafana's, and their queries ask for what something in the platform exports."""

import json
import re
from itertools import pairwise
from pathlib import Path

import jsonschema
import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator
from typer.testing import CliRunner

from cli.main import app
from contract.manifest import model_names
from contract.metrics import CLOUDWATCH, EMBEDDED
from infra.dashboards.cloudwatch import body
from infra.dashboards.grafana import dashboards
from infra.dashboards.platform import Platform, ServedModel
from infra.dashboards.queries import ATHENA, MIXED, PROMETHEUS
from infra.dashboards.queries import CLOUDWATCH as CLOUDWATCH_SOURCE
from infra.naming import Naming
from infra.settings.observability import ObservabilitySettings
from tests.infra.promql import labels, mistakes, parse

SCHEMAS = json.loads((Path(__file__).parent / "schemas" / "grafana-13.2.3.json").read_text())["schemas"]
MODELS = (
    ServedModel("digits", "ecs", {"ClusterName": "acme-test-inference", "ServiceName": "acme-test-digits"}),
    ServedModel("credit-risk", "lambda", {"FunctionName": "acme-test-inference-credit-risk"}),
    ServedModel("anomaly", "sagemaker", {"EndpointName": "acme-test-anomaly"}),
)


def platform(**changes) -> Platform:
    given = {"models": MODELS, "gpu_training": True, "monthly_usd": 100, "region": "eu-west-1"} | changes
    return Platform(naming=Naming("acme", "test"), settings=ObservabilitySettings(), **given)


BUILT = dashboards(platform())
PANELS = [
    pytest.param(panel, id=f"{name}: {panel['title']}")
    for name, dashboard in BUILT.items()
    for panel in dashboard["panels"]
    if panel["type"] != "row"
]
QUERIES = [
    pytest.param(target, id=f"{name}: {panel['title']} {target['refId']}")
    for name, dashboard in BUILT.items()
    for panel in dashboard["panels"]
    for target in panel.get("targets", [])
]
PROMQL = [q for q in QUERIES if q.values[0]["datasource"]["uid"] == "prometheus"]
METRICS = [q for q in QUERIES if q.values[0]["datasource"]["uid"] == "cloudwatch"]


def errors(schema, document):
    return [
        f"{list(e.absolute_path)}: {e.message}"
        for e in jsonschema.Draft7Validator(SCHEMAS[schema]).iter_errors(document)
    ]


def test_there_is_an_overview_one_for_each_model_one_for_gpus_and_one_for_cost():
    assert set(BUILT) == {"overview", "model-digits", "model-credit-risk", "model-anomaly", "gpu", "cost"}
    assert len(PROMQL) > 40
    assert len(METRICS) > 20


def test_what_is_not_there_has_no_dashboard():
    small = dashboards(platform(gpu_training=False, region="us-gov-west-1"))
    assert set(small) == {"overview", "model-digits", "model-credit-risk", "model-anomaly"}
    assert "DCGM" not in json.dumps(small)
    assert dashboards(platform(models=()))["overview"]["panels"]


@pytest.mark.parametrize("name", BUILT)
def test_a_dashboard_is_what_grafanas_schema_says(name):
    assert errors("dashboard", BUILT[name]) == []


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_is_what_the_schema_of_its_kind_says(panel):
    assert panel["description"], "what does it show?"
    custom = panel["fieldConfig"]["defaults"].get("custom")
    assert errors(f"{panel['type']}.options", panel["options"]) == []
    assert custom is None or errors(f"{panel['type']}.custom", custom) == []
    ids = [target["refId"] for target in panel["targets"]]
    assert len(set(ids)) == len(ids)
    sources = {target["datasource"]["uid"] for target in panel["targets"]}
    assert panel["datasource"]["uid"] == (sources.pop() if len(sources) == 1 else MIXED.uid)


@pytest.mark.parametrize("query", METRICS)
def test_a_cloudwatch_query_is_what_its_schema_says(query):
    assert errors("cloudwatch.query", query) == []


def test_the_schema_refuses_what_grafana_does_not_know():
    changed = json.loads(json.dumps(BUILT["overview"]))
    changed["panels"][1]["titel"] = "misspelt"
    assert errors("dashboard", changed)
    assert errors("timeseries.options", {"legend": {"displayMode": "grid"}, "tooltip": {}})


def test_identifiers_and_panels_stay_the_same():
    again = dashboards(platform())
    assert again == BUILT
    assert {dashboard["uid"] for dashboard in BUILT.values()} == {f"acme-test-{name}" for name in BUILT}
    for dashboard in BUILT.values():
        assert [panel["id"] for panel in dashboard["panels"]] == list(range(1, len(dashboard["panels"]) + 1))
        assert len(dashboard["uid"]) <= 40  # Grafana takes no more


@pytest.mark.parametrize("name", BUILT)
def test_no_panel_lies_on_another(name):
    places = [panel["gridPos"] for panel in BUILT[name]["panels"]]
    taken = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) < 24


@pytest.mark.parametrize("query", PROMQL)
def test_a_promql_query_parses_and_uses_only_what_is_exported(query):
    assert mistakes(query["expr"]) == []
    named = set(re.findall(r"{{\s*(\w+)\s*}}", query.get("legendFormat") or ""))
    assert named <= labels(parse(query["expr"])), "the legend names a label that the answer lacks"


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("sum(rate(mlp_request_total[5m]))", "nothing exports mlp_request_total"),
        ('sum(rate(mlp_requests_total{modell="digits"}[5m]))', "mlp_requests_total has no label modell"),
        ("sum(mlp_requests_total)", "mlp_requests_total counts up for ever"),
        ("sum by (version) (rate(mlp_feedback_total[5m]))", "groups by version, which it does not have"),
        ("up * on (model) mlp_version_share", "is matched on model, which it does not have"),
        ("mlp_request_seconds", "nothing exports mlp_request_seconds"),
    ],
)
def test_the_check_of_queries_finds_mistakes(query, said):
    assert any(said in mistake for mistake in mistakes(query))


def test_what_is_no_promql_is_refused():
    with pytest.raises(ValueError, match="unclosed"):
        parse("sum by version (up")


# --- CloudWatch

OWN = {f"acme/test/{part}": metrics for part, metrics in EMBEDDED.items()}
KNOWN = {**CLOUDWATCH, **OWN}
VALIDATOR, SERVICE = ParamValidator(), ServiceModel(Loader().load_service_model("cloudwatch", "service-2"))


def assert_known(namespace, name, dimensions):
    assert namespace in KNOWN, f"nothing exports metrics in {namespace}"
    assert name in KNOWN[namespace], f"nothing exports {name} in {namespace}"
    assert set(dimensions) in [set(known) for known in KNOWN[namespace][name]], f"{name} has other dimensions"


@pytest.mark.parametrize("query", [q for q in METRICS if not q.values[0].get("expression")])
def test_a_cloudwatch_query_asks_for_what_is_exported(query):
    assert_known(query["namespace"], query["metricName"], query["dimensions"])
    named = set(re.findall(r"PROP\('Dim\.(\w+)'\)", query["label"]))
    free = {name for name, value in query["dimensions"].items() if value == "*"}
    assert named <= free, "the label names a dimension that is the same on every line"
    assert query["hide"] or free <= named | {"VariantName"}, "lines that differ have the same label"


@pytest.mark.parametrize("panel", [p for p in PANELS if p.values[0]["datasource"]["uid"] in ("cloudwatch", MIXED.uid)])
def test_an_expression_names_queries_of_its_panel_and_is_what_the_api_takes(panel):
    targets = [target for target in panel["targets"] if target["datasource"]["uid"] == "cloudwatch"]
    ids = {target["id"] for target in targets if target.get("id")}
    queries = []
    for number, target in enumerate(targets):
        id_ = target.get("id") or f"q{number}"
        assert re.fullmatch("[a-z][a-zA-Z0-9_]*", id_)
        if expression := target.get("expression"):
            used = set(re.findall(r"\b[a-z]\w*", expression))
            assert used
            assert used <= ids, "the expression names what its panel lacks"
            assert re.sub(r"\b([a-z]\w*|SUM|MAX|\d+)\b", "", expression).strip(" ()/*") == ""
            queries.append({"Id": id_, "Expression": expression})
        else:
            dimensions = [{"Name": name, "Value": value} for name, value in target["dimensions"].items()]
            metric = {"Namespace": target["namespace"], "MetricName": target["metricName"], "Dimensions": dimensions}
            stat = {"Metric": metric, "Period": int(target["period"]), "Stat": target["statistic"]}
            assert re.fullmatch(r"Sum|Average|Maximum|p\d+", target["statistic"])
            queries.append({"Id": id_, "MetricStat": stat})
    assert len({query["Id"] for query in queries}) == len(queries)
    request = {"MetricDataQueries": queries, "StartTime": 0, "EndTime": 60}
    shape = SERVICE.operation_model("GetMetricData").input_shape
    assert not VALIDATOR.validate(request, shape).has_errors()


WIDGETS = [
    pytest.param(widget, id=f"{model.runtime}: {widget['properties']['title']}")
    for model in MODELS
    for widget in body(model, platform())["widgets"]
]


@pytest.mark.parametrize("widget", WIDGETS)
def test_a_cloudwatch_widget_asks_for_what_is_exported(widget):
    assert widget["type"] == "metric"
    assert widget["x"] + widget["width"] <= 24
    assert widget["properties"]["region"] == "eu-west-1"
    ids = {m[-1]["id"] for m in widget["properties"]["metrics"] if isinstance(m[-1], dict) and "id" in m[-1]}
    for metric in widget["properties"]["metrics"]:
        options = metric[-1] if isinstance(metric[-1], dict) else {}
        if expression := options.get("expression"):
            search = re.fullmatch(
                r"SEARCH\('{([\w/]+),([\w,]+)} MetricName=\"(\w+)\" (\w+)=\"([\w-]+)\"', '(\w+)', (\d+)\)", expression
            )
            if search:
                namespace, dimensions, name, fixed, _, _, period = search.groups()
                assert_known(namespace, name, dimensions.split(","))
                assert fixed in dimensions.split(",")
                assert int(period) % 60 == 0
            else:
                assert set(re.findall(r"\b[a-z]\w*", expression)) <= ids
        else:
            namespace, name, *pairs = [part for part in metric if isinstance(part, str)]
            assert len(pairs) % 2 == 0
            assert_known(namespace, name, pairs[::2])
            assert options["stat"]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.runtime)
def test_a_cloudwatch_dashboard_is_within_its_limits_and_its_widgets_lie_side_by_side(model):
    document = body(model, platform())
    assert len(document["widgets"]) <= 500
    assert len(json.dumps(document)) < 2**20
    places = [(widget["y"], widget["x"]) for widget in document["widgets"]]
    assert all(before < after for before, after in pairwise(places))
    request = {"DashboardName": "acme-test-model-digits", "DashboardBody": json.dumps(document)}
    shape = SERVICE.operation_model("PutDashboard").input_shape
    assert not VALIDATOR.validate(request, shape).has_errors()


def test_the_data_sources_have_the_same_identifiers_everywhere():
    used = {target.values[0]["datasource"]["uid"] for target in QUERIES}
    assert used <= {PROMETHEUS.uid, CLOUDWATCH_SOURCE.uid, ATHENA.uid}


# --- `mlp dashboards`


def test_the_command_writes_every_dashboard(tmp_path):
    done = CliRunner().invoke(app, ["dashboards", "prod", "--output", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    files = [Path(file) for file in json.loads(done.output)["files"]]
    assert {file.relative_to(tmp_path).as_posix() for file in files} == {
        "grafana/overview.json",
        *(f"grafana/model-{model}.json" for model in model_names()),
        *(f"cloudwatch/{model}.json" for model in model_names()),
        "grafana/gpu.json",
        "grafana/cost.json",
    }
    assert errors("dashboard", json.loads((tmp_path / "grafana" / "overview.json").read_text())) == []
    assert json.loads((tmp_path / "grafana" / "gpu.json").read_text())["uid"] == "mlp-prod-gpu"


def test_the_command_refuses_an_environment_that_is_not_there(tmp_path):
    done = CliRunner().invoke(app, ["dashboards", "nowhere", "--output", str(tmp_path)])
    assert "unknown environment 'nowhere'" in str(done.exception)
    assert not list(tmp_path.iterdir())
