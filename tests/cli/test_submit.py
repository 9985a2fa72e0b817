"""`mlp submit`: what would be sent can be seen without an account, and what does not fit is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import cli.submit
from cli.main import app
from contract.errors import PlatformError
from contract.manifest import load_manifest
from contract.outputs import Outputs
from tests.cli.test_cli import mlp
from tests.training.test_jobs import OUTPUTS, assert_valid
from training.follow import follow


@pytest.mark.parametrize("environment", ["dev", "staging", "prod"])
def test_a_dry_run_needs_no_account_no_pulumi_and_no_image(environment):
    nowhere = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_PROFILE": "none", "PATH": "/nowhere"}
    done = mlp("submit", "digits", "--env", environment, "--dry-run", **nowhere)
    assert done.returncode == 0, done.stderr
    assert "SageMaker's CreateTrainingJob, not sent" in done.stderr
    asked = json.loads(done.stdout)
    assert asked["TrainingJobName"].startswith(f"mlp-{environment}-digits-train-")
    assert asked["RoleArn"] == "<training_role>"  # what only an up knows
    assert asked["AlgorithmSpecification"]["TrainingImage"] == "<training.image_digest is not set>"
    assert asked["EnableInterContainerTrafficEncryption"] is True


def test_a_dry_run_shows_the_request_of_another_backend():
    done = mlp("submit", "digits", "--env", "staging", "--backend", "batch", "--array", "20", "--dry-run")
    asked = json.loads(done.stdout)
    assert asked["jobQueue"] == "<training.batch.queues.cpu-spot>"
    assert asked["arrayProperties"] == {"size": 20}
    assert_valid("batch", "SubmitJob", asked | {"tags": {}})


def test_a_backend_that_is_off_is_named_with_those_that_are_on():
    done = mlp("submit", "digits", "--env", "dev", "--backend", "batch", "--dry-run")
    assert done.returncode == 1
    assert "error: the backend 'batch' is not on in dev; on are sagemaker;" in done.stderr


def test_without_the_pulumi_cli_it_says_what_to_do(tmp_path):
    done = mlp("submit", "digits", "--env", "dev", PATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("error: `mlp submit digits --env dev` needs the Pulumi CLI")


@pytest.fixture
def pulumi(tmp_path):
    """The real CLI cannot be had here: what stands in for it answers with the outputs of a stack."""
    script = tmp_path / "pulumi"
    script.write_text(
        f"#!{sys.executable}\nimport sys\n"
        "if 'version' in sys.argv: print('v3.272.0')\n"
        f"elif '--show-secrets' in sys.argv: print({json.dumps(OUTPUTS)!r})\n"
        f"elif 'output' in sys.argv: print({json.dumps(OUTPUTS)!r})\n"
        "else: print('{}')\n"
    )
    script.chmod(0o755)
    return tmp_path


def test_it_reads_the_outputs_of_a_stack_and_registers_the_job(pulumi, emulated_aws):
    import boto3

    boto3.client("s3").create_bucket(
        Bucket="acme-dev-artifacts", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    aws = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    done = mlp("submit", "digits", "--env", "dev", "--json", PATH=f"{pulumi}:/bin:/usr/bin", **aws)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    (job,) = boto3.client("sagemaker").list_training_jobs()["TrainingJobSummaries"]
    assert told == {
        "job": job["TrainingJobName"],
        "model": "digits",
        "step": "train",
        "backend": "sagemaker",
        "environment": "dev",
        "id": job["TrainingJobArn"],
    }


def test_a_job_is_followed_until_it_has_ended(pulumi, emulated_aws):
    import boto3

    boto3.client("s3").create_bucket(
        Bucket="acme-dev-artifacts", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    aws = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    done = mlp("submit", "digits", "--env", "dev", "--wait", "--json", PATH=f"{pulumi}:/bin:/usr/bin", **aws)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)  # what the SDK draws is not in it
    assert told["status"] == "Completed"
    assert "Final Resource Status: Completed" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_job_that_is_not_there_cannot_be_followed(emulated_aws):
    with pytest.raises(PlatformError, match="SageMaker cannot tell of the training job none"):
        follow("none")


def test_without_the_sdk_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sagemaker.core.resources", None)
    with pytest.raises(PlatformError, match=r"pip install -c constraints.txt -e '.\[sagemaker\]'"):
        follow("any")


@pytest.mark.parametrize(
    ("option", "reason"), [("--dry-run", "a dry run sends nothing"), ("--backend=batch", "batch has")]
)
def test_only_a_job_that_is_sent_to_sagemaker_is_followed(monkeypatch, option, reason):
    monkeypatch.setattr(cli.submit, "_planned", lambda _: Outputs.model_validate(OUTPUTS))
    monkeypatch.setattr(cli.submit, "environment_outputs", lambda *_: Outputs.model_validate(OUTPUTS))
    done = CliRunner().invoke(app, ["submit", "digits", "--env", "dev", "--wait", option])
    assert done.exit_code == 2
    assert reason in done.stderr


def test_a_job_that_does_not_fit_is_refused_with_the_file_to_change(monkeypatch):
    real = load_manifest("digits")
    compute = real.compute.model_copy(update={"gpus": 8, "hours": 100})
    monkeypatch.setattr(cli.submit, "load_manifest", lambda _: real.model_copy(update={"compute": compute}))
    monkeypatch.setattr(cli.submit, "_planned", lambda _: Outputs.model_validate(OUTPUTS))
    done = CliRunner().invoke(app, ["submit", "digits", "--env", "dev", "--dry-run"])
    assert done.exit_code == 1
    assert str(done.exception).startswith("the job of digits does not fit on sagemaker in dev:")
    assert "compute.hours: 100 is above the limit" in str(done.exception)


def test_it_needs_neither_torch_nor_sagemakers_sdk():
    others = dict.fromkeys(["torch", "polars", "onnx", "numpy", "sagemaker", "moto", "fastapi"])
    script = f"import sys; sys.modules |= {others}; from cli.__main__ import main; main()"
    command = [sys.executable, "-c", script, "submit", "digits", "--env", "dev", "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
