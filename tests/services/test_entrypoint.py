"""The image's entry point, in the two ways that AWS runs it, with the packages of the image and no others."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from services.inference.slim import size_mb
from tests.services.conftest import Linear, free_port, is_ready, request, wait_until
from tests.services.test_lambda import event

ROOT = Path(__file__).parents[2]


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
            assert answered.wait(20)
        finally:
            over.set()
            api.shutdown()
    assert answers[0]["statusCode"] == 200
    assert json.loads(answers[0]["body"])["model_name"] == "digits"
