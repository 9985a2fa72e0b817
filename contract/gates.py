"""The sections of a model's manifest on what it must achieve: gates, slices and tests of its behaviour."""

from typing import Literal, Self

from pydantic import Field, model_validator

from contract.strict import Strict

Task = Literal["classification", "regression", "density"]

COMMON = {
    "generalisation_gap": "quality on the training part minus quality on the test part",
    "worst_slice": "quality on the slice where it is worst",
    "gain_over_live": "quality minus that of the live version on the same rows",
    "gain_over_live_upper": "upper end of the 95% confidence interval of gain_over_live",
    "latency_ms": "median time of one row, on one thread",
    "throughput": "rows a second in batches of 256, on one thread",
    "size_mb": "size of the ONNX file",
}
BY_TASK: dict[Task, dict[str, str]] = {
    "classification": {
        "accuracy": "share of the rows whose label is right",
        "macro_f1": "mean over the classes of their F1 scores",
        "log_loss": "mean negative logarithm of the probability of the true label",
        "calibration_error": "expected calibration error, of the likeliest label's probability in 10 bins",
    },
    "regression": {
        "r2": "coefficient of determination",
        "rmse": "root of the mean squared error, in the unit of the target",
        "mae": "mean absolute error, in the unit of the target",
        "calibration_error": "mean distance of prediction and target over 10 bins, in deviations of the target",
    },
    "density": {
        "auroc": "area under the ROC curve, of telling the outliers by the score",
        "average_precision": "average precision of telling the outliers by the score",
        "log_likelihood": "mean of the negative score",
    },
}
"""What is measured, and so may have a gate, by task."""
LABELLED = ("auroc", "average_precision")
"""Metrics of a density that its rows must have labels for."""


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

    def __str__(self) -> str:
        bounds = {"at least": self.min, "at most": self.max}
        return " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None)


class Slice(Strict):
    """A column by which the test rows are divided; quality is measured in each part."""

    column: str
    edges: tuple[float, ...] = Field(default=(), description="of a number: where one part ends and the next begins")
    least: int = Field(default=20, ge=1, description="rows; parts with fewer say nothing and are left out")


class Change(Strict):
    """What is done to the columns of a feature; afterwards they are within its min and max again."""

    add: float = 0
    scale: float = 1
    noise: float = Field(default=0, ge=0, description="deviation of normal noise, with a fixed seed")


class Behaviour(Strict):
    """A test of what the model answers when its input changes in a way whose effect is known.

    invariance: the answer stays the same: the label, or a number within `tolerance`. direction: the answer rises or
    falls: the number or, of a classification, the probability of the class `of`.
    """

    kind: Literal["invariance", "direction"]
    change: dict[str, Change] = Field(min_length=1, description="by feature")
    tolerance: float = Field(default=0, ge=0)
    expect: Literal["rise", "fall"] | None = None
    of: int | None = Field(default=None, ge=0)
    share: float = Field(default=1, gt=0, le=1, description="of the test rows, at which it must be so")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.kind == "direction") != (self.expect is not None):
            raise ValueError("a direction test expects a 'rise' or a 'fall', and an invariance test expects neither")
        return self
