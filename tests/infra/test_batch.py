"""Batch: private, encrypted, least privilege, shared fairly, and gone while nobody trains."""

import base64
import email
import json

import pytest

from tests.infra.conftest import DIGEST, EVERYTHING_ON, as_list, only, statements

ENVIRONMENT = "aws:batch/computeEnvironment:ComputeEnvironment"
QUEUE = "aws:batch/jobQueue:JobQueue"
TEMPLATE = "aws:ec2/launchTemplate:LaunchTemplate"
DEFINITION = "aws:batch/jobDefinition:JobDefinition"


@pytest.fixture
def deployment(build):
    return build("prod", **EVERYTHING_ON)


def test_it_scales_to_zero_in_private_subnets(deployment):
    environments = deployment.of_type(ENVIRONMENT)
    assert len(environments) == 4
    for environment in environments:
        resources = environment.inputs["computeResources"]
        assert resources["minVcpus"] == 0
        assert "desiredVcpus" not in resources  # Batch's own to change
        assert all(subnet.startswith("acme-prod-private-") for subnet in resources["subnets"])
        assert resources["securityGroupIds"] == ["acme-prod-training"]


def test_it_can_be_replaced_and_updated_while_in_use(deployment):
    for resource in (*deployment.of_type(ENVIRONMENT), *deployment.of_type(QUEUE)):
        assert "name" not in resource.inputs  # Pulumi adds a suffix, and makes the new one before it deletes the old
        assert not resource.delete_before_replace
    for environment in deployment.of_type(ENVIRONMENT):
        assert "serviceRole" not in environment.inputs  # or Batch replaces instances rather than to update them
        assert environment.inputs["updatePolicy"]["terminateJobsOnUpdate"] is False


def test_instance_types_go_to_the_queue_of_their_kind(deployment):
    types = {
        name: only(deployment, ENVIRONMENT, name).inputs["computeResources"]["instanceTypes"]
        for name in ("cpu", "cpu-spot", "gpu", "gpu-spot")
    }
    assert types["cpu"] == types["cpu-spot"] == ["m7i.large"]
    assert types["gpu"] == types["gpu-spot"] == ["g5.xlarge", "g5.12xlarge"]


def test_spot_falls_back_to_instances_on_demand(deployment):
    orders = {
        name: [order["computeEnvironment"].rpartition(":")[2] for order in orders_of(deployment, name)]
        for name in ("training-gpu", "training-gpu-spot")
    }
    assert orders["training-gpu"] == ["acme-prod-gpu"]
    assert orders["training-gpu-spot"] == ["acme-prod-gpu-spot", "acme-prod-gpu"]
    spot = only(deployment, ENVIRONMENT, "gpu-spot").inputs["computeResources"]
    assert (spot["type"], spot["allocationStrategy"]) == ("SPOT", "SPOT_PRICE_CAPACITY_OPTIMIZED")


def orders_of(deployment, name):
    return sorted(only(deployment, QUEUE, name).inputs["computeEnvironmentOrders"], key=lambda order: order["order"])


def test_without_spot_and_gpus_there_is_one_queue(build):
    batch = {"instance_types": ["m7i.large"], "spot": False}
    deployment = build(training={"batch": batch}, network={"nat": "single"})
    assert [queue.name for queue in deployment.of_type(QUEUE)] == ["acme-test-training-cpu"]
    assert not any(r.name.endswith("idle-gpu-batch") for r in deployment.resources.values())


def test_teams_share_by_their_weight(build):
    batch = {"teams": {"vision": {"share": 4}, "default": {}}}
    deployment = build(training={"backend": "batch", "batch": batch}, network={"nat": "single"})
    policy = only(deployment, "aws:batch/schedulingPolicy:SchedulingPolicy", "teams")
    distributions = policy.inputs["fairSharePolicy"]["shareDistributions"]
    assert {each["shareIdentifier"]: each["weightFactor"] for each in distributions} == {"vision": 0.25, "default": 1}
    for queue in deployment.of_type(QUEUE):
        assert queue.inputs["schedulingPolicyArn"] == policy.outputs["arn"]


