"""Metrics go to MLflow: a local database, or the tracking server that MLFLOW_TRACKING_URI names.

A thread of its own talks to it, in order: training never waits for it, and goes on if it is away.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from training.loop import Epoch

Report = Callable[[str], None]
WAIT_SECONDS = 20


def default_uri(database: Path, server: str = "") -> str:
    """Where metrics go: what the variable says, or else the environment's server, or a local database in this file."""
    return os.environ.get("MLFLOW_TRACKING_URI") or server or f"sqlite:///{database.resolve()}"


class Run:
    """One run in MLflow, of an experiment that is called as the model."""

    def __init__(self, uri: str, experiment: str, settings: Mapping[str, Any], report: Report) -> None:
        self._uri, self._report = uri, report
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mlflow")
        self._client: Any = None
        self._id = ""
        self._failed = False
        self._last: Future[None] = self._thread.submit(self._guarded, self._start, experiment, dict(settings))

    def epoch(self, epoch: Epoch) -> None:
        """Log what an epoch came to."""
        values = {"loss": epoch.loss, "learning_rate": epoch.learning_rate, "rows_per_s": epoch.rows_per_s}
        if epoch.validation_loss is not None:
            values["validation_loss"] = epoch.validation_loss
        self.metrics(values, epoch.number)

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log metrics."""
        self._last = self._thread.submit(self._guarded, self._log, dict(values), step)

    def end(self, status: str) -> str:
        """Close the run as FINISHED, FAILED or KILLED, and wait until all is told; gives its id, empty without one."""
        self._last = self._thread.submit(self._guarded, self._end, status)
        self._thread.shutdown(wait=False, cancel_futures=False)
        if wait([self._last], WAIT_SECONDS).not_done:
            self._report(f"metrics are still not all in MLflow at {self._uri}; not waiting any longer")
        return self._id

    def _guarded(self, call: Callable[..., None], *arguments: Any) -> None:
        if self._failed:
            return
        try:
            call(*arguments)
        except Exception as error:  # whatever is wrong with the tracking, the training is worth more
            self._failed = True
            self._report(f"metrics do not go to MLflow at {self._uri}: {str(error).splitlines()[0][:300]}")

    def _start(self, experiment: str, settings: dict[str, Any]) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a platform tells nobody what it does
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        for name in ("alembic", "mlflow.store.db.utils"):
            logging.getLogger(name).setLevel(logging.WARNING)  # a new database is not news
        import mlflow  # takes a second
        from mlflow.entities import Param

        if self._uri.startswith("arn:"):
            mlflow.set_tracking_uri(self._uri)  # the plug-in that signs the requests asks for nothing but this
        else:  # it looks at all other addresses, too, and warns that they are no ARNs
            logging.getLogger("mlflow.tracking.request_header.registry").setLevel(logging.ERROR)
        self._client = mlflow.MlflowClient(tracking_uri=self._uri)
        known = self._client.get_experiment_by_name(experiment)
        number = known.experiment_id if known else self._client.create_experiment(experiment)
        self._id = self._client.create_run(number).info.run_id
        self._client.log_batch(self._id, params=[Param(name, str(value)) for name, value in settings.items()])

    def _log(self, values: dict[str, float], step: int) -> None:
        import time

        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self._id, [Metric(name, value, now, step) for name, value in values.items()])

    def _end(self, status: str) -> None:
        self._client.set_terminated(self._id, status)


@contextmanager
def tracked(uri: str, experiment: str, settings: Mapping[str, Any], report: Report) -> Iterator[Run]:
    """A run that ends with its block: as finished, failed or, if it was stopped, killed."""
    run = Run(uri, experiment, settings, report)
    try:
        yield run
    except Exception:
        run.end("FAILED")
        raise
    except BaseException:
        run.end("KILLED")
        raise
    run.end("FINISHED")
