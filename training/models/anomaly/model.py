"""The anomaly model: a normalizing flow that tells how unusual a row is; and where its raw data comes from."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from contract.data import Data

if TYPE_CHECKING:
    import polars as pl


class Coupling(nn.Module):
    """An affine coupling layer: half of the columns, which it leaves alone, decide how it scales and shifts the others.

    Source: Dinh, Sohl-Dickstein and Bengio, Density estimation using Real NVP, arXiv:1605.08803, equations 4 to 6.
    """

    kept: Tensor

    def __init__(self, columns: int, width: int, first: int) -> None:
        super().__init__()
        self.register_buffer("kept", (torch.arange(columns) + first) % 2 * 1.0)
        last = nn.Linear(width, 2 * columns)
        nn.init.zeros_(last.weight)  # it starts as the identity
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(nn.Linear(columns, width), nn.GELU(), last)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Transform rows of shape [N, columns]; also gives the logarithm of the determinant, of shape [N]."""
        log_scale, shift = self.layers(rows * self.kept).chunk(2, 1)
        log_scale, shift = log_scale.tanh() * (1 - self.kept), shift * (1 - self.kept)
        return rows * log_scale.exp() + shift, log_scale.sum(1)


class Network(nn.Module):
    """Takes raw measurements and gives their negative log-likelihood, in nats a column.

    The flow learns to turn the rows into a standard normal distribution: what ends far from its middle is unusual.
    """

    def __init__(self, columns: int, width: int, depth: int) -> None:
        super().__init__()
        # Standardises by what it has seen in training; it is part of the network, so serving cannot differ from it.
        self.features = nn.BatchNorm1d(columns, affine=False, momentum=None)
        self.couplings = nn.ModuleList([Coupling(columns, width, first=number % 2) for number in range(depth)])

    def forward(self, features: Tensor) -> Tensor:
        """Score rows.

        Args:
            features: as the manifest orders them; shape [N, columns].

        Returns:
            The greater, the more unusual; shape [N].
        """
        rows = self.features(features)
        log_determinants = []
        for coupling in self.couplings:
            rows, log_determinant = coupling(rows)
            log_determinants.append(log_determinant)
        surprise = rows.square().sum(1) / 2 - torch.stack(log_determinants).sum(0)
        nats: Tensor = surprise / rows.shape[1] + math.log(2 * math.pi) / 2
        return nats


def network(data: Data, width: int = 32, depth: int = 6) -> nn.Module:
    """The untrained network."""
    return Network(len(data.columns), width, depth)


def raw_data() -> "pl.DataFrame":
    """What fills an empty raw bucket: the breast cancer data that come with scikit-learn.

    Returns:
        Thirty measurements and malignant (0 or 1), which training does not look at; 569 rows.
    """
    import polars as pl
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    names = [str(name).replace(" ", "_") for name in data.feature_names]
    return pl.DataFrame(data.data, schema=names).with_columns(malignant=pl.Series((data.target == 0).astype("uint8")))
