"""The model manifest: `training/models/<name>/model.yaml`, from which all else about a model follows."""

import functools
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from contract.errors import PlatformError
from contract.paths import MODELS
from contract.service import Sensitive
from contract.strict import Strict, parse, read_yaml

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]{0,30}$")]
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


class Serving(Strict):
    """The size of the function that serves the model."""

    memory_mb: int = Field(default=1024, ge=512, le=10_240)
    timeout_s: int = Field(default=10, ge=1, le=29, description="API Gateway gives up after 30 seconds")
    sensitive: dict[str, Sensitive] = Field(
        default={}, description="features that captured predictions leave out, or hold as a hash only"
    )


class Manifest(Strict):
    """A model as its folder describes it."""

    name: Name
    task: Literal["classification"]
    description: str
    data: Data
    split: Split
    training: Training
    gates: dict[Metric, Gate] = Field(min_length=1)
    serving: Serving = Serving()

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
