"""The network of NAME, and where its raw data comes from until there is a source."""

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, nn

from contract.data import Data

if TYPE_CHECKING:
    import polars as pl


class Network(nn.Module):
    """An autoencoder: what it cannot reproduce from its few hidden numbers is unusual."""

    def __init__(self, columns: int, width: int, hidden: int) -> None:
        super().__init__()
        # Standardises by what it has seen in training; it is part of the network, so serving cannot differ from it.
        self.features = nn.BatchNorm1d(columns, affine=False, momentum=None)
        self.layers = nn.Sequential(
            nn.Linear(columns, width),
            nn.GELU(),
            nn.Linear(width, hidden),
            nn.Linear(hidden, width),
            nn.GELU(),
            nn.Linear(width, columns),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Score rows of shape [N, columns]; gives a number for each, of shape [N]: the greater, the more unusual."""
        rows = self.features(features)
        scores: Tensor = (self.layers(rows) - rows).square().mean(1)
        return scores


def network(data: Data, width: int = 16, hidden: int = 2) -> nn.Module:
    """The untrained network."""
    return Network(len(data.columns), width, hidden)


def raw_data() -> "pl.DataFrame":
    """What fills an empty raw bucket: a made-up sample. Delete this function once data.source is your own."""
    import polars as pl

    random, rows = np.random.default_rng(0), 1500
    load, weather = random.normal(0, 1, (2, rows))
    fault = random.random(rows) < 0.05
    noise = random.normal(0, np.where(fault, 2.0, 0.1), (4, rows))  # a fault breaks what holds the sensors together
    columns = {
        "temperature": 60 + 15 * (load + weather + noise[0]),
        "pressure": 8 + 2 * (load - weather + noise[1]),
        "vibration": 10 + 4 * (load + noise[2]),
        "current": 40 + 10 * (load + 0.5 * weather + noise[3]),
    }
    return pl.DataFrame({name: values.round(2) for name, values in columns.items()} | {"fault": fault.astype("uint8")})
