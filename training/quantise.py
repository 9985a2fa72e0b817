"""Quantise: an ONNX file whose weights and activations are 8-bit integers."""

import logging
import tempfile
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from contract.service import INPUT, MODEL_FILE

# An activation among them becomes the range of its layer's integers. Else it would go through floats and back, and the
# network would be slower than without any integers.
OPERATORS = ["Conv", "MatMul", "Gemm", "Relu", "Clip"]
CALIBRATED, BATCH = 512, 64


class _Rows(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, rows: NDArray[np.float32]) -> None:
        self._batches = iter(np.array_split(rows, -(-len(rows) // BATCH)))

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next batch, None at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


def quantise(source: Path, folder: Path, rows: NDArray[np.float32]) -> None:
    """Write the model of one directory into another, with 8-bit integers for convolutions, layers and what clips them.

    The ranges of the activations are those that the rows show, and stay so. Ranges found at each request would let a
    row's answer depend on the rows beside it.

    Args:
        source: holds `model.onnx`.
        folder: where the new one goes.
        rows: to calibrate with, of the train part; shape [N, columns].
    """
    folder.mkdir(parents=True, exist_ok=True)
    for logger in ("root", "onnxruntime.quantization"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / MODEL_FILE
        quant_pre_process(str(source / MODEL_FILE), str(prepared), skip_symbolic_shape=True)
        model = onnx.load(prepared)
        del model.graph.value_info[:]  # shapes from before layers were fused
        onnx.save(model, prepared)
        quantize_static(
            prepared,
            folder / MODEL_FILE,
            _Rows(rows[:CALIBRATED]),
            op_types_to_quantize=OPERATORS,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=True,  # with 7 bits no sum overflows, so that old and new processors answer alike
        )
