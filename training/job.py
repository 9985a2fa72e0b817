"""One training: the same on a laptop, under torchrun, as a SageMaker training job and as a job on Kubernetes or Batch.

As a SageMaker job it follows SageMaker's contract. Hyperparameters, in SM_HPS or
/opt/ml/input/config/hyperparameters.json, change the manifest's training settings and may name the model; the channels
`train` and `validation` (SM_CHANNEL_..., /opt/ml/input/data/...) hold the parts of the split; the model goes into
SM_MODEL_DIR or /opt/ml/model, other output into SM_OUTPUT_DATA_DIR or /opt/ml/output/data, checkpoints into
MLP_CHECKPOINTS or /opt/ml/checkpoints, and the reason of a failure into the file `failure` beside the output.
"""

import io
import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

from contract.errors import PlatformError
from contract.manifest import Manifest, load_manifest
from contract.service import MODEL_FILE
from contract.strict import parse
from contract.training import Training, changed
from training import tasks
from training.checkpoint import Checkpoints, identity
from training.data import Rows, load, model_module
from training.export import export
from training.loop import Epoch, Stopped, Watch, fit, validation
from training.tracking import Report, default_uri, tracked
from training.workers import Workers, workers

WEIGHTS_FILE, HISTORY_FILE = "model.pt", "training.json"
ROOT = Path("/opt/ml")


@dataclass(frozen=True)
class Job:
    """What a training is told.

    Attributes:
        manifest: the model's, with the settings to train with.
        train, validation: folders with the parts of the split; the second may be missing.
        model_dir: where `model.onnx` and `model.pt` go.
        output_dir: where `training.json` goes, what came of each epoch.
        checkpoints: a folder that outlives the process.
        tracking_uri: of MLflow.
    """

    manifest: Manifest
    train: Path
    validation: Path
    model_dir: Path
    output_dir: Path
    checkpoints: Path
    tracking_uri: str

    @classmethod
    def of_sagemaker(cls, environment: Mapping[str, str], model: str | None = None, root: Path = ROOT) -> "Job":
        """Read SageMaker's variables, or else its files below `root`.

        Raises:
            PlatformError: if neither `model` nor a hyperparameter names the model, or a hyperparameter is wrong.
        """
        file, data = root / "input" / "config" / "hyperparameters.json", root / "input" / "data"
        given = environment.get("SM_HPS") or (file.read_text() if file.exists() else "{}")
        output = Path(environment.get("SM_OUTPUT_DATA_DIR") or root / "output" / "data")
        return cls(
            manifest=with_hyperparameters(given, model),
            train=Path(environment.get("SM_CHANNEL_TRAIN") or data / "train"),
            validation=Path(environment.get("SM_CHANNEL_VALIDATION") or data / "validation"),
            model_dir=Path(environment.get("SM_MODEL_DIR") or root / "model"),
            output_dir=output,
            checkpoints=Path(environment.get("MLP_CHECKPOINTS") or root / "checkpoints"),
            tracking_uri=default_uri(output / "mlflow.db"),
        )


def with_hyperparameters(text: str, model: str | None = None) -> Manifest:
    """The manifest of a model with the training settings that SageMaker's hyperparameters change.

    Args:
        text: a JSON object whose values may be strings that hold JSON, as SageMaker and its SDK write them.
        model: the model, if it is known; otherwise the hyperparameter `model` names it.

    Raises:
        PlatformError: if they are no JSON object, the model is missing, another one or unknown, or one of them is not
            a training setting.
    """
    given = _decode(text)
    if not isinstance(given, dict) or not (model or "model" in given):
        raise PlatformError(
            f'the hyperparameters must name the model, as in {{"model": "digits"}}, but they are {text.strip()}'
        )
    changes = {name: _decode(value) for name, value in given.items()}
    named = str(changes.pop("model", model))
    if model and named != model:
        raise PlatformError(f"the hyperparameters name the model {named!r}, but the command line names {model!r}")
    manifest = load_manifest(named)
    settings = parse(Training, changed(manifest.training, changes), "the hyperparameters")
    return manifest.model_copy(update={"training": settings})


def main(model: str | None = None) -> None:
    """Run the SageMaker training job of this container.

    Exits with 1 if it fails, with the reason in the file `failure`, and with 143 if SIGTERM stopped it.
    """
    output = Path(os.environ.get("SM_OUTPUT_DATA_DIR") or ROOT / "output" / "data")
    try:
        said = run(Job.of_sagemaker(os.environ, model), lambda line: print(line, flush=True))
        if not int(os.environ.get("RANK", "0")):  # one of the processes speaks for all
            print(said)
    except Stopped:
        sys.exit(143)
    except Exception as error:
        # What the user can mend needs no traceback; a full disk is among it.
        reason = str(error) if isinstance(error, PlatformError | OSError) else traceback.format_exc()
        output.parent.mkdir(parents=True, exist_ok=True)
        (output.parent / "failure").write_text(reason)
        sys.exit(f"error: {reason}")


