"""The `serving` section of a manifest: which of the three runtimes the model has, and how large it is there."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from contract.service import Sensitive
from contract.strict import Strict


class Canary(Strict):
    """How a new image takes over: a share of the traffic first, all of it if no alarm has gone off by then."""

    percent: int = Field(default=10, ge=1, le=50)
    minutes: int = Field(default=5, ge=1, le=60)


class Served(Strict):
    """What serving is told whatever it runs on."""

    canary: Canary = Canary()
    latency_ms: int = Field(default=1000, ge=1, description="the 99th percentile above which an alarm goes off")
    sensitive: dict[str, Sensitive] = Field(
        default={}, description="features that captured predictions leave out, or hold as a hash only"
    )
    browser: bool = Field(default=False, description="whoever may call the model may also have its ONNX file")


class LambdaServing(Served):
    """A Lambda function: nothing is paid for while nobody asks."""

    runtime: Literal["lambda"] = "lambda"
    memory_mb: int = Field(default=1024, ge=512, le=10_240, description="Lambda's CPU grows with it; 1769 is one vCPU")
    timeout_s: int = Field(default=10, ge=1, le=29, description="API Gateway gives up after 30 seconds")
    provisioned: int = Field(default=0, ge=0, le=1000, description="instances kept warm")
    reserved: int | None = Field(default=None, ge=1, le=1000, description="at most so many instances at once")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.reserved is not None and self.provisioned > self.reserved:
            raise ValueError(f"provisioned {self.provisioned} is more than the reserved {self.reserved}")
        if self.latency_ms > 1000 * self.timeout_s:
            raise ValueError(
                f"latency_ms {self.latency_ms} is more than the {1000 * self.timeout_s} of timeout_s, so no request "
                "could ever take that long"
            )
        return self


class EcsServing(Served):
    """A service on ECS: tasks that are always there, on Fargate, or on GPU instances if it asks for GPUs."""

    runtime: Literal["ecs"]
    cpu: int = Field(default=512, description="CPU units; 1024 are one vCPU")
    memory_mb: int = 1024
    gpus: int = Field(default=0, ge=0, le=8)
    instance_type: str | None = Field(
        default=None, pattern=r"^(g\d\w*|p\d\w*)\.\w+$", description="of the GPU instances, such as g6.xlarge"
    )
    min_tasks: int = Field(default=1, ge=1, le=1000)
    max_tasks: int = Field(default=4, ge=1, le=1000)
    requests_per_task: int = Field(default=1000, ge=1, description="a minute; beyond it a task is added")
    cpu_percent: int = Field(default=60, ge=10, le=90, description="beyond it a task is added")
    spot_percent: int = Field(default=0, ge=0, le=100, description="share of the tasks on spare capacity")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_tasks > self.max_tasks:
            raise ValueError(f"min_tasks {self.min_tasks} is more than max_tasks {self.max_tasks}")
        if bool(self.gpus) != bool(self.instance_type):
            raise ValueError("gpus and instance_type go together: Fargate has no GPUs; give both or neither")
        if self.gpus and "cpu" in self.model_fields_set:
            raise ValueError("cpu is for Fargate; tasks on GPU instances share the instance's processors")
        if self.gpus and self.spot_percent:
            raise ValueError("spot_percent is for Fargate; GPU instances are on demand")
        return self


SagemakerType = Annotated[str, Field(pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9]+$")]


class Variant(Strict):
    """A part of an endpoint: instances of one kind, with a share of the requests."""

    instance_type: SagemakerType
    weight: int = Field(ge=0, le=100, description="share of the requests, in percent")


class SagemakerServing(Served):
    """A SageMaker endpoint, called through the SageMaker runtime API."""

    runtime: Literal["sagemaker"]
    instance_type: SagemakerType | None = Field(
        default=None, description="without it a small one of the architecture that the environment's image has"
    )
    variants: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")], Variant] = Field(
        default={}, max_length=10, description="several kinds of instances beside one another, instead of instance_type"
    )
    min_instances: int = Field(default=1, ge=1, le=50, description="of each variant")
    max_instances: int = Field(default=2, ge=1, le=50, description="of each variant")
    requests_per_instance: int = Field(default=1000, ge=1, description="a minute; beyond it an instance is added")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_instances > self.max_instances:
            raise ValueError(f"min_instances {self.min_instances} is more than max_instances {self.max_instances}")
        if self.variants and self.instance_type:
            raise ValueError("instance_type and variants exclude one another: each variant has an instance_type")
        weights = {name: variant.weight for name, variant in self.variants.items()}
        if weights and sum(weights.values()) != 100:
            given = ", ".join(f"{name} {weight}" for name, weight in weights.items())
            raise ValueError(
                f"the weights of the variants must add up to 100, but they are {sum(weights.values())}: {given}"
            )
        return self


RUNTIMES = "lambda", "ecs", "sagemaker"


def _known(serving: Any) -> Any:
    """Refuse what is no section, or names no runtime."""
    if isinstance(serving, Served):
        return serving
    allowed = f"one of {', '.join(RUNTIMES)}"
    if not isinstance(serving, dict):
        raise ValueError(f"this should be a mapping of keys to values, with runtime as {allowed}, or be left out")
    if _runtime(serving) not in RUNTIMES:
        raise ValueError(f"runtime must be {allowed}, but it is {serving['runtime']!r}")
    return serving


def _runtime(serving: Any) -> Any:
    return serving.get("runtime", "lambda") if isinstance(serving, dict) else serving.runtime


Serving = Annotated[
    Annotated[LambdaServing, Tag("lambda")]
    | Annotated[EcsServing, Tag("ecs")]
    | Annotated[SagemakerServing, Tag("sagemaker")],
    Discriminator(_runtime),
    BeforeValidator(_known),
]
"""What the model runs on: the same three for every model."""
