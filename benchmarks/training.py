"""Measures the training loop next to a hand-written minimal loop, PyTorch Lightning and itself over two processes.

python -m benchmarks.training [--runs 5] [--models digits diabetes] [--epochs 10]

All train the same network on the same rows with the same batches a step, AdamW, one-cycle schedule and clipping, on one
thread a process; the loss of the last epoch shows that it is the same training. Each run is a process of its own, the
contenders take turns, and a first epoch warms up. Lightning is not among the platform's dependencies:
pip install lightning, or it is left out.
"""

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import nn

from contract.manifest import Manifest, load_manifest
from contract.training import Training
from training import job
from training.data import Rows, encoded, features, model_module
from training.loop import Watch, fit
from training.tasks import Loss, spread
from training.workers import workers

ROWS = 12_800
CPU = torch.device("cpu")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

Contender = Callable[[nn.Module, Training, Rows, Loss], tuple[float, float]]
"""Trains, and gives rows a second after the first epoch and the loss of the last epoch."""


def main() -> None:
    """Print rows a second of each contender, by model, and what share that is of the minimal loop's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--models", nargs="+", default=["digits", "diabetes"])
    parser.add_argument("--only", choices=CONTENDERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        run_one(arguments.only, arguments.models[0], arguments.epochs)
        return
    contenders = [name for name in CONTENDERS if name != "lightning" or importlib.util.find_spec("lightning")]
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {arguments.runs} runs", file=sys.stderr)
    print(f"{'model':10} {'contender':12} {'best rows/s':>12} {'median':>9} {'of minimal':>11} {'last loss':>10}")
    for model in arguments.models:
        came: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
        for _ in range(arguments.runs):
            for name, results in came.items():
                launcher = TORCHRUN if name == "ddp" else [sys.executable]
                own = ["--only", name, "--models", model, "--epochs", str(arguments.epochs)]
                command = [*launcher, "-m", "benchmarks.training", *own]
                environment = os.environ | {"OMP_NUM_THREADS": "1"}
                done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
                if done.returncode:
                    sys.exit(f"{name} failed:\n{done.stderr}")
                speed, loss = done.stdout.split()[-2:]
                results.append((float(speed), float(loss)))
        minimal = max(speed for speed, _ in came["minimal"])
        for name, results in came.items():
            speeds = [speed for speed, _ in results]
            print(
                f"{model:10} {name:12} {max(speeds):12.0f} {statistics.median(speeds):9.0f} "
                f"{100 * max(speeds) / minimal:10.0f}% {results[0][1]:10.4f}"
            )


def run_one(name: str, model: str, epochs: int) -> None:
    """Run one contender in this process."""
    torch.set_num_threads(1)
    manifest = load_manifest(model)
    settings = manifest.training.model_copy(update={"epochs": epochs, "patience": None})
    manifest = manifest.model_copy(update={"training": settings})
    rows = example_rows(manifest)
    loss = job.plain_loss(manifest, rows, spread(manifest.task, rows.targets), CPU)
    speed, last = CONTENDERS[name](job.build(manifest, settings, CPU), settings, rows, loss)
    if os.environ.get("RANK", "0") == "0":
        print(speed, last)


def example_rows(manifest: Manifest) -> Rows:
    """The model's own rows, as often as it takes."""
    table = model_module(manifest.name).raw_data()
    found = Rows(features(table, manifest.data))
    if manifest.data.target and manifest.task != "density":
        found = Rows(found.features, encoded(table[manifest.data.target.name], manifest.data.target))
    return found.take(np.arange(ROWS) % len(found))


def by_platform(network: nn.Module, settings: Training, rows: Rows, loss: Loss) -> tuple[float, float]:
    """`training.loop.fit`, alone or under torchrun."""
    ends = []
    with workers() as together:
        history = fit(network, settings, rows, loss, together, watch=Watch(on_epoch=lambda _: ends.append(_now())))
    # Of several processes one is told of the epochs.
    return _speed(ends, len(rows)) if ends else 0.0, history[-1].loss


def by_hand(network: nn.Module, settings: Training, rows: Rows, loss: Loss) -> tuple[float, float]:
    """What one would write who needs no resuming, stopping, watching, other devices or other processes."""
    optimizer = torch.optim.AdamW(
        network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    steps = len(rows) // settings.batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, settings.epochs * steps)
    inputs, ends, last = torch.from_numpy(rows.features), [], 0.0
    network.train()
    for _ in range(settings.epochs):
        total = torch.zeros(())
        for batch in torch.randperm(len(inputs)).split(settings.batch_size):
            value = loss(network(inputs[batch]), batch)
            optimizer.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(network.parameters(), settings.clip_norm)
            optimizer.step()
            schedule.step()
            total += value.detach()
        last = float(total) / steps
        ends.append(_now())
    return _speed(ends, len(rows)), last


def by_lightning(network: nn.Module, settings: Training, rows: Rows, loss: Loss) -> tuple[float, float]:
    """Lightning's trainer, without logger, checkpoints, progress bar and validation."""
    import logging
    import warnings

    import lightning

    for name in ("lightning", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    ends: list[float] = []
    steps = settings.epochs * (len(rows) // settings.batch_size)

    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network, self.total = network, torch.zeros(())

        def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
            value = loss(self.network(batch[0]), batch[1])
            self.total += value.detach()
            return value

        def on_train_epoch_start(self) -> None:
            self.total.zero_()

        def on_train_epoch_end(self) -> None:
            ends.append(_now())

        def configure_optimizers(self) -> dict[str, object]:
            optimizer = torch.optim.AdamW(
                self.network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
            )
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, steps)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    data = torch.utils.data.TensorDataset(torch.from_numpy(rows.features), torch.arange(len(rows)))
    loader = torch.utils.data.DataLoader(data, settings.batch_size, shuffle=True)
    module = Module()
    with TemporaryDirectory() as folder:
        lightning.Trainer(
            accelerator="cpu",
            max_epochs=settings.epochs,
            gradient_clip_val=settings.clip_norm,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=Path(folder),
        ).fit(module, loader)
    return _speed(ends, len(rows)), float(module.total) / (steps / settings.epochs)


def _now() -> float:
    return time.perf_counter()


def _speed(ends: list[float], rows: int) -> float:
    """Rows a second from the end of the first epoch to that of the last."""
    return rows * (len(ends) - 1) / (ends[-1] - ends[0])


CONTENDERS: dict[str, Contender] = {
    "minimal": by_hand,
    "platform": by_platform,
    "lightning": by_lightning,
    "ddp": by_platform,
}

if __name__ == "__main__":
    main()
