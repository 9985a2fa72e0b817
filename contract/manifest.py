"""The model manifest: `training/models/<name>/model.yaml`, from which all else about a model follows."""

import functools
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, StringConstraints, Tag, model_validator

from contract.errors import PlatformError
from contract.paths import MODELS
from contract.service import Sensitive
from contract.strict import Strict, parse, read_yaml

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]{0,30}$")]
Team = Name  # Batch takes letters and digits only
Metric = Literal["accuracy", "generalisation_gap", "latency_ms", "size_mb"]


class Feature(Strict):
    """One column of the raw data, or `size` columns that belong together, named `<name>_0` to `<name>_<size-1>`."""

    size: int = Field(default=1, ge=1, le=10_000)
    min: float
    max: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is greater than max {self.max}")
        return self

    def columns(self, name: str) -> list[str]:
        """Names of the columns of this feature, which is called `name`."""
        return [name] if self.size == 1 else [f"{name}_{i}" for i in range(self.size)]


class Target(Strict):
    """The column to predict: a class number from 0 to `classes` - 1."""

    name: str
    classes: int = Field(ge=2, le=10_000)


class Data(Strict):
    """Where the raw data is and what a valid row of it looks like."""

    source: str = Field(pattern=r"^[\w.-]+\.csv$", description="object in the raw bucket, under <model name>/")
    features: dict[str, Feature] = Field(min_length=1)
    target: Target

    @property
    def columns(self) -> list[str]:
        """Names of the feature columns, in the order in which the model takes them."""
        return [column for name, feature in self.features.items() for column in feature.columns(name)]


class Split(Strict):
    """How the rows are divided: a random share is held out for the test, by a fixed seed."""

    test: float = Field(gt=0, lt=1, description="share of the rows held out")
    seed: int = 0


class Training(Strict):
    """Settings of the training run."""

    epochs: int = Field(ge=1, le=10_000)
    batch_size: int = Field(ge=1, le=65_536)
    learning_rate: float = Field(gt=0, le=10)
    seed: int = 0


class Compute(Strict):
    """What a training job in the cloud needs; a laptop trains with what it has.

    The environment's settings say what there is (`training` in Pulumi.<environment>.yaml), and a job that asks for more
    is refused before it is submitted.
    """

    instances: int = Field(default=1, ge=1, le=64, description="machines that train together")
    gpus: int = Field(default=0, ge=0, le=8, description="of each instance")
    vcpus: int = Field(default=2, ge=1, le=192, description="of each instance")
    memory_gib: int = Field(default=4, ge=1, le=2048, description="of each instance")
    hours: int = Field(default=1, ge=1, le=120, description="after which the job is stopped")
    spot: bool = Field(default=True, description="spare capacity will do: the job goes on from where it was stopped")
    team: Team = Field(default="default", description="whose share of the queues and GPUs it uses")


class Gate(Strict):
    """The bounds that a metric has to keep for the model to be registered."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("a gate needs a min, a max or both")
        return self

    def admits(self, value: float) -> bool:
        """Tell whether the metric keeps the bounds; NaN never does."""
        return (self.min is None or value >= self.min) and (self.max is None or value <= self.max) and value == value


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


class LambdaServing(Served):
    """A Lambda function: nothing is paid for while nobody asks."""

    runtime: Literal["lambda"] = "lambda"
    memory_mb: int = Field(default=1024, ge=512, le=10_240, description="Lambda's CPU grows with it; 1769 is one vCPU")
    timeout_s: int = Field(default=10, ge=1, le=29, description="API Gateway gives up after 30 seconds")
    provisioned: int = Field(default=0, ge=0, le=1000, description="instances kept warm")
    reserved: int | None = Field(default=None, ge=1, le=1000, description="at most so many instances at once")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.reserved is not None and self.provisioned > self.reserved:
            raise ValueError(f"provisioned {self.provisioned} is more than the reserved {self.reserved}")
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
        if self.gpus and self.spot_percent:
            raise ValueError("spot_percent is for Fargate; GPU instances are on demand")
        return self


class SagemakerServing(Served):
    """A SageMaker endpoint, called through the SageMaker runtime API."""

    runtime: Literal["sagemaker"]
    instance_type: str = Field(default="ml.c7i.large", pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9]+$")
    min_instances: int = Field(default=1, ge=1, le=50)
    max_instances: int = Field(default=2, ge=1, le=50)
    requests_per_instance: int = Field(default=1000, ge=1, description="a minute; beyond it an instance is added")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_instances > self.max_instances:
            raise ValueError(f"min_instances {self.min_instances} is more than max_instances {self.max_instances}")
        return self


def _runtime(serving: Any) -> str:
    return str(serving.get("runtime", "lambda") if isinstance(serving, dict) else serving.runtime)


Serving = Annotated[
    Annotated[LambdaServing, Tag("lambda")]
    | Annotated[EcsServing, Tag("ecs")]
    | Annotated[SagemakerServing, Tag("sagemaker")],
    Discriminator(
        _runtime,
        custom_error_type="unknown_runtime",
        custom_error_message="runtime must be one of lambda, ecs, sagemaker",
    ),
]
"""What the model runs on: the same three for every model."""


class Manifest(Strict):
    """A model as its folder describes it."""

    name: Name
    task: Literal["classification"]
    description: str
    data: Data
    split: Split
    training: Training
    compute: Compute = Compute()
    gates: dict[Metric, Gate] = Field(min_length=1)
    serving: Serving = LambdaServing()

    @model_validator(mode="after")
    def _sensitive_features_exist(self) -> Self:
        if unknown := self.serving.sensitive.keys() - self.data.features.keys():
            known = ", ".join(self.data.features)
            raise ValueError(f"serving.sensitive names {sorted(unknown)}; the features are: {known}")
        return self

    @property
    def sensitive_columns(self) -> dict[str, Sensitive]:
        """What captures do with the columns of sensitive features."""
        return {
            column: how
            for name, how in self.serving.sensitive.items()
            for column in self.data.features[name].columns(name)
        }


def model_names() -> list[str]:
    """Names of the models that have a folder with a manifest, sorted."""
    return sorted(path.parent.name for path in MODELS.glob("*/model.yaml"))


@functools.cache
def load_manifest(name: str) -> Manifest:
    """Read and validate the manifest of one model.

    Raises:
        PlatformError: if there is no such model, or its manifest is not valid.
    """
    if name not in model_names():
        raise PlatformError(f"unknown model {name!r}; there is a folder in {MODELS} for: {', '.join(model_names())}")
    path = MODELS / name / "model.yaml"
    manifest = parse(Manifest, read_yaml(path), path)
    if manifest.name != name:
        raise PlatformError(f"{path}: name is {manifest.name!r}, but the folder is {name!r}; they must be the same")
    return manifest
