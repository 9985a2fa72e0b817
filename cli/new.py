"""`mlp new`: write the folder of a new model."""

import json
import keyword
import shutil
from typing import Annotated

import typer

from cli.output import AsJson, show
from contract.errors import PlatformError
from contract.gates import Task
from contract.manifest import NAME_PATTERN, load_manifest, model_names
from contract.paths import MODELS

TEMPLATES = MODELS.with_name("templates")


def new(
    name: Annotated[str, typer.Argument(help="Lower-case letters and digits, such as churn.")],
    task: Annotated[Task, typer.Option(help="What the model does.")],
    description: Annotated[
        str, typer.Option(help="One sentence for the registry, the catalog and the model's card.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Write a model's folder, training/models/NAME: a manifest, a network, sample data and a sample request.

    It trains, is tested and deploys as it is; then replace the sample data and the network by your own.
    """
    if not NAME_PATTERN.fullmatch(name) or keyword.iskeyword(name):
        raise PlatformError(
            f"{name!r} cannot be the name of a model: allowed are up to 31 lower-case letters and digits, a letter "
            "first, and no word of Python's own"
        )
    folder = MODELS / name
    if folder.exists():
        raise PlatformError(f"{folder} is there already; the models are: {', '.join(model_names())}")
    told = " ".join((description or f"A {task} model, on sample data.").split())
    unfinished = MODELS / f".{name}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(TEMPLATES / task, unfinished, ignore=shutil.ignore_patterns("__pycache__"))
    for file in unfinished.iterdir():
        # As JSON a text is YAML too, whatever stands in it; in a docstring only quotes and backslashes could harm.
        as_text = json.dumps(told) if file.suffix == ".yaml" else told.replace("\\", "/").replace('"', "'")
        file.write_text(file.read_text().replace("NAME", name).replace("DESCRIPTION", as_text))
    unfinished.rename(folder)
    load_manifest(name)
    files = sorted(str(file.relative_to(MODELS.parents[1])) for file in folder.iterdir())
    show(
        {
            "files": "\n".join(files),
            "train": f"mlp up, or mlp train {name} once it is in the infrastructure that mlp up has made",
            "tests": "UPDATE_GRAPHS=1 make test accepts the resources that it adds to the reviewed graphs",
            "next": "put your data's columns into model.yaml and its source into data.source; docs/training.md",
        },
        as_json,
        {"model": name, "task": task, "folder": str(folder), "files": files},
    )
