"""The diabetes model: a line and a small correction to it, on ten measurements; and where its raw data comes from."""

from typing import TYPE_CHECKING

from torch import Tensor, nn

from contract.data import Data

if TYPE_CHECKING:
    import polars as pl

MEAN, DEVIATION = 150.0, 80.0
"""Roughly those of the target, so that the layers work with numbers around 1."""


class Network(nn.Module):
    """Takes raw measurements and gives the progression.

    With few rows a line is hard to beat: the hidden layer only adds to one, and starts with nothing to add.
    """

    def __init__(self, columns: int, width: int, dropout: float) -> None:
        super().__init__()
        # Standardises by what it has seen in training; it is part of the network, so serving cannot differ from it.
        self.features = nn.BatchNorm1d(columns, affine=False, momentum=None)
        self.line = nn.Linear(columns, 1)
        last = nn.Linear(width, 1)
        nn.init.zeros_(self.line.weight)
        nn.init.zeros_(last.weight)
        self.correction = nn.Sequential(nn.Linear(columns, width), nn.GELU(), nn.Dropout(dropout), last)

    def forward(self, features: Tensor) -> Tensor:
        """Predict.

        Args:
            features: as the manifest orders them; shape [N, columns].

        Returns:
            The progression; shape [N].
        """
        usual = self.features(features)
        bounded = (usual / 2).tanh()  # a rare extreme must not bend the correction
        values: Tensor = MEAN + DEVIATION * (self.line(usual) + self.correction(bounded)).squeeze(1)
        return values


def network(data: Data, width: int = 64, dropout: float = 0.5) -> nn.Module:
    """The untrained network."""
    return Network(len(data.columns), width, dropout)


def raw_data() -> "pl.DataFrame":
    """What fills an empty raw bucket: the diabetes data that come with scikit-learn, in their original units.

    Returns:
        The ten measurements and progression (25 to 346); 442 rows.
    """
    import polars as pl
    from sklearn.datasets import load_diabetes

    measurements, progression = load_diabetes(return_X_y=True, scaled=False)
    names = [
        *("age", "sex", "bmi", "blood_pressure", "total_cholesterol"),
        *("ldl", "hdl", "cholesterol_ratio", "triglycerides_log", "glucose"),
    ]
    table = pl.DataFrame(measurements, schema=names)
    return table.with_columns(pl.col("sex").cast(pl.Int64), progression=pl.Series(progression))
