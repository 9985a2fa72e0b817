"""Reproduce: train a version again from its recorded lineage, and compare what comes out."""

import importlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from contract.manifest import Manifest
from contract.outputs import Outputs
from contract.strict import parse
from training import ingest, register
from training.data import load
from training.evaluate import evaluate
from training.registry import LINEAGE_FILE, ModelVersion
from training.steps import Context, Report, code

MEASURED_ANEW = {"latency_ms", "throughput", "gain_over_live", "gain_over_live_upper"}
"""Metrics that depend on more than the version: the machine's load, and what was live."""


@dataclass(frozen=True)
class Reproduction:
    """What came out.

    Attributes:
        metrics: by name, the recorded one and the one of now.
        differences: what is not as it was then, and so may be why a metric differs.
    """

    metrics: dict[str, tuple[float, float]]
    differences: list[str]

    @property
    def is_same(self) -> bool:
        """Whether all metrics are the same, digit by digit."""
        return all(then == now for then, now in self.metrics.values())


def reproduce(version: ModelVersion, outputs: Outputs, work: Path, report: Report) -> Reproduction:
    """Run split, train, optimise and evaluation again, with the recorded snapshot and settings.

    Args:
        version: to reproduce.
        outputs: where the environment keeps things.
        work: a folder for it, which is emptied first.
        report: told in a line what is going on.

    Raises:
        PlatformError: if the snapshot is gone, or a step refuses its input.
    """
    lineage = version.document(LINEAGE_FILE)
    manifest = parse(Manifest, lineage["manifest"], f"the lineage of version {version.version}")
    differences = [
        f"{name}: {then} then, {now} now"
        for name, then, now in (
            ("code", lineage["code"][:12], code(manifest.name)[:12]),
            *((name, lineage["environment"].get(name), value) for name, value in register.environment().items()),
        )
        if then != now
    ]
    if differences and differences[0].startswith("code"):
        differences[0] += f"; it was at commit {lineage['commit']}"
    for difference in differences:
        report(difference)
    shutil.rmtree(work, ignore_errors=True)
    context = Context(manifest, outputs, work, report)
    report(f"snapshot {lineage['snapshot']['id']}")
    ingest.download(lineage["snapshot"]["uri"], context.folder("ingest") / "snapshot")
    for name in ("split", "train", "optimise"):
        context.folder(name).mkdir(parents=True)
        said = importlib.import_module(f"training.{name}").step(context)
        report(f"{name}: {said}")
    train, test = (load(context.folder("split") / part, manifest) for part in ("train", "test"))
    found = evaluate(context.folder("optimise") / "model", train, test, manifest).metrics
    recorded = {name: value for name, value in lineage["metrics"].items() if name not in MEASURED_ANEW}
    return Reproduction({name: (value, found[name]) for name, value in recorded.items()}, differences)
