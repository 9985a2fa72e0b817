"""Train: the network learns the train part, watched on the validation part, and becomes an ONNX file."""

import os
import shutil

from training import job
from training.job import Job
from training.steps import Context
from training.tracking import default_uri


def step(context: Context) -> str:
    """Train in this process, from the last checkpoint if a run was cut off; see `training.job.run`."""
    said = job.run(of(context), context.report)
    if not int(os.environ.get("RANK", "0")):
        shutil.rmtree(context.folder("train") / "checkpoints", ignore_errors=True)  # the next run is a new one
    return said


def of(context: Context) -> Job:
    """The training of the model, between the folders of the steps."""
    folder, parts = context.folder("train"), context.folder("split")
    return Job(
        manifest=context.manifest,
        train=parts / "train",
        validation=parts / "validation",
        model_dir=folder / "model",
        output_dir=folder,
        checkpoints=folder / "checkpoints",
        tracking_uri=default_uri(context.work.parent / "mlflow.db", context.outputs.tracking_uri),
    )
