"""Scheduled batch inference: private, least privilege, told when it fails, and its command is one that scores."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys

import boto3
import polars as pl
import pytest

from cli.cost import resources
from cli.preview import check
from contract.errors import PlatformError
from contract.manifest import load_manifest
from contract.outputs import Outputs
from contract.paths import ROOT
from contract.service import LiveVersion, LiveVersions
from infra.pricing import Load, monthly, read_prices
from infra.scoring import SCHEDULED_TIME
from tests.infra.conftest import DIGEST, EVERYTHING_ON, as_list, only, statements
from tests.services.conftest import Linear
from tests.training.test_chunks import CONTAINER
from tests.training.test_jobs import assert_valid
from tests.waiting import wait_until
from training.data import model_module

SCHEDULE, ROLE_POLICY = "aws:scheduler/schedule:Schedule", "aws:iam/rolePolicy:RolePolicy"
DEFINITION, QUEUE = "aws:batch/jobDefinition:JobDefinition", "aws:batch/jobQueue:JobQueue"
SCORING = {"schedule": "cron(0 3 * * ? *)", "input": "incoming/digits.parquet", "vcpus": 2, "memory_gib": 8}
SETTINGS = {"training": {"backend": "sagemaker", "image_digest": DIGEST}, "network": {"nat": "single"}}
CURATED = "arn:aws:s3:::acme-test-curated"


@pytest.fixture
def deployment(build):
    return build(scoring=SCORING, **SETTINGS)


def policy(deployment, name):
    return statements(only(deployment, ROLE_POLICY, name).inputs["policy"])


def container_of(deployment):
    return json.loads(only(deployment, DEFINITION, "scoring-digits").inputs["containerProperties"])


def submitted(deployment, at="2026-11-21T03:00:00Z"):
    """What the schedule submits, as Batch's API names it."""
    text = only(deployment, SCHEDULE, "scoring-digits").inputs["target"]["input"]
    assert text.count(SCHEDULED_TIME) == 1
    request = json.loads(text.replace(SCHEDULED_TIME, at))
    return {name[0].lower() + name[1:]: value for name, value in request.items()}


def test_without_the_section_there_is_nothing_of_it(build):
    deployment = build("prod", **EVERYTHING_ON)
    assert deployment.of_type(SCHEDULE) == []
    assert not [resource for resource in deployment.resources.values() if "scoring" in resource.name]


def test_without_an_image_there_is_nothing_of_it_and_the_program_says_so(build):
    deployment = build(scoring=SCORING)  # without a way to AWS either, which nothing needs yet
    assert deployment.of_type(SCHEDULE) == []
    assert deployment.of_type(QUEUE) == []
    (said,) = [message for message in deployment.messages if "schedule" in message]
    assert "digits: nothing is scored on a schedule until ml-platform:training.image_digest is set" in said
    assert "Pulumi.test.yaml" in said


def test_it_keeps_the_rules_in_production_and_has_a_price(foresee, preview):
    deployment = foresee("prod", scoring=SCORING, **EVERYTHING_ON)
    assert check("prod", deployment).violations == ()
    assert monthly(resources(deployment), Load(), read_prices().prices)[1] == set()
    costs, _ = monthly(resources(deployment), Load(), read_prices().prices)
    assert [each.idle for each in costs if each.component == "scoring"] == [pytest.approx(0.10)]  # the alarm
    assert preview("prod", scoring=SCORING, **EVERYTHING_ON).of_type(SCHEDULE)


