"""Tune: search for better settings of the training, in segments that know nothing of one another.

A segment is a search of its own (Bergstra et al., Algorithms for hyper-parameter optimization, NeurIPS 2011, by optuna)
with its own seed, and what it leaves is one file. So segments run anywhere: in a pool of processes on one machine, as
the children of a Batch array, each of which is `python -m training tune MODEL` with AWS_BATCH_JOB_ARRAY_INDEX, or as
those of a Step Functions map, each of which is `python -m training tune MODEL SEGMENT`, over a work folder that they
share. At the end `python -m training tune MODEL`, without either, runs what is missing and gathers all of it.
"""

import json
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from torch import nn

from contract.errors import PlatformError
from contract.manifest import Manifest
from contract.strict import parse
from contract.training import Argument, Range, Training, Tune, changed
from training import job
from training.data import Rows, load
from training.loop import DivergedError, Stopped, Watch, mix
from training.metrics import quality
from training.steps import Context, fingerprint
from training.tasks import Served
from training.workers import workers

if TYPE_CHECKING:
    import optuna

TRIALS_FILE, BEST_FILE, REPORT_FILE = "trials.json", "best.yaml", "report.html"
POLL_SECONDS = 0.5
DIGITS = 4
"""Significant digits of the settings that are tried, so that they can be read and copied."""

Stop = Callable[[], bool]


@dataclass(frozen=True)
class Trial:
    """One training with other settings.

    Attributes:
        segment, number: which one it is; number 0 of segment 0 has the manifest's own settings.
        settings: what is changed, by name as in `Tune.space`.
        loss: on the validation part, of the weights that the training would keep; None if the trial failed.
        quality: on the validation part, by the model's quality metric.
        epochs: how many it took.
        seconds: of training.
        failed: why; empty if it did not.
    """

    segment: int
    number: int
    settings: dict[str, Argument]
    loss: float | None
    quality: float | None
    epochs: int
    seconds: float
    failed: str = ""


def step(context: Context) -> str:
    """Run the segments that are not done, here and beside one another, and gather what came of all of them."""
    from training import tuning_report  # matplotlib takes a second

    tune = required(context.manifest)
    missing = [index for index in range(tune.segments) if not _is_done(context, index)]
    if missing:
        _run_here(context, missing)
    trials = [trial for index in range(tune.segments) for trial in _read(_file(context, index))]
    best, now = best_of(trials, context.manifest), trials[0]
    folder = context.folder("tune")
    (folder / TRIALS_FILE).write_text(json.dumps([asdict(trial) for trial in trials], indent=1))
    (folder / BEST_FILE).write_text(section(context.manifest, best))
    tuning_report.write(folder / REPORT_FILE, context.manifest, trials, best, section(context.manifest, best))
    failed = sum(bool(trial.failed) for trial in trials)
    told = f"{len(trials)} trials{f', {failed} of them failed' if failed else ''}: "
    if best is now:
        return f"{told}nothing is better than the manifest's own settings, with a validation loss of {best.loss:.4g}"
    before = "failed" if now.loss is None else f"{now.loss:.4g}"
    return f"{told}best validation loss {best.loss:.4g}, now {before}; its settings are in {folder / BEST_FILE}"


def segment(context: Context, index: int, stop: Stop = lambda: False) -> list[Trial]:
    """Run one segment, from where it was cut off; it ends with the same trials as if it had not been.

    It needs the results of the step split in the work folder, and leaves a file of its own there.

    Args:
        context: of the step.
        index: from 0.
        stop: asked after each step of a training whether to stop there.

    Raises:
        PlatformError: if there is no such segment, or the space does not fit the model.
        Stopped: if it was asked to stop.
    """
    tune = required(context.manifest)
    if not 0 <= index < tune.segments:
        raise PlatformError(
            f"there is no segment {index} of the tuning of {context.manifest.name}; tune.segments in its manifest "
            f"allows 0 to {tune.segments - 1}"
        )
    rows, held_out = (load(context.folder("split") / part, context.manifest) for part in ("train", "validation"))
    file = _file(context, index)
    file.parent.mkdir(parents=True, exist_ok=True)
    trials = _read(file)
    # What a crash has left of a line goes.
    file.write_text("".join(f"{json.dumps(asdict(trial))}\n" for trial in trials))
    for number in range(_first(index) + len(trials), tune.trials + 1):
        settings = _proposed(tune, index, number, trials) if number else {}
        trials.append(_tried(context.manifest, settings, (index, number), rows, held_out, stop))
        with file.open("a") as lines:
            lines.write(f"{json.dumps(asdict(trials[-1]))}\n")
    return trials


