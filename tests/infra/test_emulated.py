"""Every resource that the emulator supports is really created there, with each runtime; what it lacks is listed."""

import json
import re
import runpy
from collections import Counter

import boto3
import pytest

from contract.paths import ROOT
from embedded.aws import EmulatedAws
from embedded.monitor import run
from embedded.state import State
from tests.infra.conftest import DIGEST, MLFLOW_ON_ECS, SETTINGS, digits_with
from tests.infra.test_runtimes import INFERENCE, RUNTIMES
from tests.infra.test_scoring import SCORING

ALWAYS = {"aws:cloudwatch/compositeAlarm:CompositeAlarm"}
LACKING = {
    "lambda": {"aws:codedeploy/deploymentConfig:DeploymentConfig"},
    "ecs": set(),
    "gpu": set(),
    "sagemaker": set(),
}
"""What is recorded only, by runtime."""


@pytest.fixture
def up(emulated_aws, tmp_path):
    def run_it(serving, scoring=None, **changes):
        sections = {"serving": serving} | ({"scoring": scoring} if scoring else {})
        state = State.load(tmp_path / "state.json", emulated_aws.identity)
        provider = EmulatedAws(emulated_aws.url, "eu-west-1", state)
        settings = SETTINGS | changes
        config = {
            f"ml-platform:{name}": json.dumps(value) if isinstance(value, dict) else str(value)
            for name, value in settings.items()
        }

        def program():
            with digits_with(sections):
                runpy.run_path(str(ROOT / "stacks" / "__main__.py"), run_name="__main__")

        deployment = run(
            program,
            project="ml-platform",
            stack="test",
            config=config | {"aws:region": "eu-west-1"},
            provider=provider,
        )
        provider.finish(deployment.resources)
        return provider

    return run_it


@pytest.fixture
def certificate(emulated_aws):
    return boto3.client("acm").request_certificate(DomainName="*.ml.example.com")["CertificateArn"]


def with_certificate(settings, certificate):
    return json.loads(re.sub(r"arn:aws:acm:[^\"]*", certificate, json.dumps(settings)))


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_runtime_is_created_in_the_emulated_aws_and_a_second_up_changes_nothing(up, certificate, name):
    settings = {
        "network": SETTINGS["network"] | {"nat": "single"},
        "inference": INFERENCE | {"architecture": "x86_64"},
        "data": MLFLOW_ON_ECS,
    }
    settings = with_certificate(settings, certificate)
    # The emulator knows none of SageMaker's newer instances.
    serving = RUNTIMES[name] | ({"instance_type": "ml.m5.large"} if name == "sagemaker" else {})
    first = up(serving, **settings)
    recorded = {step.type for step in first.steps if step.note == "recorded only"}
    assert recorded == ALWAYS | LACKING[name]
    second = up(serving, **settings)
    assert set(Counter(step.action for step in second.steps)) == {"same"}


def test_the_service_the_balancer_and_the_alarms_are_there_as_asked_for(up, certificate):
    up(
        RUNTIMES["ecs"],
        network=SETTINGS["network"] | {"nat": "single"},
        inference=with_certificate(INFERENCE, certificate),
        alerts={"error_percent": 3, "emails": ["a@example.com"]},
    )
    (service,) = boto3.client("ecs").describe_services(
        cluster="acme-test-inference-digits", services=["acme-test-inference-digits"]
    )["services"]
    assert service["desiredCount"] == 2
    (balancer,) = boto3.client("elbv2").describe_load_balancers()["LoadBalancers"]
    assert balancer["Scheme"] == "internal"
    (alarm,) = boto3.client("cloudwatch").describe_alarms(AlarmNames=["acme-test-digits-errors"])["MetricAlarms"]
    assert alarm["Threshold"] == 3
    assert {query["Id"] for query in alarm["Metrics"]} == {"r0", "r1", "e0", "e1", "share"}
    (subscription,) = boto3.client("sns").list_subscriptions()["Subscriptions"]
    assert subscription["Endpoint"] == "a@example.com"
    streams = boto3.client("firehose").list_delivery_streams()["DeliveryStreamNames"]
    assert set(streams) == {"acme-test-predictions-digits", "acme-test-feedback-digits"}


def test_scheduled_scoring_is_created_in_the_emulated_aws_and_a_second_up_changes_nothing(up):
    settings = {
        "network": SETTINGS["network"] | {"nat": "single"},
        "training": {"backend": "sagemaker", "image_digest": DIGEST},
    }
    first = up(RUNTIMES["lambda"], SCORING, **settings)
    recorded = {step.type for step in first.steps if step.note == "recorded only"}
    assert recorded == ALWAYS | LACKING["lambda"]
    schedule = boto3.client("scheduler").get_schedule(Name="acme-test-scoring-digits")
    (job,) = boto3.client("batch").describe_job_definitions(jobDefinitionName="acme-test-scoring-digits")[
        "jobDefinitions"
    ]
    assert json.loads(schedule["Target"]["Input"])["JobDefinition"] == job["jobDefinitionArn"]
    second = up(RUNTIMES["lambda"], SCORING, **settings)
    assert set(Counter(step.action for step in second.steps)) == {"same"}
    up(RUNTIMES["lambda"], SCORING | {"schedule": "rate(1 day)"}, **settings)
    (schedule,) = boto3.client("scheduler").list_schedules()["Schedules"]
    assert boto3.client("scheduler").get_schedule(Name=schedule["Name"])["ScheduleExpression"] == "rate(1 day)"
    up(RUNTIMES["lambda"], **settings)
    assert boto3.client("scheduler").list_schedules()["Schedules"] == []
    assert boto3.client("batch").describe_job_queues()["jobQueues"] == []


def test_the_hash_key_derives_the_same_secret_for_everybody_who_may(up):
    first = up({"runtime": "lambda", "sensitive": {"pixels": "hash"}})
    assert not {step.type for step in first.steps if step.note == "recorded only"} & {"aws:kms/key:Key"}
    asked = {"KeyId": "alias/acme-test-hashes", "MacAlgorithm": "HMAC_SHA_256", "Message": b"one"}
    assert len({boto3.client("kms").generate_mac(**asked)["Mac"] for _ in range(2)}) == 1


def test_the_firewall_stands_before_the_balancer(up, certificate):
    given = {
        "network": SETTINGS["network"] | {"nat": "single"},
        "inference": with_certificate(INFERENCE | {"waf": {"requests_per_client": 500}}, certificate),
    }
    first = up(RUNTIMES["ecs"], **given)
    assert {step.type for step in first.steps if step.note == "recorded only"} == ALWAYS | LACKING["ecs"]
    waf = boto3.client("wafv2")
    (balancer,) = boto3.client("elbv2").describe_load_balancers()["LoadBalancers"]
    found = waf.get_web_acl_for_resource(ResourceArn=balancer["LoadBalancerArn"])["WebACL"]
    assert found["Name"] == "acme-test-inference"
    assert found["Rules"][-1]["Statement"]["RateBasedStatement"]["Limit"] == 500
    log = waf.get_logging_configuration(ResourceArn=found["ARN"])["LoggingConfiguration"]
    assert ":log-group:aws-waf-logs-acme-test-inference" in log["LogDestinationConfigs"][0]
    assert set(Counter(step.action for step in up(RUNTIMES["ecs"], **given).steps)) == {"same"}
