"""What the models' manifests ask of an environment, checked against its settings before any resource is registered."""

from collections.abc import Iterator, Mapping

from contract.errors import PlatformError
from contract.manifest import Manifest
from contract.metrics import LATENCY_BOUNDS
from contract.serving import EcsServing, SagemakerServing
from infra.hosts import gpu_mistakes, sagemaker_mistakes, size_mistake
from infra.network import plan_subnets
from infra.settings import Settings
from infra.sizes import fargate_mistake

RESERVED_ADDRESSES = 5
"""Of each subnet, by AWS."""
REACHED = {"ecr", "firehose", "logs", "ssm"}
"""The endpoints by which a service in the private subnets gets its image and versions, and writes logs and captures."""
SCORED = {"ecr", "logs", "ssm"}
"""Those by which a scoring job gets its image and version, and writes logs; what it reads and writes is in S3."""
SHARE = 4
"""One in so many of the private addresses may be tasks: the rest is for training, endpoints and growth."""


def check(settings: Settings, models: Mapping[str, Manifest]) -> None:
    """Refuse what could not run.

    Raises:
        PlatformError: naming the file, the key and what is allowed, for each mistake.
    """
    checks = (_of_inference, _of_sizes, _of_metrics, _of_addresses, _of_teams, _of_scoring)
    if mistakes := [mistake for each in checks for mistake in each(settings, models)]:
        raise PlatformError("\n".join(mistakes))


def _of_inference(settings: Settings, models: Mapping[str, Manifest]) -> Iterator[str]:
    file = f"Pulumi.{settings.environment}.yaml: ml-platform:inference"
    if unknown := settings.inference.per_model.keys() - models.keys():
        yield f"{file}.per_model names {', '.join(sorted(unknown))}; the models are {', '.join(models)}"
    for name, manifest in models.items():
        model, serving = f"training/models/{name}/model.yaml: serving", manifest.serving
        if isinstance(serving, EcsServing):
            if not serving.gpus and (mistake := fargate_mistake(serving.cpu, serving.memory_mb)):
                yield f"{model}: {mistake}"
            if serving.gpus and settings.inference.architecture == "arm64":
                yield f"{model}.gpus: GPU instances are x86_64, but {file}.architecture is arm64"
            if serving.gpus:
                yield from (f"{model}.{mistake}" for mistake in gpu_mistakes(serving, settings.region))
            if settings.inference.balancer is None:
                yield f"{model}.runtime is ecs, which needs {file}.balancer (name, certificate_arn)"
            if settings.tier == "prod" and serving.spot_percent == 100:
                yield f"{model}.spot_percent is 100: in prod some tasks must be on demand; allowed are 0 to 99"
        if isinstance(serving, SagemakerServing):
            wrong = sagemaker_mistakes(serving, settings.region, settings.inference.architecture)
            yield from (f"{model}.{mistake}" for mistake in wrong)
        if settings.inference.waf and serving.runtime == "lambda":
            yield (
                f"{model}.runtime is lambda, but {file}.waf stands before the load balancer, past which requests to "
                "Lambda go: serve it on ecs, or take waf out"
            )
        hashes = {"kms"} if "hash" in serving.sensitive.values() else set[str]()
        if isinstance(serving, EcsServing | SagemakerServing) and (missing := _missing(settings, REACHED | hashes)):
            yield (
                f"{model}.runtime is {serving.runtime}, which needs a way to AWS from the private subnets: set nat, or "
                f"add to endpoints {', '.join(missing)}, in Pulumi.{settings.environment}.yaml: ml-platform:network"
            )


def _of_sizes(settings: Settings, models: Mapping[str, Manifest]) -> Iterator[str]:
    """A model may grow to the bound of its gate, and a service takes up a version beside the one it has."""
    for name, manifest in models.items():
        size = manifest.gates["size_mb"].max if "size_mb" in manifest.gates else None
        if size and (mistake := size_mistake(manifest.serving, size, settings.inference.architecture)):
            yield f"training/models/{name}/model.yaml: serving.{mistake}"


