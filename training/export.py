"""Export: the trained network becomes an ONNX file that takes raw features and gives the answer's tensors."""

import logging
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from contract.service import INPUT, MODEL_FILE

OUTPUTS = ["label", "probabilities"]
TOLERANCE = 1e-4


class Served(nn.Module):
    """A classifier as it is served: scores become probabilities and the number of the likeliest class."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Classify rows of shape [N, columns]: labels of shape [N], probabilities of shape [N, classes]."""
        scores: Tensor = self.network(features)
        return scores.argmax(1), scores.softmax(1)


def export(network: nn.Module, sample: NDArray[np.float32], folder: Path) -> None:
    """Write the network to `model.onnx`, and make sure that ONNX Runtime gives the answers that torch gives.

    Args:
        network: in evaluation mode, on the CPU; takes float32 [N, columns].
        sample: rows to trace and compare with; shape [N, columns], N of 2 or more.
        folder: where the file goes.

    Raises:
        RuntimeError: if the two disagree.
    """
    served, rows = Served(network).eval(), torch.from_numpy(sample)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns that torchvision is not installed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside torch's own exporter
        program = torch.onnx.export(
            served,
            (rows,),
            input_names=[INPUT],
            output_names=OUTPUTS,
            dynamic_shapes={"features": {0: torch.export.Dim("rows")}},
            dynamo=True,
            verbose=False,
        )
    assert program
    # The exporter notes stack traces, so that a file would tell its maker's folders and differ from one to another.
    for part in (program.model.graph, *program.model.graph):
        part.metadata_props.clear()
    program.save(folder / MODEL_FILE)
    session = onnxruntime.InferenceSession(folder / MODEL_FILE, providers=["CPUExecutionProvider"])
    _, expected = served(rows)
    _, got = session.run(OUTPUTS, {INPUT: sample})
    if not np.allclose(got, expected.detach().numpy(), atol=TOLERANCE):
        raise RuntimeError(f"{MODEL_FILE} differs from the network by more than {TOLERANCE}")
