"""What differs between the tasks when a network is trained, made smaller and served."""

from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from contract.gates import Task

Loss = Callable[[Tensor, Tensor], Tensor]
"""Of the network's outputs and the positions of their rows in the part that is trained on."""

TEMPERATURE = 2.0
"""Softens the probabilities that a student learns from, so that it sees which wrong classes are nearly right."""


def loss(task: Task, targets: Tensor | None, scale: float) -> Loss:
    """The loss that a network is trained with.

    Args:
        task: classification: cross-entropy; regression: mean squared error in units of the target's variance, so that
            1 is what the mean would do and learning rates fit any unit; density: the mean score.
        targets: of all rows, on the network's device; shape [N].
        scale: that variance; see `spread`.
    """
    if task == "density":
        return lambda scores, _: scores.mean()
    assert targets is not None
    if task == "classification":
        return lambda scores, rows: functional.cross_entropy(scores, targets[rows])
    return lambda values, rows: functional.mse_loss(values, targets[rows]) / scale


def distilled(task: Task, plain: Loss, answers: Tensor, scale: float) -> Loss:
    """The loss of a student: half is the plain one, half the distance from its teacher's answers.

    For a classification as in Hinton, Vinyals and Dean, Distilling the knowledge in a neural network, arXiv:1503.02531.

    Args:
        task: the model's.
        plain: what the teacher was trained with.
        answers: the teacher's outputs for all rows, on the network's device.
        scale: variance of the target.
    """

    def from_teacher(outputs: Tensor, rows: Tensor) -> Tensor:
        if task != "classification":
            return functional.mse_loss(outputs, answers[rows]) / scale
        soft = (answers[rows] / TEMPERATURE).softmax(1)
        return functional.cross_entropy(outputs / TEMPERATURE, soft) * TEMPERATURE**2

    return lambda outputs, rows: (plain(outputs, rows) + from_teacher(outputs, rows)) / 2


def spread(task: Task, targets: NDArray[Any] | None) -> float:
    """The variance of a regression's target, 1 for other tasks."""
    if task != "regression" or targets is None:
        return 1.0
    return float(targets.var()) or 1.0


class Served(nn.Module):
    """A network as it is served: scores of classes become probabilities and the number of the likeliest class."""

    outputs: tuple[str, ...]

    def __init__(self, network: nn.Module, task: Task) -> None:
        super().__init__()
        self.network, self.task = network, task
        named = {"classification": ("label", "probabilities"), "regression": ("value",), "density": ("score",)}
        self.outputs = named[task]

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """Answer rows of shape [N, columns]: labels [N] and probabilities [N, classes], values [N] or scores [N]."""
        answers: Tensor = self.network(features)
        if self.task == "classification":
            return answers.argmax(1), answers.softmax(1)
        return (answers,)


def answers(network: nn.Module, features: Tensor, batch: int = 4096) -> Tensor:
    """A network's outputs for many rows, without gradients, in evaluation mode."""
    network.eval()
    with torch.inference_mode():
        return torch.cat([network(rows).float() for rows in features.split(batch)]).clone()
