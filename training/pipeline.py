"""The pipeline: from raw data to an approved version, each step's result kept for the next run."""

from dataclasses import dataclass
from pathlib import Path

from contract.errors import PlatformError
from contract.manifest import load_manifest
from contract.outputs import Outputs
from training import ingest, register, registry, rollout
from training.registry import ModelVersion
from training.steps import PIPELINE, Context, Report, is_current, run_step


@dataclass(frozen=True)
class Result:
    """The version that a run of the pipeline came to.

    Attributes:
        version: its number.
        metrics: what was measured of it.
        artifact: its URI.
        up_to_date: whether it was there before.
        note: what the user should know of it; often empty.
    """

    version: int
    metrics: dict[str, float]
    artifact: str
    up_to_date: bool
    note: str = ""


def run(model: str, outputs: Outputs, work: Path, report: Report, source: Path | None = None) -> Result:
    """Run a model's pipeline with the AWS clients that the environment variables configure.

    A version that was made from the same data, settings and code is not made again, and neither is a step whose results
    are up to date: after a failure, the next run goes on where it was.

    Args:
        model: name of the model.
        outputs: where the environment keeps things.
        work: the model's folder for what lies between the steps.
        report: told in a line what is going on.
        source: a local file that is to replace the raw data first.

    Raises:
        PlatformError: if a step refuses its input, a gate fails, the training does, or what would be made is a version
            that was rejected and no other is live.
    """
    context = Context(load_manifest(model), outputs, work, report)
    outputs.of_model(model)  # before anything is changed
    if source:
        ingest.put_raw(context.manifest, outputs.buckets, source, work / "put")
    run_step(PIPELINE[0], context)  # always: only the source knows whether it has changed
    version = register.registered(context)
    known = version is not None
    if version is None:
        for name in PIPELINE[1:]:
            if name == "register" or not is_current(name, context):
                run_step(name, context)
        version = register.registered(context)
        assert version
    return _deploy(version, context, known)


def _deploy(version: ModelVersion, context: Context, known: bool) -> Result:
    """Approve a version that waits for it, and make it live unless versions are being compared.

    Any other decision is not undone: a version that has been approved before changes no traffic.
    """
    model, names = context.manifest.name, context.outputs.of_model(context.manifest.name)
    live = registry.live(names.live_parameter)
    approve = f"`mlp models approve {model} {version.version}`"
    note = ""
    if version.status == registry.REJECTED:
        told = f"version {version.version}, of the same data, settings and code, was rejected; {approve} takes it back"
        if not live.versions:
            raise PlatformError(f"no version of {model} is live: {told}, or change one of the three")
        largest = max(live.versions, key=lambda each: each.weight)
        note = f"{told}; version {largest.version} stays live"
        version = registry.find(names.package_group, largest.version)
    elif version.status == registry.PENDING and len(live.versions) > 1:
        version = registry.approve(version)
        note = (
            f"version {version.version} is approved but takes no traffic, as versions are compared: "
            f"{rollout.shares(live)}; `mlp deploy {model} --version {version.version} --weight 10` adds it, "
            f"`mlp promote {model}` or `mlp rollback {model}` ends the comparison"
        )
    elif version.status == registry.PENDING:
        version = registry.approve(version)
        registry.make_live(version, names.live_parameter)
        context.report(f"approve: version {version.version} is live")
    elif not live.versions:  # it was cut off between the approval and this
        registry.make_live(version, names.live_parameter)
    elif version.version not in {each.version for each in live.versions}:
        note = (
            f"version {version.version} is approved but takes no traffic: {rollout.shares(live)}; "
            f"{approve} gives it all of it"
        )
    return Result(version.version, version.metrics, version.artifact, known, note)