def required(manifest: Manifest) -> Tune:
    """The section `tune` of a manifest, held against its training settings.

    Raises:
        PlatformError: if there is none, or a training does not take what is in the space.
    """
    if not manifest.tune:
        raise PlatformError(
            f"the manifest of {manifest.name} has no section `tune`; give it one with a space, such as "
            "tune: {space: {learning_rate: {min: 0.001, max: 0.1, log: true}}}"
        )
    for name, among in manifest.tune.space.items():
        ends = among.choices or tuple(_number(among, end) for end in (among.min, among.max) if end is not None)
        for value in ends:
            parse(Training, changed(manifest.training, {name: value}), f"{manifest.name}/model.yaml, tune.space.{name}")
    return manifest.tune


def best_of(trials: list[Trial], manifest: Manifest) -> Trial:
    """The trial with the least loss, the first of them if several have it.

    Raises:
        PlatformError: if all failed, or there is none.
    """
    if not trials:
        raise PlatformError(
            f"no trial of {manifest.name} is of the settings and code that there are now; they were changed while the "
            "segments ran: run the tuning again"
        )
    done = [trial for trial in trials if trial.loss is not None]
    if not done:
        raise PlatformError(
            f"all {len(trials)} trials of {manifest.name} failed, the first because {trials[0].failed}; "
            "change tune.space in its manifest"
        )
    return min(done, key=lambda trial: trial.loss if trial.loss is not None else math.inf)


def section(manifest: Manifest, best: Trial) -> str:
    """The section `training` of the manifest with the settings of a trial, as YAML to put in place of the old one."""
    settings = Training.model_validate(changed(manifest.training, dict(best.settings)))
    content = settings.model_dump(mode="json", exclude_defaults=True)
    return yaml.safe_dump({"training": content}, sort_keys=False)


def _run_here(context: Context, indices: list[int]) -> None:
    """Run segments in processes of their own, as many at a time as there are cores."""
    tune = required(context.manifest)
    total = tune.segments * tune.trials + 1
    with _pool(len(indices)) as pool:
        silent = Context(context.manifest, context.outputs, context.work, _silent)
        waiting: set[Future[None]] = {pool.submit(_segment, silent, index) for index in indices}
        told = -1
        while waiting:
            done, waiting = wait(waiting, POLL_SECONDS)
            trials = [trial for index in range(tune.segments) for trial in _read(_file(context, index))]
            losses = [trial.loss for trial in trials if trial.loss is not None]
            if len(trials) > told:
                told = len(trials)
                context.report(f"trial {told} of {total}" + (f", best loss {min(losses):.4g}" if losses else ""))
            for future in done:
                try:
                    future.result()
                except BrokenProcessPool:
                    raise PlatformError(
                        f"a process of the tuning of {context.manifest.name} was killed, as a machine does that runs "
                        f"out of memory; `mlp run tune {context.manifest.name}` goes on with the trials that are left"
                    ) from None