def test_the_schedule_submits_the_job_with_an_output_for_each_run(deployment):
    schedule = only(deployment, SCHEDULE, "scoring-digits").inputs
    assert schedule["scheduleExpression"] == "cron(0 3 * * ? *)"
    assert schedule["flexibleTimeWindow"] == {"mode": "OFF"}
    target = schedule["target"]
    assert target["arn"] == "arn:aws:scheduler:::aws-sdk:batch:submitJob"
    assert target["roleArn"].endswith(":role/acme-test-schedule-digits")
    assert target["deadLetterConfig"] == {"arn": "arn:aws:sqs:eu-west-1:123456789012:acme-test-scoring-failures"}
    request = submitted(deployment)
    assert_valid("batch", "SubmitJob", request)
    assert request["parameters"] == {"output": "s3://acme-test-curated/scores/digits/2026-11-21T03:00:00Z.parquet"}
    assert request["jobQueue"] == only(deployment, QUEUE, "scoring").outputs["arn"]
    assert request["jobDefinition"] == only(deployment, DEFINITION, "scoring-digits").outputs["arn"]
    as_scheduled = {
        "Name": schedule["name"],
        "ScheduleExpression": schedule["scheduleExpression"],
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "Target": {"Arn": target["arn"], "RoleArn": target["roleArn"], "Input": target["input"]},
    }
    assert_valid("scheduler", "CreateSchedule", as_scheduled)


def test_in_another_partition_the_target_is_of_it(build):
    region = {"region": "us-gov-west-1", "network": {"nat": "single", "zones": ["a", "b"]}}
    deployment = build(scoring=SCORING, **SETTINGS | region)
    target = only(deployment, SCHEDULE, "scoring-digits").inputs["target"]
    assert target["arn"] == "arn:aws-us-gov:scheduler:::aws-sdk:batch:submitJob"


def test_the_job_is_private_and_of_the_size_asked_for(deployment):
    definition = only(deployment, DEFINITION, "scoring-digits").inputs
    container = container_of(deployment)
    registered = {
        "jobDefinitionName": definition["name"],
        "type": definition["type"],
        "platformCapabilities": definition["platformCapabilities"],
        "containerProperties": container,
        "timeout": definition["timeout"],
    }
    assert_valid("batch", "RegisterJobDefinition", registered)
    assert definition["platformCapabilities"] == ["FARGATE"]
    assert definition["timeout"] == {"attemptDurationSeconds": 2 * 3600}
    assert container["image"].endswith(f"@{DIGEST}")
    assert container["networkConfiguration"] == {"assignPublicIp": "DISABLED"}
    assert {each["type"]: each["value"] for each in container["resourceRequirements"]} == {
        "VCPU": "2",
        "MEMORY": "8192",
    }
    assert "ephemeralStorage" not in container  # Batch takes 21 GiB and more alone
    assert container["logConfiguration"]["options"]["awslogs-group"] == "/acme/test/scoring"
    (group,) = [r for r in deployment.of_type("aws:cloudwatch/logGroup:LogGroup") if r.name == "acme-test-scoring"]
    assert group.inputs["kmsKeyId"]
    environment = only(deployment, "aws:batch/computeEnvironment:ComputeEnvironment", "scoring").inputs
    assert environment["computeResources"]["type"] == "FARGATE"
    assert environment["computeResources"]["maxVcpus"] == 2
    assert all(subnet.startswith("acme-test-private-") for subnet in environment["computeResources"]["subnets"])
    assert environment["computeResources"]["securityGroupIds"] == ["acme-test-scoring"]


def test_a_larger_disk_is_asked_for(build):
    container = container_of(build(scoring=SCORING | {"disk_gib": 100}, **SETTINGS))
    assert container["ephemeralStorage"] == {"sizeInGiB": 100}


def test_what_was_interrupted_runs_again_and_a_mistake_does_not(deployment):
    retry = only(deployment, DEFINITION, "scoring-digits").inputs["retryStrategy"]
    assert retry["attempts"] == 3
    assert [each["action"] for each in retry["evaluateOnExits"]] == ["EXIT"] * 3  # Batch retries what none matches
    assert {each.get("onExitCode") for each in retry["evaluateOnExits"]} == {"1", "2", None}


