"""Settings of what trains: the backends that are on, and how much of each a job and a team may use."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from contract.strict import Strict
from contract.training import Team
from infra.instances import INSTANCES, problem
from infra.settings.section import Place, Section

Digest = Annotated[str, StringConstraints(pattern="^sha256:[0-9a-f]{64}$")]
Backend = Literal["sagemaker", "batch", "eks"]


class TeamLimit(Strict):
    """What a team may use of a backend."""

    gpus: int = Field(default=4, ge=0, le=4096, description="the most GPUs that one of its jobs takes")
    share: float = Field(
        default=1, ge=0.01, le=100, description="of a busy queue, next to the other teams'; Batch goes by it"
    )


class JobLimits(Strict):
    """What jobs on a backend may use; a job gets the smallest instance type that it fits on."""

    instance_types: tuple[str, ...] = Field(default=("m7i.large", "m7i.xlarge", "m7i.2xlarge"), min_length=1)
    spot: bool = Field(default=True, description="let jobs run on spare capacity, for about a third of the price")
    max_hours: int = Field(default=24, ge=1, le=120, description="after which a job is stopped")
    volume_gb: int = Field(default=100, ge=50, le=16_000, description="disk of an instance without a disk of its own")
    teams: dict[Team, TeamLimit] = Field(default={"default": TeamLimit()}, min_length=1, max_length=100)

    def gpu_types(self, *, gpu: bool) -> tuple[str, ...]:
        """The instance types with GPUs, or those without."""
        return tuple(type_ for type_ in self.instance_types if bool(INSTANCES[type_].gpus) is gpu)

    def mistakes(self, place: Place) -> Iterator[str]:
        """Instance types that are not there, and teams that may have more than there is."""
        found = [(index, problem(type_, place.region)) for index, type_ in enumerate(self.instance_types)]
        yield from (f"instance_types.{index}: {wrong}" for index, wrong in found if wrong)
        if any(wrong for _, wrong in found):
            return
        if len(set(self.instance_types)) < len(self.instance_types):
            yield f"instance_types: each may stand there once, but they are {', '.join(self.instance_types)}"


class SageMakerSettings(JobLimits):
    """Training jobs of SageMaker: nothing is there, or paid for, until one runs."""


class BatchSettings(JobLimits):
    """Queues of AWS Batch, one for each kind of instance; its instances go when the jobs are done."""

    max_vcpus: int = Field(default=64, ge=1, le=100_000, description="of all instances of one kind together")

    def mistakes(self, place: Place) -> Iterator[str]:
        """What a backend may not have, and instances that are larger than all of them may be together."""
        wrong = list(super().mistakes(place))
        yield from wrong
        if wrong:
            return
        for gpu in (False, True):
            for type_ in self.gpu_types(gpu=gpu):
                if (vcpus := INSTANCES[type_].vcpus) > self.max_vcpus:
                    yield (
                        f"max_vcpus: {self.max_vcpus} is less than the {vcpus} of one {type_}; "
                        f"allowed are {vcpus} and more, or take {type_} off instance_types"
                    )


class TrainingSettings(Section):
    """Where training jobs run.

    A backend is on if its section is there, or if it is the one that `backend` names; EKS is on if the environment has
    a cluster.
    """

    backend: Backend = Field(default="sagemaker", description="where a job runs that does not say where")
    image_digest: Digest | None = None
    idle_minutes: int = Field(default=30, ge=5, le=180, multiple_of=5, description="after which an idle GPU is told of")
    sagemaker: SageMakerSettings | None = None
    batch: BatchSettings | None = None

    @model_validator(mode="before")
    @classmethod
    def _switch_on(cls, value: Any) -> Any:
        """The chosen backend is on, with its defaults if nothing else is said."""
        if not isinstance(value, dict):
            return value
        chosen = value.get("backend", "sagemaker")
        return value | {chosen: {}} if chosen in ("sagemaker", "batch") and value.get(chosen) is None else value

    def mistakes(self, place: Place, /) -> Iterator[str]:
        """What the backends that are on may not have."""
        for name, limits in (("sagemaker", self.sagemaker), ("batch", self.batch)):
            if limits:
                yield from (f"{name}.{mistake}" for mistake in limits.mistakes(place))
