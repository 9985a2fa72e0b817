"""The training loop: plain PyTorch, on one device or many processes, which can stop anywhere and go on from there."""

import copy
import hashlib
import math
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from contract.errors import PlatformError
from contract.training import Training
from training.checkpoint import Checkpoints
from training.data import Rows
from training.tasks import Loss, answers
from training.workers import Workers

CHECK_EVERY = 50
"""Steps after which the losses are looked at: to look at each would make a GPU wait for the host."""
ASK_EVERY = 16
"""Steps after which processes ask one another whether to stop."""
WORTH_COMPILING = 2_000
"""Steps that a run on a GPU must have for the minute or so of compilation to pay."""

Span = Callable[[str], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Epoch:
    """What one pass over the rows came to; losses are means over rows."""

    number: int
    loss: float
    validation_loss: float | None
    learning_rate: float
    rows_per_s: float


class Stopped(KeyboardInterrupt):
    """The training was asked to stop; if it has checkpoints, what it has done is in one."""


class DivergedError(PlatformError):
    """The loss is not a number any more."""


def _never() -> bool:
    return False


def _ignore(_: Epoch) -> None:
    pass


@dataclass
class Watch:
    """How a training is followed and stopped.

    Attributes:
        checkpoints: where it keeps its state, if it is to survive its process.
        on_epoch: told of each epoch, in the leading process.
        stop: asked after each step whether to stop there.
        span: marks a part of a step for a profiler.
    """

    checkpoints: Checkpoints | None = None
    on_epoch: Callable[[Epoch], None] = _ignore
    stop: Callable[[], bool] = _never
    span: Span | None = None


def fit(
    network: nn.Module,
    settings: Training,
    rows: Rows,
    loss: Loss,
    workers: Workers,
    validate: Callable[[nn.Module], float] | None = None,
    watch: Watch | None = None,
) -> list[Epoch]:
    """Train a network, from its last checkpoint if there is one.

    AdamW with the one-cycle schedule (Smith and Topin, arXiv:1708.07120), which gets far in few epochs. On one process
    of a CPU the weights depend on nothing but the arguments: a run that was stopped and went on ends with the same.

    Args:
        network: in place; on the device of `workers`, and left there.
        settings: the manifest's.
        rows: to train on, the same in all processes.
        loss: of outputs and the positions of their rows.
        workers: this process and the others.
        validate: the loss on other rows, for early stopping.
        watch: how it is followed and stopped.

    Returns:
        What each epoch came to, those before the checkpoint too.

    Raises:
        DivergedError: if the loss is not a number any more.
        PlatformError: if a checkpoint cannot be written, or is of something else.
        Stopped: if it was asked to stop.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        # Sums depend on the number of threads: one gives the same weights on any machine. It is also the fastest for
        # small networks, ten times so where other processes want the cores that OpenMP's waiting threads spin on.
        torch.set_num_threads(1)
    loop = _Loop(network, settings, rows, loss, workers, validate, watch or Watch())
    loop.run()
    return loop.history


def validation(rows: Rows, loss: Callable[[Tensor], Tensor], device: torch.device) -> Callable[[nn.Module], float]:
    """What measures a network's loss on rows; `loss` is that of its outputs for all of them."""
    features = torch.from_numpy(rows.features).to(device)
    return lambda network: float(loss(answers(network, features)))


class _Loop:
    def __init__(
        self,
        network: nn.Module,
        settings: Training,
        rows: Rows,
        loss: Loss,
        workers: Workers,
        validate: Callable[[nn.Module], float] | None,
        watch: Watch,
    ) -> None:
        self.network, self.settings, self.loss, self.workers = network, settings, loss, workers
        self.validate, self.watch, self.span = validate, watch, watch.span or (lambda _: nullcontext())
        self.features = torch.from_numpy(rows.features).to(workers.device)
        self.batches = _batches(len(rows), settings.batch_size, workers.size)
        self.steps = len(self.batches)
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, settings.learning_rate, settings.epochs * self.steps
        )
        self.mixed, kind = _precision(settings, workers.device)
        self.scaler = torch.amp.GradScaler(workers.device.type, enabled=kind is torch.float16)
        self.losses = torch.zeros(self.steps, device=workers.device)
        self.rates = [0.0] * self.steps
        self.epoch = self.step = 0
        self.history: list[Epoch] = []
        self.best, self.best_weights, self.since_best = math.inf, dict[str, Tensor](), 0
        self.saved = time.monotonic()

    def run(self) -> None:
        self._resume()
        self.model = self._compiled(self.workers.share(self.network))
        while self.epoch < self.settings.epochs and not self._is_enough():
            self._run_epoch()
        if self.best_weights:
            self.network.load_state_dict(self.best_weights)
        self._check_weights()
        self._save()

    def _run_epoch(self) -> None:
        order = self._order()
        if self.step == 0:
            torch.manual_seed(mix(self.settings.seed, self.epoch, self.workers.rank))
        self.network.train()
        started, first = time.perf_counter(), self.step
        while self.step < self.steps:
            self._run_step(order)
            self.step += 1
            if self.step % CHECK_EVERY == 0 or self.step == self.steps:
                self._check_losses()
            self._stop_if_asked()
        seconds = time.perf_counter() - started
        rows = (self.step - first) * self.settings.batch_size
        validation_loss = self._validation_loss()
        loss = float(self.workers.mean(self.losses.mean()))
        self.epoch, self.step = self.epoch + 1, 0
        self.history.append(Epoch(self.epoch, loss, validation_loss, self.rates[-1], rows / seconds))
        if self.workers.leads:
            self.watch.on_epoch(self.history[-1])
        if time.monotonic() - self.saved >= self.settings.checkpoint_seconds:
            self._save()

    def _run_step(self, order: Tensor) -> None:
        span = self.span
        with span("data"):
            rows = order[self.batches[self.step]][self.workers.rank :: self.workers.size]
            features = self.features[rows]
        with span("forward"), self.mixed():
            loss = self.loss(self.model(features), rows)
        with span("backward"):
            self.optimizer.zero_grad()
            self.scaler.scale(loss).backward()
        with span("optimizer"):
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_norm)
            self.rates[self.step] = self.optimizer.param_groups[0]["lr"]
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.schedule.step()
        self.losses[self.step] = loss.detach()

    def _check_losses(self) -> None:
        if self.losses[: self.step].isfinite().all():
            return
        step = int((~self.losses[: self.step].isfinite()).nonzero()[0])
        raise DivergedError(
            f"the loss is {float(self.losses[step])} at epoch {self.epoch + 1}, step {step + 1} of {self.steps}, with "
            f"a learning rate of {self.rates[step]:.3g}; try a smaller training.learning_rate"
        )

    def _check_weights(self) -> None:
        """No loss has seen what the last step made of the weights."""
        if all(bool(weights.isfinite().all()) for weights in self.parameters):
            return
        raise DivergedError(
            f"the weights are no finite numbers after epoch {self.epoch}, step {self.steps} of {self.steps}, with a "
            f"learning rate of {self.rates[-1]:.3g}; try a smaller training.learning_rate"
        )

    def _validation_loss(self) -> float | None:
        """Measure the epoch's weights, and keep them if they are the best and the best are wanted."""
        if self.validate is None:
            return None
        now = float(self.workers.agree(self.validate(self.network)))
        if self.settings.patience is not None:
            self.since_best += 1
            if now < self.best or not self.best_weights:
                self.best, self.since_best = now, 0
                self.best_weights = copy.deepcopy(self.network.state_dict())
        return now

    def _is_enough(self) -> bool:
        return self.settings.patience is not None and self.since_best >= self.settings.patience

    def _order(self) -> Tensor:
        """The rows in the epoch's order, the same in all processes and after a resumption."""
        shuffle = torch.Generator().manual_seed(mix(self.settings.seed, self.epoch, -1))
        return torch.randperm(len(self.features), generator=shuffle).to(self.workers.device)

    def _stop_if_asked(self) -> None:
        if self.workers.size > 1 and self.step % ASK_EVERY and self.step < self.steps:
            return
        if self.workers.any(self.watch.stop()):
            self._save()
            raise Stopped

    def _save(self) -> None:
        self.saved = time.monotonic()
        if self.watch.checkpoints is None or not self.workers.leads:
            return
        self.watch.checkpoints.save(
            {
                "network": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "scaler": self.scaler.state_dict(),
                "epoch": self.epoch,
                "step": self.step,
                "losses": self.losses,
                "rates": self.rates,
                "history": [asdict(epoch) for epoch in self.history],
                "best": (self.best, self.best_weights, self.since_best),
                "random": _random_state(self.workers.device),
            }
        )

    def _resume(self) -> None:
        state = self.watch.checkpoints.load() if self.watch.checkpoints else None
        # The hosts of a training may have no common folder: whoever has come furthest tells the others.
        state = self.workers.agree(state, weight=1 + state["epoch"] * self.steps + state["step"] if state else 0)
        if state is None:
            return
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.step = state["epoch"], state["step"]
        self.losses.copy_(state["losses"])
        self.rates = list(state["rates"])
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        self.best, self.best_weights, self.since_best = state["best"]
        if self.workers.size == 1:
            _set_random_state(state["random"], self.workers.device)
        else:
            torch.manual_seed(mix(self.settings.seed, self.epoch, self.workers.rank))

    def _compiled(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        wanted = self.settings.compile
        long = self.settings.epochs * self.steps >= WORTH_COMPILING
        if wanted == "on" or (wanted == "auto" and self.workers.device.type == "cuda" and long):
            return torch.compile(model)
        return model


def _batches(count: int, size: int, workers: int) -> list[slice]:
    """The batches of an epoch, each a whole number of rows a process.

    What is left is a smaller batch, or is left out if it has less than two rows a process: batch normalisation needs
    two.

    Raises:
        PlatformError: if there is none.
    """
    size = size // workers * workers
    batches = [slice(start, min(start + size, count)) for start in range(0, count, size or 1)]
    batches = [slice(b.start, b.start + (b.stop - b.start) // workers * workers) for b in batches]
    batches = [batch for batch in batches if batch.stop - batch.start >= 2 * workers]
    if not batches:
        raise PlatformError(
            f"batches of {size} out of {count} rows are too small for {workers} process(es), each of which needs 2 "
            "rows; change training.batch_size, or train on fewer"
        )
    return batches


def _precision(
    settings: Training, device: torch.device
) -> tuple[Callable[[], AbstractContextManager[Any]], torch.dtype]:
    """What a forward pass runs in, and the type that it computes with where that is safe."""
    kind = torch.float32
    if settings.precision != "auto":
        kind = getattr(torch, settings.precision)
    elif device.type == "cuda":
        kind = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if kind is torch.float32:
        return nullcontext, kind
    if kind is torch.float16 and device.type == "cpu":
        raise PlatformError(
            "training.precision is 'float16', which CPUs do not train in; allowed here: bfloat16, float32"
        )
    return lambda: torch.autocast(device.type, kind), kind


def mix(*numbers: int) -> int:
    """A seed from several numbers, the same in every process."""
    return int.from_bytes(hashlib.sha256(repr(numbers).encode()).digest()[:7], "big")


def _random_state(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def _set_random_state(states: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1], device)