def run(job: Job, report: Report) -> str:
    """Train, export to ONNX and write the model directory, whole or not at all; in all processes of the training.

    The first signal to stop (SIGTERM, as spot interruption sends it, or SIGINT) writes a checkpoint and ends it.

    Returns:
        A line that says what came of it.

    Raises:
        PlatformError: if the data, the settings or a checkpoint do not fit, or the loss is not a number any more.
        Stopped: if it was stopped.
    """
    with stopping() as asked, workers() as together:
        rows = load(job.train, job.manifest)
        held_out = load(job.validation, job.manifest) if job.validation.is_dir() else None
        settings = job.manifest.training
        if held_out is None and settings.patience is not None:
            raise PlatformError(
                f"training.patience needs the validation part, but {job.validation} does not exist; "
                "give the training the channel `validation`, or set patience to null"
            )
        network = build(job.manifest, settings, together.device)
        checkpoints = Checkpoints(job.checkpoints, identity(network, settings, rows))
        if together.leads and checkpoints.file.exists():
            report(f"goes on from {checkpoints.file}")
        start = time.perf_counter()
        with _tracked(job, together, report) as on_epoch:
            history = train(job.manifest, network, rows, held_out, together, Watch(checkpoints, on_epoch, asked))
            seconds = time.perf_counter() - start
        seconds = time.perf_counter() - start
        if together.leads:
            _write(job, network.eval().cpu(), rows, history)
    last = history[-1]
    watched = "" if last.validation_loss is None else f", validation loss {last.validation_loss:.4g}"
    return f"{last.number} epochs in {seconds:.1f} s on {together.device}: loss {last.loss:.4g}{watched}"


def build(manifest: Manifest, settings: Training, device: torch.device, **arguments: Any) -> nn.Module:
    """The untrained network; its first weights depend on the seed alone.

    Raises:
        PlatformError: if training.network has an argument that the function `network` in model.py does not take.
    """
    torch.manual_seed(settings.seed)
    try:
        network: nn.Module = model_module(manifest.name).network(manifest.data, **(settings.network | arguments))
    except TypeError as error:
        raise PlatformError(
            f"the network of {manifest.name} cannot be made with {settings.network | arguments}: {error}; "
            f"see `network` in its model.py, and training.network in its manifest"
        ) from None
    return network.to(device)


def train(
    manifest: Manifest,
    network: nn.Module,
    rows: Rows,
    held_out: Rows | None,
    together: Workers,
    watch: Watch | None = None,
) -> list[Epoch]:
    """Train a network with the loss of the model's task and the settings of its manifest; see `training.loop.fit`."""
    scale = tasks.spread(manifest.task, rows.targets)
    validate = validation_loss(manifest, held_out, scale, together.device) if held_out else None
    return fit(
        network, manifest.training, rows, plain_loss(manifest, rows, scale, together.device), together, validate, watch
    )


def plain_loss(manifest: Manifest, rows: Rows, scale: float, device: torch.device) -> tasks.Loss:
    """The loss of the model's task on these rows."""
    targets = None if rows.targets is None else torch.from_numpy(rows.targets).to(device)
    return tasks.loss(manifest.task, targets, scale)


def validation_loss(manifest: Manifest, rows: Rows, scale: float, device: torch.device) -> Callable[[nn.Module], float]:
    """What measures a network's loss on rows it is not trained with."""
    loss, every = plain_loss(manifest, rows, scale, device), torch.arange(len(rows), device=device)
    return validation(rows, lambda outputs: loss(outputs, every), device)


@contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Turn the first SIGTERM or SIGINT into a flag, so that work ends where its state is whole; the second ends it."""
    asked = threading.Event()

    def ask(_: int, __: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {each: signal.signal(each, ask) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked.is_set
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    if asked.is_set():
        raise Stopped  # it came when there was nothing left to stop, in the export say


@contextmanager
def _tracked(job: Job, together: Workers, report: Report) -> Iterator[Callable[[Epoch], None]]:
    """What is told of each epoch: the screen and MLflow."""
    if not together.leads:
        yield lambda _: None
        return
    settings = job.manifest.training
    with tracked(job.tracking_uri, job.manifest.name, settings.model_dump(), report) as run:

        def tell(epoch: Epoch) -> None:
            run.epoch(epoch)
            watched = "" if epoch.validation_loss is None else f" validation_loss={epoch.validation_loss:.4f}"
            report(
                f"epoch={epoch.number} of={settings.epochs} loss={epoch.loss:.4f}{watched} "
                f"learning_rate={epoch.learning_rate:.2g} rows_per_s={epoch.rows_per_s:.0f}"
            )

        yield tell


def _write(job: Job, network: nn.Module, rows: Rows, history: list[Epoch]) -> None:
    unfinished = job.model_dir.with_name(f"{job.model_dir.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    weights = io.BytesIO()  # torch would report a full disk as an error of its own
    torch.save(network.state_dict(), weights)
    (unfinished / WEIGHTS_FILE).write_bytes(weights.getvalue())
    export(network, job.manifest.task, rows.features[:2], unfinished)
    job.output_dir.mkdir(parents=True, exist_ok=True)
    (job.output_dir / HISTORY_FILE).write_text(json.dumps([asdict(epoch) for epoch in history]))
    job.model_dir.mkdir(parents=True, exist_ok=True)
    for name in (WEIGHTS_FILE, MODEL_FILE):
        (unfinished / name).replace(job.model_dir / name)
    unfinished.rmdir()


def _decode(text: Any) -> Any:
    try:
        return json.loads(text) if isinstance(text, str) else text
    except ValueError:
        return text
