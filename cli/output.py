"""How commands speak: progress on the error stream, results on the output, tables for people or JSON for programs."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table


def _console(stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console.width = 200  # a file or a pipe has no edge to wrap at
    return console


progress, results = _console(stderr=True), _console(stderr=False)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON with stable keys (docs/cli.md) instead of a table.")]


class Step:
    """One step of a longer piece of work; the last `done` line is what stays on screen."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.detail = ""
        self._live = progress.status(title) if progress.is_terminal else None

    def update(self, detail: str) -> None:
        """Show how far the step is; on a screen the line is overwritten, in a log it is a line of its own."""
        if self._live:
            self._live.update(f"{self.title}: {detail}")
        else:
            progress.print(f"  … {self.title}: {detail}", markup=False)

    def done(self, detail: str) -> None:
        """Say what came of the step."""
        self.detail = detail


@contextmanager
def step(title: str) -> Iterator[Step]:
    """Show a step while it runs, and what came of it with the seconds it took."""
    this, start = Step(title), time.perf_counter()
    if this._live:
        this._live.start()
    try:
        yield this
    except BaseException:
        _stop(this)
        progress.print(f"[red]✗[/red] {title}")
        raise
    _stop(this)
    progress.print(f"[green]✓[/green] {title:<15} {this.detail}  [dim]{time.perf_counter() - start:.1f} s[/dim]")


def _stop(this: Step) -> None:
    if this._live:
        this._live.stop()


def show(facts: Mapping[str, Any], as_json: bool, document: Mapping[str, Any] | None = None) -> None:
    """Print facts as a table of names and values, or `document` (by default the facts) as JSON."""
    if as_json:
        print(json.dumps(facts if document is None else document, indent=2))
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in facts.items():
        table.add_row(f"[bold]{name}[/bold]", str(value))
    results.print(table)
