"""The endpoint: callers are authenticated, requests are logged and throttled, and the first up needs no image."""

import json

from contract.manifest import model_names
from contract.service import LiveVersions, ServiceSettings
from tests.infra.conftest import DIGEST, only

FUNCTION = "aws:lambda/function:Function"


def function(deployment):
    return only(deployment, FUNCTION, "inference-digits").inputs


def test_the_function_runs_the_image_by_its_digest(build):
    inputs = function(build(inference={"image_digest": DIGEST}))
    assert inputs["packageType"] == "Image"
    assert inputs["imageUri"] == f"123456789012.dkr.ecr.eu-west-1.amazonaws.com/acme-test-inference@{DIGEST}"
    assert inputs["architectures"] == ["arm64"]
    assert not {"runtime", "handler", "code"} & inputs.keys()


def test_the_function_is_configured_by_the_contract(build):
    deployment = build(inference={"image_digest": DIGEST, "max_rows": 9})
    settings = ServiceSettings.from_environment(function(deployment)["environment"]["variables"])
    assert settings.models == ("digits",)
    assert settings.max_rows == 9
    parameters = {parameter.inputs["name"] for parameter in deployment.of_type("aws:ssm/parameter:Parameter")}
    assert parameters == {settings.parameter(model) for model in model_names()}
    assert deployment.outputs["models"]["digits"]["live_parameter"] == settings.parameter("digits")


def test_without_an_image_a_placeholder_answers_503_and_the_program_says_so(build):
    deployment = build()
    inputs = function(deployment)
    assert "imageUri" not in inputs
    names: dict = {}
    exec(inputs["code"]["assets"]["index.py"]["text"], names)
    answer = names["handler"]({}, None)
    assert answer["statusCode"] == 503
    assert "image_digest" in json.loads(answer["body"])["error"]
    assert any(
        "answers 503 until ml-platform:inference.image_digest is set in Pulumi.test.yaml" in m
        for m in deployment.messages
    )


def test_a_digest_replaces_the_placeholder_under_the_same_name(build):
    before, after = build(), build(inference={"image_digest": DIGEST})
    assert function(before)["name"] == function(after)["name"]
    assert only(after, FUNCTION, "inference-digits").delete_before_replace


def test_which_versions_are_live_is_not_for_an_up_to_decide(build):
    for parameter in build().of_type("aws:ssm/parameter:Parameter"):
        assert parameter.ignore_changes == ("value", "description")
        assert LiveVersions.model_validate_json(parameter.inputs["value"].value).versions == ()


def test_every_route_authenticates_its_caller(build):
    routes = build().of_type("aws:apigatewayv2/route:Route")
    paths = [f"ANY /v2/models/{model}{rest}" for model in model_names() for rest in ("", "/{proxy+}")]
    assert sorted(route.inputs["routeKey"] for route in routes) == sorted(paths)
    assert all(route.inputs["authorizationType"] == "JWT" for route in routes)


def test_the_stage_throttles_and_logs(build):
    deployment = build(inference={"throttling": {"rate": 5, "burst": 7}})
    (stage,) = deployment.of_type("aws:apigatewayv2/stage:Stage")
    assert stage.inputs["defaultRouteSettings"] == {
        "throttlingRateLimit": 5,
        "throttlingBurstLimit": 7,
        "detailedMetricsEnabled": True,
    }
    assert json.loads(stage.inputs["accessLogSettings"]["format"])["status"] == "$context.status"


def test_logs_are_encrypted_and_do_not_stay_for_ever(build):
    groups = build().of_type("aws:cloudwatch/logGroup:LogGroup")
    models = {f"/acme/test/{kind}/{model}" for kind in ("capture", "inference") for model in model_names()}
    assert {group.inputs["name"] for group in groups} == {"/acme/test/api/inference", *models}
    for group in groups:
        assert group.inputs["retentionInDays"] == 14
        assert group.inputs["kmsKeyId"].startswith("arn:aws:kms:")


def test_log_groups_wait_until_the_key_lets_cloudwatch_use_it(build):
    deployment = build()
    (policy,) = deployment.of_type("aws:kms/keyPolicy:KeyPolicy")
    for group in deployment.of_type("aws:cloudwatch/logGroup:LogGroup"):
        assert policy.urn in group.dependencies


def test_only_this_api_may_call_the_function(build):
    permissions = build().of_type("aws:lambda/permission:Permission")
    assert all(permission.inputs["principal"] == "apigateway.amazonaws.com" for permission in permissions)
    arns = sorted(permission.inputs["sourceArn"] for permission in permissions)
    assert all(arn.startswith("arn:aws:execute-api:eu-west-1:123456789012:") for arn in arns)
    for arn, model in zip(arns, model_names(), strict=True):
        assert arn.endswith(f"/*/*/v2/models/{model}*")
