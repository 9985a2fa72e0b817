"""What the inference service and those who configure it agree on: its environment, its artifacts, its live versions."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from contract.errors import PlatformError
from contract.strict import Strict

MODEL_FILE = "model.onnx"
METADATA_FILE = "metadata.json"
INPUT = "features"
"""Name of the one input tensor that every model takes: float32 of shape [rows, columns]."""

Datatype = Literal["FP32", "INT64"]


class ServiceSettings(Strict):
    """The configuration of the inference service, which it takes from its environment and from nowhere else."""

    models: tuple[str, ...] = Field(min_length=1)
    live_parameters: str = Field(pattern=r"^/.+[^/]$", description="SSM path; a model's parameter is <path>/<model>")
    max_rows: PositiveInt = 1024
    max_body_bytes: PositiveInt = 4 * 2**20
    refresh_seconds: PositiveInt = 5

    def parameter(self, model: str) -> str:
        """Name of the SSM parameter that lists the live versions of `model`."""
        return f"{self.live_parameters}/{model}"

    def environment(self) -> dict[str, str]:
        """These settings as environment variables."""
        return {
            "MLP_MODELS": ",".join(self.models),
            "MLP_LIVE_PARAMETERS": self.live_parameters,
            "MLP_MAX_ROWS": str(self.max_rows),
            "MLP_MAX_BODY_BYTES": str(self.max_body_bytes),
            "MLP_REFRESH_SECONDS": str(self.refresh_seconds),
        }

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read the settings from environment variables.

        Raises:
            PlatformError: naming the variable that is missing or out of range.
        """
        given = {name: environment[_variable(name)] for name in cls.model_fields if _variable(name) in environment}
        try:
            return cls.model_validate(given | {"models": [m for m in given.get("models", "").split(",") if m]})
        except ValidationError as error:
            mistakes = [f"{_variable(str(e['loc'][0]))}: {e['msg']}, given {e['input']!r}" for e in error.errors()]
            raise PlatformError("the service's environment is not valid: " + "; ".join(mistakes)) from None


def _variable(field: str) -> str:
    return f"MLP_{field.upper()}"


class LiveVersion(Strict):
    """One version that takes traffic."""

    version: PositiveInt
    weight: NonNegativeInt = Field(le=100, description="share of the traffic, in percent")
    artifact: str = Field(pattern=r"^s3://[^/]+/.+$")
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class LiveVersions(Strict):
    """The value of a model's SSM parameter: which versions are live and how they share the traffic."""

    versions: tuple[LiveVersion, ...] = ()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.versions and sum(live.weight for live in self.versions) != 100:
            raise ValueError("the weights of the live versions must add up to 100")
        if len({live.version for live in self.versions}) < len(self.versions):
            raise ValueError("a version can be live only once")
        return self


class Tensor(Strict):
    """Name, datatype and shape of an input or output, as the Open Inference Protocol v2 has them; -1 is any size."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]


class SelfTest(Strict):
    """Rows with the answer the model gave when it was made; the service repeats them before a version gets traffic."""

    inputs: tuple[tuple[float, ...], ...] = Field(min_length=1)
    outputs: dict[str, tuple[tuple[float, ...] | float, ...]]
    tolerance: float = 1e-3


class ArtifactMetadata(Strict):
    """`metadata.json` in a model artifact: how to call the ONNX file beside it, and proof that it still works."""

    model: str
    task: str
    columns: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    self_test: SelfTest
