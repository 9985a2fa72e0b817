"""What a model runs on: private, by digest, rolled back on alarm, and nothing of it needs an image to come up."""

import json

import pytest

from cli.cost import resources
from cli.preview import check
from contract.errors import PlatformError
from contract.service import ServiceSettings
from infra.pricing import Load, monthly, read_prices
from tests.infra.conftest import DIGEST, PROD, only, statements

BALANCER = {"name": "inference.ml.example.com", "certificate_arn": "arn:aws:acm:eu-west-1:123456789012:certificate/2"}
INFERENCE = {"image_digest": DIGEST, "balancer": BALANCER}
NAT = {"nat": "single"}
ECS = {"runtime": "ecs", "cpu": 1024, "memory_mb": 2048, "min_tasks": 2, "max_tasks": 6}
SAGEMAKER = {"runtime": "sagemaker", "max_instances": 3}
GPU = {"runtime": "ecs", "gpus": 1, "instance_type": "g5.xlarge", "memory_mb": 8192}
X86 = {"inference": INFERENCE | {"architecture": "x86_64"}}


def variants(**weights):
    """An endpoint with instances of two sizes."""
    types = dict(zip(weights, ("ml.c7g.large", "ml.c7g.xlarge"), strict=True))
    return {
        "runtime": "sagemaker",
        "variants": {name: {"instance_type": types[name], "weight": weight} for name, weight in weights.items()},
    }


RUNTIMES: dict = {"lambda": {"runtime": "lambda"}, "ecs": ECS, "gpu": GPU, "sagemaker": SAGEMAKER}
SERVICE, TASK = "aws:ecs/service:Service", "aws:ecs/taskDefinition:TaskDefinition"


def container(task):
    (only_one,) = json.loads(task["containerDefinitions"])
    return only_one


def inputs(deployment, type_, name="inference-digits"):
    return only(deployment, type_, name).inputs


@pytest.mark.parametrize("serving", RUNTIMES.values(), ids=RUNTIMES)
def test_every_runtime_keeps_the_rules_in_production(foresee, serving):
    settings = PROD | {"inference": INFERENCE | {"architecture": "x86_64"}}
    assert check("prod", foresee(serving=serving, **settings)).violations == ()


def test_a_latency_that_the_service_does_not_count_is_refused_where_an_alert_goes_by_it(preview):
    slow = {"serving": ECS | {"latency_ms": 10_001}, "network": NAT, "inference": INFERENCE}
    assert preview(**slow).outputs
    with pytest.raises(PlatformError, match=r"digits/model.yaml: serving.latency_ms is 10001, .*are 1 to 10000"):
        preview(**slow, observability={"prometheus": True})


@pytest.mark.parametrize("serving", RUNTIMES.values(), ids=RUNTIMES)
def test_every_runtime_has_a_price(foresee, serving):
    domain = BALANCER | {"name": "api.ml.example.com"}
    settings = PROD | {"inference": INFERENCE | {"architecture": "x86_64", "domain": domain}}
    prices = read_prices().prices
    found, unpriced = monthly(resources(foresee(serving=serving, **settings)), Load(), prices)
    assert unpriced == set()
    (idle,) = [each.idle for each in found if each.component == "inference"]
    runs = {
        "lambda": 0,
        "ecs": 2 * 730 * (prices["fargate_x86_vcpu_hour"] + 2 * prices["fargate_x86_gb_hour"]),
        "g5.xlarge": 730 * prices["ec2_g5.xlarge_hour"],
        "sagemaker": 730 * 2 * prices["ec2_c7i_vcpu_hour"] * 1.2,
    }[serving.get("instance_type") or serving["runtime"]]
    assert runs <= idle < runs + 40  # a load balancer, alarms, a disk


