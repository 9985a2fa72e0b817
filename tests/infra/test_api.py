"""The API: who gets in, how often, and under which name."""

import pytest

from contract.errors import PlatformError
from infra.api import SCOPE

AUTHORIZER = "aws:apigatewayv2/authorizer:Authorizer"
ROUTE, STAGE = "aws:apigatewayv2/route:Route", "aws:apigatewayv2/stage:Stage"
DOMAIN = {"name": "models.ml.example.com", "certificate_arn": "arn:aws:acm:eu-west-1:123456789012:certificate/1"}


def test_by_default_a_token_of_the_environments_own_pool_opens_it(build):
    deployment = build()
    (authorizer,) = deployment.of_type(AUTHORIZER)
    (pool,) = deployment.of_type("aws:cognito/userPool:UserPool")
    (client,) = deployment.of_type("aws:cognito/userPoolClient:UserPoolClient")
    assert authorizer.inputs["authorizerType"] == "JWT"
    assert authorizer.inputs["jwtConfiguration"] == {
        "issuer": f"https://cognito-idp.eu-west-1.amazonaws.com/{pool.id}",
        "audiences": [client.id],
    }
    assert client.inputs["allowedOauthFlows"] == ["client_credentials"]
    assert "clientSecret" in client.secret_outputs
    for route in deployment.of_type(ROUTE):
        assert route.inputs["authorizationType"] == "JWT"
        assert route.inputs["authorizationScopes"] == [f"acme-test-inference/{SCOPE}"]


def test_any_issuer_will_do(build):
    oidc = {"issuer": "https://login.example.com/tenant", "audience": ["ml"]}
    deployment = build(inference={"auth": "oidc", "oidc": oidc})
    (authorizer,) = deployment.of_type(AUTHORIZER)
    assert authorizer.inputs["jwtConfiguration"] == {"issuer": oidc["issuer"], "audiences": ["ml"]}
    assert not deployment.of_type("aws:cognito/userPool:UserPool")


def test_iam_needs_no_authorizer(build):
    deployment = build(inference={"auth": "iam"})
    assert not deployment.of_type(AUTHORIZER)
    assert {route.inputs["authorizationType"] for route in deployment.of_type(ROUTE)} == {"AWS_IAM"}


def test_a_model_may_have_limits_of_its_own(build):
    deployment = build(inference={"per_model": {"digits": {"rate": 3, "burst": 4}}})
    (stage,) = deployment.of_type(STAGE)
    routes = deployment.of_type(ROUTE)
    assert {s["routeKey"]: s["throttlingRateLimit"] for s in stage.inputs["routeSettings"]} == {
        route.inputs["routeKey"]: 3 for route in routes if "/digits" in route.inputs["routeKey"]
    }
    assert all(route.urn in stage.dependencies for route in routes)  # AWS refuses limits of a route that is not there


def test_with_a_domain_aws_s_own_name_is_switched_off(build):
    deployment = build(inference={"domain": DOMAIN})
    (api,) = deployment.of_type("aws:apigatewayv2/api:Api")
    assert api.inputs["disableExecuteApiEndpoint"] is True
    (name,) = deployment.of_type("aws:apigatewayv2/domainName:DomainName")
    assert name.inputs["domainNameConfiguration"]["securityPolicy"] == "TLS_1_2"
    assert deployment.outputs["models"]["digits"]["endpoint"] == "https://models.ml.example.com/v2/models/digits"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"auth": "oidc"}, "auth: oidc and the section oidc (issuer, audience) go together"),
        ({"auth": "basic"}, "ml-platform:inference.auth: input should be 'cognito', 'oidc' or 'iam'"),
        ({"oidc": {"issuer": "http://x", "audience": ["a"]}, "auth": "oidc"}, "ml-platform:inference.oidc.issuer"),
        ({"per_model": {"cats": {"rate": 1}}}, "ml-platform:inference.per_model names cats; the models are"),
        (
            {"domain": DOMAIN | {"certificate_arn": DOMAIN["certificate_arn"].replace("eu-west-1", "us-east-1")}},
            "ml-platform:inference.domain.certificate_arn is in us-east-1; it must be in eu-west-1",
        ),
    ],
)
def test_a_mistake_is_refused(preview, change, said):
    with pytest.raises(PlatformError) as caught:
        preview(inference=change)
    assert said in str(caught.value)
