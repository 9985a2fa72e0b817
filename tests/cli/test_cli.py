"""The command line: help, errors and exit statuses, without bringing anything up."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from contract.paths import ROOT

MLP = Path(sys.executable).with_name("mlp")


def mlp(*arguments, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return subprocess.run([MLP, *arguments], env=clean | environment, capture_output=True, text=True, check=False)


def test_help_names_every_command():
    said = mlp("--help").stdout
    for command in ("up", "down", "status", "predict", "logs", "train", "run", "new", "submit", "preview"):
        assert f" {command} " in said


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["nonsense"], 2, "No such command"),
        (["up", "--port", "70000"], 2, "less than or equal to 65535, but it is '70000'"),
        (["models", "show", "digits", "0"], 2, "greater than or equal to 1, but it is '0'"),
        (["experiment", "digits", "--days", "1e9"], 2, "less than or equal to 3650, but it is '1e9'"),
        (["experiment", "digits", "--days", "inf"], 2, "less than or equal to 3650, but it is 'inf'"),
        (
            ["up", "nowhere"],
            1,
            "unknown environment 'nowhere'; there is a file Pulumi.<environment>.yaml for: dev, local",
        ),
        (["preview", "nowhere"], 1, "unknown environment 'nowhere'"),
        (["train", "nothing"], 1, "unknown model 'nothing'"),
        (["submit", "nothing"], 1, "unknown model 'nothing'"),
        (["submit", "digits", "--env", "nowhere"], 1, "unknown environment 'nowhere'"),
        (["submit", "digits", "--backend", "ec2"], 2, "'ec2'; allowed are sagemaker, batch, eks"),
        (["submit", "digits"], 1, "the platform is not up; run `mlp up`"),
        (["run", "validat", "digits"], 1, "unknown step 'validat'; there are: ingest, validate"),
        (["run", "validate", "nothing"], 1, "unknown model 'nothing'"),
        (["run", "validate", "digits"], 1, "the platform is not up; run `mlp up`"),
        (["new", "Churn", "--task", "regression"], 1, "'Churn' cannot be the name of a model"),
        (["new", "class", "--task", "regression"], 1, "'class' cannot be the name of a model"),
        (
            ["new", "digits", "--task", "regression"],
            1,
            "training/models/digits is there already; the models are: anomaly",
        ),
        (["new", "churn", "--task", "ranking"], 2, "'ranking' is not"),
        (["new", "churn"], 2, "Missing option '--task'"),
    ],
)
def test_bad_input_is_one_message_and_a_status(arguments, status, said, tmp_path):
    done = mlp(*arguments, MLP_STATE=str(tmp_path))
    assert done.returncode == status
    assert said in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interruption_is_one_message_and_a_status(name, tmp_path):
    script = (
        "import signal, cli.status; from cli.__main__ import main\n"
        f"cli.status.read_status = lambda _: signal.raise_signal(signal.{name})\n"
        "main()"
    )
    command, environment = [sys.executable, "-c", script, "status"], os.environ | {"MLP_STATE": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "error: interrupted\n")


def test_preview_needs_no_account_and_no_network():
    document = json.loads(
        mlp("preview", "dev", "--json", AWS_ENDPOINT_URL="http://127.0.0.1:1", AWS_PROFILE="none").stdout
    )
    assert document["environment"] == "dev"
    assert document["totals"]["aws:ec2/vpc:Vpc"] == 1
    assert sum(document["totals"].values()) < len(document["resources"])  # components and the stack are not counted
    urns = {resource["urn"] for resource in document["resources"]}
    assert all(resource["parent"] in urns for resource in document["resources"] if resource["parent"])


def test_commands_that_need_no_pulumi_do_not_import_it():
    script = (
        "import sys; sys.modules |= dict.fromkeys(['pulumi', 'boto3', 'torch']); from cli.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "error", ["botocore.exceptions.NoCredentialsError()", "boto3.exceptions.S3UploadFailedError('Failed to upload')"]
)
def test_what_aws_says_is_told_without_a_traceback(error):
    script = f"""
import boto3.exceptions, botocore.exceptions
from cli import main

def app():
    raise {error}

main.app = app
main.main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.fullmatch(r"error: AWS: (Unable to locate credentials|Failed to upload)\n", done.stderr)


def test_preview_needs_the_infra_extra_alone():
    other_extras = [
        "torch",
        "polars",
        "onnx",
        "onnxruntime",
        "numpy",
        "sklearn",
        "fastapi",
        "msgspec",
        "moto",
        "cryptography",
    ]
    script = f"import sys; sys.modules |= dict.fromkeys({other_extras}); from cli.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", script, "preview", "dev"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_preview_prints_a_tree_and_totals():
    done = mlp("preview", "dev")
    assert done.returncode == 0
    assert "ml-platform-dev" in done.stdout
    assert "1 aws:ec2/vpc:Vpc" in done.stdout


def test_up_of_an_environment_says_in_one_line_what_to_install(tmp_path):
    done = mlp("up", "dev", PATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("error: `mlp up dev` needs the Pulumi CLI")
    assert len(done.stderr.splitlines()) == 1


def test_up_of_an_environment_says_in_one_line_that_credentials_are_missing(tmp_path):
    cli = tmp_path / "pulumi"
    cli.write_text("#!/bin/sh\nexit 1\n")
    cli.chmod(0o755)
    nowhere = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    done = mlp("up", "dev", PATH=str(tmp_path), AWS_EC2_METADATA_DISABLED="true", **nowhere)
    assert done.returncode == 1
    assert "needs AWS credentials, and there are none" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture
def pulumi(tmp_path, emulated_aws):
    """The real CLI cannot be had here: what stands in for it only writes down how it is called."""
    cli, calls = tmp_path / "pulumi", tmp_path / "calls"
    answers = 'case "$1" in version) echo v3.272.0;; stack) echo "{}";; esac'
    cli.write_text(f'#!/bin/sh\necho "$PWD: $*" >> {calls}\n{answers}\n')
    cli.chmod(0o755)
    aws = {name: os.environ[name] for name in os.environ if name.startswith("AWS_")}

    def up(*arguments):
        done = mlp("up", "dev", *arguments, PATH=f"{tmp_path}:/bin:/usr/bin", **aws)
        return done, [call for call in calls.read_text().splitlines() if re.search(" (up|preview) --", call)]

    return up


def test_up_of_an_environment_hands_over_to_pulumi(pulumi):
    _, (call,) = pulumi("--yes")
    assert call.startswith(f"{ROOT}: ")
    assert " up --yes " in call
    assert "--stack dev" in call
    assert f"--policy-pack {ROOT / 'infra' / 'guardrails'}" in call


def test_up_of_an_environment_shows_a_preview_and_asks(pulumi):
    done, (call,) = pulumi()
    assert " preview " in call
    assert done.returncode == 1