def test_an_instance_without_a_price_is_named(foresee):
    settings = {"network": NAT, "inference": INFERENCE | {"architecture": "x86_64"}}
    deployment = foresee(serving=SAGEMAKER | {"instance_type": "ml.m5.large"}, **settings)
    _, unpriced = monthly(resources(deployment), Load(), read_prices().prices)
    assert unpriced == {"aws:sagemaker/endpointConfiguration:EndpointConfiguration"}


@pytest.mark.parametrize("serving", RUNTIMES.values(), ids=RUNTIMES)
def test_every_runtime_previews_with_nothing_known(preview, serving):
    assert preview(serving=serving, network=NAT, inference=INFERENCE | {"architecture": "x86_64"}).outputs


@pytest.mark.parametrize(("serving", "runs"), [(ECS, SERVICE), (SAGEMAKER, "aws:sagemaker/endpoint:Endpoint")])
def test_without_an_image_nothing_runs_and_the_program_says_so(build, serving, runs):
    deployment = build(serving=serving, network=NAT, inference={"balancer": BALANCER})
    assert deployment.of_type(runs) == []
    assert any("has no image" in message for message in deployment.messages)
    assert build(serving=serving, network=NAT, inference=INFERENCE).of_type(runs)


@pytest.mark.parametrize("serving", RUNTIMES.values(), ids=RUNTIMES)
def test_every_runtime_gives_the_service_the_same_settings(build, serving):
    deployment = build(serving=serving, network=NAT, inference=INFERENCE | {"architecture": "x86_64"})
    for type_, read in {
        "aws:lambda/function:Function": lambda given: given["environment"]["variables"],
        TASK: lambda given: {v["name"]: v["value"] for v in container(given)["environment"]},
        "aws:sagemaker/model:Model": lambda given: given["primaryContainer"]["environment"],
    }.items():
        for resource in deployment.of_type(type_):
            settings = ServiceSettings.from_environment(read(resource.inputs))
            assert settings.models == ("digits",)
            assert settings.capture_stream == "acme-test-predictions-digits"
            assert settings.feedback_stream == "acme-test-feedback-digits"
            assert settings.metrics_namespace == "acme/test/inference"
            return
    pytest.fail("nothing serves")


def test_lambda_publishes_versions_and_leaves_the_alias_to_codedeploy(build):
    serving = {"runtime": "lambda", "provisioned": 2, "reserved": 10, "canary": {"percent": 20, "minutes": 7}}
    deployment = build(serving=serving, inference=INFERENCE)
    function = inputs(deployment, "aws:lambda/function:Function")
    assert (function["publish"], function["reservedConcurrentExecutions"]) == (True, 10)
    alias = only(deployment, "aws:lambda/alias:Alias", "inference-digits")
    assert set(alias.ignore_changes) == {"functionVersion", "routingConfig"}
    group = inputs(deployment, "aws:codedeploy/deploymentGroup:DeploymentGroup")
    assert group["alarmConfiguration"]["alarms"] == ["acme-test-digits-errors", "acme-test-digits-latency"]
    assert "DEPLOYMENT_STOP_ON_ALARM" in group["autoRollbackConfiguration"]["events"]
    config = inputs(deployment, "aws:codedeploy/deploymentConfig:DeploymentConfig")
    assert config["trafficRoutingConfig"]["timeBasedCanary"] == {"interval": 7, "percentage": 20}
    provisioned = inputs(deployment, "aws:lambda/provisionedConcurrencyConfig:ProvisionedConcurrencyConfig")
    assert provisioned["provisionedConcurrentExecutions"] == 2


def test_the_service_gives_up_before_lambda_ends_it(build):
    for seconds in (2, 29):
        function = inputs(build(serving={"runtime": "lambda", "timeout_s": seconds}), "aws:lambda/function:Function")
        settings = ServiceSettings.from_environment(function["environment"]["variables"])
        assert seconds * 800 < settings.deadline_ms < function["timeout"] * 1000


