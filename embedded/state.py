"""What the emulated AWS holds, as last left: a file that outlives the command that wrote it.

The file is replaced whole after each step, so that a command that is killed leaves the state before or after a step,
never in between. Secret values are encrypted with a key that lies beside the file and is readable by its owner only.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import RLock
from typing import Any

from embedded.files import write_atomically
from embedded.monitor import Secret

_SECRET_KEY = "encrypted"


@dataclass(frozen=True)
class Held:
    """A resource as the emulated AWS holds it."""

    urn: str
    type: str
    id: str
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    recorded_only: bool = False
    not_sent: tuple[str, ...] = ()


@dataclass
class State:
    """The resources of one emulated AWS, by URN and in the order in which they were made."""

    path: Path
    emulator: str = ""
    resources: dict[str, Held] = field(default_factory=dict)
    to_delete: list[Held] = field(default_factory=list)
    """Replaced or dropped by the program and still there: deleted at the end of an up, or kept for their data."""
    lock: RLock = field(default_factory=RLock, repr=False)

    @classmethod
    def load(cls, path: Path, emulator: str) -> "State":
        """Read the state of the emulated AWS named `emulator`; one that has died took its resources along."""
        if not path.exists():
            return cls(path, emulator)
        stored = json.loads(path.read_text(), object_hook=_decoder(path))
        if stored["emulator"] != emulator:
            return cls(path, emulator)
        resources = {held.urn: held for held in map(_held, stored["resources"])}
        return cls(path, emulator, resources, [_held(plain) for plain in stored["to_delete"]])

    def put(self, held: Held) -> None:
        """Remember a resource, on disk too."""
        with self.lock:
            self.resources[held.urn] = held
            self.save()

    def take_over(self, urn: str, aliases: Sequence[str]) -> Held | None:
        """What is held under a URN, or under one that it had before: then it is held under the new one from now on."""
        with self.lock:
            for former in aliases:
                if urn not in self.resources and former in self.resources:
                    self.resources[urn] = replace(self.resources.pop(former), urn=urn)
                    self.save()
            return self.resources.get(urn)

    def drop(self, held: Held) -> None:
        """Forget a resource that is no more."""
        with self.lock:
            if self.resources.get(held.urn) == held:
                del self.resources[held.urn]
            self.to_delete = [other for other in self.to_delete if other != held]
            self.save()

    def save(self) -> None:
        """Replace the file."""
        stored = {
            "emulator": self.emulator,
            "resources": [_plain(held) for held in self.resources.values()],
            "to_delete": [_plain(held) for held in self.to_delete],
        }
        write_atomically(self.path, json.dumps(stored, indent=1, default=_encoder(self.path)))


def _plain(held: Held) -> dict[str, Any]:
    return {name: getattr(held, name) for name in Held.__dataclass_fields__}


def _held(plain: dict[str, Any]) -> Held:
    return Held(**{**plain, "not_sent": tuple(plain["not_sent"])})


def _encoder(path: Path) -> Callable[[Any], Any]:
    def encode(value: Any) -> Any:
        if isinstance(value, Secret):
            return {_SECRET_KEY: _cipher(path).encrypt(json.dumps(value.value).encode()).decode()}
        return str(value)

    return encode


def _decoder(path: Path) -> Callable[[dict[str, Any]], Any]:
    def decode(value: dict[str, Any]) -> Any:
        if value.keys() == {_SECRET_KEY}:
            return Secret(json.loads(_cipher(path).decrypt(value[_SECRET_KEY])))
        return value

    return decode


def _cipher(path: Path) -> Any:
    from cryptography.fernet import Fernet  # only a state with secrets in it needs the import

    key_file = path.with_name("key")
    if not key_file.exists():
        descriptor = os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(Fernet.generate_key())
    return Fernet(key_file.read_bytes())
