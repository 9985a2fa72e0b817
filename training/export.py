"""Export: the trained network becomes an ONNX file that takes raw features and gives the answer's tensors."""

import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from contract.gates import Task
from contract.service import INPUT, MODEL_FILE
from training.onnxfile import open_model
from training.tasks import Served

TOLERANCE = 1e-4


def export(network: nn.Module, task: Task, sample: NDArray[np.float32], folder: Path) -> None:
    """Write the network to `model.onnx`, for any number of rows, and compare ONNX Runtime's answers with torch's.

    Args:
        network: in evaluation mode, on the CPU; takes float32 [N, columns].
        task: the model's; it says which outputs the file has.
        sample: rows to trace and compare with; shape [N, columns], N of 2 or more.
        folder: where the file goes.

    Raises:
        RuntimeError: if the two disagree.
    """
    served, rows = Served(network, task).eval(), torch.from_numpy(sample)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns that torchvision is not installed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside torch's own exporter
        program = torch.onnx.export(
            served,
            (rows,),
            input_names=[INPUT],
            output_names=served.outputs,
            dynamic_shapes={"features": {0: torch.export.Dim("rows")}},
            dynamo=True,
            verbose=False,
        )
    assert program
    # The exporter notes stack traces, so that a file would tell its maker's folders and differ from one to another.
    for part in (program.model.graph, *program.model.graph):
        part.metadata_props.clear()
    folder.mkdir(parents=True, exist_ok=True)
    program.save(folder / MODEL_FILE)
    with torch.inference_mode():
        expected = served(rows)[-1].numpy()
    got = open_model(folder).run(served.outputs[-1:], {INPUT: sample})[0]
    if not np.allclose(got, expected, atol=TOLERANCE, rtol=TOLERANCE):
        raise RuntimeError(f"{MODEL_FILE} differs from the network by up to {abs(got - expected).max():.3g}")
