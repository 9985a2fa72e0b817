"""Training jobs: inside the network, encrypted, with an alarm for idle GPUs, and refused where they cannot run."""

import json

import pytest

from contract import manifest as manifests
from contract.errors import PlatformError
from contract.outputs import Outputs
from infra.settings.training import TrainingSettings
from tests.infra.conftest import DIGEST, EVERYTHING_ON, PROD, as_list, only, statements

ALARM = "aws:cloudwatch/metricAlarm:MetricAlarm"
BATCH = {"network": {"nat": "single"}}


def test_jobs_are_reached_by_their_own_hosts_only(build):
    group = only(build(), "aws:ec2/securityGroup:SecurityGroup", "training").inputs
    (ingress,) = group["ingress"]
    assert ingress["self"] is True
    assert not ingress.get("cidrBlocks")
    itself, aws = group["egress"]
    assert itself["self"] is True
    assert (aws["fromPort"], aws["toPort"]) == (443, 443)


def test_the_role_makes_network_interfaces_in_our_subnets_only(build):
    (policy,) = [p for p in build().of_type("aws:iam/rolePolicy:RolePolicy") if p.name == "acme-test-training-vpc"]
    by_action = {action: s for s in statements(policy.inputs["policy"]) for action in s["Action"]}
    resources = as_list(by_action["ec2:CreateNetworkInterface"]["Resource"])
    assert len([arn for arn in resources if ":subnet/acme-test-private-" in arn]) == 3
    assert "arn:aws:ec2:eu-west-1:123456789012:security-group/acme-test-training" in resources
    permission = by_action["ec2:CreateNetworkInterfacePermission"]
    assert all("subnet/acme-test-private-" in arn for arn in permission["Condition"]["ArnEquals"]["ec2:Subnet"])


def test_idle_gpus_raise_an_alarm_after_half_an_hour(build):
    deployment = build("prod", **EVERYTHING_ON)
    topic = only(deployment, "aws:sns/topic:Topic", "alarms").outputs["arn"]
    for backend, metric in (
        ("sagemaker", 'AVG(GPUUtilization) FROM SCHEMA("/aws/sagemaker/TrainingJobs", Host) GROUP BY Host'),
        ("batch", 'AVG(nvidia_smi_utilization_gpu) FROM SCHEMA("acme/prod/gpu", InstanceId) GROUP BY InstanceId'),
    ):
        alarm = only(deployment, ALARM, f"idle-gpu-{backend}").inputs
        (query,) = alarm["metricQueries"]
        assert metric in query["expression"]
        assert query["period"] * alarm["evaluationPeriods"] == 30 * 60
        assert alarm["comparisonOperator"] == "LessThanThreshold"
        assert alarm["treatMissingData"] == "notBreaching"  # no instance is no idle instance
        assert alarm["alarmActions"] == [topic]


def test_the_idle_time_is_configuration(build):
    alarm = only(build(training={"idle_minutes": 60}), ALARM, "idle-gpu-sagemaker").inputs
    assert alarm["evaluationPeriods"] == 12


