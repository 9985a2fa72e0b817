"""Where the time of a training goes: some of its steps under torch's profiler, and a page that shows it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, record_function

from training import job
from training.data import load
from training.loop import Stopped, Watch
from training.report import Section, Table, figure, plot
from training.report import write as write_page
from training.steps import Context
from training.workers import workers

PARTS = ("data", "forward", "backward", "optimizer")
MARK = "mlp "
"""What stands before the name of a part among the profiler's own events."""
WARM_UP = 10
"""Steps that are not measured: the first ones allocate and choose algorithms."""
OPERATORS = 25


@dataclass(frozen=True)
class Operator:
    """One of torch's operators over all measured steps; times in milliseconds a step, without what it calls."""

    name: str
    calls: float
    host_ms: float
    device_ms: float


@dataclass(frozen=True)
class Found:
    """Where the time went.

    Attributes:
        device: such as `cpu`.
        steps: how many were measured, and as profiling itself takes time, slower than without.
        step_ms: wall-clock time of a step.
        parts_ms: of it, by part; host is the rest, that is Python between the parts.
        device_ms: time that an accelerator computed in a step; None on a CPU, where it is the host's.
        rows_per_s: of the training, with the profiler.
        operators: the costliest first.
        memory_mb: the most that was allocated on an accelerator; None on a CPU.
    """

    device: str
    steps: int
    step_ms: float
    parts_ms: dict[str, float]
    device_ms: float | None
    rows_per_s: float
    operators: list[Operator]
    memory_mb: float | None


def profile(context: Context, steps: int) -> Found:
    """Train the manifest's network on the train part for some steps; nothing of it is kept.

    Raises:
        PlatformError: if there is no train part.
    """
    manifest = context.manifest
    rows = load(context.folder("split") / "train", manifest)
    epochs = max(manifest.training.epochs, (steps + WARM_UP) * manifest.training.batch_size // len(rows) + 2)
    # Rows alone: a validation between the steps would be counted as the host's time.
    settings = manifest.training.model_copy(update={"patience": None, "epochs": epochs})
    manifest = manifest.model_copy(update={"training": settings})
    with workers({}) as alone:
        network = job.build(manifest, settings, alone.device)
        activities = [ProfilerActivity.CPU]
        if alone.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
            torch.cuda.reset_peak_memory_stats()
        profiler = torch.profiler.profile(
            activities=activities, schedule=torch.profiler.schedule(wait=0, warmup=WARM_UP, active=steps, repeat=1)
        )
        count = 0

        def stop() -> bool:
            nonlocal count
            count += 1
            profiler.step()
            return count >= WARM_UP + steps

        with profiler:
            _until_stopped(lambda: job.train(manifest, network, rows, None, alone, Watch(stop=stop, span=_span)))
        memory = torch.cuda.max_memory_allocated() / 1e6 if alone.device.type == "cuda" else None
    return _found(profiler, str(alone.device), steps, min(settings.batch_size, len(rows)), memory)


def write(path: Path, model: str, found: Found) -> None:
    """Write the page."""
    drawn = figure(height=2.2)
    axes, left = drawn.subplots(), 0.0
    for name, ms in found.parts_ms.items():
        axes.barh(["step"], [ms], left=left, label=f"{name} {ms:.3f} ms")
        left += ms
    axes.set(xlabel="milliseconds a step", yticks=[])
    axes.legend(frameon=False, ncols=len(found.parts_ms), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    costly = figure(height=0.3 * len(found.operators[:10]) + 1)
    bars = costly.subplots()
    names = [each.name for each in found.operators[:10]]
    bars.barh(names, [each.device_ms or each.host_ms for each in found.operators[:10]])
    bars.invert_yaxis()
    bars.set(xlabel="milliseconds a step")
    parts = [[name, ms, f"{100 * ms / found.step_ms:.0f}%"] for name, ms in found.parts_ms.items()]
    facts: list[list[Any]] = [["device", found.device], ["steps", found.steps], ["milliseconds a step", found.step_ms]]
    facts.append(["rows a second", round(found.rows_per_s)])
    if found.device_ms is not None:
        facts += [["milliseconds a step that the device computed", found.device_ms], ["MB at most", found.memory_mb]]
    operators = [[each.name, each.calls, each.host_ms, each.device_ms] for each in found.operators]
    sections = [
        Section(
            "Parts of a step",
            "Measured by torch's profiler, which itself takes time: shares are telling, sums are too long. On an "
            "accelerator the parts are what the host took to launch them. Host is Python between the parts.",
            [Table(["", ""], facts), Table(["part", "ms a step", "share"], parts)],
            [plot(drawn, "Time of a step by part")],
        ),
        Section(
            "Operators",
            "Time in the operator itself, without what it calls.",
            [Table(["operator", "calls a step", "host ms a step", "device ms a step"], operators)],
            [plot(costly, "The costliest operators")],
        ),
    ]
    lead = f"{found.step_ms:.3f} ms a step on {found.device}, {found.rows_per_s:.0f} rows a second."
    write_page(path, f"{model}: profile of the training", lead, sections)


@contextmanager
def _span(name: str) -> Iterator[None]:
    with record_function(MARK + name):
        yield


def _until_stopped(train: Callable[[], object]) -> None:
    try:
        train()
    except Stopped:
        return
    raise AssertionError("the training ended before all steps were measured")


def _found(profiler: Any, device: str, steps: int, batch: int, memory: float | None) -> Found:
    events = profiler.key_averages()
    on_host = [event for event in events if event.device_type.name == "CPU"]
    parts = {name: _total(on_host, MARK + name) / steps / 1e3 for name in PARTS}
    marks = [event for event in on_host if event.key.startswith("ProfilerStep")]
    step_ms = sum(event.cpu_time_total for event in marks) / steps / 1e3
    parts["host"] = max(0.0, step_ms - sum(parts.values()))
    has_device = device != "cpu"
    operators = [
        Operator(
            event.key,
            event.count / steps,
            event.self_cpu_time_total / steps / 1e3,
            event.self_device_time_total / steps / 1e3,
        )
        for event in on_host
        if not event.key.startswith((MARK, "ProfilerStep"))
    ]
    operators.sort(key=lambda each: -(each.device_ms or each.host_ms))
    kernels = [event for event in events if event.device_type.name != "CPU"]
    device_ms = sum(event.self_device_time_total for event in kernels) / steps / 1e3 if has_device else None
    return Found(device, steps, step_ms, parts, device_ms, batch / step_ms * 1e3, operators[:OPERATORS], memory)


def _total(events: list[Any], key: str) -> float:
    return float(sum(event.cpu_time_total for event in events if event.key == key))
