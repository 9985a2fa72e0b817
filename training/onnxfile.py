"""The ONNX file of a model, as the service runs it: on one thread; its answers, speed and size."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from contract.service import INPUT, MODEL_FILE

REPEATS = 300
BATCH, BATCHES = 256, 20
ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Speed:
    """How fast and large a model is.

    Attributes:
        latency_ms: median time of one row.
        throughput: rows a second in batches of 256.
        size_mb: of the file, in units of 2**20 bytes.
    """

    latency_ms: float
    throughput: float
    size_mb: float


def open_model(folder: Path) -> onnxruntime.InferenceSession:
    """The ONNX file in a model directory, on one thread, as the service runs it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(folder / MODEL_FILE, options, providers=["CPUExecutionProvider"])


def answer(session: onnxruntime.InferenceSession, features: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """The model's outputs for any number of rows, by name."""
    names = [output.name for output in session.get_outputs()]
    pieces = [
        session.run(names, {INPUT: features[start : start + ROWS_AT_ONCE]})
        for start in range(0, len(features), ROWS_AT_ONCE)
    ]
    return {name: np.concatenate(of_pieces) for name, of_pieces in zip(names, zip(*pieces, strict=True), strict=True)}


def speed(folder: Path, features: NDArray[np.float32]) -> Speed:
    """Measure a model directory with these rows."""
    session = open_model(folder)
    batch = np.resize(features, (BATCH, features.shape[1]))
    return Speed(
        latency_ms=_seconds(session, features[:1], REPEATS) * 1000,
        throughput=BATCH / _seconds(session, batch, BATCHES),
        size_mb=(folder / MODEL_FILE).stat().st_size / 2**20,
    )


def _seconds(session: onnxruntime.InferenceSession, rows: NDArray[np.float32], repeats: int) -> float:
    """The median time of a call."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        session.run(None, {INPUT: rows})
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))
