"""Inference: every model on the runtime that its manifest names, behind one API, with its captures and its alarms."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from contract.manifest import Manifest
from contract.metrics import namespace
from contract.service import LiveVersions, ServiceSettings
from contract.serving import EcsServing, LambdaServing
from infra.alarms import Alarms, AlarmsArgs
from infra.api import Api, ApiArgs
from infra.balancer import Balancer, BalancerArgs
from infra.capture import Capture, CaptureArgs, stream_name
from infra.foundation import Foundation
from infra.hash_key import HashKey, alias
from infra.prometheus import Prometheus
from infra.runtimes.ecs import Ecs
from infra.runtimes.lambda_ import Lambda
from infra.runtimes.runtime import Runtime, RuntimeArgs
from infra.runtimes.sagemaker import Sagemaker
from infra.settings.inference import InferenceSettings
from infra.settings.operations import AlertSettings


@dataclass
class InferenceArgs:
    """What is served, with what, and who is told when it goes wrong."""

    settings: InferenceSettings
    alerts: AlertSettings
    models: Mapping[str, Manifest]
    roles: Mapping[str, aws.iam.Role]
    topic_arn: pulumi.Input[str]
    prometheus: Prometheus | None = None
    """What collects the metrics of the models on ECS; CloudWatch has those of the others."""


class Inference(pulumi.ComponentResource):
    """The endpoint of an environment.

    Each model has a runtime of its own, and a parameter that lists its live versions, which the service follows without
    a deployment. Images are built and pushed outside of `pulumi up`; as long as the settings name none, the first up of
    an empty account works all the same: functions answer 503, and nothing else runs.
    """

    endpoint: pulumi.Output[str]
    token_url: pulumi.Output[str] | None
    live_parameters: dict[str, str]

    def __init__(
        self, name: str, args: InferenceArgs, foundation: Foundation, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ml-platform:infra:Inference", name, None, opts)
        self._on, self._args = foundation, args
        self._child = pulumi.ResourceOptions(parent=self)
        self._balancer: Balancer | None = None
        api = Api("api", ApiArgs(args.settings), foundation, self._child)
        self.live_parameters = {}
        for model, manifest in args.models.items():
            self.live_parameters[model] = self._live_parameter(model)
            self._serve(model, manifest, api)
        api.open()
        if hashing := self._hashing():
            HashKey("hash-key", [args.roles[model] for model in sorted(hashing)], foundation, self._child)
        self.endpoint, self.token_url = api.endpoint, api.token_url
        self.register_outputs({"endpoint": self.endpoint, "live_parameters": self.live_parameters})

    def service_settings(self, *models: str) -> ServiceSettings:
        """The settings of a service that serves these models."""
        return ServiceSettings(
            models=models,
            live_parameters=self._on.naming.path("models"),
            capture_stream=stream_name(self._on.naming, "predictions", "{model}"),
            feedback_stream=stream_name(self._on.naming, "feedback", "{model}"),
            hash_key=alias(self._on.naming) if self._hashing().intersection(models) else None,
            max_rows=self._args.settings.max_rows,
            max_body_bytes=self._args.settings.max_body_mb * 2**20,
            metrics_namespace=namespace(self._on.naming.prefix, self._on.naming.environment, "inference"),
        )

    def _serve(self, model: str, manifest: Manifest, api: Api) -> None:
        capture = Capture(f"capture-{model}", CaptureArgs(model), self._on, self._child)
        runtime = self._runtime(model, manifest, capture)
        if integration := runtime.integrate(api.api):
            api.route(model, integration)
        watched = AlarmsArgs(
            model,
            runtime.signals,
            capture.predictions,
            manifest.serving.latency_ms,
            self._args.alerts,
            self._args.topic_arn,
        )
        alarms = Alarms(f"alarms-{model}", watched, self._on.naming, self._child)
        runtime.roll_back_on(alarms.rollback)

    def _runtime(self, model: str, manifest: Manifest, capture: Capture) -> Runtime:
        changes: dict[str, Any] = {"capture_stream": capture.predictions, "feedback_stream": capture.feedback}
        if isinstance(manifest.serving, LambdaServing):
            # The service is to say that it takes too long before Lambda ends it without a word.
            changes["deadline_ms"] = manifest.serving.timeout_s * 900
        environment = self.service_settings(model).model_copy(update=changes).environment()
        args = RuntimeArgs(model, manifest, self._args.settings, self._args.roles[model], environment)
        name = f"runtime-{model}"
        match manifest.serving:
            case LambdaServing():
                return Lambda(name, args, self._on, self._child)
            case EcsServing():
                return Ecs(name, args, self._balance(), self._args.prometheus, self._on, self._child)
            case _:
                return Sagemaker(name, args, self._on, self._child)

    def _hashing(self) -> set[str]:
        """The models of whose sensitive features captures hold a hash."""
        return {model for model, given in self._args.models.items() if "hash" in given.serving.sensitive.values()}

    def _balance(self) -> Balancer:
        """The load balancer of all models on ECS, made when the first of them comes."""
        if not self._balancer:
            domain = self._args.settings.balancer
            assert domain, "the settings are checked for it before the first resource"
            self._balancer = Balancer("balancer", BalancerArgs(domain, self._args.settings.waf), self._on, self._child)
        return self._balancer

    def _live_parameter(self, model: str) -> str:
        """Which versions are live is decided by the registry's approval, not by an up."""
        parameter = self.service_settings(model).parameter(model)
        aws.ssm.Parameter(
            self._on.naming(f"live-{model}"),
            name=parameter,
            type="String",
            value=LiveVersions().model_dump_json(),
            description=f"Live versions of {model}",
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["value", "description"]),
        )
        return parameter
