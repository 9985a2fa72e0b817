"""Checkpoints: what a training needs to go on as if nothing had happened, in a file that is whole or not there."""

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from contract.errors import PlatformError
from contract.training import Training
from training.data import Rows

FILE = "checkpoint.pt"


class Checkpoints:
    """The last checkpoint of a training, in a folder that outlives its process."""

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self._folder, self._identity = folder, identity

    @property
    def file(self) -> Path:
        """Where it is."""
        return self._folder / FILE

    def save(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint, at once and for good: a crash leaves the old one or the new one.

        Raises:
            PlatformError: if it cannot be written, on a full disk for example; the old one is still there.
        """
        content = io.BytesIO()  # torch would report a full disk as an error of its own
        torch.save({"identity": self._identity, "state": state}, content)
        new = self.file.with_suffix(".new")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with new.open("wb") as file:
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.file)
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)  # without it, a crash of the machine could undo the renaming
            finally:
                os.close(folder)
        except OSError as error:
            new.unlink(missing_ok=True)
            kept = "the last good one is kept" if self.file.exists() else "there is none yet"
            raise PlatformError(
                f"the checkpoint {self.file} cannot be written ({error.strerror}), {kept}; make room, and run it again"
            ) from None

    def load(self) -> dict[str, Any] | None:
        """The state of the last checkpoint, if there is one.

        Raises:
            PlatformError: if it cannot be read, or was made by another network, with other settings or data.
        """
        try:
            content = torch.load(self.file, map_location="cpu", weights_only=True)
            made_by, state = content["identity"], content["state"]
        except FileNotFoundError:
            return None
        except Exception as error:  # pickle, zip and torch have errors of their own
            raise PlatformError(f"{self._refused} it cannot be read: {str(error).splitlines()[0]}") from None
        self._require_same(made_by)
        self._identity = made_by
        return dict(state)

    @property
    def _refused(self) -> str:
        return f"the checkpoint {self.file} is refused (remove it, or use another folder):"

    def _require_same(self, made_by: dict[str, Any]) -> None:
        """Compare identities, the architecture first, because that is what people change."""
        for what in ("architecture", "settings", "data"):
            theirs, ours = made_by.get(what), self._identity[what]
            if theirs == ours:
                continue
            if not isinstance(theirs, dict):
                raise PlatformError(f"{self._refused} it was made from other rows than there are now")
            name = next(name for name in (*ours, *theirs) if theirs.get(name) != ours.get(name))
            of = {"architecture": "it is of another architecture", "settings": "it was made with other settings"}[what]
            then, now = theirs.get(name, "not there"), ours.get(name, "not there")
            raise PlatformError(f"{self._refused} {of}: in it {name} is {then}, but now it is {now}")


def identity(network: nn.Module, settings: Training, rows: Rows) -> dict[str, Any]:
    """What a checkpoint must have in common with the training that goes on from it."""
    digest = hashlib.sha256(rows.features.tobytes())
    if rows.targets is not None:
        digest.update(rows.targets.tobytes())
    ours = settings.model_dump(exclude={"checkpoint_seconds", "compile"})
    return {
        "architecture": {name: list(value.shape) for name, value in network.state_dict().items()},
        "settings": ours,
        "data": digest.hexdigest(),
    }
