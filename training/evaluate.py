"""Evaluate: the exported model, on rows it has not seen, against the gates in the manifest."""

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from contract.errors import PlatformError
from contract.manifest import Gate, Manifest, Metric
from contract.service import INPUT, MODEL_FILE
from training.data import Rows, split

LATENCY_REPEATS = 300


def open_model(folder: Path) -> onnxruntime.InferenceSession:
    """The ONNX file in a model directory, on one thread, as the service runs it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(folder / MODEL_FILE, options, providers=["CPUExecutionProvider"])


def evaluate(folder: Path, rows: Rows, manifest: Manifest) -> dict[Metric, float]:
    """Measure a model directory.

    Args:
        folder: holds `model.onnx`.
        rows: the whole snapshot; the split of the manifest divides it as it did for training.
        manifest: the model's.

    Returns:
        accuracy: share of the held-out rows whose label is right;
        generalisation_gap: accuracy on the training rows minus that;
        latency_ms: median time of one row;
        size_mb: size of the file.
    """
    session = open_model(folder)
    train, test = split(rows, manifest.split)
    accuracy = _accuracy(session, test)
    return {
        "accuracy": accuracy,
        "generalisation_gap": _accuracy(session, train) - accuracy,
        "latency_ms": _latency_ms(session, test.features[:1]),
        "size_mb": (folder / MODEL_FILE).stat().st_size / 2**20,
    }


def check_gates(metrics: Mapping[Metric, float], gates: Mapping[Metric, Gate], model: str) -> None:
    """Hold the metrics against the gates.

    Raises:
        PlatformError: with each gate that fails, its bound and the value.
    """
    failed = [
        f"  {name} is {metrics[name]:.4g}, allowed is {_bounds(gate)}"
        for name, gate in gates.items()
        if not gate.admits(metrics[name])
    ]
    if failed:
        raise PlatformError(
            f"{model} is not registered, {len(failed)} of {len(gates)} gates fail:\n" + "\n".join(failed)
        )


def _accuracy(session: onnxruntime.InferenceSession, rows: Rows) -> float:
    (labels,) = session.run(["label"], {INPUT: rows.features})
    return float((labels == rows.targets).mean())


def _latency_ms(session: onnxruntime.InferenceSession, row: NDArray[np.float32]) -> float:
    seconds = []
    for _ in range(LATENCY_REPEATS):
        start = time.perf_counter()
        session.run(None, {INPUT: row})
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)) * 1000


def _bounds(gate: Gate) -> str:
    bounds = {"at least": gate.min, "at most": gate.max}
    return " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None)
