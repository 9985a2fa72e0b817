"""The MLflow container: its password file against a real PostgreSQL, and the whole of it as the image starts it."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import boto3
import httpx
import pytest

from contract.paths import ROOT
from services.mlflow.__main__ import serve, token, write_passfile
from tests.ports import free_port
from tests.waiting import PATIENCE_S, wait_until
from training.loop import Epoch
from training.tracking import tracked

AWKWARD = "host:5432/?Action=connect&X-Amz-Signature=" + "0a\\:" * 300
"""Long as an IAM token is, and with what the password file's format has to escape."""


def log_in(postgres, passfile):
    command = [
        "psql",
        "-h",
        "127.0.0.1",
        "-p",
        str(postgres.port),
        "-U",
        "mlflow",
        "-d",
        "postgres",
        "-Atwc",
        "select 1",
    ]
    environment = os.environ | {"PGPASSFILE": str(passfile)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def user(postgres):
    postgres.run("create role mlflow login")
    yield "mlflow"
    postgres.run("drop role mlflow")


def test_postgresql_reads_the_password_file(postgres, user, tmp_path):
    postgres.run(f"alter role mlflow password '{AWKWARD}'")
    write_passfile(tmp_path / "pass", AWKWARD)
    assert stat.S_IMODE((tmp_path / "pass").stat().st_mode) == 0o600
    assert log_in(postgres, tmp_path / "pass").stdout.strip() == "1"
    write_passfile(tmp_path / "pass", "another")
    assert "password authentication failed" in log_in(postgres, tmp_path / "pass").stderr


def test_a_token_is_made_without_a_call(monkeypatch):
    for name, value in {
        "PGHOST": "lake.cluster-abc.eu-west-1.rds.amazonaws.com",
        "PGUSER": "mlflow",
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
    }.items():
        monkeypatch.setenv(name, value)
    boto3.setup_default_session()
    made = token()
    assert made.startswith("lake.cluster-abc.eu-west-1.rds.amazonaws.com:5432/?Action=connect&DBUser=mlflow")


def test_the_password_is_renewed_while_the_server_runs_and_its_status_is_passed_on(tmp_path, monkeypatch):
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pass"))
    made = []

    def password():
        made.append(f"password {len(made)}")
        return made[-1]

    program = f"""
import pathlib, sys, time
while "password 2" not in pathlib.Path({str(tmp_path / "pass")!r}).read_text():
    time.sleep(0.02)
sys.exit(7)
"""
    assert serve([sys.executable, "-c", program], password, refresh_seconds=0.1) == 7


def test_sigterm_reaches_the_server(tmp_path):
    """ECS sends it to the container's first process, and kills what is left half a minute later."""
    program = "from services.mlflow.__main__ import serve; import sys; sys.exit(serve(['sleep', '600'], lambda: 'x'))"
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, env=os.environ | {"PGPASSFILE": str(tmp_path / "pass")}
    )
    wait_until((tmp_path / "pass").exists)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) != 0


@pytest.mark.e2e
def test_the_image_s_start_command_serves_from_its_requirements_alone(postgres, user, tmp_path, monkeypatch):
    """In a clean environment, with just the files and packages of the image, against a real PostgreSQL."""
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    # Most of its modules are never imported, and to compile all of them takes longer than all the rest.
    pip = [sys.executable, "-m", "pip", "--python", environment / "bin/python", "install", "-q", "--no-compile"]
    requirements = ["-r", ROOT / "services/mlflow/requirements.txt"]
    subprocess.run([*pip, *requirements], check=True, capture_output=True)
    app = tmp_path / "app" / "services"
    app.mkdir(parents=True)
    (app / "mlflow").symlink_to(ROOT / "services/mlflow")
    postgres.run("alter role mlflow superuser")  # so that it may be let in without knowing tomorrow's token
    postgres.run("create database mlflow owner mlflow")
    port = free_port()
    hba = Path(postgres.run("show hba_file"))
    rules = hba.read_text()
    hba.write_text("host mlflow mlflow 127.0.0.1/32 trust\n" + rules)
    postgres.run("select pg_reload_conf()")
    process = subprocess.Popen(
        [environment / "bin/python", "-m", "services.mlflow"],
        cwd=tmp_path,
        env={
            "PATH": f"{environment}/bin:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "PYTHONPATH": str(tmp_path / "app"),
            "AWS_REGION": "eu-west-1",
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "PGHOST": "127.0.0.1",
            "PGPORT": str(postgres.port),
            "PGUSER": "mlflow",
            "PGPASSFILE": str(tmp_path / "pass"),
            "MLFLOW_BACKEND_STORE_URI": "postgresql+psycopg:///mlflow",
            "MLFLOW_ARTIFACTS_DESTINATION": str(tmp_path / "artifacts"),
            "MLFLOW_HOST": "127.0.0.1",
            "MLFLOW_PORT": str(port),
            "MLFLOW_WORKERS": "1",
            "MLFLOW_SERVER_ALLOWED_HOSTS": "mlflow.example.com,localhost:*",
        },
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as client:
            wait_until(lambda: _healthy(client), seconds=90)
            create = "/api/2.0/mlflow/experiments/create"
            # As a load balancer checks the health: by address, which any other path refuses.
            assert client.get("/health").status_code == 200
            assert client.post(create, json={"name": "refused"}).status_code == 403
            ours = {"Host": "mlflow.example.com"}
            assert client.post(create, json={"name": "digits"}, headers=ours).status_code == 200
        assert postgres.run("select name from experiments order by 1", "mlflow").split() == ["Default", "digits"]
        said: list[str] = []
        monkeypatch.setattr("training.tracking.WAIT_SECONDS", PATIENCE_S)
        with tracked(f"http://localhost:{port}", "digits", {"epochs": 2}, said.append) as run:
            run.epoch(Epoch(1, 0.5, 0.75, 0.01, 1000.0))
            run.epoch(Epoch(2, 0.25, 0.5, 0.002, 1000.0))
        assert said == []
        logged = "select step, value from metrics where key = 'loss' order by step"
        assert postgres.run(logged, "mlflow").split() == ["1|0.5", "2|0.25"]
        assert postgres.run("select status from runs", "mlflow") == "FINISHED"
    finally:
        process.terminate()
        process.wait(30)
        hba.write_text(rules)
        postgres.run("drop database mlflow with (force)")


def _healthy(client):
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False
