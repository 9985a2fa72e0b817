"""The MLflow server as a container: logs into Aurora with IAM, so that there is no password to keep.

MLflow and PostgreSQL's client library take their settings from the environment (MLFLOW_*, PG*; infra/mlflow.py sets
them). An IAM token is good for 15 minutes, and the library reads PGPASSFILE at each new connection: so the file is
written anew before the token in it runs out.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import boto3

REFRESH_SECONDS = 600


def token() -> str:
    """A password for the database user, which the task's role may log in as; made here, without a call."""
    rds = boto3.client("rds")
    host, user = os.environ["PGHOST"], os.environ["PGUSER"]
    return str(rds.generate_db_auth_token(DBHostname=host, Port=int(os.environ.get("PGPORT", "5432")), DBUsername=user))


def write_passfile(path: Path, password: str) -> None:
    """Write PostgreSQL's password file (host:port:database:user:password), whole at any time and readable by no other.

    https://www.postgresql.org/docs/current/libpq-pgpass.html
    """
    escaped = password.replace("\\", r"\\").replace(":", r"\:")
    new = path.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_text(f"*:*:*:*:{escaped}\n")
    new.replace(path)


def serve(command: list[str], make_password: Callable[[], str], refresh_seconds: float = REFRESH_SECONDS) -> int:
    """Run a command with a fresh password file for as long as it runs; return its exit status."""
    passfile = Path(os.environ["PGPASSFILE"])
    write_passfile(passfile, make_password())
    process = subprocess.Popen(command)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    while True:
        try:
            return process.wait(refresh_seconds)
        except subprocess.TimeoutExpired:
            write_passfile(passfile, make_password())


if __name__ == "__main__":
    sys.exit(serve(["mlflow", "server"], token))
