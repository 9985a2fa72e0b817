"""The training entry point, the same on a laptop and in a SageMaker container.

It follows SageMaker's contract: hyperparameters in SM_HPS or /opt/ml/input/config/hyperparameters.json, the data in the
channel `train` (SM_CHANNEL_TRAIN or /opt/ml/input/data/train), the model into SM_MODEL_DIR or /opt/ml/model, other
output into SM_OUTPUT_DATA_DIR or /opt/ml/output/data, and the reason of a failure into the file `failure` beside it.

    python -m training.train
"""

import io
import json
import math
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from contract.errors import PlatformError
from contract.manifest import Manifest, Training, load_manifest
from contract.strict import parse
from training.data import Rows, load, model_module, split
from training.export import export


@dataclass(frozen=True)
class Job:
    """What a training container is told."""

    hyperparameters: str
    channel: Path
    model_dir: Path
    output_dir: Path

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], root: Path = Path("/opt/ml")) -> "Job":
        """Read SageMaker's variables, or else its files below `root`."""
        file = root / "input" / "config" / "hyperparameters.json"
        return cls(
            hyperparameters=environment.get("SM_HPS") or (file.read_text() if file.exists() else "{}"),
            channel=Path(environment.get("SM_CHANNEL_TRAIN") or root / "input" / "data" / "train"),
            model_dir=Path(environment.get("SM_MODEL_DIR") or root / "model"),
            output_dir=Path(environment.get("SM_OUTPUT_DATA_DIR") or root / "output" / "data"),
        )

    def manifest(self) -> Manifest:
        """The manifest of the model that the hyperparameters name, with the training settings that they change.

        Raises:
            PlatformError: if they are no JSON object, `model` is missing or unknown, or another one is not a training
                setting.
        """
        given = _decode(self.hyperparameters)
        if not isinstance(given, dict) or "model" not in given:
            raise PlatformError(
                'the hyperparameters must name the model, as in {"model": "digits"}, '
                f"but they are {self.hyperparameters.strip()}"
            )
        changes = {name: _decode(value) for name, value in given.items()}
        manifest = load_manifest(str(changes.pop("model")))
        settings = parse(Training, manifest.training.model_dump() | changes, "the hyperparameters")
        return manifest.model_copy(update={"training": settings})


def main() -> None:
    """Run the job of this container; exit with 1 if it fails."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # SageMaker stops a job so
    job = Job.from_environment(os.environ)
    try:
        run(job)
    except Exception as error:
        # What the user can mend needs no traceback; a full disk is among it.
        reason = str(error) if isinstance(error, PlatformError | OSError) else traceback.format_exc()
        job.output_dir.parent.mkdir(parents=True, exist_ok=True)
        (job.output_dir.parent / "failure").write_text(reason)
        sys.exit(f"error: {reason}")


def run(job: Job) -> None:
    """Train, export to ONNX and write the model directory, whole or not at all."""
    manifest = job.manifest()
    train_rows, _ = split(load(job.channel, manifest), manifest.split)
    network = fit(manifest, train_rows)
    unfinished = job.model_dir.with_name(f"{job.model_dir.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    weights = io.BytesIO()  # torch would report a full disk as an error of its own
    torch.save(network.state_dict(), weights)
    (unfinished / "model.pt").write_bytes(weights.getvalue())
    export(network, train_rows.features[:2], unfinished)
    job.model_dir.mkdir(parents=True, exist_ok=True)
    for file in unfinished.iterdir():
        file.replace(job.model_dir / file.name)
    unfinished.rmdir()


def fit(manifest: Manifest, rows: Rows) -> nn.Module:
    """Train the model's network on any device.

    Cross-entropy loss, AdamW and the one-cycle learning-rate schedule (Smith and Topin, arXiv:1708.07120), which gets
    to its accuracy in few epochs.

    Returns:
        The network in evaluation mode, on the CPU.

    Raises:
        PlatformError: if the loss is not a number any more.
    """
    settings = manifest.training
    torch.manual_seed(settings.seed)
    if "OMP_NUM_THREADS" not in os.environ:
        # Sums depend on the number of threads: one gives the same weights on any machine. It is also the fastest for
        # small networks, ten times so where other processes want the cores that OpenMP's waiting threads spin on.
        torch.set_num_threads(1)
    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    network: nn.Module = model_module(manifest.name).network(manifest.data.target.classes).to(device)
    features = torch.from_numpy(rows.features).to(device)
    targets = torch.from_numpy(rows.targets).to(device)
    steps = math.ceil(len(rows) / settings.batch_size)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, settings.epochs * steps)
    network.train()
    for epoch in range(1, settings.epochs + 1):
        total, right = 0.0, 0
        order = torch.randperm(len(rows)).to(device)
        for number, batch in enumerate(torch.split(order, settings.batch_size), 1):
            scores = network(features[batch])
            loss = functional.cross_entropy(scores, targets[batch])
            if not math.isfinite(value := loss.item()):
                raise PlatformError(
                    f"the loss is {value} at epoch {epoch}, step {number} of {steps}, with a learning rate of "
                    f"{schedule.get_last_lr()[0]:.3g}; try a smaller training.learning_rate"
                )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += value * len(batch)
            right += int((scores.argmax(1) == targets[batch]).sum())
        print(
            f"epoch={epoch} of={settings.epochs} loss={total / len(rows):.4f} train_accuracy={right / len(rows):.4f}",
            flush=True,
        )
    return network.eval().cpu()


def _decode(text: Any) -> Any:
    """SageMaker hands every hyperparameter over as a string, and its SDK writes that string as JSON."""
    try:
        return json.loads(text) if isinstance(text, str) else text
    except ValueError:
        return text


if __name__ == "__main__":
    main()
