"""`mlp run`: one step of a model's pipeline on the laptop platform."""

from typing import Annotated

import typer

from cli.output import AsJson, show, step
from contract.errors import PlatformError
from contract.manifest import load_manifest
from embedded.local import Local
from training.steps import STEPS, Context, run_step


def run(
    name: Annotated[str, typer.Argument(metavar="STEP", help=f"One of {', '.join(STEPS)}.")],
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    as_json: AsJson = False,
) -> None:
    """Run one step of a model's pipeline, whether or not it has run before.

    A step needs up-to-date results of the steps before it; `mlp train` runs all of them, and what is up to date not
    again.
    """
    if name not in STEPS:
        raise PlatformError(f"unknown step {name!r}; there are: {', '.join(STEPS)}")
    manifest = load_manifest(model)
    platform = Local.of_this_checkout()
    with platform.changing():
        platform.use_aws()
        try:
            with step(f"{name} {model}") as this:
                outputs = platform.outputs()
                outputs.of_model(model)  # what it does not know cannot be registered in the end
                context = Context(manifest, outputs, platform.folder / "work" / model, this.update)
                said = run_step(name, context)
                this.done(said)
        except KeyboardInterrupt:
            raise PlatformError(f"interrupted; `mlp run {name} {model}` starts it again") from None
    facts = {"model": model, "step": name, "result": said, "folder": str(context.folder(name))}
    show(facts, as_json)