def test_the_job_reads_and_writes_what_is_its_own_and_nothing_else(deployment):
    may = {
        (action, arn): statement.get("Condition")
        for statement in policy(deployment, "scoring-digits")
        for action in as_list(statement["Action"])
        for arn in as_list(statement["Resource"])
    }
    through_s3 = {"StringEquals": {"kms:ViaService": "s3.eu-west-1.amazonaws.com"}}
    key = "arn:aws:kms:eu-west-1:123456789012:key/1"
    assert may == {
        ("ssm:GetParameter", "arn:aws:ssm:eu-west-1:123456789012:parameter/acme/test/models/digits"): None,
        ("s3:GetObject", "arn:aws:s3:::acme-test-artifacts/digits/*"): None,
        ("s3:GetObject", f"{CURATED}/incoming/digits.parquet"): None,
        ("s3:ListBucket", CURATED): {"StringLike": {"s3:prefix": ["scores/digits/*"]}},
        ("s3:GetObject", f"{CURATED}/scores/digits/*"): None,
        ("s3:PutObject", f"{CURATED}/scores/digits/*"): None,
        ("s3:DeleteObject", f"{CURATED}/scores/digits/*"): None,
        ("kms:Decrypt", key): through_s3,
        ("kms:GenerateDataKey", key): through_s3,
    }


def test_the_schedule_may_submit_its_job_to_its_queue_and_say_that_it_could_not(deployment):
    submit, tell = policy(deployment, "schedule-digits")
    batch = "arn:aws:batch:eu-west-1:123456789012"
    assert submit["Action"] == ["batch:SubmitJob"]
    assert submit["Resource"] == [
        f"{batch}:job-definition/acme-test-scoring-digits:*",
        f"{batch}:job-queue/acme-test-scoring",
    ]
    assert tell["Action"] == ["sqs:SendMessage"]
    assert tell["Resource"].endswith(":acme-test-scoring-failures")
    role = only(deployment, "aws:iam/role:Role", "schedule-digits").inputs["assumeRolePolicy"]
    (trust,) = statements(role)
    assert trust["Principal"] == {"Service": "scheduler.amazonaws.com"}
    assert trust["Condition"] == {"StringEquals": {"aws:SourceAccount": "123456789012"}}


def test_fargate_may_start_the_task_and_no_more(deployment):
    actions = {action for each in policy(deployment, "scoring") for action in as_list(each["Action"])}
    assert actions == {
        "ecr:GetAuthorizationToken",
        "ecr:BatchCheckLayerAvailability",
        "ecr:BatchGetImage",
        "ecr:GetDownloadUrlForLayer",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
    }


def test_a_failure_raises_an_alarm(deployment):
    rule = only(deployment, "aws:cloudwatch/eventRule:EventRule", "scoring-failures")
    queue = only(deployment, "aws:sqs/queue:Queue", "scoring-failures")
    pattern = json.loads(rule.inputs["eventPattern"])
    assert pattern["source"] == ["aws.batch"]
    assert pattern["detail"] == {"status": ["FAILED"], "jobQueue": [only(deployment, QUEUE, "scoring").outputs["arn"]]}
    target = only(deployment, "aws:cloudwatch/eventTarget:EventTarget", "scoring-failures").inputs
    assert target["arn"] == queue.outputs["arn"]
    told, plain = statements(only(deployment, "aws:sqs/queuePolicy:QueuePolicy", "scoring-failures").inputs["policy"])
    assert told["Condition"] == {"ArnEquals": {"aws:SourceArn": rule.outputs["arn"]}}
    assert plain["Effect"] == "Deny"
    alarm = only(deployment, "aws:cloudwatch/metricAlarm:MetricAlarm", "scoring-failures").inputs
    assert alarm["dimensions"] == {"QueueName": queue.outputs["name"]}
    assert (alarm["threshold"], alarm["comparisonOperator"]) == (0, "GreaterThanThreshold")
    assert alarm["alarmActions"] == [only(deployment, "aws:sns/topic:Topic", "alarms").outputs["arn"]]


