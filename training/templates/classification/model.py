"""The network of NAME, and where its raw data comes from until there is a source."""

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, nn

from contract.data import Data

if TYPE_CHECKING:
    import polars as pl


class Network(nn.Module):
    """Takes the features as the raw data has them and gives a score for each class."""

    def __init__(self, columns: int, classes: int, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            # Standardises by what it has seen in training; it is part of the network, so serving cannot differ from it.
            nn.BatchNorm1d(columns, affine=False, momentum=None),
            nn.Linear(columns, width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, classes),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Score rows of shape [N, columns]; gives logits of shape [N, classes]."""
        scores: Tensor = self.layers(features)
        return scores


def network(data: Data, width: int = 32, dropout: float = 0.1) -> nn.Module:
    """The untrained network."""
    assert data.target
    assert data.target.classes
    return Network(len(data.columns), data.target.classes, width, dropout)


def raw_data() -> "pl.DataFrame":
    """What fills an empty raw bucket: a made-up sample. Delete this function once data.source is your own."""
    import polars as pl

    random, rows = np.random.default_rng(0), 1000
    columns = {
        "temperature": random.normal(60, 15, rows).round(1),
        "pressure": random.gamma(4, 1, rows).round(2),
        "vibration": random.gamma(2, 2, rows).round(2),
        "age": random.integers(0, 30, rows),
    }
    wear = columns["temperature"] / 15 + columns["vibration"] / 2 + columns["age"] / 8 + random.normal(0, 0.5, rows)
    worn, broken = np.quantile(wear, [0.5, 0.8])
    states = ["good" if each < worn else "worn" if each < broken else "broken" for each in wear]
    return pl.DataFrame(columns | {"state": states})