def test_the_topic_is_encrypted_and_takes_our_alarms_only(build):
    deployment = build(alerts={"emails": ["a@example.com", "b@example.com"]})
    topic = only(deployment, "aws:sns/topic:Topic", "alarms")
    assert topic.inputs["kmsMasterKeyId"] == "arn:aws:kms:eu-west-1:123456789012:key/1"
    (statement,) = statements(only(deployment, "aws:sns/topicPolicy:TopicPolicy", "alarms").inputs["policy"])
    assert statement["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    assert statement["Condition"]["ArnLike"]["aws:SourceArn"].endswith(":alarm:acme-test-*")
    subscribed = {s.inputs["endpoint"] for s in deployment.of_type("aws:sns/topicSubscription:TopicSubscription")}
    assert subscribed == {"a@example.com", "b@example.com"}


def test_the_outputs_tell_what_starts_a_job(build):
    training = Outputs.model_validate(build("prod", **EVERYTHING_ON).outputs).training
    assert training.name == "acme-prod"
    assert training.image == f"123456789012.dkr.ecr.eu-west-1.amazonaws.com/acme-prod-training@{DIGEST}"
    assert training.work == "s3://acme-prod-artifacts/_work"
    assert len(training.subnets) == 3
    assert training.security_group == "acme-prod-training"
    assert training.sagemaker.instance_types["p4d.24xlarge"].gpus == 8
    assert set(training.batch.queues) == {"cpu", "cpu-spot", "gpu", "gpu-spot"}
    assert set(training.batch.job_definitions) == {"instance", "nodes"}
    assert training.eks is None


def test_the_first_up_needs_no_image(build):
    outputs = Outputs.model_validate(build(training={"batch": {}}, **BATCH).outputs)
    assert outputs.training.image is None
    assert outputs.training.batch.job_definitions == {}


@pytest.mark.parametrize(
    ("given", "on"),
    [
        ({}, {"sagemaker"}),
        ({"backend": "batch"}, {"batch"}),
        ({"backend": "batch", "sagemaker": {}}, {"batch", "sagemaker"}),
        ({"batch": {"max_vcpus": 8}}, {"batch", "sagemaker"}),
        ({"backend": "eks"}, set()),
    ],
)
def test_a_backend_is_on_if_it_is_chosen_or_named(given, on):
    settings = TrainingSettings.model_validate(given)
    assert {name for name in ("sagemaker", "batch") if getattr(settings, name)} == on


def test_a_backend_that_is_off_leaves_nothing_behind(preview):
    deployment = preview(training={"backend": "batch"}, **BATCH)
    assert not any(r.name.endswith("idle-gpu-sagemaker") for r in deployment.resources.values())
    assert not preview().of_type("ml-platform:infra:Batch")


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"backend": "ec2"}, "ml-platform:training.backend: input should be 'sagemaker', 'batch' or 'eks'"),
        ({"backend": "eks"}, "ml-platform:training.backend: eks needs a cluster; allowed without one are sagemaker"),
        ({"batch": {}, "backend": "sagemaker"}, "ml-platform:training.batch: its instances reach ECS, ECR and"),
        ({"sagemaker": {"instance_types": ["g6.xlarge"]}}, "sagemaker.instance_types.0: eu-west-1 has no g6 instances"),
        ({"sagemaker": {"instance_types": ["g6.xlarge"]}}, "allowed there instead of g6.xlarge: g4dn.12xlarge"),
        ({"sagemaker": {"instance_types": ["p5.48xlarge"]}}, "eu-west-1 has no p5 instances"),
        ({"sagemaker": {"instance_types": ["g5.huge"]}}, "sagemaker.instance_types.0: unknown instance type 'g5.huge'"),
        ({"sagemaker": {"instance_types": []}}, "sagemaker.instance_types: tuple should have at least 1 item"),
        ({"sagemaker": {"instance_types": ["m7i.large"] * 2}}, "each may stand there once"),
        ({"sagemaker": {"max_hours": 0}}, "sagemaker.max_hours: input should be greater than or equal to 1"),
        ({"sagemaker": {"teams": {}}}, "sagemaker.teams: Dictionary should have at least 1 item"),
        ({"sagemaker": {"teams": {"Vision": {}}}}, "sagemaker.teams.Vision"),
        ({"sagemaker": {"gpus": 4}}, "training.sagemaker: unknown key 'gpus'; allowed: instance_types"),
        ({"image_digest": "latest"}, "ml-platform:training.image_digest"),
        ({"idle_minutes": 7}, "ml-platform:training.idle_minutes: input should be a multiple of 5"),
    ],
)
def test_a_mistake_is_refused_before_anything_is_registered(preview, training, said):
    with pytest.raises(PlatformError) as caught:
        preview(training=training)
    assert "Pulumi.test.yaml is not valid:" in str(caught.value)
    assert said in str(caught.value)


def test_queues_smaller_than_one_instance_are_refused(preview):
    batch = {"instance_types": ["m7i.large", "g5.12xlarge"], "max_vcpus": 32}
    with pytest.raises(PlatformError, match=r"training\.batch\.max_vcpus: 32 is less than the 48 of one g5\.12xlarge"):
        preview(training={"batch": batch}, **BATCH)


def test_production_must_tell_somebody(preview):
    with pytest.raises(PlatformError, match=r"ml-platform:alerts\.emails: prod needs at least one"):
        preview(**PROD | {"alerts": {"emails": []}})


def test_a_model_of_a_team_without_a_quota_is_refused(preview, monkeypatch):
    real = manifests.load_manifest("digits")
    compute = real.compute.model_copy(update={"team": "vision"})
    monkeypatch.setattr(manifests, "load_manifest", lambda _: real.model_copy(update={"compute": compute}))
    # Another region, so that no earlier preview is taken for this one.
    with pytest.raises(PlatformError) as caught:
        preview("vision", region="eu-central-1")
    place = "Pulumi.vision.yaml: ml-platform:training.sagemaker.teams"
    assert f"{place}: there is no quota for the team 'vision'" in str(caught.value)
    assert "there are default" in str(caught.value)


def test_the_users_of_the_key_are_told_apart(build):
    (policy,) = build().of_type("aws:kms/keyPolicy:KeyPolicy")
    sids = [statement["Sid"] for statement in json.loads(policy.inputs["policy"])["Statement"]]
    assert sids == ["Account", "LogGroups", "Trails", "Alarms", "Prometheus"]
