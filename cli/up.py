"""`mlp up`: bring an environment up, and the laptop all the way to a prediction."""

from typing import Annotated

import typer

from cli.output import AsJson, progress, show, step
from cli.predict import request_prediction, shipped_sample
from contract.errors import PlatformError
from contract.manifest import load_manifest, model_names
from contract.outputs import Outputs
from embedded.local import Local
from embedded.processes import Process


def up(
    environment: Annotated[
        str, typer.Argument(help="local, or an environment that has a Pulumi.<name>.yaml.")
    ] = "local",
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port of the local inference service.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Change a cloud environment without asking.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring an environment up.

    For [bold]local[/bold]: start the emulated AWS, provision it with the Pulumi program in stacks/, train, register and
    approve each model, serve it and ask it for a prediction. What is up to date is left alone. Any other environment
    is handed to `pulumi up`, which shows its preview and asks before it changes anything.
    """
    if environment != "local":
        from cli.handover import pulumi_up

        pulumi_up(environment, ask=not yes)
        return
    platform = Local.of_this_checkout()
    with platform.changing():
        platform.check_port(port)
        try:
            _up(platform, port, as_json)
        except KeyboardInterrupt:
            raise PlatformError(
                "interrupted; what was finished is kept: `mlp up` continues from there, `mlp down` stops everything"
            ) from None


def _up(platform: Local, port: int | None, as_json: bool) -> None:
    with step("Emulated AWS") as this:
        aws, aws_is_new = platform.start_aws()
        verb = "started" if aws_is_new else "runs"
        this.done(f"{verb} at {aws.url}; it is emulated, and lives in the memory of process {aws.pid}")

    outputs = _provision(platform, aws)
    for name in model_names():
        _train(platform, name, outputs)

    with step("Inference") as this:
        service, is_new = platform.start_service(outputs, port, anew=aws_is_new)
        platform.processes.wait_until_ready(service, "/v2/health/ready")
        this.done(f"{'started' if is_new else 'runs'} at {service.url}, process {service.pid}")

    predictions = {}
    for name in model_names():
        with step(f"Prediction {name}") as this:
            answer = request_prediction(service.url, name, shipped_sample(name))
            predictions[name] = {output["name"]: output["data"] for output in answer["outputs"]}
            version = answer["model_version"]
            first, values = next(iter(predictions[name].items()))
            this.done(f"{first} {values[0]:.4g} from version {version}")
    show(
        {
            **{name: f"{service.url}/v2/models/{name}/infer" for name in predictions},
            "demo": f"{service.url}/",
            "docs": f"{service.url}/docs",
            "metrics": f"{service.url}/metrics",
            "stop": "mlp down",
        },
        as_json,
        {
            "environment": "local",
            "endpoint": service.url,
            "demo": f"{service.url}/",
            "docs": f"{service.url}/docs",
            "metrics": f"{service.url}/metrics",
            "predictions": predictions,
        },
    )


def _provision(platform: Local, aws: Process) -> Outputs:
    with step("Infrastructure") as this:
        from embedded.provision import provision  # pulumi takes a second to import: show the step first

        count = 0

        def on_step(_: object) -> None:
            nonlocal count
            count += 1
            if progress.is_terminal:
                this.update(f"{count} resources")

        provisioned = provision(platform, aws, on_step)
        this.done(provisioned.summary)
    for note in provisioned.notes:
        progress.print(f"  [dim]{note}[/dim]")
    return provisioned.outputs


def _train(platform: Local, name: str, outputs: Outputs) -> None:
    with step(f"Model {name}") as this:
        from training.pipeline import run

        result = run(name, outputs, platform.folder / "work" / name, this.update)
        verb = "is up to date" if result.up_to_date else "trained, registered and approved"
        quality = load_manifest(name).quality
        this.done(f"version {result.version} {verb} ({quality} {result.metrics[quality]:.3g})")
    if result.note:
        progress.print(f"  [dim]{result.note}[/dim]")
