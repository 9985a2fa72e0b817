"""The model manifest: `training/models/<name>/model.yaml`, from which all else about a model follows."""

import functools
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from contract.data import Data, Purpose, Split
from contract.errors import PlatformError
from contract.paths import MODELS
from contract.strict import Strict, parse, read_yaml

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]{0,30}$")]
Task = Literal["classification", "regression", "density"]
Metric = Literal["accuracy", "generalisation_gap", "latency_ms", "size_mb"]


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


class Manifest(Strict):
    """A model as its folder describes it."""

    name: Name
    task: Task
    description: str
    purpose: Purpose = Field(description="what the model is for; the data's allowed_use must include it")
    data: Data
    split: Split
    training: Training
    gates: dict[Metric, Gate] = Field(min_length=1)
    serving: Serving = Serving()

    @model_validator(mode="after")
    def _use_is_allowed(self) -> Self:
        if self.purpose not in self.data.allowed_use:
            allowed = ", ".join(self.data.allowed_use)
            raise ValueError(
                f"the purpose is {self.purpose!r}, but data.allowed_use has only: {allowed}; "
                "use other data, or have its owner allow this purpose"
            )
        return self

    @model_validator(mode="after")
    def _target_fits_task(self) -> Self:
        target = self.data.target
        if self.task == "classification" and not (target and target.classes):
            raise ValueError("a classification needs data.target with the number of its classes")
        if self.task == "regression" and not (target and not target.classes):
            raise ValueError("a regression needs data.target, a number; classes are for a classification")
        if self.task == "density" and target and target.classes != 2:
            raise ValueError(
                "a density learns from the features alone; its data.target, if there is one, tells outliers (1) from "
                f"the rest (0) and has 2 classes, but classes is {target.classes}"
            )
        if target and target.classes and not (target.min is target.max is None):
            raise ValueError("data.target has min and max, which are for a regression, beside its classes")
        return self

    @model_validator(mode="after")
    def _split_column_exists(self) -> Self:
        schema = self.data.all_columns
        if (column := self.split.column) is None:
            return self
        if column not in schema:
            raise ValueError(f"split.column is {column!r}, which data describes neither as a feature nor in context")
        if self.split.by == "time" and schema[column].type not in ("time", "integer", "float"):
            raise ValueError(f"split.column {column!r} is to hold a time, but its type is {schema[column].type!r}")
        return self


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