@contextmanager
def _pool(segments: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that stop at their next step when the block ends by an error or an interrupt."""
    spawn = multiprocessing.get_context("spawn")  # after a fork, torch's and polars's threads would be missing
    asked = spawn.Event()
    size = min(segments, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    with ProcessPoolExecutor(size, spawn, _begin, (asked,)) as pool:
        try:
            yield pool
        except BaseException:
            asked.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_asked: Stop = lambda: False  # noqa: E731  (of a process of the pool)


def _begin(asked: Any) -> None:
    """Prepare a process of the pool: the one that started it tells it to stop, or dies."""
    import signal

    global _asked
    parent = multiprocessing.parent_process()

    def stop() -> bool:
        if parent and not parent.is_alive():
            os._exit(1)  # nobody waits for the pool's answer
        return bool(asked.is_set())

    _asked = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one decides


def _segment(context: Context, index: int) -> None:
    with suppress(Stopped):  # the one who asked for it does not wait for an answer
        segment(context, index, _asked)


def _silent(_: str) -> None:
    pass


def _tried(
    manifest: Manifest, settings: dict[str, Argument], which: tuple[int, int], rows: Rows, held_out: Rows, stop: Stop
) -> Trial:
    """Train with changed settings; a loss that is no number makes a trial that failed."""
    training = Training.model_validate(changed(manifest.training, dict(settings)))
    manifest = manifest.model_copy(update={"training": training})
    start = time.perf_counter()
    with workers({}) as alone:
        network = job.build(manifest, training, alone.device)
        try:
            history = job.train(manifest, network, rows, held_out, alone, Watch(stop=stop))
        except DivergedError as error:
            return Trial(*which, settings, None, None, 0, time.perf_counter() - start, str(error))
    seconds = time.perf_counter() - start
    losses = [epoch.validation_loss for epoch in history if epoch.validation_loss is not None]
    loss = min(losses) if training.patience is not None else losses[-1]
    if not math.isfinite(loss):
        return Trial(*which, settings, None, None, len(history), seconds, f"the validation loss is {loss}")
    return Trial(*which, settings, loss, _quality(manifest, network, held_out), len(history), seconds)


def _quality(manifest: Manifest, network: nn.Module, held_out: Rows) -> float:
    served = Served(network.cpu(), manifest.task).eval()
    with torch.inference_mode():
        answers = served(torch.from_numpy(held_out.features))
    named = {name: answer.numpy() for name, answer in zip(served.outputs, answers, strict=True)}
    return quality(named, held_out, manifest)


def _proposed(tune: Tune, index: int, number: int, before: list[Trial]) -> dict[str, Argument]:
    """What a segment tries next; it depends on nothing but the seed and the trials before, so that it can go on."""
    import optuna
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {name: _distribution(among) for name, among in tune.space.items()}
    # The first trials are random, more than half of a short segment would be too many.
    sampler = optuna.samplers.TPESampler(
        seed=mix(tune.seed, index, number) % 2**32, n_startup_trials=min(10, max(1, tune.trials // 2))
    )
    study = optuna.create_study(sampler=sampler)
    for trial in before:
        if trial.number:
            state = TrialState.FAIL if trial.loss is None else TrialState.COMPLETE
            study.add_trial(
                create_trial(state=state, value=trial.loss, params=dict(trial.settings), distributions=space)
            )
    asked = study.ask(space)
    return {name: _rounded(value, tune.space[name]) for name, value in asked.params.items()}


def _distribution(among: Range) -> "optuna.distributions.BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if among.choices:
        return CategoricalDistribution(among.choices)
    assert among.min is not None
    assert among.max is not None
    if among.integer:
        return IntDistribution(round(among.min), round(among.max), log=among.log)
    return FloatDistribution(among.min, among.max, log=among.log)


def _rounded(value: Argument, among: Range) -> Argument:
    if not isinstance(value, float) or among.choices or among.min is None or among.max is None:
        return value
    return min(max(float(f"{value:.{DIGITS}g}"), among.min), among.max)


def _number(among: Range, end: float) -> int | float:
    return round(end) if among.integer else end


def _first(index: int) -> int:
    """Number of a segment's first trial: the first segment tries what there is, too."""
    return 1 if index else 0


def _is_done(context: Context, index: int) -> bool:
    return _first(index) + len(_read(_file(context, index))) > required(context.manifest).trials


def _file(context: Context, index: int) -> Path:
    """A segment's trials, a line each, under a name for all that they depend on: no two searches mix."""
    return context.work / "segments" / fingerprint("tune", context)[:16] / f"{index}.jsonl"


def _read(file: Path) -> list[Trial]:
    try:
        lines = file.read_text().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    return [Trial(**json.loads(line)) for line in lines if line.endswith("\n")]
