"""What a training job may ask of a backend: whether it fits there, on which instances, in which pool of nodes."""

from collections.abc import Iterator
from dataclasses import dataclass

from contract.errors import PlatformError
from contract.outputs import BatchOutputs, EksOutputs, InstanceOutputs, LimitOutputs, TrainingOutputs
from contract.training import Compute

BACKENDS = ("sagemaker", "batch", "eks")
USABLE = 0.9
"""Share of an instance's memory that a container of Batch can have; the rest is the system's and the agent's."""


@dataclass(frozen=True)
class Job:
    """One job: a step of a model's pipeline.

    Attributes:
        name: unique among the environment's jobs.
        model: name of the model.
        step: of its pipeline.
        compute: what it needs.
        array: how many times Batch runs it, each told its index; None for once.
        priority: before which jobs of its team it comes on the Kubernetes cluster, by name; None for between them.
    """

    name: str
    model: str
    step: str
    compute: Compute
    array: int | None = None
    priority: str | None = None


def limits_of(training: TrainingOutputs, backend: str, environment: str) -> LimitOutputs:
    """What a job on a backend may use.

    Raises:
        PlatformError: if the backend is not on in the environment.
    """
    limits: LimitOutputs | None = getattr(training, backend, None)
    if limits is None:
        on = [name for name in BACKENDS if getattr(training, name)]
        raise PlatformError(
            f"the backend {backend!r} is not on in {environment}; on are {', '.join(on) or 'none'}; switch it on by "
            f"{_section(backend)} in Pulumi.{environment}.yaml"
        )
    return limits


def _section(backend: str) -> str:
    """The section of an environment's file that switches a backend on."""
    return "ml-platform:cluster" if backend == "eks" else f"ml-platform:training.{backend}"


def fit(job: Job, limits: LimitOutputs, backend: str, environment: str) -> str:
    """The smallest instance type that the job fits on.

    Raises:
        PlatformError: naming all that the job asks for and cannot have.
    """
    mistakes = list(_mistakes(job, limits, backend))
    if mistakes:
        raise PlatformError(
            f"the job of {job.model} does not fit on {backend} in {environment}:\n"
            + "\n".join(f"  {mistake}" for mistake in mistakes)
            + f"\nchange compute in training/models/{job.model}/model.yaml, or {_section(backend)} in "
            f"Pulumi.{environment}.yaml"
        )
    return _fitting(job.compute, limits, backend)[0]


def _mistakes(job: Job, limits: LimitOutputs, backend: str) -> Iterator[str]:
    compute, gpus = job.compute, job.compute.instances * job.compute.gpus
    if compute.team not in limits.team_gpus:
        yield f"compute.team: {compute.team!r} has no quota; allowed are {', '.join(limits.team_gpus)}"
    elif gpus > (most := limits.team_gpus[compute.team]):
        yield (
            f"compute.gpus: {compute.instances} instance(s) with {compute.gpus} each are {gpus} GPUs, but the team "
            f"{compute.team!r} may use {most} in a job"
        )
    if compute.hours > limits.max_hours:
        yield f"compute.hours: {compute.hours} is above the limit; allowed are up to {limits.max_hours}"
    if job.array is not None and backend != "batch":
        yield f"--array: {backend} has no array jobs; allowed on batch only"
    if job.array is not None and compute.instances > 1:
        yield f"--array: an array's jobs run on one instance each, but compute.instances is {compute.instances}"
    if job.priority is not None and job.priority not in (allowed := _priorities(limits)):
        yield f"--priority: there is no {job.priority!r} on {backend}; allowed are {', '.join(allowed) or 'none'}"
    fitting = _fitting(compute, limits, backend)
    if not fitting:
        types = ", ".join(f"{name} ({_size(size)})" for name, size in limits.instance_types.items())
        yield (
            f"compute: no instance type has {compute.gpus} GPUs, {compute.vcpus} vCPUs and {compute.memory_gib} GiB "
            f"for it; allowed are {types}{', less what a node keeps for itself' if backend == 'eks' else ''}"
        )
    elif isinstance(limits, EksOutputs) and compute.team in limits.teams and pool_of(compute, limits) is None:
        own = ", ".join(f"{pool} ({most})" for pool, most in limits.teams[compute.team].pools.items())
        yield (
            f"compute: no pool of the team {compute.team!r} has {compute.instances} nodes with {compute.gpus} GPUs, "
            f"{compute.vcpus} vCPUs and {compute.memory_gib} GiB for it{'' if compute.spot else ', not on spot'}; of "
            f"these pools one of its jobs gets so many GPUs, or vCPUs where there are none: {own}"
        )
    elif isinstance(limits, BatchOutputs):
        vcpus = compute.instances * limits.instance_types[fitting[0]].vcpus
        if vcpus > limits.max_vcpus:
            yield (
                f"compute.instances: {compute.instances} of {fitting[0]} are {vcpus} vCPUs, but a queue has "
                f"{limits.max_vcpus} (max_vcpus)"
            )


def _fitting(compute: Compute, limits: LimitOutputs, backend: str) -> list[str]:
    """The instance types that are large enough, smallest first; GPUs are for jobs that use them."""
    needed = (compute.vcpus, compute.memory_gib)
    large_enough = [
        (size.gpus, size.vcpus, size.memory_gib, name)
        for name, size in limits.instance_types.items()
        if size.gpus >= compute.gpus
        and bool(size.gpus) == bool(compute.gpus)
        and all(has >= needs for has, needs in zip(_usable(size, backend), needed, strict=True))
    ]
    return [name for *_, name in sorted(large_enough)]


def _usable(size: InstanceOutputs, backend: str) -> tuple[float, float]:
    """The vCPUs and the GiB of an instance that a container can have.

    A Kubernetes node reserves some for the kubelet, as EKS's image does, and runs a few agents; and Karpenter, which
    has to know before the node is there, takes 7.5% off the memory for the hypervisor.
    """
    if backend == "eks":
        return 0.995 * size.vcpus - 0.6, 0.92 * size.memory_gib - 1.2
    return size.vcpus, size.memory_gib * (1 if backend == "sagemaker" else USABLE)


def pool_of(compute: Compute, eks: EksOutputs) -> tuple[str, int] | None:
    """The pool of the team's with the smallest nodes that are large enough, and their EFA interfaces."""
    needed = compute.instances * (compute.gpus or compute.vcpus)
    for type_ in _fitting(compute, eks, "eks"):
        for pool, most in eks.teams[compute.team].pools.items():
            suits = compute.spot or not eks.pools[pool].spot_only
            if type_ in eks.pools[pool].types and needed <= most and suits:
                return pool, eks.pools[pool].types[type_]
    return None


def _priorities(limits: LimitOutputs) -> tuple[str, ...]:
    return limits.priorities if isinstance(limits, EksOutputs) else ()


def _size(size: InstanceOutputs) -> str:
    gpus = f"{size.gpus} GPUs, " if size.gpus else ""
    return f"{gpus}{size.vcpus} vCPUs, {size.memory_gib} GiB"
