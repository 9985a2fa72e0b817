"""`mlp bootstrap` explains without calling anything, and applies through the Pulumi CLI."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli import bootstrap
from contract.paths import ROOT

MLP = Path(sys.executable).with_name("mlp")


def mlp(*arguments, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    command = [MLP, "bootstrap", *arguments]
    return subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=False)


@pytest.fixture
def account(tmp_path, monkeypatch):
    """An account file with a real repository, in a folder of the test's own."""
    folder = tmp_path / "stacks"
    folder.mkdir()
    text = (ROOT / "stacks" / "bootstrap" / "Pulumi.main.yaml").read_text()
    (folder / "Pulumi.main.yaml").write_text(text.replace("YOUR_ORG/YOUR_REPO", "acme-org/platform"))
    monkeypatch.setattr(bootstrap, "FOLDER", folder)
    monkeypatch.setenv("MLP_STATE", str(tmp_path / "state"))
    return folder


def test_it_explains_without_the_cli_and_without_credentials(tmp_path):
    done = mlp(PATH=str(tmp_path), MLP_STATE=str(tmp_path))
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    for word in ("pulumi login", "gh variable set AWS_DEPLOY_ROLE", "USD a month", "KMS key"):
        assert word in said


def test_the_json_has_each_steps_commands(tmp_path):
    document = json.loads(mlp("--json", MLP_STATE=str(tmp_path)).stdout)
    assert document["account"] == "main"
    for step in document["steps"]:
        assert step.keys() == {"title", "why", "commands", "creates", "usd_per_month"}
        assert step["commands"]


def test_the_placeholder_is_not_applied(tmp_path):
    done = mlp("--apply", MLP_STATE=str(tmp_path))
    assert done.returncode == 1
    assert "still the placeholder 'YOUR_ORG/YOUR_REPO'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_unknown_account_is_named_with_the_known(tmp_path):
    done = mlp("--account", "nowhere", MLP_STATE=str(tmp_path))
    assert done.returncode == 1
    assert "unknown account 'nowhere'; there is a file stacks/bootstrap/Pulumi.<account>.yaml for: main" in done.stderr


def test_apply_says_in_one_line_what_to_install(account, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(bootstrap.PlatformError, match="`mlp bootstrap --apply` needs the Pulumi CLI"):
        bootstrap.bootstrap(apply=True)


def test_apply_runs_pulumi_with_the_state_in_a_file_and_tells_how_to_move_it(
    account, monkeypatch, emulated_aws, tmp_path, capsys
):
    monkeypatch.setattr(bootstrap, "require_pulumi", lambda *_: None)
    runs = []
    monkeypatch.setattr(bootstrap, "run_up", lambda *arguments: runs.append(arguments))
    bootstrap.bootstrap(account="main", apply=True, yes=True)
    state = tmp_path / "state" / "bootstrap-main"
    assert state.is_dir()
    variables = {"PULUMI_BACKEND_URL": state.as_uri(), "PULUMI_CONFIG_PASSPHRASE": ""}
    assert runs == [("main", account, False, variables)]
    said = capsys.readouterr().out
    assert "Account 123456789012, region eu-west-1" in said
    assert 'pulumi login "$BACKEND"' in said


def test_once_the_state_is_in_the_bucket_apply_uses_it(account, monkeypatch, emulated_aws):
    monkeypatch.setattr(bootstrap, "require_pulumi", lambda *_: None)
    runs = []
    monkeypatch.setattr(bootstrap, "run_up", lambda *arguments: runs.append(arguments))
    with (account / "Pulumi.main.yaml").open("a") as file:
        file.write("secretsprovider: awskms://1?region=eu-west-1\n")
    bootstrap.bootstrap(account="main", apply=True, yes=True)
    assert runs == [("main", account, False, {})]


def test_the_way_into_the_bucket_is_told_in_order():
    commands = bootstrap.migration("main")
    order = ["output backend_url", "stack export", "pulumi login", "stack init", "stack import"]
    places = [next(i for i, command in enumerate(commands) if word in command) for word in order]
    assert places == sorted(places)
