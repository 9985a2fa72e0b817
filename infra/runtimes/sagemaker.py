"""SageMaker: an endpoint of instances that SageMaker keeps, called through its own API."""

import pulumi
import pulumi_aws as aws

from contract.serving import SagemakerServing
from infra.access import open_to_aws, security_group
from infra.alarms import Metric, Signals
from infra.foundation import Foundation
from infra.hosts import has_own_disk, sagemaker_variants
from infra.runtimes.runtime import Runtime, RuntimeArgs

CAPTURED_PERCENT = 100


class Sagemaker(Runtime):
    """An endpoint in the private subnets, each of whose production variants scales with its requests.

    An HTTP API cannot call SageMaker, and a function in between would cost what the endpoint saves: callers use
    `sagemaker-runtime:InvokeEndpoint`, which IAM authorises. As long as there is no image, there is no endpoint.
    """

    def __init__(
        self, name: str, args: RuntimeArgs, foundation: Foundation, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ml-platform:infra:Sagemaker", name, None, opts)
        assert isinstance(args.manifest.serving, SagemakerServing)
        self._on, self._args, self._serving = foundation, args, args.manifest.serving
        self._child = pulumi.ResourceOptions(parent=self)
        self._called = foundation.naming(f"inference-{args.model}")
        self._variants = sagemaker_variants(args.manifest.serving, args.settings.architecture)
        dimensions = [{"EndpointName": self._called, "VariantName": variant} for variant in self._variants]
        self.signals = Signals(
            "AWS/SageMaker",
            requests=Metric("Invocations", dimensions),
            errors=Metric("Invocation5XXErrors", dimensions),
            latency=Metric("ModelLatency", dimensions, scale=1000),
        )
        self.register_outputs({})

    def integrate(self, api: aws.apigatewayv2.Api) -> None:
        """Nothing: it is not called through the API."""

    def roll_back_on(self, alarms: list[pulumi.Output[str]]) -> None:
        """Make the endpoint, whose updates these alarms undo."""
        image = self._args.image(self._on)
        if image is None:
            pulumi.log.warn(
                f"{self._called} has no image: there is no endpoint until ml-platform:inference.image_digest is set in "
                f"Pulumi.{self._on.naming.environment}.yaml"
            )
            return
        endpoint = self._endpoint(self._config(self._model(image)), alarms)
        for variant in self._variants:
            self._scale(endpoint, variant)

    def _model(self, image: pulumi.Output[str]) -> aws.sagemaker.Model:
        group = security_group(
            f"inference-{self._args.model}", f"{self._args.model}: out to AWS", self._on, self._child
        )
        open_to_aws(f"{self._args.model}-to-aws", group, self._on, self._child)
        return aws.sagemaker.Model(
            self._called,  # which Pulumi makes unique: a model cannot be changed, only replaced
            execution_role_arn=self._args.role.arn,
            primary_container={"image": image, "environment": dict(self._args.environment)},
            vpc_config={"subnets": self._on.network.private_subnet_ids, "security_group_ids": [group.id]},
            opts=self._child,
        )

    def _config(self, model: aws.sagemaker.Model) -> aws.sagemaker.EndpointConfiguration:
        folder = f"/endpoint-captures/{self._args.model}"
        bucket, key = self._on.storage.buckets["curated"], self._on.storage.key_arn
        own_disks = any(has_own_disk(variant.instance_type) for variant in self._variants.values())
        return aws.sagemaker.EndpointConfiguration(
            self._called,
            kms_key_arn=None if own_disks else key,  # SageMaker refuses one for disks that the hardware encrypts
            production_variants=[
                {
                    "variant_name": name,
                    "model_name": model.name,
                    "instance_type": variant.instance_type,
                    "initial_instance_count": self._serving.min_instances,
                    "initial_variant_weight": variant.weight,
                }
                for name, variant in self._variants.items()
            ],
            data_capture_config={
                "enable_capture": True,
                "initial_sampling_percentage": CAPTURED_PERCENT,
                "destination_s3_uri": pulumi.Output.concat("s3://", bucket.bucket, folder),
                "kms_key_id": key,
                "capture_options": [{"capture_mode": "Input"}, {"capture_mode": "Output"}],
                "capture_content_type_header": {"json_content_types": ["application/json"]},
            },
            opts=self._child,
        )

    def _endpoint(
        self, config: aws.sagemaker.EndpointConfiguration, alarms: list[pulumi.Output[str]]
    ) -> aws.sagemaker.Endpoint:
        canary = self._serving.canary
        return aws.sagemaker.Endpoint(
            self._called,
            name=self._called,
            endpoint_config_name=config.name,
            deployment_config={
                "blue_green_update_policy": {
                    "traffic_routing_configuration": {
                        "type": "CANARY",
                        "canary_size": {"type": "CAPACITY_PERCENT", "value": canary.percent},
                        "wait_interval_in_seconds": canary.minutes * 60,
                    },
                    "termination_wait_in_seconds": 120,
                    "maximum_execution_timeout_in_seconds": 3600,
                },
                "auto_rollback_configuration": {"alarms": [{"alarm_name": alarm} for alarm in alarms]},
            },
            opts=self._child,
        )

    def _scale(self, endpoint: aws.sagemaker.Endpoint, variant: str) -> None:
        name = f"{self._called}-{variant}"
        target = aws.appautoscaling.Target(
            name,
            service_namespace="sagemaker",
            scalable_dimension="sagemaker:variant:DesiredInstanceCount",
            resource_id=pulumi.Output.concat("endpoint/", endpoint.name, f"/variant/{variant}"),
            min_capacity=self._serving.min_instances,
            max_capacity=self._serving.max_instances,
            opts=self._child,
        )
        aws.appautoscaling.Policy(
            name,
            name=name,
            policy_type="TargetTrackingScaling",
            service_namespace=target.service_namespace,
            scalable_dimension=target.scalable_dimension,
            resource_id=target.resource_id,
            target_tracking_scaling_policy_configuration={
                "target_value": self._serving.requests_per_instance,
                "predefined_metric_specification": {"predefined_metric_type": "SageMakerVariantInvocationsPerInstance"},
            },
            opts=self._child,
        )
