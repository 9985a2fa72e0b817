"""MLflow on ECS: private, by HTTPS only, with no password, and nothing running without an image."""

import json

import pytest

from cli.preview import check
from contract.errors import PlatformError
from infra.settings.data import MlflowSettings
from tests.infra.conftest import MLFLOW_ON_ECS, PROD, only, statements


@pytest.fixture
def deployment(build):
    return build(network={"nat": "single"}, data=MLFLOW_ON_ECS)


def the(deployment, type_):
    (resource,) = [r for r in deployment.of_type(type_) if r.name.endswith("-mlflow")]
    return resource.inputs


def test_only_the_network_reaches_it_and_by_https_only(deployment):
    balancer = the(deployment, "aws:lb/loadBalancer:LoadBalancer")
    assert balancer["internal"] is True
    assert balancer["accessLogs"]["enabled"] is True
    listener = the(deployment, "aws:lb/listener:Listener")
    assert (listener["protocol"], listener["port"]) == ("HTTPS", 443)
    assert listener["certificateArn"] == MLFLOW_ON_ECS["mlflow"]["ecs"]["certificate_arn"]
    rules = deployment.of_type("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule")
    assert {r.inputs["cidrIpv4"]: r.inputs["fromPort"] for r in rules if "cidrIpv4" in r.inputs} == {"10.0.0.0/16": 443}
    assert deployment.outputs["tracking_uri"] == "https://mlflow.ml.example.com"
    assert the(deployment, "aws:route53/zone:Zone")["vpcs"] == [{"vpcId": "acme-test-vpc"}]


def test_the_database_takes_connections_of_the_server_alone(deployment):
    rules = deployment.of_type("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule")
    (rule,) = [r.inputs for r in rules if r.inputs["securityGroupId"] == "acme-test-database"]
    assert (rule["fromPort"], rule["referencedSecurityGroupId"]) == (5432, "acme-test-mlflow")


def test_it_logs_in_with_iam_and_writes_under_its_own_prefix(deployment):
    policy = statements(only(deployment, "aws:iam/rolePolicy:RolePolicy", "mlflow").inputs["policy"])
    granted = {action: s["Resource"] for s in policy for action in s["Action"]}
    assert granted["rds-db:connect"] == (
        "arn:aws:rds-db:eu-west-1:123456789012:dbuser:cluster-acme-test-database/mlflow"
    )
    assert granted["s3:PutObject"] == "arn:aws:s3:::acme-test-artifacts/mlflow/*"
    container = containers(deployment)
    assert "secrets" not in container
    names = {variable["name"] for variable in container["environment"]}
    assert not any("PASSWORD" in name for name in names)
    assert {"PGHOST", "PGUSER", "PGPASSFILE", "MLFLOW_BACKEND_STORE_URI"} <= names


def containers(deployment):
    (container,) = json.loads(the(deployment, "aws:ecs/taskDefinition:TaskDefinition")["containerDefinitions"])
    return container


def test_the_container_is_held_to_what_it_needs(deployment):
    container = containers(deployment)
    assert container["readonlyRootFilesystem"] is True
    assert container["user"] != "root"
    assert container["image"].endswith("@sha256:" + "b" * 64)
    service = the(deployment, "aws:ecs/service:Service")
    assert service["networkConfiguration"]["assignPublicIp"] is False
    assert service["deploymentCircuitBreaker"] == {"enable": True, "rollback": True}


@pytest.mark.parametrize("size", ["Small", "Medium", "Large"])
def test_every_size_is_one_that_fargate_has(build, size):
    task = the(
        build(network={"nat": "single"}, data=MLFLOW_ON_ECS | {"mlflow": MLFLOW_ON_ECS["mlflow"] | {"size": size}}),
        "aws:ecs/taskDefinition:TaskDefinition",
    )
    cpu, memory = int(task["cpu"]), int(task["memory"])
    # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html
    allowed = {1024: range(2048, 8193, 1024), 2048: range(4096, 16385, 1024), 4096: range(8192, 30721, 1024)}
    assert memory in allowed[cpu]


def test_without_an_image_there_is_a_repository_and_nothing_runs(build):
    ecs = {name: value for name, value in MLFLOW_ON_ECS["mlflow"]["ecs"].items() if name != "image_digest"}
    deployment = build(network={"nat": "single"}, data=MLFLOW_ON_ECS | {"mlflow": {"ecs": ecs}})
    assert only(deployment, "aws:ecr/repository:Repository", "mlflow")
    assert deployment.of_type("aws:ecs/service:Service") == []
    assert any("MLflow has no image" in message for message in deployment.messages)


def test_it_breaks_no_rule(foresee):
    assert check("prod", foresee(**PROD | {"data": MLFLOW_ON_ECS})).violations == ()


def test_it_needs_a_way_out_of_the_private_subnets(preview):
    with pytest.raises(PlatformError, match="could pull its image or write its logs"):
        preview(network={"nat": "none"}, data=MLFLOW_ON_ECS)
    preview(network={"endpoints": ["ecr", "logs"]}, data=MLFLOW_ON_ECS)


def test_production_protects_the_balancer(build):
    assert the(build(**PROD | {"data": MLFLOW_ON_ECS}), "aws:lb/loadBalancer:LoadBalancer")["enableDeletionProtection"]


def test_in_a_network_of_others_the_clients_must_be_named(preview):
    existing = {"existing": {"vpc_id": "vpc-1", "private_subnet_ids": ["subnet-1", "subnet-2"]}, "cidr": None}
    with pytest.raises(PlatformError, match="clients: name the ranges that may ask it"):
        preview(network=existing, data=MLFLOW_ON_ECS)
    ecs = MLFLOW_ON_ECS["mlflow"]["ecs"] | {"clients": ["10.9.0.0/16"]}
    deployment = preview(network=existing, data=MLFLOW_ON_ECS | {"mlflow": {"ecs": ecs}})
    rules = deployment.of_type("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule")
    assert [r.inputs["cidrIpv4"] for r in rules if "cidrIpv4" in r.inputs] == ["10.9.0.0/16"]


def test_the_settings_name_the_sizes():
    assert MlflowSettings().size == "Small"