def test_a_job_that_can_never_run_does_not_block_its_queue(deployment):
    for queue in deployment.of_type(QUEUE):
        for action in queue.inputs["jobStateTimeLimitActions"]:
            assert (action["state"], action["action"]) == ("RUNNABLE", "CANCEL")
            assert action["reason"].startswith("MISCONFIGURATION:")


def test_instances_are_hardened_encrypted_and_tagged(deployment):
    for template in deployment.of_type(TEMPLATE):
        inputs = template.inputs
        assert inputs["metadataOptions"]["httpTokens"] == "required"
        assert inputs["blockDeviceMappings"][0]["ebs"]["encrypted"] == "true"
        tagged = {each["resourceType"]: each["tags"] for each in inputs["tagSpecifications"]}
        assert tagged.keys() == {"instance", "volume"}
        for tags in tagged.values():
            assert tags.items() >= {"Project": "acme", "Environment": "prod", "ManagedBy": "pulumi"}.items()


def test_gpu_instances_measure_their_gpus(deployment):
    user_data = base64.b64decode(only(deployment, TEMPLATE, "training-gpu").inputs["userData"]).decode()
    message = email.message_from_string(user_data)
    assert message.is_multipart()  # or Batch cannot add its own part
    (script,) = message.get_payload()
    assert script.get_content_type() == "text/x-shellscript"
    text = script.get_payload()
    assert text.startswith("#!/bin/bash\n")
    config = json.loads(text.partition("<<'EOF'\n")[2].partition("\nEOF")[0])["metrics"]
    assert config["namespace"] == "acme/prod/gpu"  # what the alarm asks for, and the role may write
    assert config["aggregation_dimensions"] == [["InstanceId"]]
    assert config["metrics_collected"]["nvidia_gpu"]["measurement"] == ["utilization_gpu"]
    assert not only(deployment, TEMPLATE, "training-cpu").inputs.get("userData")


def test_the_instances_write_their_own_logs_and_metrics_only(deployment):
    (policy,) = [p for p in deployment.of_type("aws:iam/rolePolicy:RolePolicy") if p.name == "acme-prod-batch-instance"]
    for statement in statements(policy.inputs["policy"]):
        if "logs:PutLogEvents" in statement["Action"]:
            assert statement["Resource"].endswith(":log-group:/acme/prod/training/batch:*")
        if "cloudwatch:PutMetricData" in statement["Action"]:
            assert statement["Condition"] == {"StringEquals": {"cloudwatch:namespace": "acme/prod/gpu"}}
        assert not any(action.startswith("s3:") for action in as_list(statement["Action"]))


def test_jobs_run_the_image_by_its_digest_with_a_role_of_their_own(deployment):
    single = only(deployment, DEFINITION, "training").inputs
    container = json.loads(single["containerProperties"])
    assert container["image"].endswith(f"@{DIGEST}")
    assert container["jobRoleArn"].endswith(":role/acme-prod-batch-job")
    assert container["logConfiguration"]["options"]["awslogs-group"] == "/acme/prod/training/batch"
    several = json.loads(only(deployment, DEFINITION, "training-nodes").inputs["nodeProperties"])
    (nodes,) = several["nodeRangeProperties"]
    assert nodes["targetNodes"] == "0:"  # or a job could not say how many it takes
    assert nodes["container"] == container


def test_an_instance_that_is_taken_away_does_not_fail_a_job(deployment):
    for definition in deployment.of_type(DEFINITION):
        first, last = definition.inputs["retryStrategy"]["evaluateOnExits"]
        assert (first["onStatusReason"], first["action"]) == ("Host EC2*", "RETRY")
        assert last["action"] == "EXIT"
        assert definition.inputs["timeout"]["attemptDurationSeconds"] == 24 * 3600
