"""`mlp profile`: where the time of a training goes."""

from typing import Annotated

import typer

from cli.output import AsJson, show, step
from contract.errors import PlatformError
from contract.manifest import load_manifest
from embedded.local import Local

profile = typer.Typer(name="profile", help="Where the time goes, as a page.", no_args_is_help=True)


@profile.callback()
def _profile() -> None:
    """Where the time goes, as a page."""


@profile.command()
def train(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    steps: Annotated[int, typer.Option(min=5, max=10_000, help="Steps of the training to measure.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Train a model for some steps under torch's profiler: data, forward, backward, optimizer and host.

    It needs the results of `mlp run split MODEL`, and changes nothing.
    """
    manifest = load_manifest(model)
    platform = Local.of_this_checkout()
    outputs = platform.outputs()
    with step(f"Profile {model}") as this:
        from training import profiler
        from training.steps import Context

        context = Context(manifest, outputs, platform.folder / "work" / model, this.update)
        if not (context.folder("split") / "train").is_dir():
            raise PlatformError(
                f"there are no rows to train {model} on yet; run `mlp train {model}`, or its steps up to split"
            )
        found = profiler.profile(context, steps)
        page = platform.folder / "profiles" / f"{model}.html"
        profiler.write(page, model, found)
        this.done(f"{found.steps} steps on {found.device}")
    parts = {part: f"{ms:.3f} ms a step, {100 * ms / found.step_ms:.0f}%" for part, ms in found.parts_ms.items()}
    facts = {"step": f"{found.step_ms:.3f} ms", **parts, "rows_per_s": f"{found.rows_per_s:.0f}", "page": str(page)}
    document = {
        "model": model,
        "device": found.device,
        "steps": found.steps,
        "step_ms": found.step_ms,
        "parts_ms": found.parts_ms,
        "rows_per_s": found.rows_per_s,
        "page": str(page),
    }
    show(facts, as_json, document)