@pytest.mark.parametrize(
    ("scoring", "settings", "said"),
    [
        (
            {"vcpus": 1, "memory_gib": 16},
            {},
            r"digits/model.yaml: scoring: vcpus 1 \(1024 CPU units each\) with memory_gib 16: with 1024 CPU units "
            "Fargate has no 16384 MiB of memory; it has 2048, ",
        ),
        ({"vcpus": 3}, {}, "with memory_gib 8: Fargate has no 3072 CPU units; it has 256, 512, 1024, 2048"),
        (
            {},
            {"network": {"nat": "none", "endpoints": ["ecr"]}},
            r"digits/model.yaml: scoring needs a way to AWS from the private subnets: set nat, or add to endpoints "
            "logs, ssm, in Pulumi.test.yaml: ml-platform:network",
        ),
    ],
)
def test_what_could_not_run_is_refused(preview, scoring, settings, said):
    with pytest.raises(PlatformError, match=said):
        preview(scoring=SCORING | scoring, **SETTINGS | settings)


@pytest.fixture
def world(emulated_aws, build):
    """The job that a deployment describes, and what it needs in the emulated AWS, but for its input."""
    job = build(scoring=SCORING | {"input": "incoming/digits.csv"}, **SETTINGS)
    container = container_of(job)
    told = {each["name"]: each["value"] for each in container["environment"]}
    outputs = Outputs.model_validate_json(told["MLP_OUTPUTS"])
    s3 = boto3.client("s3")
    for bucket in (outputs.buckets.curated, outputs.buckets.artifacts):
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    archive = Linear(columns=64, classes=10, metadata={"columns": load_manifest("digits").data.columns}).archive()
    key, sha256 = "digits/model.tar.gz", hashlib.sha256(archive).hexdigest()
    s3.put_object(Bucket=outputs.buckets.artifacts, Key=key, Body=archive)
    live = LiveVersion(version=3, weight=100, artifact=f"s3://{outputs.buckets.artifacts}/{key}", sha256=sha256)
    boto3.client("ssm").put_parameter(
        Name=outputs.models["digits"].live_parameter,
        Value=LiveVersions(versions=(live,)).model_dump_json(exclude_none=True),
        Type="String",
    )
    return job, container["command"], told


@pytest.fixture
def start(world, tmp_path):
    """Starts a container as Batch would for what the schedule submits; its chunks are small."""
    job, command, told = world

    def run(at: str) -> subprocess.Popen:
        parameters = submitted(job, at)["parameters"]
        arguments = [parameters[each.removeprefix("Ref::")] if each.startswith("Ref::") else each for each in command]
        environment = os.environ | told | {"PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            [sys.executable, "-c", CONTAINER, *arguments],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return run


def outputs_of_runs():
    found = boto3.client("s3").list_objects_v2(Bucket="acme-test-curated", Prefix="scores/")
    return [item["Key"] for item in found.get("Contents", [])]


def test_a_run_without_an_input_fails_so_that_an_alarm_goes_off(start):
    job = start("2026-11-20T03:00:00Z")
    _, error = job.communicate(timeout=60)
    assert "error: --input s3://acme-test-curated/incoming/digits.csv cannot be read: 404" in error
    assert job.returncode == 1
    assert outputs_of_runs() == []


def test_each_run_has_an_output_and_one_that_is_killed_goes_on_in_the_next_attempt(start):
    s3, table = boto3.client("s3"), model_module("digits").raw_data()
    s3.put_object(Bucket="acme-test-curated", Key="incoming/digits.csv", Body=table.write_csv().encode())
    killed = start("2026-11-21T03:00:00Z")
    wait_until(lambda: killed.poll() is not None or outputs_of_runs())
    assert killed.poll() is None, killed.communicate()
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    first, second = (f"scores/digits/2026-11-{day}T03:00:00Z.parquet" for day in (21, 22))
    assert all(key.startswith(f"{first}.parts/") for key in outputs_of_runs())

    out, error = start("2026-11-21T03:00:00Z").communicate(timeout=60)
    said = re.search(r"rows=1797 errors=0 version=3 resumed=(\d+) ", out)
    assert said, error
    assert 0 < int(said[1]) < 1797
    start("2026-11-22T03:00:00Z").communicate(timeout=60)
    assert outputs_of_runs() == [first, second]
    of_runs = [s3.get_object(Bucket="acme-test-curated", Key=key)["Body"].read() for key in (first, second)]
    assert of_runs[0] == of_runs[1]
    assert len(pl.read_parquet(of_runs[0])) == len(table)
