"""`mlp experiment --env …` takes requests and errors from CloudWatch, whatever the service runs on."""

import gzip
import json
import time
from datetime import UTC, datetime

import boto3
import pytest
from typer.testing import CliRunner

from cli import experiment
from cli.main import app
from contract.metrics import embedded, embedded_sums
from contract.service import ServiceSettings
from tests.training.environment import environment_of

NAMESPACE = "mlp/test/inference"


@pytest.fixture
def environment(emulated_aws, outputs_document, monkeypatch):
    """An environment in the emulated AWS, with predictions of two versions in its lake; Pulumi is not asked for it."""
    environment_of(outputs_document)
    known = ServiceSettings.from_environment(outputs_document.service)
    service = known.model_copy(update={"metrics_namespace": NAMESPACE}).environment()
    outputs = outputs_document.model_copy(update={"service": service})
    monkeypatch.setattr(experiment, "environment_outputs", lambda *_: outputs)
    now = datetime.now(UTC)
    lines = [
        {"time": f"{now:%Y-%m-%d %H:%M:%S.%f}", "model": "digits", "version": version, "prediction_id": f"{version}"}
        | {"rows": 1, "latency_ms": 2.5, "inputs": [], "outputs": {"label": [3]}}
        for version in (1, 2)
    ]
    key = f"predictions/digits/date={now:%Y-%m-%d}/1.gz"
    content = gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode())
    boto3.client("s3").put_object(Bucket=outputs.buckets.curated, Key=key, Body=content)


def extract(line: dict) -> None:
    """What CloudWatch Logs does with a line in its embedded metric format; moto does not."""
    line = json.loads(json.dumps(line))
    for directive in line["_aws"]["CloudWatchMetrics"]:
        data = [
            {
                "MetricName": metric["Name"],
                "Dimensions": [{"Name": name, "Value": line[name]} for name in dimensions],
                "Timestamp": line["_aws"]["Timestamp"] / 1000,
                "Values": value if isinstance(value := line[metric["Name"]], list) else [value],
                "Unit": metric["Unit"],
            }
            for dimensions in directive["Dimensions"]
            for metric in directive["Metrics"]
        ]
        boto3.client("cloudwatch").put_metric_data(Namespace=directive["Namespace"], MetricData=data)


def ask(*more):
    done = CliRunner().invoke(app, ["experiment", "digits", "--env", "test", *more], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def counted() -> dict:
    found = json.loads(ask("--json"))["versions"]
    return {each["version"]: (each["requests"], each["errors"]) for each in found}


def minutes_ago(minutes: float) -> int:
    return int((time.time() - 60 * minutes) * 1000)


def test_sums_of_ecs_and_sagemaker_are_added_up(environment):
    """The lines of several workers, minutes and tasks; another model's, environment's and week's do not count."""
    for minutes, version, requests, errors in ((9, "1", 120, 2), (9, "1", 80, 0), (3, "1", 1, 1), (3, "2", 40, 0)):
        extract(embedded_sums(NAMESPACE, "digits", version, minutes_ago(minutes), requests, errors))
    extract(embedded_sums(NAMESPACE, "digits", "none", minutes_ago(3), 7, 7))
    extract(embedded_sums(NAMESPACE, "wine", "1", minutes_ago(3), 1000, 1000))
    extract(embedded_sums("mlp/other/inference", "digits", "1", minutes_ago(3), 1000, 1000))
    extract(embedded_sums(NAMESPACE, "digits", "1", minutes_ago(8 * 24 * 60), 1000, 1000))
    assert counted() == {1: (201, 3), 2: (40, 0)}
    shown = ask()
    assert "201" in shown
    assert "?" not in shown.partition("ms")[0]


def test_lines_of_lambda_count_alike(environment):
    for code in (200, 200, 503):
        extract(embedded(NAMESPACE, "digits", "1", minutes_ago(2), [(code, 1, 0.002)]))
    extract(embedded_sums(NAMESPACE, "digits", "1", minutes_ago(2), 10, 1))  # as after a move to ECS
    assert counted()[1] == (13, 2)


def test_what_nothing_was_counted_of_is_unknown(environment):
    assert counted() == {1: (None, None), 2: (None, None)}
