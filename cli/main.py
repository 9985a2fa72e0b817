"""Puts the sub-commands together and turns errors into one message and an exit status."""

import signal
import sys
from types import FrameType
from typing import Any, NoReturn

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from cli import (
    bootstrap,
    cost,
    dashboards,
    deploy,
    digest,
    doctor,
    down,
    experiment,
    logs,
    models,
    new,
    predict,
    preview,
    profile,
    promote,
    release,
    rollback,
    run,
    score,
    status,
    submit,
    train,
    up,
)
from contract.errors import PlatformError, is_from_aws


class Commands(TyperGroup):
    """The sub-commands, with what typer leaves out of its messages."""

    def invoke(self, ctx: Any) -> Any:
        """Run the one that the command line names.

        Raises:
            PlatformError: on a Ctrl-C, which typer would turn into a status without a word.
            typer.BadParameter: naming the value that is not allowed.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise PlatformError("interrupted") from None
        except typer.BadParameter as error:
            if isinstance(error.__cause__, ValidationError):
                error.message += f", but it is {error.__cause__.errors()[0]['input']!r}"
            raise


app = typer.Typer(
    name="mlp",
    cls=Commands,
    help="A machine learning platform, from raw data to a monitored product: on a laptop, or on AWS.",
    epilog="Exit status: 0 success, 1 it did not work, 2 the command line is wrong.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
LAPTOP = (up, status, predict, logs, train, run, new, down)
ROLLOUT = (deploy, promote, rollback, experiment, score)
CLOUD = (doctor, bootstrap, preview, cost, dashboards, submit, digest, release)
for module in LAPTOP + ROLLOUT + CLOUD:
    app.command()(getattr(module, module.__name__.rpartition(".")[2]))
for group in (models.models, profile.profile):
    app.add_typer(group)


def main() -> None:
    """Run the command line."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except PlatformError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error}")
    except Exception as error:
        if not is_from_aws(error):
            raise  # a mistake of ours: the traceback is what helps
        sys.exit(f"error: AWS: {error}")


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    """End as Ctrl-C does, so that a child is stopped and a step undone."""
    raise KeyboardInterrupt
