"""Writes the small files that commands remember things in."""

import os
from pathlib import Path

from contract.errors import PlatformError


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new one, whatever happens in between.

    Raises:
        PlatformError: if the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text)
        temporary.replace(path)
    except OSError as error:
        raise PlatformError(
            f"cannot write {path}: {error.strerror}; free some space or make the folder writable, "
            "or name another folder in the variable MLP_STATE"
        ) from None
    finally:
        if temporary.exists():
            temporary.unlink()
