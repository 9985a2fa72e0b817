"""The digits model: a small convolutional network on images of 8 by 8 pixels, and where its raw data comes from."""

from typing import TYPE_CHECKING

from torch import Tensor, nn

from contract.data import Data

if TYPE_CHECKING:
    import polars as pl

SIDE = 8
BRIGHTEST = 16.0


class Network(nn.Module):
    """Takes raw pixels and gives a score for each class.

    Scaling is part of the network, so that training and serving cannot differ in it.
    """

    def __init__(self, classes: int, channels: int, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(2 * channels),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(2 * channels * (SIDE // 2) ** 2, width),
            nn.ReLU(),
            nn.Linear(width, classes),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Score images.

        Args:
            features: pixels from 0 to 16, row by row; shape [N, 64].

        Returns:
            Logits of shape [N, classes].
        """
        images = (features / BRIGHTEST).reshape(-1, 1, SIDE, SIDE)
        scores: Tensor = self.layers(images)
        return scores


def network(data: Data, channels: int = 16, width: int = 64, dropout: float = 0.3) -> nn.Module:
    """The untrained network."""
    assert data.target
    assert data.target.classes
    return Network(data.target.classes, channels, width, dropout)


def raw_data() -> "pl.DataFrame":
    """What fills an empty raw bucket: the digits that come with scikit-learn, as a source system would deliver them.

    Returns:
        Columns pixels_0 to pixels_63 (0 to 16) and digit (0 to 9); 1,797 rows.
    """
    import polars as pl
    from sklearn.datasets import load_digits

    images, digits = load_digits(return_X_y=True)
    columns = {f"pixels_{i}": images[:, i].astype("uint8") for i in range(SIDE * SIDE)}
    return pl.DataFrame(columns | {"digit": digits.astype("uint8")})
