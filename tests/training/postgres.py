"""A real PostgreSQL server of the tests' own, on a free loopback port."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from embedded.processes import listen

USER, PASSWORD = "reader", "s3cret-and-never-shown"


def binaries() -> Path | None:
    """The folder of the server's programs; Debian keeps them off the path."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return folders[-1] if folders else None


@contextmanager
def server() -> Iterator[str]:
    """Start a server with an empty database, give its connection string, and stop it."""
    programs = binaries()
    assert programs
    # The server refuses to run as root, and pytest's folders are open to nobody else.
    who = {"user": "postgres", "group": "postgres"} if os.getuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as folder:
        password = Path(folder, "password")
        password.write_text(PASSWORD)
        if who:
            shutil.chown(folder, **who)
        data, options = f"{folder}/data", {"cwd": folder, "stdout": subprocess.DEVNULL, **who}
        create = [programs / "initdb", "-D", data, "-U", USER, "-A", "scram-sha-256", f"--pwfile={password}", "-N"]
        subprocess.run(create, check=True, **options)
        with listen(0) as free:
            port = free.getsockname()[1]
        start = [programs / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", "", "-F"]
        with subprocess.Popen(start, stderr=subprocess.DEVNULL, **options) as process:
            try:
                yield _ready(f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{port}/postgres", process)
            finally:
                process.send_signal(signal.SIGINT)  # a fast shutdown


def _ready(address: str, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(address).close()
            return address
        except psycopg.OperationalError:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
