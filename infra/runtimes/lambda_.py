"""Lambda: a function from a container image, behind an alias that shifts to a new version by and by."""

import pulumi
import pulumi_aws as aws

from contract.serving import LambdaServing
from infra.alarms import Metric, Signals
from infra.foundation import Foundation
from infra.policies import allow
from infra.runtimes.runtime import Runtime, RuntimeArgs

ALIAS = "live"
PLACEHOLDER = """
import json

def handler(event, context):
    message = "no image has been pushed yet: build it, push it, and set ml-platform:inference.image_digest"
    return {"statusCode": 503, "headers": {"Content-Type": "application/json"}, "body": json.dumps({"error": message})}
"""


class Lambda(Runtime):
    """A function and the alias that callers know it by.

    An up publishes a new version of the function and leaves the alias where it is; CodeDeploy moves the alias, a share
    of the traffic first, and back again when an alarm goes off (`mlp release` starts it; docs/serving-runtimes.md).

    As long as there is no image, a few lines answer 503, so that the first up of an empty account works.
    """

    def __init__(
        self, name: str, args: RuntimeArgs, foundation: Foundation, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ml-platform:infra:Lambda", name, None, opts)
        assert isinstance(args.manifest.serving, LambdaServing)
        self._on, self._args, self._serving = foundation, args, args.manifest.serving
        self._child = pulumi.ResourceOptions(parent=self)
        self._called = foundation.naming(f"inference-{args.model}")
        self._function = self._make_function()
        self._alias = aws.lambda_.Alias(
            self._called,
            name=ALIAS,
            function_name=self._function.name,
            function_version=self._function.version,
            # CodeDeploy's to move: an up must not send all the traffic to what nobody has tried.
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["functionVersion", "routingConfig"]),
        )
        if self._serving.provisioned:
            aws.lambda_.ProvisionedConcurrencyConfig(
                self._called,
                function_name=self._function.name,
                qualifier=self._alias.name,
                provisioned_concurrent_executions=self._serving.provisioned,
                opts=self._child,
            )
        dimensions = [{"FunctionName": self._called, "Resource": f"{self._called}:{ALIAS}"}]
        self.signals = Signals(
            "AWS/Lambda",
            requests=Metric("Invocations", dimensions),
            errors=Metric("Errors", dimensions),
            latency=Metric("Duration", dimensions),
        )
        self.register_outputs({"alias": self._alias.arn})

    def _make_function(self) -> aws.lambda_.Function:
        log_group = self._on.log_group(f"inference/{self._args.model}", self._child)
        args = aws.lambda_.FunctionArgs(
            name=self._called,
            role=self._args.role.arn,
            architectures=[self._args.settings.architecture],
            memory_size=self._serving.memory_mb,
            timeout=self._serving.timeout_s,
            reserved_concurrent_executions=self._serving.reserved,
            publish=True,
            logging_config=aws.lambda_.FunctionLoggingConfigArgs(log_format="JSON", log_group=log_group.name),
            environment=aws.lambda_.FunctionEnvironmentArgs(variables=dict(self._args.environment)),
        )
        if image := self._args.image(self._on):
            args.package_type, args.image_uri = "Image", image
        else:
            pulumi.log.warn(
                f"{self._called} has no image: it answers 503 until ml-platform:inference.image_digest is set in "
                f"Pulumi.{self._on.naming.environment}.yaml"
            )
            args.runtime, args.handler = aws.lambda_.Runtime.PYTHON3D13, "index.handler"
            args.code = pulumi.AssetArchive({"index.py": pulumi.StringAsset(PLACEHOLDER)})
        # A function cannot change from an archive to an image: the digest replaces the placeholder, which has the name.
        return aws.lambda_.Function(self._called, args, pulumi.ResourceOptions(parent=self, delete_before_replace=True))

    def integrate(self, api: aws.apigatewayv2.Api) -> aws.apigatewayv2.Integration:
        """The alias, called by the API and by nobody else."""
        aws.lambda_.Permission(
            self._called,
            function=self._function.name,
            qualifier=self._alias.name,
            action="lambda:InvokeFunction",
            principal="apigateway.amazonaws.com",
            source_arn=pulumi.Output.concat(api.execution_arn, f"/*/*/v2/models/{self._args.model}*"),
            opts=self._child,
        )
        return aws.apigatewayv2.Integration(
            self._called,
            api_id=api.id,
            integration_type="AWS_PROXY",
            integration_method="POST",  # how Lambda is invoked, whatever the method of the request
            integration_uri=self._alias.invoke_arn,
            payload_format_version="2.0",
            opts=self._child,
        )

    def roll_back_on(self, alarms: list[pulumi.Output[str]]) -> None:
        """Have CodeDeploy shift the alias, and shift it back on an alarm."""
        naming, canary = self._on.naming, self._serving.canary
        function = self._on.arn("lambda", f"function:{self._called}")
        role = self._on.role(
            f"deploy-{self._args.model}",
            "codedeploy.amazonaws.com",
            [
                allow(["lambda:GetAlias", "lambda:UpdateAlias"], function),
                allow(["lambda:GetProvisionedConcurrencyConfig"], pulumi.Output.concat(function, f":{ALIAS}")),
                allow(["cloudwatch:DescribeAlarms"], self._on.arn("cloudwatch", f"alarm:{naming('')}*")),
            ],
            self._child,
        )
        application = aws.codedeploy.Application(
            self._called, name=self._called, compute_platform="Lambda", opts=self._child
        )
        config = aws.codedeploy.DeploymentConfig(
            self._called,
            deployment_config_name=self._called,
            compute_platform="Lambda",
            traffic_routing_config={
                "type": "TimeBasedCanary",
                "time_based_canary": {"interval": canary.minutes, "percentage": canary.percent},
            },
            opts=self._child,
        )
        aws.codedeploy.DeploymentGroup(
            self._called,
            app_name=application.name,
            deployment_group_name=self._called,
            deployment_config_name=config.id,
            service_role_arn=role.arn,
            deployment_style={"deployment_option": "WITH_TRAFFIC_CONTROL", "deployment_type": "BLUE_GREEN"},
            alarm_configuration={"alarms": alarms, "enabled": True},
            auto_rollback_configuration={
                "enabled": True,
                "events": ["DEPLOYMENT_FAILURE", "DEPLOYMENT_STOP_ON_ALARM"],
            },
            opts=self._child,
        )
