"""The stack's outputs: all that the pipeline, the service and the CLI may know about an environment."""

from typing import Literal

from contract.errors import PlatformError
from contract.service import ServiceSettings
from contract.strict import Strict


class Buckets(Strict):
    """Names of the lake's buckets."""

    raw: str
    curated: str
    artifacts: str
    queries: str
    logs: str


class ModelOutputs(Strict):
    """What the environment holds for one model."""

    package_group: str
    live_parameter: str
    endpoint: str


class InstanceOutputs(Strict):
    """What one instance of a type has."""

    vcpus: int
    memory_gib: int
    gpus: int
    local_gb: int
    """Disk of its own, which the hardware encrypts; 0 if it has network volumes only."""


class LimitOutputs(Strict):
    """What a job on a backend may use."""

    instance_types: dict[str, InstanceOutputs]
    spot: bool
    max_hours: int
    volume_gb: int
    team_gpus: dict[str, int]
    """Per team, the most GPUs that one of its jobs takes."""


class BatchOutputs(LimitOutputs):
    """What a Batch job is started with."""

    max_vcpus: int
    queues: dict[str, str]
    """Name of a queue by what it runs on: `cpu` and `gpu`, or spare capacity, `cpu-spot` and `gpu-spot`."""
    job_definitions: dict[str, str]
    """ARNs: `instance` for a job on one instance, `nodes` for one on several; empty as long as there is no image."""


class EksTeam(Strict):
    """Where a team's jobs go in the cluster."""

    namespace: str
    queue: str
    service_account: str
    pools: dict[str, int]
    """Of which it has a quota, with the most that one of its jobs gets there: GPUs, or vCPUs of a pool without."""


class EksPool(Strict):
    """Nodes of a kind."""

    types: dict[str, int]
    """Instance types, with the EFA interfaces of each."""
    spot_only: bool = False
    """Whether there is nothing but spare capacity."""


class EksOutputs(LimitOutputs):
    """What a job on the Kubernetes cluster is started with."""

    cluster: str
    teams: dict[str, EksTeam]
    pools: dict[str, EksPool]
    priorities: tuple[str, ...] = ()
    """That a job may have instead of none."""
    lake: bool = False
    """Whether teams see the curated bucket as a file system."""


class TrainingOutputs(Strict):
    """Where training jobs may run, and what they have in common."""

    backend: Literal["sagemaker", "batch", "eks"]
    """Where a job runs that does not say where."""
    name: str
    """What the names of jobs begin with."""
    image: str | None
    """The training image by its digest, None as long as none was pushed."""
    work: str
    """S3 prefix below which a model's jobs leave what lies between its steps, checkpoints among it."""
    subnets: tuple[str, ...]
    security_group: str
    sagemaker: LimitOutputs | None = None
    batch: BatchOutputs | None = None
    eks: EksOutputs | None = None


class Outputs(Strict):
    """The outputs of a stack, as `stacks/__main__.py` exports them."""

    environment: str
    region: str
    buckets: Buckets
    key_arn: str
    training_role: str
    tracking_uri: str = ""
    images: dict[str, str]
    models: dict[str, ModelOutputs]
    training: TrainingOutputs | None = None
    service: dict[str, str]

    def of_model(self, name: str) -> ModelOutputs:
        """What belongs to one model.

        Raises:
            PlatformError: if the environment was last brought up without it.
        """
        if name not in self.models:
            known = ", ".join(self.models) or "none"
            up = "mlp up" if self.environment == "local" else f"mlp up {self.environment}"
            raise PlatformError(
                f"{self.environment} does not know the model {name!r} yet; the models there: {known}; `{up}` adds it"
            )
        return self.models[name]

    @property
    def service_settings(self) -> ServiceSettings:
        """The settings of an inference service that serves every model."""
        return ServiceSettings.from_environment(self.service)
