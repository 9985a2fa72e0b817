"""`mlp preview`: the tree with what matters, the policies, and an exit status that can be a gate."""

import json

import pytest
from typer.testing import CliRunner

import embedded.project
from cli.main import app
from embedded.project import read_config
from infra.guardrails.rules import ALL
from infra.guardrails.waivers import KEY


@pytest.fixture
def mlp(monkeypatch):
    """Run `mlp preview dev` with other waivers than those of the file."""

    def run(*arguments, waivers=()):
        config = read_config("dev") | {KEY: json.dumps(list(waivers))}
        monkeypatch.setattr(embedded.project, "read_config", lambda environment: config)
        return CliRunner().invoke(app, ["preview", "dev", *arguments])

    return run


@pytest.fixture
def broken(monkeypatch):
    """Let every log group break a rule."""
    from infra.guardrails import evaluate, rule

    def check(group, environment):
        yield "this is only a test"

    strict = rule.Rule("logs-expire", "Do nothing.", ("aws:cloudwatch/logGroup:LogGroup",), check)
    monkeypatch.setattr(evaluate, "ALL", (strict,))


def waiver(resource, until="2999-12-31"):
    return {"rule": "logs-expire", "resource": resource, "reason": "to see how a waiver is shown", "until": until}


def test_it_shows_what_matters(mlp):
    done = mlp()
    assert done.exit_code == 0
    assert "cidrBlock=10.16.0.0/16" in done.stdout
    assert f"policies: {len(ALL)} of {len(ALL)} rules passed, 0 violations" in done.stdout


def test_json_has_the_policies(mlp):
    document = json.loads(mlp("--json").stdout)
    assert document["policies"] == {
        "rules": {"total": len(ALL), "passed": len(ALL)},
        "violations": [],
        "waivers": [],
    }


def test_markdown_folds_the_long_parts(mlp):
    said = mlp("--markdown").stdout
    assert said.startswith("### ✅ Preview of `dev`: ")
    assert "| `aws:ec2/vpc:Vpc` | 1 |" in said
    assert said.count("<details>") == said.count("</details>") == 2


@pytest.mark.usefixtures("broken")
def test_a_violation_fails_the_gate(mlp):
    done = mlp("--json")
    assert done.exit_code == 1
    violation = json.loads(done.stdout)["policies"]["violations"][0]
    assert violation.keys() == {"rule", "resource", "type", "urn", "problem", "remedy"}
    assert "violation: logs-expire: mlp-dev-" in mlp().stdout
    assert mlp("--markdown").stdout.startswith("### ❌ Preview of `dev`")


@pytest.mark.usefixtures("broken")
def test_waivers_are_shown_and_open_the_gate(mlp):
    names = {violation["resource"] for violation in json.loads(mlp("--json").stdout)["policies"]["violations"]}
    waivers = [*map(waiver, sorted(names)), waiver("gone")]
    done = mlp(waivers=waivers)
    assert done.exit_code == 0
    assert f"waived until 2999-12-31: logs-expire: {min(names)}: to see how a waiver is shown" in done.stdout
    assert "waiver matches nothing, remove it: logs-expire: gone" in done.stdout
    shown = json.loads(mlp("--json", waivers=waivers).stdout)["policies"]["waivers"]
    assert [bool(one["excuses"]) for one in sorted(shown, key=lambda one: one["resource"] == "gone")][-1] is False


def test_an_expired_waiver_is_refused(mlp):
    done = mlp(waivers=[waiver("it", until="2020-01-01")])
    assert done.exit_code == 1
    assert "Pulumi.dev.yaml is not valid" in str(done.exception)
    assert "ml-platform:waivers.0.until: the waiver from logs-expire for it expired on 2020-01-01" in str(
        done.exception
    )


def test_one_format_at_a_time(mlp):
    assert mlp("--json", "--markdown").exit_code == 2
