"""`mlp score`: give each row of a file a model's answer."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from cli.handover import environment_outputs
from cli.output import AsJson, progress, show
from cli.rollout import Environment, Model
from contract.errors import PlatformError
from contract.manifest import load_manifest

if TYPE_CHECKING:
    from training.score import Watch

SAY_S = 5


def score(
    model: Model,
    source: Annotated[str, typer.Option("--input", help="CSV or Parquet file: a path, or s3://bucket/key.")],
    output: Annotated[str, typer.Option(help="Parquet file to write: a path, or s3://bucket/key.")],
    version: Annotated[
        int | None, typer.Option(min=1, help="An approved version; by default the live one with the most traffic.")
    ] = None,
    environment: Environment = "local",
    as_json: AsJson = False,
) -> None:
    """Write a Parquet file with the rows of a file and a version's answers to them.

    The file needs the model's features; its other columns are kept. A row that does not fit the manifest gets no
    answer, but an error that says why. After an interruption the same command goes on with what was done; the output
    is there only once it is whole.
    """
    manifest = load_manifest(model)
    outputs = environment_outputs(environment, f"mlp score {model} --env {environment}")
    if model not in outputs.models:
        raise PlatformError(f"{environment} has no model {model!r}, but: {', '.join(outputs.models)}; run `mlp up`")
    from training import score as scoring

    start = time.perf_counter()
    try:
        live = scoring.chosen(outputs.models[model], version)
        with _bar(f"Score {model} by version {live.version}") as watch:
            done = scoring.score(manifest, live, source, output, watch)
    except KeyboardInterrupt:
        raise PlatformError("interrupted; the same command goes on with the chunks that are finished") from None
    seconds = time.perf_counter() - start
    if done.errors and not as_json:
        progress.print(
            f"[yellow]![/yellow] {done.errors} of {done.rows} rows have no answer; the first: {done.first_error}",
            markup=True,
            highlight=False,
        )
    rate = round((done.rows - done.resumed) / seconds)
    facts = {"model": model, "version": done.version, "output": output, "rows": done.rows, "errors": done.errors}
    show(
        facts | {"resumed": done.resumed, "rows/s": rate},
        as_json,
        facts | {"first_error": done.first_error, "resumed": done.resumed, "rows_per_second": rate},
    )


@contextmanager
def _bar(title: str) -> Iterator["Watch"]:
    """A progress bar with rows a second; in a log a line every few seconds."""
    first: tuple[int, float] | None = None
    said = time.monotonic()
    columns = (TextColumn(title), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[rate]}"))
    with Progress(*columns, TimeRemainingColumn(), console=progress, disable=not progress.is_terminal) as bar:
        task = bar.add_task(title, total=1.0, rate="")

        def watch(rows: int, share: float) -> None:
            nonlocal first, said
            now = time.monotonic()
            first = first or (rows, now)  # what an earlier run did says nothing of the speed
            rate = f"{rows:,} rows, {(rows - first[0]) / max(now - first[1], 1e-9):,.0f} rows/s"
            bar.update(task, completed=share, rate=rate)
            if not progress.is_terminal and now - said > SAY_S:
                said = now
                progress.print(f"  … {title}: {share:.0%}, {rate}", markup=False)

        yield watch
        bar.update(task, completed=1.0)
