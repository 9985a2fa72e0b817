"""The table of metrics is what the service says, and the rules keep to it; every alert has a runbook."""

import dataclasses
import json
import re

import pytest
import yaml

from contract.metrics import CLOUDWATCH, EMBEDDED, PROMETHEUS, embedded, embedded_sums, namespace
from contract.paths import ROOT
from infra.alert_rules import GPU_USD_PER_HOUR, alerts, recordings, rule_file
from infra.limits import Limits
from tests.infra import observed
from tests.infra.promql import ON_ECS, labels, mistakes, parse


def test_no_two_metrics_have_the_same_series():
    names = [name for metric in PROMETHEUS for name in metric.series]
    assert len(names) == len(set(names))
    assert all(metric.name.endswith("_total") == (metric.kind == "counter") for metric in PROMETHEUS)


def test_aws_has_no_namespace_of_ours():
    assert not set(CLOUDWATCH) & {namespace("mlp", "dev", part) for part in EMBEDDED}
    assert namespace("mlp", "dev", "inference") == "mlp/dev/inference"


def test_embedded_metrics_are_cloudwatchs_format_and_the_tables_metrics():
    document = embedded("mlp/dev/inference", "digits", "3", 1_700_000_000_000, [(200, 2, 0.001), (503, 0, 0.2)])
    (directive,) = document["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "mlp/dev/inference"
    assert directive["Metrics"]
    for metric in directive["Metrics"]:
        assert directive["Dimensions"] == [list(names) for names in EMBEDDED["inference"][metric["Name"]]]
    for dimension in {name for names in directive["Dimensions"] for name in names}:
        assert isinstance(document[dimension], str)
    assert document["mlp_requests"] == 2
    assert document["mlp_errors"] == 1
    assert document["mlp_request_seconds"] == [0.001, 0.2]
    assert document["mlp_rows"] == 2
    assert document["_aws"]["Timestamp"] == 1_700_000_000_000
    assert "\n" not in json.dumps(document)


def test_sums_are_metrics_of_the_table():
    document = embedded_sums("mlp/dev/inference", "digits", "3", 1_700_000_000_000, requests=120, errors=2)
    (directive,) = document["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "mlp/dev/inference"
    for metric in directive["Metrics"]:
        assert directive["Dimensions"] == [list(names) for names in EMBEDDED["inference"][metric["Name"]]]
    assert {metric["Name"]: document[metric["Name"]] for metric in directive["Metrics"]} == {
        "mlp_requests": 120,
        "mlp_errors": 2,
    }


@pytest.mark.parametrize("count", [0, 101])
def test_embedded_metrics_hold_what_cloudwatch_takes_of_one_document(count):
    with pytest.raises(ValueError, match=f"1 to 100 answers, but {count} were given"):
        embedded("mlp/dev/inference", "digits", "3", 0, [(200, 1, 0.001)] * count)


RULES = [
    pytest.param(rule, id=rule.name)
    for groups in (recordings([ON_ECS]), alerts(Limits(), [ON_ECS]))
    for rules in groups.values()
    for rule in rules
]
ALERTS = [rule for rule in RULES if hasattr(rule.values[0], "runbook")]


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_parses_and_uses_only_what_is_exported(rule):
    assert mistakes(rule.expression) == []


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_what_is_wrong_and_what_to_do_and_its_runbook_is_in_the_docs(alert):
    named = set(re.findall(r"\$labels\.(\w+)", alert.summary))
    assert named <= labels(parse(alert.expression))
    assert re.fullmatch(r"\d+m|\d+h", alert.lasting)
    assert 30 < len(alert.runbook) < 200
    page = (ROOT / "docs" / "dashboards.md").read_text()
    assert f"### {alert.name}" in page
    assert alert.runbook in " ".join(page.split())


@pytest.mark.parametrize(
    ("limit", "bound"), [(1, 0.001), (70, 0.1), (100, 0.1), (1000, 1.0), (2501, 5.0), (10_000, 10.0)]
)
def test_a_latency_objective_counts_as_the_next_bound(limit, bound):
    """The bucket's bound must be spelt as the service and the collector spell it."""
    rules = recordings([dataclasses.replace(ON_ECS, latency_ms=limit)])["serving"]
    (slow,) = [rule.expression for rule in rules if rule.name == "model:mlp_slow_requests:ratio_rate5m"]
    (matcher,) = re.findall(r'le(=~?)"([^"]+)"', slow)
    spelt = {str(bound), f"{bound:g}"}
    if matcher[0] == "=~":
        assert all(re.fullmatch(matcher[1], bound) for bound in spelt)
    else:
        assert spelt == {matcher[1]}


def test_the_settings_set_the_limits():
    limits = Limits(error_percent=2, drift_score=0.3, idle_gpu_minutes=45, pending_minutes=10)
    by_name = {alert.name: alert for rules in alerts(limits, []).values() for alert in rules}
    assert by_name["ModelErrors"].expression.endswith("> 0.02")
    assert by_name["ModelDrift"].expression.endswith("> 0.3")
    assert by_name["GpuIdle"].lasting == "45m"
    assert by_name["TrainingPending"].lasting == "10m"
    assert "ModelNotServed" not in by_name  # nothing is on ECS


def test_idle_gpus_raise_an_alert_after_half_an_hour_by_default():
    (idle,) = [a for rules in alerts(Limits(), []).values() for a in rules if a.name == "GpuIdle"]
    assert idle.lasting == "30m"
    assert "DCGM_FI_DEV_GPU_UTIL" in idle.expression


def test_every_gpu_has_a_price_of_its_own():
    (prices,) = [r for r in recordings([])["gpu"] if r.name == "gpu:price:usd_per_hour"]
    for model, price in GPU_USD_PER_HOUR.items():
        assert f'label_replace(vector({price:g}), "modelName", "{model}", "", "")' in prices.expression


def test_the_rules_are_registered_as_prometheus_reads_them():
    files = {
        r.inputs["name"]: yaml.safe_load(r.inputs["data"])
        for r in observed.managed().of_type("aws:amp/ruleGroupNamespace:RuleGroupNamespace")
    }
    assert files == {
        "recordings": rule_file(recordings([ON_ECS])),
        "alerts": rule_file(alerts(Limits(), [ON_ECS])),
    }
    for group in (group for file in files.values() for group in file["groups"]):
        assert group.keys() == {"name", "interval", "rules"}
        for rule in group["rules"]:
            assert rule.keys() in ({"record", "expr"}, {"alert", "expr", "for", "labels", "annotations"})
