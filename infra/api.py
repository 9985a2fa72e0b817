"""The API: an HTTP API of API Gateway, who may call it, how often, and under which name."""

import json
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.foundation import Foundation
from infra.regions import host
from infra.settings.inference import InferenceSettings, Throttling

SCOPE = "predict"
ACCESS_LOG = {
    "time": "$context.requestTime",
    "request": "$context.requestId",
    "ip": "$context.identity.sourceIp",
    "caller": "$context.identity.userArn",
    "subject": "$context.authorizer.claims.sub",
    "route": "$context.routeKey",
    "status": "$context.status",
    "latency_ms": "$context.responseLatency",
    "error": "$context.integrationErrorMessage",
}


@dataclass
class ApiArgs:
    """Who may call, how often, and under which name."""

    settings: InferenceSettings


class Api(pulumi.ComponentResource):
    """The one way in from outside, where nobody gets past the authorizer.

    Callers show a token of Cognito (the default: a user pool of the environment's own, whose client takes part in the
    client credentials flow), a token of any OpenID Connect issuer, or sign with IAM. With a domain, AWS's own name for
    the API is switched off.
    """

    endpoint: pulumi.Output[str]
    token_url: pulumi.Output[str] | None = None
    """Where Cognito's client gets its tokens, if it is Cognito's tokens that open the API."""

    def __init__(
        self, name: str, args: ApiArgs, foundation: Foundation, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ml-platform:infra:Api", name, None, opts)
        self._on, self._naming, self._settings = foundation, foundation.naming, args.settings
        self._child = pulumi.ResourceOptions(parent=self)
        self.api = aws.apigatewayv2.Api(
            self._naming("inference"),
            name=self._naming("inference"),
            protocol_type="HTTP",
            disable_execute_api_endpoint=args.settings.domain is not None,
            opts=self._child,
        )
        self._authorizer = self._authorize()
        self._limits: dict[str, Throttling] = {}
        self._routes: list[aws.apigatewayv2.Route] = []
        self.endpoint = self.api.api_endpoint
        self.register_outputs({"endpoint": self.endpoint})

    def route(self, model: str, integration: aws.apigatewayv2.Integration) -> None:
        """Lead a model's paths to what serves it.

        Args:
            model: whose paths `/v2/models/<model>` and everything below it are.
            integration: what answers them.
        """
        target = integration.id.apply(lambda id: f"integrations/{id}")
        for what, path in (("model", f"/v2/models/{model}"), ("inside", f"/v2/models/{model}/{{proxy+}}")):
            key = f"ANY {path}"
            route = aws.apigatewayv2.Route(
                f"{self._naming(model)}-{what}",
                api_id=self.api.id,
                route_key=key,
                target=target,
                authorization_type="JWT" if self._authorizer else "AWS_IAM",
                authorizer_id=self._authorizer.id if self._authorizer else None,
                authorization_scopes=[self._scope] if self._settings.auth == "cognito" else None,
                opts=self._child,
            )
            self._routes.append(route)
            if limit := self._settings.per_model.get(model):
                self._limits[key] = limit

    def open(self) -> None:
        """Make the stage, once every route is there: it holds the limits of routes, which must exist by then."""
        log_group = self._on.log_group("api/inference", self._child)
        default = self._settings.throttling
        stage = aws.apigatewayv2.Stage(
            self._naming("inference"),
            api_id=self.api.id,
            name="$default",
            auto_deploy=True,
            access_log_settings={"destination_arn": log_group.arn, "format": json.dumps(ACCESS_LOG)},
            default_route_settings={
                "throttling_rate_limit": default.rate,
                "throttling_burst_limit": default.burst,
                "detailed_metrics_enabled": True,
            },
            route_settings=[
                {
                    "route_key": key,
                    "throttling_rate_limit": limit.rate,
                    "throttling_burst_limit": limit.burst,
                    "detailed_metrics_enabled": True,
                }
                for key, limit in self._limits.items()
            ],
            opts=pulumi.ResourceOptions(parent=self, depends_on=self._routes),
        )
        if self._settings.domain:
            self._named(self._settings.domain.name, self._settings.domain.certificate_arn, stage)

    def _named(self, domain: str, certificate_arn: str, stage: aws.apigatewayv2.Stage) -> None:
        name = aws.apigatewayv2.DomainName(
            self._naming("inference"),
            domain_name=domain,
            domain_name_configuration={
                "certificate_arn": certificate_arn,
                "endpoint_type": "REGIONAL",
                "security_policy": "TLS_1_2",
            },
            opts=self._child,
        )
        aws.apigatewayv2.ApiMapping(
            self._naming("inference"), api_id=self.api.id, domain_name=name.id, stage=stage.id, opts=self._child
        )
        self.endpoint = pulumi.Output.from_input(f"https://{domain}")
        # What the company's DNS has to point the name to.
        self.target = name.domain_name_configuration.apply(lambda each: each.target_domain_name)

    @property
    def _scope(self) -> str:
        return f"{self._naming('inference')}/{SCOPE}"

    def _authorize(self) -> aws.apigatewayv2.Authorizer | None:
        if self._settings.auth == "iam":
            return None
        if self._settings.oidc:
            issuer: pulumi.Input[str] = self._settings.oidc.issuer
            audience: list[pulumi.Input[str]] = list(self._settings.oidc.audience)
        else:
            pool, client = self._cognito()
            issuer = pulumi.Output.concat(f"https://{host('cognito-idp', self._on.region)}/", pool.id)
            audience = [client.id]
        return aws.apigatewayv2.Authorizer(
            self._naming("inference"),
            name=self._naming("inference"),
            api_id=self.api.id,
            authorizer_type="JWT",
            identity_sources=["$request.header.Authorization"],
            jwt_configuration={"issuer": issuer, "audiences": audience},
            opts=self._child,
        )

    def _cognito(self) -> tuple[aws.cognito.UserPool, aws.cognito.UserPoolClient]:
        """A pool without people: programs get a token with the client's id and secret."""
        name = self._naming("inference")
        pool = aws.cognito.UserPool(
            name,
            name=name,
            admin_create_user_config={"allow_admin_create_user_only": True},
            password_policy={"minimum_length": 16},
            deletion_protection="ACTIVE" if self._on.protect else "INACTIVE",
            opts=pulumi.ResourceOptions(parent=self, protect=self._on.protect),
        )
        server = aws.cognito.ResourceServer(
            name,
            identifier=name,
            name=name,
            user_pool_id=pool.id,
            scopes=[{"scope_name": SCOPE, "scope_description": "Ask the models"}],
            opts=self._child,
        )
        client = aws.cognito.UserPoolClient(
            name,
            name=name,
            user_pool_id=pool.id,
            generate_secret=True,
            allowed_oauth_flows=["client_credentials"],
            allowed_oauth_flows_user_pool_client=True,
            allowed_oauth_scopes=[self._scope],
            access_token_validity=60,
            token_validity_units={"access_token": "minutes"},
            opts=pulumi.ResourceOptions(parent=self, depends_on=[server], additional_secret_outputs=["clientSecret"]),
        )
        # Unique in the region, for all accounts: the account's number tells it apart.
        domain = aws.cognito.UserPoolDomain(
            name,
            domain=pulumi.Output.concat(f"{name}-", self._on.storage.account_id),
            user_pool_id=pool.id,
            opts=self._child,
        )
        self.token_url = pulumi.Output.concat(
            "https://", domain.domain, f".auth.{self._on.region}.amazoncognito.com/oauth2/token"
        )
        return pool, client
