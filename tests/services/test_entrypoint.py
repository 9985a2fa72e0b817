"""The image's entry point, in the two ways that AWS runs it, with the packages of the image and no others."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from services.inference.slim import size_mb
from tests.ports import free_port
from tests.services.conftest import Linear, is_ready, request
from tests.services.images import build
from tests.services.test_lambda import event
from tests.waiting import PATIENCE_S, wait_until

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def image():
    """The inference image, where any user may read: the container's user is not the one who built it."""
    folder = Path(tempfile.mkdtemp(prefix="image-"))
    folder.chmod(0o755)
    yield build(ROOT / "services/inference/Dockerfile", folder)
    for path in folder.rglob("*"):
        if path.is_dir():
            path.chmod(0o755)
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def environment(image):
    """The image's virtual environment."""
    return image.root / "opt/venv"


@pytest.fixture
def run(environment, tmp_path):
    """Start the entry point with an artifact in the model directory."""
    for name, content in Linear().files().items():
        (tmp_path / name).write_bytes(content)
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("MLP_", "AWS_"))}
    variables |= {"SM_MODEL_DIR": str(tmp_path), "PATH": f"{environment / 'bin'}:{os.environ['PATH']}"}
    processes = []

    def start(*arguments, **more):
        command = ["sh", ROOT / "services/inference/entrypoint.sh", *arguments]
        processes.append(subprocess.Popen(command, cwd=tmp_path, env=variables | more))
        return processes[0]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def test_sagemaker_s_serve_answers_on_the_port(run):
    port = free_port()
    run("serve", PORT=str(port))
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        wait_until(lambda: is_ready(client))
        assert client.get("/ping").status_code == 200
        assert client.post("/invocations", json={"instances": [[1, 2, 3, 4]]}).status_code == 200
        assert client.get("/docs").status_code == client.get("/metrics").status_code == 200


def test_the_image_is_small_and_whole(environment):
    assert size_mb(environment) <= 150
    sources = "".join(file.read_text() for file in (ROOT / "services/inference").glob("*.py"))
    called = set(re.findall(r'client\("([\w-]+)"\)', sources))
    assert called >= {"firehose", "kms", "s3", "ssm"}
    code = f"from services.inference.aws import client; [client(of) for of in {called}]"
    variables = os.environ | {"AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    subprocess.run([environment / "bin" / "python", "-c", code], cwd=environment, env=variables, check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="the Lambda runtime client is for Linux only")
def test_on_lambda_it_asks_the_runtime_api_for_events(run):
    answers = []
    answered, over = threading.Event(), threading.Event()

    class RuntimeApi(BaseHTTPRequestHandler):
        """One event, and then none for as long as the test runs."""

        def do_GET(self):
            if answers:
                over.wait()
                return
            body = json.dumps(event("POST", "/v2/models/digits/infer", json.dumps(request([1, 2, 3, 4])))).encode()
            self.send_response(200)
            self.send_header("Lambda-Runtime-Aws-Request-Id", "1")
            self.send_header("Lambda-Runtime-Deadline-Ms", "4102444800000")
            self.send_header("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:eu-west-1:1:function:f")
            # Lambda always sends these two; without them the runtime client's native code crashes.
            self.send_header("Lambda-Runtime-Trace-Id", "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=0")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            answers.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(202)
            self.end_headers()
            answered.set()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), RuntimeApi) as api:
        threading.Thread(target=api.serve_forever, daemon=True).start()
        run(AWS_LAMBDA_RUNTIME_API=f"127.0.0.1:{api.server_port}")
        try:
            assert answered.wait(PATIENCE_S)
        finally:
            over.set()
            api.shutdown()
    assert answers[0]["statusCode"] == 200
    assert json.loads(answers[0]["body"])["model_name"] == "digits"


@pytest.fixture
def writable():
    """The one folder that the service may write to."""
    folder = Path(tempfile.mkdtemp(prefix="tmp-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.e2e
def test_the_inference_image_answers_from_a_read_only_file_system(image, writable):
    model = writable / "model"
    model.mkdir()
    for name, content in Linear().files().items():
        (model / name).write_bytes(content)
    before, port = image.files(), free_port()
    variables = {"PORT": str(port), "TMPDIR": str(writable), "SM_MODEL_DIR": str(model)}
    process = image.run([*image.entrypoint, "serve"], **variables)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as client:
            wait_until(lambda: is_ready(client) or process.poll() is not None)
            assert process.poll() is None
            answer = client.post("/v2/models/digits/infer", json=request([1, 2, 3, 4]))
            assert answer.status_code == 200, answer.text
            assert answer.json()["outputs"][0]["data"] == Linear().answer([[1, 2, 3, 4]])["label"].tolist()
        assert image.run(image.health, **variables).wait(PATIENCE_S) == 0
        assert image.run(["touch", "/opt/venv/written"]).wait(PATIENCE_S) != 0, "the file system must be read-only"
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
    assert image.files() == before
    assert image.run(image.health, **variables).wait(PATIENCE_S) != 0, "the health check must fail once nothing serves"


@pytest.mark.e2e
def test_the_inference_image_holds_what_the_service_needs_alone(image):
    python = image.root / "opt/venv/bin/python"
    listed = "import importlib.metadata as m; print(*sorted({d.name.lower() for d in m.distributions()}))"
    packages = subprocess.run([python, "-c", listed], capture_output=True, text=True, check=True).stdout.split()
    assert {"fastapi", "uvicorn", "onnxruntime", "boto3", "awslambdaric"} <= set(packages)
    assert not {"torch", "pulumi", "moto", "mlflow", "typer", "onnx", "pip", "setuptools", "wheel"} & set(packages)
    ours = {path.name for path in (image.root / "opt/venv").glob("lib/python*/site-packages/services/*")}
    assert "inference" in ours
    assert "mlflow" not in ours
