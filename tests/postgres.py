"""A real PostgreSQL server, for the tests where SQL is involved."""

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.ports import free_port


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL server of the tests' own, on loopback."""

    port: int
    user: str = "postgres"

    def run(self, sql: str, database: str = "postgres") -> str:
        """Run SQL as the administrator; return what psql prints."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        command = ["psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", self.user, "-d", database, "-AtqX", "-c", sql]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.strip()


@pytest.fixture(scope="session", name="postgres")
def start_postgres():
    """A PostgreSQL server; its administrator needs no password, anybody else does."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs and not shutil.which("initdb"):
        pytest.skip("no PostgreSQL server is installed (apt-get install postgresql)")
    folder = programs[-1].parent if programs else Path(shutil.which("initdb")).parent
    # PostgreSQL refuses to run as root.
    as_user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    with tempfile.TemporaryDirectory() as data:
        if as_user:
            shutil.chown(data, "postgres")
        quietly = {"check": True, "capture_output": True, "cwd": "/"}
        options = ["--auth=scram-sha-256", "--auth-local=trust", "--username=postgres", "--no-sync"]
        password = Path(data, "password")
        password.write_text("unused\n")
        password.chmod(0o644)
        cluster = f"{data}/cluster"
        subprocess.run([*as_user, folder / "initdb", "-D", cluster, *options, f"--pwfile={password}"], **quietly)
        rules = "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        Path(cluster, "pg_hba.conf").write_text(rules)
        port = free_port()
        settings = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={data} -c fsync=off"
        control = [*as_user, folder / "pg_ctl", "-D", cluster, "-w"]
        subprocess.run([*control, "-o", settings, "-l", f"{data}/log", "start"], **quietly)
        try:
            yield Postgres(port)
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], **quietly)
