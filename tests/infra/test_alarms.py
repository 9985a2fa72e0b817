"""Alarms: each model has its own, one above them all is sent, and the topic takes nothing else."""

import pytest

from contract.errors import PlatformError
from tests.infra.conftest import only, statements
from tests.infra.test_runtimes import ECS, INFERENCE, NAT, SAGEMAKER

ALARM = "aws:cloudwatch/metricAlarm:MetricAlarm"


def alarms(deployment):
    """The alarms of digits, by what they watch."""
    of_model = "acme-test-digits-"
    return {r.name.removeprefix(of_model): r.inputs for r in deployment.of_type(ALARM) if r.name.startswith(of_model)}


@pytest.mark.parametrize(
    ("serving", "namespace", "threshold"),
    [
        ({"runtime": "lambda", "latency_ms": 300}, "AWS/Lambda", 300),
        (ECS | {"latency_ms": 300}, "AWS/ApplicationELB", 0.3),  # in seconds
        (SAGEMAKER | {"latency_ms": 300}, "AWS/SageMaker", 300_000),  # in microseconds
    ],
)
def test_latency_and_errors_are_watched_wherever_the_model_runs(build, serving, namespace, threshold):
    found = alarms(build(serving=serving, network=NAT, inference=INFERENCE, alerts={"error_percent": 2.5}))
    assert set(found) == {"errors", "latency", "capture-lag"}
    assert found["latency"]["threshold"] == pytest.approx(threshold)
    assert found["errors"]["threshold"] == 2.5
    for what in ("errors", "latency"):
        metrics = [query["metric"] for query in found[what]["metricQueries"] if "metric" in query]
        assert {metric["namespace"] for metric in metrics} == {namespace}
        assert sum(query["returnData"] for query in found[what]["metricQueries"]) == 1


def test_both_colours_of_an_ecs_service_are_counted(build):
    """A canary leaves the traffic in the other target group."""
    errors = alarms(build(serving=ECS, network=NAT, inference=INFERENCE))["errors"]
    (share,) = [query for query in errors["metricQueries"] if query["returnData"]]
    assert share["expression"] == "100 * (FILL(e0, 0) + FILL(e1, 0)) / MAX([FILL(r0, 0) + FILL(r1, 0), 1])"
    groups = {q["metric"]["dimensions"]["TargetGroup"] for q in errors["metricQueries"] if "metric" in q}
    assert len(groups) == 2


def test_no_traffic_is_an_alarm_where_there_must_be_some(build):
    found = alarms(build(alerts={"no_traffic_minutes": 60}))["no-traffic"]
    assert (found["evaluationPeriods"], found["datapointsToAlarm"]) == (12, 12)
    assert (found["comparisonOperator"], found["threshold"]) == ("LessThanOrEqualToThreshold", 0)
    assert found["treatMissingData"] == "breaching"


def test_captures_that_wait_too_long_are_an_alarm(build):
    deployment = build(alerts={"capture_lag_minutes": 30})
    lag = alarms(deployment)["capture-lag"]
    assert lag["dimensions"] == {"DeliveryStreamName": "acme-test-predictions-digits"}
    assert (lag["metricName"], lag["threshold"]) == ("DeliveryToS3.DataFreshness", 1800)


def test_one_trouble_is_one_mail(build):
    deployment = build(alerts={"emails": ["a@example.com", "b@example.com"]})
    composite = only(deployment, "aws:cloudwatch/compositeAlarm:CompositeAlarm", "digits")
    assert composite.inputs["alarmRule"] == " OR ".join(
        f'ALARM("acme-test-digits-{what}")' for what in ("errors", "latency", "capture-lag")
    )
    (topic,) = deployment.of_type("aws:sns/topic:Topic")
    assert composite.inputs["alarmActions"] == [topic.outputs["arn"]]
    assert not any(alarm.get("alarmActions") for alarm in alarms(deployment).values())
    subscriptions = deployment.of_type("aws:sns/topicSubscription:TopicSubscription")
    assert {s.inputs["endpoint"] for s in subscriptions} == {"a@example.com", "b@example.com"}


def test_the_topic_is_encrypted_and_takes_what_our_alarms_say(build):
    deployment = build()
    (topic,) = deployment.of_type("aws:sns/topic:Topic")
    assert topic.inputs["kmsMasterKeyId"].startswith("arn:aws:kms:")
    (statement,) = statements(only(deployment, "aws:sns/topicPolicy:TopicPolicy", "alarms").inputs["policy"])
    assert statement["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    ours = {"ArnLike": {"aws:SourceArn": "arn:aws:cloudwatch:eu-west-1:123456789012:alarm:acme-test-*"}}
    assert statement["Condition"] == ours
    (key,) = deployment.of_type("aws:kms/keyPolicy:KeyPolicy")
    (alarms_use,) = [s for s in statements(key.inputs["policy"]) if s["Sid"] == "Alarms"]
    assert alarms_use["Condition"] == ours


def test_captures_go_to_the_lake_encrypted_a_folder_a_day(build):
    deployment = build()
    stream = only(deployment, "aws:kinesis/firehoseDeliveryStream:FirehoseDeliveryStream", "predictions-digits").inputs
    target = stream["extendedS3Configuration"]
    assert target["bucketArn"] == "arn:aws:s3:::acme-test-curated"
    assert target["prefix"] == "predictions/digits/date=!{timestamp:yyyy-MM-dd}/"
    assert stream["serverSideEncryption"]["keyType"] == "CUSTOMER_MANAGED_CMK"
    policy = statements(only(deployment, "aws:iam/rolePolicy:RolePolicy", "capture-digits").inputs["policy"])
    (written,) = [s["Resource"] for s in policy if "s3:PutObject" in s["Action"]]
    assert written == [
        f"arn:aws:s3:::acme-test-curated/{top}{what}/digits/*"
        for top in ("", "failed/")
        for what in ("predictions", "feedback")
    ]


def test_minutes_without_traffic_are_counted_in_fives(preview):
    with pytest.raises(PlatformError, match="no_traffic_minutes must be a multiple of 5, but it is 7"):
        preview(alerts={"no_traffic_minutes": 7})
