"""The sections of a model's manifest on how it is trained, tuned and made small."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from contract.strict import Strict

NETWORK = "network."
"""What stands before the name of a network's argument where it is named beside the settings of the training."""

Team = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]{0,30}$")]
"""A name of letters and digits alone: Batch takes no others."""

Argument = bool | int | float | str


class Training(Strict):
    """Settings of the training run: AdamW with the one-cycle schedule."""

    epochs: int = Field(ge=1, le=10_000)
    batch_size: int = Field(ge=1, le=65_536, description="rows a step, of all processes together")
    learning_rate: float = Field(gt=0, le=10, description="the highest of the schedule")
    weight_decay: float = Field(default=0.01, ge=0, le=10)
    clip_norm: float = Field(default=1.0, gt=0, description="longer gradients are scaled down to this length")
    patience: int | None = Field(
        default=None,
        ge=1,
        description="stop after so many epochs in which the validation loss was not the best, and keep the weights of "
        "the best; without it all epochs run and the last weights are kept",
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="auto is mixed precision on GPUs, and float32 elsewhere"
    )
    compile: Literal["auto", "on", "off"] = Field(
        default="auto", description="torch.compile; auto is on for runs on GPUs that are long enough to gain by it"
    )
    checkpoint_seconds: float = Field(default=10, ge=0, description="least time between two checkpoints")
    seed: int = 0
    network: dict[str, Argument] = Field(default={}, description="arguments of the function `network` in model.py")


class Range(Strict):
    """The values among which a setting is searched: from `min` to `max`, or one of `choices`."""

    min: float | None = None
    max: float | None = None
    log: bool = Field(default=False, description="search orders of magnitude")
    integer: bool = False
    choices: tuple[Argument, ...] = ()

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if bool(self.choices) == (self.min is not None or self.max is not None):
            raise ValueError("a range has either choices, or min and max")
        if self.choices:
            return self
        if self.min is None or self.max is None or self.min >= self.max:
            raise ValueError(f"a range needs a min that is less than its max, but they are {self.min} and {self.max}")
        if self.log and self.min <= 0:
            raise ValueError(f"a range of orders of magnitude starts above 0, but min is {self.min}")
        return self


class Tune(Strict):
    """The search for better settings: segments run beside one another, the trials of a segment one after the other."""

    segments: int = Field(default=2, ge=1, le=10_000)
    trials: int = Field(default=8, ge=1, le=10_000, description="of each segment")
    seed: int = 0
    space: dict[Annotated[str, StringConstraints(pattern=r"^[a-z_.]+$")], Range] = Field(
        min_length=1, description="by the name of a training setting, or network.<argument>"
    )

    @model_validator(mode="after")
    def _settings_exist(self) -> Self:
        tunable = sorted(Training.model_fields.keys() - {"network", "seed", "checkpoint_seconds"})
        for name in self.space:
            if not name.startswith(NETWORK) and name not in tunable:
                raise ValueError(
                    f"unknown setting {name!r} in the space; allowed: {', '.join(tunable)}, and {NETWORK}<argument>"
                )
        return self


class Optimise(Strict):
    """Which smaller variants of the trained network are made; the smallest that is good enough is the model."""

    int8: bool = Field(default=True, description="8-bit weights and activations, with the ranges seen on training rows")
    student: dict[str, Argument] = Field(
        default={}, description="arguments of `network` for a smaller one that learns from the first; none: no student"
    )
    prune: float = Field(default=0, ge=0, lt=1, description="share of the channels to remove; 0: none are")
    epochs: int = Field(default=10, ge=1, le=10_000, description="of the student, and after the pruning")
    max_drop: float = Field(
        default=0.003, ge=0, description="how much worse than the first a variant may be on the validation part"
    )


def changed(training: Training, changes: dict[str, Any]) -> dict[str, Any]:
    """Training settings with changes to them, by names as in `Tune.space`; to be validated."""
    settings = training.model_dump()
    for name, value in changes.items():
        if name.startswith(NETWORK):
            settings["network"] = settings["network"] | {name.removeprefix(NETWORK): value}
        else:
            settings[name] = value
    return settings


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
