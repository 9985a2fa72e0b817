"""`mlp train`: run a model's pipeline on the laptop platform."""

from pathlib import Path
from typing import Annotated

import typer

from cli.output import AsJson, progress, show, step
from contract.errors import PlatformError
from contract.manifest import load_manifest
from embedded.local import Local


def train(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    source: Annotated[
        Path | None, typer.Option("--from", help="A CSV that replaces the raw data, once it has been checked.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run a model's pipeline: ingest, validate, train, export, evaluate, register, approve.

    A model that is up to date with its data, settings and code is not trained again.
    """
    load_manifest(model)
    platform = Local.of_this_checkout()
    with platform.changing():
        platform.use_aws()
        try:
            with step(f"Model {model}") as this:
                from training.pipeline import run

                result = run(model, platform.outputs(), platform.folder / "work" / model, this.update, source)
                this.done("is up to date" if result.up_to_date else "trained, registered and approved")
        except KeyboardInterrupt:
            raise PlatformError(f"interrupted; nothing was registered: `mlp train {model}` starts it again") from None
    if result.note:
        progress.print(f"  {result.note}", markup=False)
    show(
        {"model": model, "version": result.version, **result.metrics, "artifact": result.artifact},
        as_json,
        {
            "model": model,
            "version": result.version,
            "up_to_date": result.up_to_date,
            "metrics": result.metrics,
            "artifact": result.artifact,
            "note": result.note,
        },
    )