def test_ecs_runs_in_private_and_takes_on_an_image_by_a_canary(build):
    deployment = build(serving=ECS, network=NAT, inference=INFERENCE)
    service, task = inputs(deployment, SERVICE), inputs(deployment, TASK)
    assert (task["cpu"], task["memory"], task["requiresCompatibilities"]) == ("1024", "2048", ["FARGATE"])
    assert container(task)["image"].endswith(f"@{DIGEST}")
    assert container(task)["readonlyRootFilesystem"] is True
    assert container(task)["user"] == "10001"
    assert service["networkConfiguration"]["assignPublicIp"] is False
    assert service["deploymentConfiguration"]["strategy"] == "CANARY"
    assert service["alarms"] == {
        "enable": True,
        "rollback": True,
        "alarmNames": ["acme-test-digits-errors", "acme-test-digits-latency"],
    }
    assert service["deploymentCircuitBreaker"] == {"enable": True, "rollback": True}
    balancer = inputs(deployment, "aws:lb/loadBalancer:LoadBalancer", "inference")
    assert balancer["internal"] is True
    integration = inputs(deployment, "aws:apigatewayv2/integration:Integration")
    assert integration["connectionType"] == "VPC_LINK"
    assert integration["tlsConfig"] == {"serverNameToVerify": BALANCER["name"]}


def test_tasks_are_reached_by_the_balancer_alone_and_the_balancer_by_the_link(build):
    deployment = build(serving=ECS, network=NAT, inference=INFERENCE)
    rules = deployment.of_type("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule")
    assert {
        (r.inputs["securityGroupId"], r.inputs["referencedSecurityGroupId"], r.inputs["toPort"]) for r in rules
    } == {
        ("acme-test-inference-digits", "acme-test-balancer", 8080),
        ("acme-test-balancer", "acme-test-link", 443),
    }


def test_ecs_scales_with_requests_and_cpu(build):
    deployment = build(serving=ECS | {"requests_per_task": 500, "cpu_percent": 40}, network=NAT, inference=INFERENCE)
    target = inputs(deployment, "aws:appautoscaling/target:Target")
    assert (target["minCapacity"], target["maxCapacity"]) == (2, 6)
    policies = deployment.of_type("aws:appautoscaling/policy:Policy")
    values = {p.inputs["targetTrackingScalingPolicyConfiguration"]["targetValue"] for p in policies}
    assert values == {500, 40}


def test_a_share_of_the_tasks_may_run_on_spare_capacity(build):
    deployment = build(serving=ECS | {"spot_percent": 70}, network=NAT, inference=INFERENCE)
    shares = inputs(deployment, SERVICE)["capacityProviderStrategies"]
    assert {s["capacityProvider"]: s["weight"] for s in shares} == {"FARGATE": 30, "FARGATE_SPOT": 70}
    assert shares[0]["base"] == 1


def test_gpu_instances_come_and_go_with_the_tasks(build):
    deployment = build(serving=GPU, network=NAT, inference=INFERENCE | {"architecture": "x86_64"})
    group = inputs(deployment, "aws:autoscaling/group:Group")
    assert group["minSize"] == 0
    template = inputs(deployment, "aws:ec2/launchTemplate:LaunchTemplate")
    assert template["metadataOptions"]["httpTokens"] == "required"
    assert {each["resourceType"] for each in template["tagSpecifications"]} == {"instance", "volume"}
    assert container(inputs(deployment, TASK))["resourceRequirements"] == [{"type": "GPU", "value": "1"}]
    provider = inputs(deployment, "aws:ecs/capacityProvider:CapacityProvider")["autoScalingGroupProvider"]
    assert provider["managedScaling"]["status"] == "ENABLED"