def _of_metrics(settings: Settings, models: Mapping[str, Manifest]) -> Iterator[str]:
    """The service counts its answers by bounds of latency, and an alert can go by nothing else."""
    if not settings.observability.prometheus:
        return
    longest = round(1000 * max(LATENCY_BOUNDS))
    for name, manifest in models.items():
        if isinstance(manifest.serving, EcsServing) and manifest.serving.latency_ms > longest:
            yield (
                f"training/models/{name}/model.yaml: serving.latency_ms is {manifest.serving.latency_ms}, but the "
                f"service on ECS counts up to {longest}; allowed with Pulumi.{settings.environment}.yaml: "
                f"ml-platform:observability.prometheus are 1 to {longest}"
            )


def _missing(settings: Settings, endpoints: set[str]) -> list[str]:
    """The endpoints that are needed and not there, where nothing else leads out of the private subnets."""
    network = settings.network
    return [] if network.existing or network.nat != "none" else sorted(endpoints - set(network.endpoints))


def _of_addresses(settings: Settings, models: Mapping[str, Manifest]) -> Iterator[str]:
    """Each task and endpoint instance has an address of its own; twice as many while a new image takes over."""
    if settings.network.cidr is None:
        return
    plan = plan_subnets(settings.network.cidr, len(settings.network.zones))
    room = sum(subnet.num_addresses - RESERVED_ADDRESSES for subnet in plan.private) // SHARE
    most = {
        name: 2 * serving.max_tasks
        if isinstance(serving, EcsServing)
        else 2 * serving.max_instances * max(1, len(serving.variants))
        for name, serving in ((name, manifest.serving) for name, manifest in models.items())
        if isinstance(serving, EcsServing | SagemakerServing)
    }
    if (wanted := sum(most.values())) > room:
        yield (
            f"training/models/*/model.yaml: serving of {', '.join(most)} can take {wanted} addresses, but the private "
            f"subnets of {settings.network.cidr} have room for {room}: lower max_tasks or max_instances, or give "
            f"Pulumi.{settings.environment}.yaml: ml-platform:network.cidr a larger range"
        )


def _of_teams(settings: Settings, models: Mapping[str, Manifest]) -> Iterator[str]:
    """Teams that train, and have no quota where their jobs run."""
    backend = settings.training.backend
    section, limits = f"training.{backend}", getattr(settings.training, backend, None)
    if backend == "eks":
        section, limits = "cluster", settings.cluster
    for name, manifest in models.items():
        if limits and manifest.compute.team not in limits.teams:
            yield (
                f"Pulumi.{settings.environment}.yaml: ml-platform:{section}.teams: there is no quota for the team "
                f"{manifest.compute.team!r} of training/models/{name}/model.yaml (compute.team); there are "
                f"{', '.join(sorted(limits.teams))}"
            )


def _of_scoring(settings: Settings, models: Mapping[str, Manifest]) -> Iterator[str]:
    """Scheduled batch inference runs on Fargate, in the private subnets."""
    for name, scoring in ((name, manifest.scoring) for name, manifest in models.items()):
        if scoring is None:
            continue
        file = f"training/models/{name}/model.yaml: scoring"
        if mistake := fargate_mistake(1024 * scoring.vcpus, 1024 * scoring.memory_gib):
            yield f"{file}: vcpus {scoring.vcpus} (1024 CPU units each) with memory_gib {scoring.memory_gib}: {mistake}"
        if settings.training.image_digest and (missing := _missing(settings, SCORED)):
            yield (
                f"{file} needs a way to AWS from the private subnets: set nat, or add to endpoints "
                f"{', '.join(missing)}, in Pulumi.{settings.environment}.yaml: ml-platform:network"
            )
