"""The network of NAME, and where its raw data comes from until there is a source."""

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, nn

from contract.data import Data

if TYPE_CHECKING:
    import polars as pl

MEAN, DEVIATION = 2000.0, 800.0
"""Roughly those of the target, so that the layers work with numbers around 1."""


class Network(nn.Module):
    """Takes the features as the raw data has them and gives a number."""

    def __init__(self, columns: int, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            # Standardises by what it has seen in training; it is part of the network, so serving cannot differ from it.
            nn.BatchNorm1d(columns, affine=False, momentum=None),
            nn.Linear(columns, width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Predict for rows of shape [N, columns]; gives values of shape [N], in the unit of the target."""
        values: Tensor = MEAN + DEVIATION * self.layers(features).squeeze(1)
        return values


def network(data: Data, width: int = 32, dropout: float = 0.0) -> nn.Module:
    """The untrained network."""
    return Network(len(data.columns), width, dropout)


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
    wear = columns["temperature"] * 10 + columns["vibration"] * 120 + columns["age"] * 40
    hours = (4000 - wear + random.normal(0, 150, rows)).clip(0).round()
    return pl.DataFrame(columns | {"hours_left": hours})
