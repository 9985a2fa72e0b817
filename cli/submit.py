"""`mlp submit`: start a training job in an environment."""

import json
from typing import Annotated, Any

import typer

from cli.handover import environment_outputs
from cli.output import AsJson, progress, show
from contract.manifest import load_manifest
from contract.outputs import Outputs
from embedded.project import check_environment

ACTIONS = {"sagemaker": "SageMaker's CreateTrainingJob", "batch": "Batch's SubmitJob", "eks": "a Kubernetes JobSet"}


def submit(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    environment: Annotated[str, typer.Option("--env", help="An environment that has a Pulumi.<name>.yaml.")] = "local",
    backend: Annotated[
        str | None, typer.Option(help="sagemaker, batch or eks; without it the one that the environment chooses.")
    ] = None,
    step: Annotated[str, typer.Option(help="The step of the model's pipeline.")] = "train",
    priority: Annotated[
        str | None, typer.Option(help="On eks, a priority of the environment's settings, such as high.")
    ] = None,
    array: Annotated[int | None, typer.Option(min=2, max=10_000, help="How many times Batch runs it.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="On sagemaker, show the job's log until it has ended.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the request, and send nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start a training job in an environment: on SageMaker, on AWS Batch or on its Kubernetes cluster.

    What the job needs stands in the model's manifest, under `compute`. A job that does not fit is refused before it is
    submitted. --dry-run prints the request as JSON; it needs no account, and shows what only an up knows as such.
    """
    from training import fitting, jobs

    check_environment(environment)
    manifest = load_manifest(model)
    if backend is not None and backend not in fitting.BACKENDS:
        raise typer.BadParameter(f"{backend!r}; allowed are {', '.join(fitting.BACKENDS)}", param_hint="--backend")
    outputs = (
        _planned(environment)
        if dry_run
        else environment_outputs(environment, f"mlp submit {model} --env {environment}")
    )
    training = jobs.training_of(outputs)
    chosen = backend or training.backend
    if wait and (dry_run or chosen != "sagemaker"):
        reason = "a dry run sends nothing" if dry_run else f"{chosen} has tools of its own, sagemaker alone is followed"
        raise typer.BadParameter(reason, param_hint="--wait")
    job = fitting.Job(jobs.job_name(training, model, step), model, step, manifest.compute, array, priority)
    if dry_run:
        progress.print(f"[dim]dry run: {ACTIONS[chosen]}, not sent[/dim]")
        print(json.dumps(jobs.request(job, outputs, chosen), indent=2))
        return
    id_ = jobs.submit(job, outputs, chosen)
    if environment == "local":
        progress.print("[yellow]note:[/yellow] the emulated AWS records the job and runs nothing; `mlp train` does")
    facts = {"job": job.name, "model": model, "step": step, "backend": chosen, "environment": environment, "id": id_}
    if wait:
        from training.follow import follow  # the SDK takes a second to import

        facts["status"] = follow(job.name)
    show(facts, as_json)


def _planned(environment: str) -> Outputs:
    """The outputs that an up would have, as far as they are known before it.

    Raises:
        PlatformError: if the environment's file is not valid.
    """
    from contract.strict import parse
    from embedded.monitor import UNKNOWN
    from embedded.project import run_environment

    def named(value: Any, path: str) -> Any:
        if isinstance(value, dict):
            return {key: named(item, f"{path}.{key}") for key, item in value.items()}
        if isinstance(value, list):
            return [named(item, path) for item in value]
        return f"<{path.lstrip('.')}>" if isinstance(value, str) and UNKNOWN in value else value

    outputs = named(run_environment(environment).outputs, "")
    outputs["training"]["image"] = outputs["training"]["image"] or "<training.image_digest is not set>"
    if outputs["training"]["batch"]:
        definitions = {kind: f"<job definition of {kind}>" for kind in ("instance", "nodes")}
        outputs["training"]["batch"]["job_definitions"] = definitions | outputs["training"]["batch"]["job_definitions"]
    return parse(Outputs, outputs, f"the outputs of {environment}")