def test_sagemaker_is_private_encrypted_captured_and_rolled_back(build):
    deployment = build(serving=SAGEMAKER, network=NAT, inference=INFERENCE)
    assert inputs(deployment, "aws:sagemaker/model:Model")["vpcConfig"]["subnets"]
    config = inputs(deployment, "aws:sagemaker/endpointConfiguration:EndpointConfiguration")
    assert config["kmsKeyArn"].startswith("arn:aws:kms:")
    assert config["dataCaptureConfig"]["destinationS3Uri"] == "s3://acme-test-curated/endpoint-captures/digits"
    endpoint = inputs(deployment, "aws:sagemaker/endpoint:Endpoint")["deploymentConfig"]
    assert endpoint["autoRollbackConfiguration"]["alarms"] == [
        {"alarmName": "acme-test-digits-errors"},
        {"alarmName": "acme-test-digits-latency"},
    ]
    assert endpoint["blueGreenUpdatePolicy"]["trafficRoutingConfiguration"]["type"] == "CANARY"
    assert not deployment.of_type("aws:apigatewayv2/route:Route")


@pytest.mark.parametrize(("architecture", "type_"), [("arm64", "ml.c7g.large"), ("x86_64", "ml.c7i.large")])
def test_an_endpoint_runs_on_what_the_image_is_for(build, architecture, type_):
    deployment = build(serving=SAGEMAKER, network=NAT, inference=INFERENCE | {"architecture": architecture})
    config = inputs(deployment, "aws:sagemaker/endpointConfiguration:EndpointConfiguration")
    (variant,) = config["productionVariants"]
    assert (variant["variantName"], variant["instanceType"], variant["initialVariantWeight"]) == ("all", type_, 100)


@pytest.mark.parametrize(("type_", "key"), [("ml.c7i.large", True), ("ml.g5.xlarge", False), ("ml.m5d.large", False)])
def test_an_endpoint_has_a_key_unless_its_disks_are_its_own(foresee, type_, key):
    """SageMaker refuses one for those, which the hardware encrypts."""
    settings = PROD | {"inference": INFERENCE | {"architecture": "x86_64"}}
    deployment = foresee("prod", serving=SAGEMAKER | {"instance_type": type_}, **settings)
    (config,) = deployment.of_type("aws:sagemaker/endpointConfiguration:EndpointConfiguration")
    assert bool(config.inputs.get("kmsKeyArn")) is key
    assert config.inputs["dataCaptureConfig"]["kmsKeyId"]
    assert check("prod", deployment).violations == ()


def test_variants_share_the_requests_and_each_is_scaled_and_watched(build):
    deployment = build(serving=variants(small=90, large=10), network=NAT, inference=INFERENCE)
    config = inputs(deployment, "aws:sagemaker/endpointConfiguration:EndpointConfiguration")
    assert {v["variantName"]: (v["instanceType"], v["initialVariantWeight"]) for v in config["productionVariants"]} == {
        "small": ("ml.c7g.large", 90),
        "large": ("ml.c7g.xlarge", 10),
    }
    targets = {t.inputs["resourceId"] for t in deployment.of_type("aws:appautoscaling/target:Target")}
    endpoint = "endpoint/acme-test-inference-digits/variant"
    assert targets == {f"{endpoint}/small", f"{endpoint}/large"}
    assert len(deployment.of_type("aws:appautoscaling/policy:Policy")) == 2
    alarm = only(deployment, "aws:cloudwatch/metricAlarm:MetricAlarm", "digits-errors").inputs
    watched = {q["metric"]["dimensions"]["VariantName"] for q in alarm["metricQueries"] if "metric" in q}
    assert watched == {"small", "large"}


@pytest.mark.parametrize("serving", RUNTIMES.values(), ids=RUNTIMES)
def test_the_role_of_a_model_reads_its_own_artifacts_only(build, serving):
    deployment = build(serving=serving, network=NAT, inference=INFERENCE | {"architecture": "x86_64"})
    policy = statements(only(deployment, "aws:iam/rolePolicy:RolePolicy", "inference-digits").inputs["policy"])
    reads = [s["Resource"] for s in policy if "s3:GetObject" in s["Action"]]
    assert reads == ["arn:aws:s3:::acme-test-artifacts/digits/*"]
    role = only(deployment, "aws:iam/role:Role", "inference-digits").inputs["assumeRolePolicy"]
    service = {"lambda": "lambda", "ecs": "ecs-tasks", "sagemaker": "sagemaker"}[serving["runtime"]]
    assert statements(role)[0]["Principal"] == {"Service": f"{service}.amazonaws.com"}


