"""Metrics reach SageMaker's managed MLflow: its address is an ARN, and requests to it are signed."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import mlflow
import pytest

from training.loop import Epoch
from training.tracking import default_uri, tracked

ARN = "arn:aws:sagemaker:eu-west-1:123456789012:mlflow-tracking-server/mlp-prod-mlflow"


@pytest.fixture
def server(monkeypatch):
    """What answers as MLflow does, and keeps what it was asked."""
    asked: list[tuple[str, dict, dict]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self._answer({"error_code": "RESOURCE_DOES_NOT_EXIST"} if "experiments/get-by-name" in self.path else {})

        def do_POST(self):
            answer = {"experiment_id": "1"} if "experiments" in self.path else {"run": {"info": {"run_id": "r"}}}
            self._answer(answer)

        def _answer(self, answer):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append((self.path.partition("?")[0], dict(self.headers), json.loads(body or "{}")))
            content = json.dumps(answer).encode()
            self.send_response(404 if "error_code" in answer else 200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("SAGEMAKER_MLFLOW_CUSTOM_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "example")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # to be put back as it was: MLflow sets it
    yield asked
    mlflow.set_tracking_uri("")
    server.shutdown()
    server.server_close()


def test_a_run_is_written_down_by_signed_requests(server, tmp_path):
    said: list[str] = []
    with tracked(default_uri(tmp_path / "mlflow.db", ARN), "digits", {"epochs": 1}, said.append) as run:
        run.epoch(Epoch(1, 0.5, None, 0.01, 1000.0))
    assert said == []
    paths = [path.rpartition("/mlflow/")[2] for path, _, _ in server]
    assert paths[:3] == ["experiments/get-by-name", "experiments/create", "runs/create"]
    assert paths.count("runs/log-batch") == 2
    assert paths[-1] == "runs/update"
    for _, headers, _ in server:
        assert "/eu-west-1/sagemaker-mlflow/aws4_request" in headers["Authorization"]
        assert headers["x-mlflow-sm-tracking-server-arn"] == ARN
    metrics = {each["key"]: each["value"] for _, _, body in server for each in body.get("metrics", [])}
    assert metrics == {"loss": 0.5, "learning_rate": 0.01, "rows_per_s": 1000.0}


def test_the_variable_goes_before_the_environments_server(monkeypatch, tmp_path):
    assert default_uri(tmp_path / "mlflow.db", ARN) == ARN
    assert default_uri(tmp_path / "mlflow.db").startswith("sqlite:////")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.com")
    assert default_uri(tmp_path / "mlflow.db", ARN) == "https://mlflow.example.com"
