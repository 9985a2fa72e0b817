"""The model manifest: `training/models/<name>/model.yaml`, from which all else about a model follows."""

import difflib
import functools
import re
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from contract.data import Data, Purpose, Split
from contract.errors import PlatformError
from contract.gates import BY_TASK, COMMON, LABELLED, Behaviour, Gate, Slice, Task
from contract.paths import MODELS
from contract.scoring import Scoring
from contract.service import Sensitive
from contract.serving import LambdaServing, Serving
from contract.strict import Strict, parse, read_yaml
from contract.training import Compute, Optimise, Training, Tune

NAME_PATTERN = re.compile(r"^[a-z][a-z0-9]{0,30}$")
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]


class Manifest(Strict):
    """A model as its folder describes it."""

    name: Name
    task: Task
    description: str
    purpose: Purpose = Field(description="what the model is for; the data's allowed_use must include it")
    data: Data
    split: Split
    training: Training
    compute: Compute = Compute()
    tune: Tune | None = None
    optimise: Optimise = Optimise()
    slices: tuple[Slice, ...] = ()
    gates: dict[str, Gate] = Field(min_length=1, description="by metric; contract/gates.py explains them")
    behaviour: dict[Annotated[str, StringConstraints(pattern=r"^[a-z]\w{0,60}$")], Behaviour] = {}
    limits: tuple[str, ...] = Field(default=(), description="what the model is not for, for its card")
    serving: Serving = LambdaServing()
    scoring: Scoring | None = None

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
        if schema[column].nullable:
            raise ValueError(f"split.column {column!r} may be null, and such a row would have no part to go to")
        return self

    @property
    def quality(self) -> str:
        """The metric that says how good the model is; the greater, the better."""
        if self.task == "density":
            return "auroc" if self.data.target else "log_likelihood"
        return {"classification": "accuracy", "regression": "r2"}[self.task]

    @property
    def metrics(self) -> dict[str, str]:
        """What is measured, and so may have a gate, with what it means."""
        of_task = BY_TASK[self.task]
        if self.task == "density" and not self.data.target:
            of_task = {name: meaning for name, meaning in of_task.items() if name not in LABELLED}
        return of_task | {name: meaning for name, meaning in COMMON.items() if name != "worst_slice" or self.slices}

    @model_validator(mode="after")
    def _gates_are_measured(self) -> Self:
        for name in self.gates:
            if name in self.metrics:
                continue
            close = difflib.get_close_matches(name, self.metrics, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            why = "it needs `slices`; " if name == "worst_slice" else ""
            raise ValueError(
                f"gates.{name}: no such metric for this {self.task}; {why}{hint}allowed: {', '.join(self.metrics)}"
            )
        return self

    @model_validator(mode="after")
    def _tests_name_what_there_is(self) -> Self:
        schema = self.data.all_columns
        for part in self.slices:
            if part.column not in schema:
                raise ValueError(f"slices: there is no column {part.column!r} in data")
            if part.edges and schema[part.column].type not in ("float", "integer"):
                raise ValueError(f"slices: {part.column!r} has edges, but is of type {schema[part.column].type!r}")
        for name, test in self.behaviour.items():
            if unknown := sorted(test.change.keys() - self.data.features.keys()):
                raise ValueError(
                    f"behaviour.{name}: there is no feature {unknown[0]!r}; allowed: {', '.join(self.data.features)}"
                )
            classes = self.data.target.classes if self.data.target and self.task == "classification" else None
            if test.kind == "direction" and (test.of is not None) != (classes is not None):
                raise ValueError(f"behaviour.{name}: a direction has the class it is `of` in a classification only")
            if classes and test.of is not None and test.of >= classes:
                raise ValueError(f"behaviour.{name}: of is {test.of}, but the classes are 0 to {classes - 1}")
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
