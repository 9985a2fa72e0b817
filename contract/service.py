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

PORT = 8080
LIVE_PATH, READY_PATH, METRICS_PATH = "/v2/health/live", "/v2/health/ready", "/metrics"
"""Where a load balancer and a monitor ask: whether the process answers, whether it takes traffic, what it counts."""

Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES"
]
HeaderName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]


class ServiceSettings(Strict):
    """The configuration of the inference service, which it takes from its environment and from nowhere else.

    A field `max_rows` is the variable `MLP_MAX_ROWS`.
    """

    models: tuple[str, ...] = Field(min_length=1, description="names of the models to serve, with commas between them")
    live_parameters: str = Field(pattern=r"^/.+[^/]$", description="SSM path; a model's parameter is <path>/<model>")
    refresh_seconds: PositiveInt = Field(default=5, description="how often the live versions are looked up")
    user_header: HeaderName = Field(default="x-user-id", description="who is asking: decides the version, sticky")
    cohort_header: HeaderName = Field(default="x-cohort", description="the group that the rules of versions name")

    max_rows: PositiveInt = Field(default=1024, description="rows of a request; more are answered 400")
    max_body_bytes: PositiveInt = Field(default=4 * 2**20, description="of a body, unpacked; more are answered 413")
    max_queue: PositiveInt = Field(default=512, description="requests waiting in a worker; one more is answered 503")
    deadline_ms: PositiveInt = Field(default=10_000, description="a request that takes longer is answered 504")
    workers: PositiveInt = Field(default=1, le=256, description="processes that share the port, one a core")
    drain_seconds: NonNegativeInt = Field(default=0, description="served but not ready, after SIGTERM")
    metrics_port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        default=None, description="port of /metrics, if not the one that serves"
    )
    metrics_namespace: str | None = Field(
        default=None, description="CloudWatch namespace of what is counted; none: not counted there, except on Lambda"
    )
    access_log: bool = Field(
        default=False, description="a log line for each request, not only for traced and failed ones"
    )

    capture_stream: str | None = Field(
        default=None, description="Firehose stream that predictions go to; {model} in it stands for the model's name"
    )
    feedback_stream: str | None = Field(default=None, description="Firehose stream of true labels, named likewise")
    capture_percent: Annotated[int, Field(ge=0, le=100)] = Field(
        default=100, description="share of the predictions that is captured, by chance"
    )
    demo: bool = Field(default=True, description="the page at /, which also hands out the ONNX files that it runs")
    hash_key: str | None = Field(
        default=None, description="KMS key from which the secret of the hashes of sensitive features is derived"
    )

    def parameter(self, model: str) -> str:
        """Name of the SSM parameter that lists the live versions of `model`."""
        return f"{self.live_parameters}/{model}"

    def stream(self, name: str | None, model: str) -> str:
        """Name of a stream for `model`, empty if there is none."""
        return (name or "").replace("{model}", model)

    def environment(self) -> dict[str, str]:
        """These settings as environment variables."""
        changed = self.model_dump(mode="json", exclude_defaults=True) | {"models": ",".join(self.models)}
        return {_variable(name): str(value) for name, value in changed.items()}

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


class Rule(Strict):
    """Requests that go to one version whatever the weights say: by the value of a header, or by cohort.

    A cohort is what the caller, or the gateway in front, writes into the service's cohort header.
    """

    header: HeaderName | None = None
    values: tuple[str, ...] = Field(default=(), description="values of the header, any of which matches")
    cohort: str | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.header is None) == (self.cohort is None) or bool(self.values) != bool(self.header):
            raise ValueError("a rule needs a header with its values, or a cohort")
        return self


class LiveVersion(Strict):
    """One version that takes traffic."""

    version: PositiveInt
    weight: NonNegativeInt = Field(le=100, description="share of the traffic that no rule decides, in percent")
    artifact: str = Field(pattern=r"^s3://[^/]+/.+$")
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    rule: Rule | None = None


class LiveVersions(Strict):
    """The value of a model's SSM parameter: which versions are live and how they share the traffic.

    The rules come first, in the order of the versions; what none of them matches is shared by the weights.
    """

    versions: tuple[LiveVersion, ...] = ()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.versions and (total := sum(live.weight for live in self.versions)) != 100:
            raise ValueError(f"the weights of the live versions must add up to 100, but they are {total}")
        if len({live.version for live in self.versions}) < len(self.versions):
            raise ValueError("a version can be live only once")
        return self


Sensitive = Literal["omit", "hash"]
"""What the prediction capture does with a sensitive feature."""


class Tensor(Strict):
    """Name, datatype and shape of an input or output, as the Open Inference Protocol v2 has them; -1 is any size."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]


class SelfTest(Strict):
    """Rows with the answer the model gave when it was made; the service repeats them before a version gets traffic."""

    inputs: tuple[tuple[float | str, ...], ...] = Field(min_length=1)
    outputs: dict[str, tuple[tuple[float, ...] | tuple[str, ...] | float | str, ...]]
    tolerance: float = 1e-3


class ArtifactMetadata(Strict):
    """`metadata.json` in a model artifact: how to call the ONNX file beside it, and proof that it still works."""

    model: str
    task: str
    columns: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    self_test: SelfTest
    background: tuple[tuple[float, ...], ...] = Field(
        default=(), description="typical rows, which explanations compare with; without any, those of the self-test"
    )
    sensitive: dict[str, Sensitive] = Field(default={}, description="columns that no capture may hold as they are")
    browser: bool = Field(default=False, description="whether the service gives its ONNX file to those who may call it")
