"""The table of the pipeline's steps, and how one is run: on its own, or after those before it.

A step is a module of this package with a function `step(context) -> str`, which leaves its results in
`context.folder(<its name>)` and says in a line what came of it. This module imports none of them until it is run.
"""

import functools
import hashlib
import importlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from contract.errors import PlatformError
from contract.manifest import Manifest
from contract.outputs import Outputs
from contract.paths import MODELS, ROOT

Report = Callable[[str], None]
BEGUN, DONE = "_begun.json", "_done.json"
TESTS = ("slices", "behaviour")


@dataclass(frozen=True)
class Step:
    """A row of the table.

    Attributes:
        does: what it does.
        reads: the sections of the manifest on which its results depend.
        after: the step whose results it needs, if it needs any.
    """

    does: str
    reads: tuple[str, ...]
    after: str | None


STEPS: dict[str, Step] = {
    "ingest": Step("read the raw data into a snapshot", ("data",), None),
    "validate": Step("hold the snapshot against its schema", ("data", "purpose"), "ingest"),
    "explore": Step("profile the snapshot and draw a report", ("data",), "validate"),
    "split": Step("divide the rows and look for leaks", ("data", "task", "split"), "explore"),
    "train": Step("train the network", ("training",), "split"),
    "optimise": Step("make it small, and choose the smallest variant that is good enough", ("optimise",), "train"),
    "evaluate": Step("measure it on the test part and hold it against its gates", ("gates", *TESTS), "optimise"),
    "register": Step(
        "put it into the registry with its card and lineage", ("description", "limits", "serving"), "evaluate"
    ),
    "tune": Step("search for better settings", ("training", "tune"), "split"),
}
PIPELINE = tuple(name for name in STEPS if name != "tune")
"""The steps that make a version, in the order in which they run."""


@dataclass(frozen=True)
class Context:
    """What a step is given.

    Attributes:
        manifest: the model's.
        outputs: where the environment keeps things.
        work: the model's folder for what lies between the steps.
        report: told in a line what is going on.
    """

    manifest: Manifest
    outputs: Outputs
    work: Path
    report: Report

    def folder(self, step: str) -> Path:
        """Where the results of a step are."""
        return self.work / step


def run_step(name: str, context: Context) -> str:
    """Run one step, whether or not it has run before.

    What it left half-done stays for it to go on from, as long as what it depends on is the same.

    Returns:
        A line that says what came of it.

    Raises:
        PlatformError: if there is no such step, a step before it has no up-to-date results, or it refuses its input.
    """
    if name not in STEPS:
        raise PlatformError(f"unknown step {name!r}; there are: {', '.join(STEPS)}")
    if (before := STEPS[name].after) and not is_current(before, context):
        model = context.manifest.name
        stale = next(step for step in STEPS if not is_current(step, context))
        raise PlatformError(
            f"{name} needs the results of {before}, and {stale} of {model} has none that are up to date; "
            f"run `mlp run {stale} {model}`, or `mlp train {model}` for all steps"
        )
    folder, wanted = context.folder(name), fingerprint(name, context)
    (folder / DONE).unlink(missing_ok=True)
    if _read(folder / BEGUN).get("fingerprint") != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / BEGUN).write_text(json.dumps({"fingerprint": wanted}))
    start = time.perf_counter()
    context.report(name)
    said: str = importlib.import_module(f"training.{name}").step(context)
    seconds = time.perf_counter() - start
    done = {"fingerprint": wanted, "result": said, "seconds": round(seconds, 3)}
    (folder / DONE).write_text(json.dumps(done))
    context.report(f"{name}: {said} ({seconds:.1f} s)")
    return said


def is_current(name: str, context: Context) -> bool:
    """Whether a step has run to its end from the data, settings and code that there are now."""
    done = _read(context.folder(name) / DONE)
    before = STEPS[name].after
    return done.get("fingerprint") == fingerprint(name, context) and (not before or is_current(before, context))


def fingerprint(name: str, context: Context) -> str:
    """Name what the results of a step depend on: the step before it with its result, the settings and the code."""
    before = STEPS[name].after
    sections = {section: context.manifest.model_dump(mode="json")[section] for section in STEPS[name].reads}
    came = _read(context.folder(before) / DONE) if before else {}
    parts = [
        [came.get("fingerprint"), came.get("result")],
        sections,
        code(context.manifest.name),
        context.outputs.buckets.curated,
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


@functools.cache
def code(model: str) -> str:
    """Name the code that makes a model."""
    digest = hashlib.sha256()
    for folder in (ROOT / "contract", MODELS.parent, MODELS / model):
        for file in sorted(folder.glob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _read(file: Path) -> dict[str, str]:
    try:
        content: dict[str, str] = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):  # cut off while it was written
        return {}
    return content
