"""What training runs on is really created in the emulated AWS, and changed and deleted there."""

import json

import boto3
import pulumi_aws as aws
import pytest

from embedded.resources import ROWS
from tests.embedded.test_aws import Platform
from tests.infra.conftest import EVERYTHING_ON, _build

TYPES = (
    "aws:batch/computeEnvironment:ComputeEnvironment",
    "aws:batch/jobDefinition:JobDefinition",
    "aws:batch/jobQueue:JobQueue",
    "aws:batch/schedulingPolicy:SchedulingPolicy",
    "aws:cloudwatch/metricAlarm:MetricAlarm",
    "aws:ec2/launchTemplate:LaunchTemplate",
    "aws:iam/instanceProfile:InstanceProfile",
    "aws:sns/topic:Topic",
    "aws:sns/topicPolicy:TopicPolicy",
    "aws:sns/topicSubscription:TopicSubscription",
)


def test_no_type_of_training_is_recorded_only():
    assert set(TYPES) <= ROWS.keys()


def test_the_program_uses_each_of_them():
    used = {resource.type for resource in _build("prod", False, **EVERYTHING_ON).resources.values()}
    assert set(TYPES) <= used


@pytest.fixture
def platform(emulated_aws, tmp_path):
    return Platform(emulated_aws, tmp_path)


def program(image="repo/train@sha256:1", hop=2, threshold=5, email="a@example.com"):
    """One of each, as `infra` makes them."""

    def build():
        vpc = aws.ec2.Vpc("vpc", cidr_block="10.0.0.0/16")
        subnet = aws.ec2.Subnet("subnet", vpc_id=vpc.id, cidr_block="10.0.1.0/24")
        group = aws.ec2.SecurityGroup("group", vpc_id=vpc.id)
        role = aws.iam.Role("role", assume_role_policy=json.dumps({"Version": "2012-10-17", "Statement": []}))
        profile = aws.iam.InstanceProfile("profile", role=role.name)
        template = aws.ec2.LaunchTemplate(
            "template",
            metadata_options={"http_tokens": "required", "http_put_response_hop_limit": hop},
            tag_specifications=[{"resource_type": "instance", "tags": {"team": "a"}}],
        )
        environment = aws.batch.ComputeEnvironment(
            "environment",
            type="MANAGED",
            state="ENABLED",
            compute_resources={
                "type": "EC2",
                "min_vcpus": 0,
                "max_vcpus": 8,
                "instance_types": ["m7i.large"],
                "instance_role": profile.arn,
                "subnets": [subnet.id],
                "security_group_ids": [group.id],
                "launch_template": {"launch_template_id": template.id, "version": template.latest_version.apply(str)},
            },
        )
        policy = aws.batch.SchedulingPolicy(
            "policy", fair_share_policy={"share_distributions": [{"share_identifier": "a", "weight_factor": 0.5}]}
        )
        order = [{"order": 1, "compute_environment": environment.arn}]
        aws.batch.JobQueue(
            "queue",
            state="ENABLED",
            priority=1,
            scheduling_policy_arn=policy.arn,
            compute_environment_orders=order,
        )
        container = {"image": image, "resourceRequirements": [{"type": "VCPU", "value": "1"}]}
        aws.batch.JobDefinition(
            "job", name="job", type="container", container_properties=json.dumps(container | {"memory": 512})
        )
        topic = aws.sns.Topic("topic", name="topic", kms_master_key_id="alias/aws/sns")
        aws.sns.TopicPolicy("topic", arn=topic.arn, policy=json.dumps({"Version": "2012-10-17", "Statement": []}))
        aws.sns.TopicSubscription("mail", topic=topic.arn, protocol="email", endpoint=email)
        aws.cloudwatch.MetricAlarm(
            "alarm",
            name="alarm",
            comparison_operator="LessThanThreshold",
            evaluation_periods=6,
            threshold=threshold,
            metric_queries=[{"id": "q", "expression": "SELECT AVG(x) FROM y", "period": 300, "return_data": True}],
            alarm_actions=[topic.arn],
        )

    return build


def test_they_are_created_changed_and_deleted(platform):
    platform.up(program())
    assert not any(held.recorded_only or held.not_sent for held in platform.held.values())
    (environment,) = boto3.client("batch").describe_compute_environments()["computeEnvironments"]
    assert environment["computeResources"]["launchTemplate"]["version"] == "1"
    (template,) = boto3.client("ec2").describe_launch_templates()["LaunchTemplates"]
    assert template["LaunchTemplateId"] == environment["computeResources"]["launchTemplate"]["launchTemplateId"]
    (policy,) = boto3.client("batch").list_scheduling_policies()["schedulingPolicies"]
    (queue,) = boto3.client("batch").describe_job_queues()["jobQueues"]
    assert queue["schedulingPolicyArn"] == policy["arn"]
    (profile,) = boto3.client("iam").list_instance_profiles()["InstanceProfiles"]
    assert len(profile["Roles"]) == 1

    before = platform.held["template"].id
    changes = platform.up(program(image="repo/train@sha256:2", hop=1, threshold=10, email="b@example.com"))
    assert changes["update"] == 1  # the alarm, which is put
    assert changes["replace"] >= 3
    assert platform.held["template"].id != before
    (alarm,) = boto3.client("cloudwatch").describe_alarms()["MetricAlarms"]
    assert alarm["Threshold"] == 10
    definitions = boto3.client("batch").describe_job_definitions(status="ACTIVE")["jobDefinitions"]
    assert [each["containerProperties"]["image"] for each in definitions] == ["repo/train@sha256:2"]
    (queue,) = boto3.client("batch").describe_job_queues()["jobQueues"]
    (environment,) = boto3.client("batch").describe_compute_environments()["computeEnvironments"]
    assert queue["computeEnvironmentOrder"][0]["computeEnvironment"] == environment["computeEnvironmentArn"]

    platform.up(lambda: None)
    assert platform.held == {}
    assert boto3.client("batch").describe_job_queues()["jobQueues"] == []
    assert boto3.client("batch").describe_compute_environments()["computeEnvironments"] == []
    assert boto3.client("sns").list_topics()["Topics"] == []
    assert boto3.client("iam").list_instance_profiles()["InstanceProfiles"] == []
