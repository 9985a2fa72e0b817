"""`mlp logs`: what the laptop platform's processes wrote."""

import contextlib
import time
from collections import deque
from pathlib import Path
from typing import Annotated

import typer

from contract.errors import PlatformError
from embedded.local import Local


def logs(
    name: Annotated[str | None, typer.Argument(help="aws or inference; all when left out.")] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many lines from the end.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written, until Ctrl-C.")] = False,
) -> None:
    """Show what the processes of the laptop platform wrote."""
    folder = Local.of_this_checkout().folder / "logs"
    files = sorted(folder.glob("*.log"))
    if name is not None:
        files = [file for file in files if file.stem == name]
    if not files:
        known = ", ".join(sorted(file.stem for file in folder.glob("*.log"))) or "none; run `mlp up`"
        raise PlatformError(f"there is no log {'' if name is None else repr(name)}; there are: {known}")
    for file in files:
        with file.open(errors="replace") as text:
            for line in deque(text, maxlen=lines):
                _print(file, line, len(files))
    if follow:
        with contextlib.suppress(KeyboardInterrupt):  # the way to stop following
            _follow(files)


def _follow(files: list[Path]) -> None:
    opened = [(file, file.open(errors="replace")) for file in files]
    for _, text in opened:
        text.seek(0, 2)
    while True:
        news = [(file, line) for file, text in opened for line in text]
        for file, line in news:
            _print(file, line, len(files))
        if not news:
            time.sleep(0.2)


def _print(file: Path, line: str, of: int) -> None:
    print(f"{file.stem + ' | ' if of > 1 else ''}{line.rstrip()}", flush=True)
