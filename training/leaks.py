"""The leak check: what would make a model look better in its test than it will ever be."""

import numpy as np
import polars as pl

from contract.errors import PlatformError
from contract.manifest import Manifest
from training.data import Part, encoded, features

SAME = 0.999999
"""The absolute correlation from which on two columns are the same but for their unit."""


def check_leaks(parts: dict[Part, pl.DataFrame], manifest: Manifest) -> None:
    """Look for rows that are in two parts, and for a feature that is the target.

    Raises:
        PlatformError: naming the rows or the feature.
    """
    if manifest.data.target:
        _refuse_target_among_features(pl.concat(parts.values()), manifest)
    if manifest.split.duplicates == "refuse":
        _refuse_shared_rows(parts, manifest)


def _refuse_shared_rows(parts: dict[Part, pl.DataFrame], manifest: Manifest) -> None:
    columns = manifest.data.columns
    seen = {name: part.select(columns).unique() for name, part in parts.items()}
    for held_out in ("test", "validation"):
        for other in ("train", "validation"):
            if held_out == other:
                continue
            shared = seen[held_out].join(seen[other], on=columns, how="semi", nulls_equal=True)
            if len(shared):
                first = ", ".join(f"{name} {value}" for name, value in zip(columns[:3], shared.row(0), strict=False))
                raise PlatformError(
                    f"leak in the data of {manifest.name}: {len(shared)} different row(s) of the {held_out} part are "
                    f"in the {other} part too, the first with {first}; remove the duplicates from the source, split by "
                    "a group that keeps them together or, where equal rows are natural, set split.duplicates to 'allow'"
                )


def _refuse_target_among_features(table: pl.DataFrame, manifest: Manifest) -> None:
    target = manifest.data.target
    assert target
    labels = encoded(table[target.name], target).astype(np.float64)
    for name, values in zip(manifest.data.columns, features(table, manifest.data).T.astype(np.float64), strict=True):
        if _is_the_same(values, labels, classes=bool(target.classes)):
            raise PlatformError(
                f"leak in the data of {manifest.name}: the feature {name} tells the target {target.name} without fail; "
                "it is the label under another name: remove it from data.features"
            )


def _is_the_same(values: np.ndarray, labels: np.ndarray, classes: bool) -> bool:
    known = np.isfinite(values)
    if not known.all() or np.ptp(values) == 0 or np.ptp(labels) == 0:
        return False
    if classes:  # each value belongs to one class, and each class has one value
        return len(np.unique(values)) == len(np.unique(labels)) == len(np.unique(np.stack([values, labels]), axis=1).T)
    return bool(abs(np.corrcoef(values, labels)[0, 1]) > SAME)