@pytest.mark.parametrize(
    ("serving", "settings", "said"),
    [
        (ECS | {"cpu": 300}, {}, "serving: Fargate has no 300 CPU units; it has 256, 512, 1024"),
        (ECS | {"memory_mb": 1000}, {}, "with 1024 CPU units Fargate has no 1000 MiB of memory; it has 2048, 3072"),
        (ECS | {"min_tasks": 9}, {}, "serving: min_tasks 9 is more than max_tasks 6"),
        ({"runtime": "lambda", "memory_mb": 64}, {}, "serving.memory_mb: input should be greater than or equal to 512"),
        ({"runtime": "lambda", "timeout_s": 60}, {}, "serving.timeout_s: input should be less than or equal to 29"),
        ({"runtime": "lambda", "provisioned": 9, "reserved": 3}, {}, "provisioned 9 is more than the reserved 3"),
        ({"runtime": "lambda", "gpus": 1}, {}, "unknown key 'gpus'"),
        ({"runtime": "batch"}, {}, "serving: runtime must be one of lambda, ecs, sagemaker, but it is 'batch'"),
        (ECS | {"gpus": 1}, {}, "gpus and instance_type go together: Fargate has no GPUs"),
        (GPU, {"inference": INFERENCE | {"architecture": "arm64"}}, "GPU instances are x86_64, but"),
        (ECS, {"inference": {"image_digest": DIGEST}}, "runtime is ecs, which needs Pulumi.test.yaml: ml-platform:inf"),
        (ECS, {"network": {"nat": "none"}}, "runtime is ecs, which needs a way to AWS from the private subnets"),
        (SAGEMAKER, {"network": {"nat": "none"}}, "runtime is sagemaker, which needs a way to AWS"),
        (
            ECS | {"max_tasks": 200},
            {"network": {"nat": "single", "cidr": "10.0.0.0/20", "zones": ["a", "b"]}},
            "can take 400 addresses, but the private subnets of 10.0.0.0/20 have room for 253",
        ),
        (GPU | {"instance_type": "g6.xlarge"}, X86, "serving.instance_type: eu-west-1 has no g6 instances; allowed"),
        (GPU | {"instance_type": "g5.huge"}, X86, "serving.instance_type: unknown instance type 'g5.huge'; allowed in"),
        (GPU | {"gpus": 4}, X86, "serving.gpus is 4, but one g5.xlarge has 1; allowed are 1 to 1"),
        (GPU | {"memory_mb": 16384}, X86, "serving.memory_mb is 16384, but a task on one g5.xlarge can have 14745"),
        (GPU | {"cpu": 1024}, X86, "cpu is for Fargate; tasks on GPU instances share"),
        (
            SAGEMAKER | {"instance_type": "ml.c7i.huge"},
            X86,
            "serving.instance_type: SageMaker serves on no ml.c7i.huge; allowed are ml.c7i.large",
        ),
        (SAGEMAKER | {"instance_type": "ml.inf2.xlarge"}, X86, "ml.inf2.xlarge accelerates in a way that the service"),
        (SAGEMAKER | {"instance_type": "ml.p3.2xlarge"}, X86, "allowed with GPUs in eu-west-1 are ml.g4dn.xlarge, ml."),
        (SAGEMAKER | {"instance_type": "ml.t2.medium"}, X86, "ml.t2.medium is burstable, which SageMaker does not"),
        (SAGEMAKER | {"instance_type": "ml.p5.48xlarge"}, X86, "serving.instance_type: eu-west-1 has no p5 instances"),
        (
            SAGEMAKER | {"instance_type": "ml.c7i.large"},
            {},
            "serving.instance_type: ml.c7i.large is x86_64, but the image is arm64 (inference.architecture); allowed",
        ),
        (SAGEMAKER | {"instance_type": "ml.m6g.large"}, X86, "ml.m6g.large is arm64, but the image is x86_64"),
        (variants(small=90, large=20), {}, "must add up to 100, but they are 110: large 20, small 90"),
        (variants(small=90, large=10), X86, "serving.variants.small.instance_type: ml.c7g.large is arm64"),
        (variants(small=90, large=10) | {"instance_type": "ml.c7g.large"}, {}, "variants exclude one another"),
        (
            {
                "runtime": "sagemaker",
                "variants": {
                    "cpu": {"instance_type": "ml.c7i.large", "weight": 50},
                    "gpu": {"instance_type": "ml.g5.xlarge", "weight": 50},
                },
            },
            X86,
            "serving.variants: gpu have disks of their own, for which SageMaker refuses a key",
        ),
        (variants(small=90, large=-10), {}, "variants.large.weight: input should be greater than or equal to 0"),
        (
            {"runtime": "lambda", "timeout_s": 5, "latency_ms": 6000},
            {},
            "latency_ms 6000 is more than the 5000 of timeout_s",
        ),
        (ECS | {"spot_percent": 100}, PROD, "in prod some tasks must be on demand; allowed are 0 to 99"),
    ],
)
def test_what_could_not_run_is_refused_before_anything_is_registered(preview, serving, settings, said):
    with pytest.raises(PlatformError) as caught:
        preview(serving=serving, **{"network": NAT, "inference": INFERENCE} | settings)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("serving", "settings", "size", "said"),
    [
        ({"runtime": "lambda", "memory_mb": 1024}, {}, 200, "memory_mb is 1024, but a model of 200 MB"),
        (ECS, {}, 300, "memory_mb is 2048, but a model of 300 MB (gates.size_mb.max) needs 2600"),
        (SAGEMAKER, {}, 600, "instance_type: one ml.c7g.large has 4096 MB of memory"),
        (
            SAGEMAKER | {"instance_type": "ml.g5.xlarge"},
            X86,
            3000,
            "instance_type: one ml.g5.xlarge has 16384 MB of memory",
        ),
        (variants(small=50, large=50), {}, 600, "instance_type: one ml.c7g.large has 4096 MB of memory"),
    ],
)
def test_a_runtime_that_cannot_take_the_models_size_is_refused(preview, serving, settings, size, said):
    given = {"serving": serving, "network": NAT, "inference": INFERENCE} | settings
    with pytest.raises(PlatformError) as caught:
        preview(gates={"accuracy": {"min": 0.9}, "size_mb": {"max": size}}, **given)
    assert f"training/models/digits/model.yaml: serving.{said}" in str(caught.value)
    assert "allowed there are up to" in str(caught.value)
    assert preview(gates={"accuracy": {"min": 0.9}, "size_mb": {"max": 100}}, **given).outputs


def test_a_task_has_its_collector_where_metrics_are_collected(build):
    collected = build(serving=ECS, network=NAT, inference=INFERENCE, observability={"prometheus": True})
    (task,) = collected.of_type("aws:ecs/taskDefinition:TaskDefinition")
    service, collector = json.loads(task.inputs["containerDefinitions"])
    assert (service["essential"], collector["essential"]) == (True, False)
    (port,) = service["portMappings"]
    assert f"127.0.0.1:{port['containerPort']}" in collector["environment"][0]["value"]
    (policy,) = [p for p in collected.of_type("aws:iam/rolePolicy:RolePolicy") if p.name.endswith("digits-metrics")]
    (statement,) = statements(policy.inputs["policy"])
    assert statement["Action"] == ["aps:RemoteWrite"]
    assert check("dev", collected).violations == ()
    (plain,) = build(serving=ECS, network=NAT, inference=INFERENCE).of_type("aws:ecs/taskDefinition:TaskDefinition")
    assert len(json.loads(plain.inputs["containerDefinitions"])) == 1
