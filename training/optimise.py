"""Optimise: smaller variants of the trained network, and the choice of the smallest that is good enough."""

import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from contract.errors import PlatformError
from contract.gates import Gate
from contract.manifest import Manifest
from training import tasks
from training.data import Rows, load
from training.export import export
from training.job import WEIGHTS_FILE, build, plain_loss, validation_loss
from training.loop import Watch, fit
from training.metrics import quality
from training.onnxfile import Speed, answer, open_model, speed
from training.quantise import CALIBRATED, quantise
from training.steps import Context, Report
from training.workers import Workers

TABLE_FILE = "variants.json"
FLOAT = "float"
CPU = Workers(torch.device("cpu"))


@dataclass(frozen=True)
class Variant:
    """A form of the model.

    Attributes:
        name: such as `student-int8`.
        quality: on the validation part, by the model's quality metric.
        latency_ms, throughput, size_mb: see `training.onnxfile.Speed`.
        refused: why it is not good enough; empty if it is.
        chosen: whether it became the model.
    """

    name: str
    quality: float
    latency_ms: float
    throughput: float
    size_mb: float
    refused: str = ""
    chosen: bool = False


def step(context: Context) -> str:
    """Make the variants, write their table, and put the chosen one into `model/`."""
    manifest, folder = context.manifest, context.folder("optimise")
    rows, held_out = (load(context.folder("split") / part, manifest) for part in ("train", "validation"))
    names = make(manifest, context.folder("train") / "model", folder, rows, held_out, context.report)
    table = choose([measure(folder / name, held_out, manifest) for name in names], manifest)
    (folder / TABLE_FILE).write_text(json.dumps([asdict(variant) for variant in table], indent=1))
    (chosen,) = (variant for variant in table if variant.chosen)
    shutil.rmtree(folder / "model", ignore_errors=True)
    shutil.copytree(folder / chosen.name, folder / "model")
    return (
        f"{chosen.name} is chosen among {len(table)}: {chosen.size_mb * 1024:.0f} KiB, {chosen.latency_ms:.3f} ms a row"
    )


def variants(folder: Path) -> list[Variant]:
    """The table that the step has left in its folder."""
    return [Variant(**row) for row in json.loads((folder / TABLE_FILE).read_text())]


def make(manifest: Manifest, trained: Path, folder: Path, rows: Rows, held_out: Rows, report: Report) -> list[str]:
    """Make the manifest's variants of a trained network, each in a folder of its own; gives their names."""
    settings = manifest.optimise
    network = build(manifest, manifest.training, CPU.device)
    network.load_state_dict(torch.load(trained / WEIGHTS_FILE, weights_only=True))
    network.eval()
    networks: dict[str, Callable[[], nn.Module]] = {FLOAT: lambda: network}
    if settings.student:
        networks["student"] = lambda: _student(manifest, network, rows, held_out)
    if settings.prune:
        networks["pruned"] = lambda: _pruned(manifest, network, rows, held_out)
    sample = np.random.default_rng(0).permutation(len(rows))[:CALIBRATED]
    names = []
    for name, make_network in networks.items():
        report(f"variant {name}")
        export(make_network(), manifest.task, rows.features[:2], folder / name)
        names.append(name)
        if settings.int8:
            quantise(folder / name, folder / f"{name}-int8", rows.features[sample])
            names.append(f"{name}-int8")
    return names


def measure(folder: Path, held_out: Rows, manifest: Manifest) -> Variant:
    """Measure the variant in a folder, on the validation part: the test part is for the chosen one."""
    how_fast: Speed = speed(folder, held_out.features)
    good = quality(answer(open_model(folder), held_out.features), held_out, manifest)
    return Variant(folder.name, good, how_fast.latency_ms, how_fast.throughput, how_fast.size_mb)


def choose(measured: list[Variant], manifest: Manifest) -> list[Variant]:
    """Mark the smallest variant that is good enough; the first, the unchanged network, is when none is.

    Good enough is one that is at most `optimise.max_drop` worse than the first, and keeps the gates for latency, size
    and throughput.
    """
    least = measured[0].quality - manifest.optimise.max_drop
    gates = {name: manifest.gates.get(name) for name in ("latency_ms", "size_mb", "throughput")}
    judged = []
    for variant in measured:
        refused = [
            f"{name} {getattr(variant, name):.3g} is not {gate}"
            for name, gate in gates.items()
            if isinstance(gate, Gate) and not gate.admits(getattr(variant, name))
        ]
        if not variant.quality >= least:
            refused.append(f"{manifest.quality} {variant.quality:.4f} is less than {least:.4f}")
        judged.append(Variant(**asdict(variant) | {"refused": "; ".join(refused)}))
    fits = [variant for variant in judged if not variant.refused] or [judged[0]]
    smallest = min(fits, key=lambda variant: variant.size_mb).name
    return [Variant(**asdict(variant) | {"chosen": variant.name == smallest}) for variant in judged]


def _student(manifest: Manifest, teacher: nn.Module, rows: Rows, held_out: Rows) -> nn.Module:
    """A smaller network that learns from the rows and from the teacher's answers."""
    student = build(manifest, manifest.training, CPU.device, **manifest.optimise.student)
    scale = tasks.spread(manifest.task, rows.targets)
    told = tasks.answers(teacher, torch.from_numpy(rows.features))
    loss = tasks.distilled(manifest.task, plain_loss(manifest, rows, scale, CPU.device), told, scale)
    return _fitted(manifest, student, rows, held_out, loss, manifest.training.learning_rate)


def _pruned(manifest: Manifest, network: nn.Module, rows: Rows, held_out: Rows) -> nn.Module:
    """The network without its weakest channels, trained a little more.

    What belongs together (a channel, its normalisation, the weights that read it) goes together; see Fang et al.,
    DepGraph: towards any structural pruning, arXiv:2301.12900.
    """
    import torch_pruning  # only pruning needs it

    network = copy.deepcopy(network)
    sample = torch.from_numpy(rows.features[:2])
    layers = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)]
    shape = network(sample).shape
    torch_pruning.pruner.MagnitudePruner(
        network,
        sample,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=manifest.optimise.prune,
        ignored_layers=layers[-1:],  # it gives the answer
        round_to=4,
    ).step()
    if network(sample).shape != shape:
        raise PlatformError(
            f"pruning {manifest.name} would change the shape of its answers; set optimise.prune to 0 in its manifest"
        )
    scale = tasks.spread(manifest.task, rows.targets)
    loss = plain_loss(manifest, rows, scale, CPU.device)
    return _fitted(manifest, network, rows, held_out, loss, manifest.training.learning_rate / 2)


def _fitted(
    manifest: Manifest, network: nn.Module, rows: Rows, held_out: Rows, loss: tasks.Loss, rate: float
) -> nn.Module:
    changes = {"epochs": manifest.optimise.epochs, "learning_rate": rate, "compile": "off"}
    settings = manifest.training.model_copy(update=changes)
    scale = tasks.spread(manifest.task, rows.targets)
    fit(network, settings, rows, loss, CPU, validation_loss(manifest, held_out, scale, CPU.device), Watch())
    return network.eval()
