"""Inference: per model a Lambda function from a container image, behind one HTTP API."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from contract.manifest import Manifest
from contract.service import LiveVersions, ServiceSettings
from infra.foundation import Foundation
from infra.settings.inference import InferenceSettings

PLACEHOLDER = """
import json

def handler(event, context):
    message = "no image has been pushed yet: build it, push it, and set ml-platform:inference.image_digest"
    return {"statusCode": 503, "headers": {"Content-Type": "application/json"}, "body": json.dumps({"error": message})}
"""

ACCESS_LOG = {
    "time": "$context.requestTime",
    "request": "$context.requestId",
    "ip": "$context.identity.sourceIp",
    "caller": "$context.identity.userArn",
    "route": "$context.routeKey",
    "status": "$context.status",
    "latency_ms": "$context.responseLatency",
    "error": "$context.integrationErrorMessage",
}


@dataclass
class InferenceArgs:
    """What is served, and with what."""

    settings: InferenceSettings
    models: Mapping[str, Manifest]
    roles: Mapping[str, aws.iam.Role]


class Inference(pulumi.ComponentResource):
    """The endpoint of an environment.

    Each model has a function of its own, and a parameter that lists its live versions; the function follows it without
    a deployment. Callers are authenticated with IAM (SigV4). Images are built and pushed outside of `pulumi up`; as
    long as the settings name none, a function of a few lines answers 503, so that the first up of an empty account
    works.
    """

    endpoint: pulumi.Output[str]
    live_parameters: dict[str, str]

    def __init__(
        self, name: str, args: InferenceArgs, foundation: Foundation, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ml-platform:infra:Inference", name, None, opts)
        self._on, self._naming, self._args = foundation, foundation.naming, args
        self._child = pulumi.ResourceOptions(parent=self)
        self._api = aws.apigatewayv2.Api(
            self._naming("inference"), name=self._naming("inference"), protocol_type="HTTP", opts=self._child
        )
        self._stage()
        self.live_parameters = {}
        for model, manifest in args.models.items():
            self.live_parameters[model] = self._live_parameter(model)
            self._route(model, self._function(model, manifest))
        self.endpoint = self._api.api_endpoint
        self.register_outputs({"endpoint": self.endpoint, "live_parameters": self.live_parameters})

    def service_settings(self, *models: str) -> ServiceSettings:
        """The settings of a service that serves these models."""
        return ServiceSettings(
            models=models,
            live_parameters=self._naming.path("models"),
            max_rows=self._args.settings.max_rows,
            max_body_bytes=self._args.settings.max_body_mb * 2**20,
        )

    def _stage(self) -> None:
        throttling = self._args.settings.throttling
        aws.apigatewayv2.Stage(
            self._naming("inference"),
            api_id=self._api.id,
            name="$default",
            auto_deploy=True,
            access_log_settings={
                "destination_arn": self._on.log_group("api/inference", self._child).arn,
                "format": json.dumps(ACCESS_LOG),
            },
            default_route_settings={
                "throttling_rate_limit": throttling.rate,
                "throttling_burst_limit": throttling.burst,
            },
            opts=self._child,
        )

    def _live_parameter(self, model: str) -> str:
        """Which versions are live is decided by the registry's approval, not by an up."""
        parameter = self.service_settings(model).parameter(model)
        aws.ssm.Parameter(
            self._naming(f"live-{model}"),
            name=parameter,
            type="String",
            value=LiveVersions().model_dump_json(),
            description=f"Live versions of {model}",
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["value"]),
        )
        return parameter

    def _function(self, model: str, manifest: Manifest) -> aws.lambda_.Function:
        name, settings = self._naming(f"inference-{model}"), self._args.settings
        args = aws.lambda_.FunctionArgs(
            name=name,
            role=self._args.roles[model].arn,
            architectures=[settings.architecture],
            memory_size=manifest.serving.memory_mb,
            timeout=manifest.serving.timeout_s,
            logging_config=aws.lambda_.FunctionLoggingConfigArgs(
                log_format="JSON", log_group=self._on.log_group(f"inference/{model}", self._child).name
            ),
            environment=aws.lambda_.FunctionEnvironmentArgs(variables=self.service_settings(model).environment()),
        )
        if settings.image_digest:
            args.package_type = "Image"
            args.image_uri = pulumi.Output.concat(
                self._on.registry.repositories["inference"].repository_url, "@", settings.image_digest
            )
        else:
            pulumi.log.warn(
                f"{name} has no image: it answers 503 until ml-platform:inference.image_digest is set in "
                f"Pulumi.{self._naming.environment}.yaml"
            )
            args.runtime = aws.lambda_.Runtime.PYTHON3D13
            args.handler = "index.handler"
            args.code = pulumi.AssetArchive({"index.py": pulumi.StringAsset(PLACEHOLDER)})
        # A function cannot change from an archive to an image: the digest replaces the placeholder, which has the name.
        return aws.lambda_.Function(name, args, pulumi.ResourceOptions(parent=self, delete_before_replace=True))

    def _route(self, model: str, function: aws.lambda_.Function) -> None:
        name = self._naming(model)
        integration = aws.apigatewayv2.Integration(
            name,
            api_id=self._api.id,
            integration_type="AWS_PROXY",
            integration_method="POST",  # how Lambda is invoked, whatever the method of the request
            integration_uri=function.invoke_arn,
            payload_format_version="2.0",
            opts=self._child,
        )
        target = integration.id.apply(lambda id: f"integrations/{id}")
        for what, path in (("model", f"/v2/models/{model}"), ("inside", f"/v2/models/{model}/{{proxy+}}")):
            aws.apigatewayv2.Route(
                f"{name}-{what}",
                api_id=self._api.id,
                route_key=f"ANY {path}",
                target=target,
                authorization_type="AWS_IAM",
                opts=self._child,
            )
        aws.lambda_.Permission(
            name,
            function=function.name,
            action="lambda:InvokeFunction",
            principal="apigateway.amazonaws.com",
            source_arn=pulumi.Output.concat(self._api.execution_arn, f"/*/*/v2/models/{model}*"),
            opts=self._child,
        )
