"""Real model artifacts, small enough to make in a millisecond, and a service that serves one."""

import asyncio
import base64
import gzip
import hashlib
import http.server
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import httpx
import numpy as np
import onnx
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from onnx import TensorProto, helper, numpy_helper

from contract.service import METADATA_FILE, MODEL_FILE, LiveVersion, LiveVersions
from services.inference.app import Service, create_app
from tests.conftest import REGION
from tests.ports import free_port
from tests.waiting import PATIENCE_S, wait_until

BUCKET = "artifacts"
ENDS_WITHIN_S = 15
"""Less than the 20 s that it waits at its end for requests that are not answered."""
ROOT = Path(__file__).parents[2]


@dataclass
class Linear:
    """A linear classifier: label = argmax(softmax(features @ weights))."""

    seed: int = 0
    columns: int = 4
    classes: int = 3
    model: str = "digits"
    metadata: dict = field(default_factory=dict)
    """Replaces keys of metadata.json."""
    slow: int = 0
    """Size of two matrices that each prediction multiplies for nothing; 1000 takes some 50 ms."""

    @property
    def weights(self):
        return np.random.default_rng(self.seed).normal(size=(self.columns, self.classes)).astype(np.float32)

    def answer(self, rows):
        logits = np.array(rows, np.float32) @ self.weights
        exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = exponents / exponents.sum(axis=1, keepdims=True)
        return {"label": logits.argmax(axis=1), "probabilities": probabilities}

    def files(self) -> dict[str, bytes]:
        rows = [[float(i == j) for j in range(self.columns)] for i in range(2)]
        outputs = {name: value.tolist() for name, value in self.answer(rows).items()}
        metadata = {
            "model": self.model,
            "task": "classification",
            "columns": [f"x{i}" for i in range(self.columns)],
            "inputs": [{"name": "features", "datatype": "FP32", "shape": [-1, self.columns]}],
            "outputs": [
                {"name": "label", "datatype": "INT64", "shape": [-1]},
                {"name": "probabilities", "datatype": "FP32", "shape": [-1, self.classes]},
            ],
            "self_test": {"inputs": rows, "outputs": outputs},
        }
        return {MODEL_FILE: self.onnx(), METADATA_FILE: json.dumps(metadata | self.metadata).encode()}

    def onnx(self) -> bytes:
        nodes = [
            helper.make_node("MatMul", ["features", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
            helper.make_node("ArgMax", ["logits"], ["label"], axis=1, keepdims=0),
        ]
        initializers = [numpy_helper.from_array(self.weights, "weights")]
        if self.slow:
            matrix = np.random.default_rng(0).normal(size=(self.slow, self.slow)).astype(np.float32)
            initializers += [numpy_helper.from_array(matrix, "matrix"), numpy_helper.from_array(np.float32(0), "zero")]
            nodes[0] = helper.make_node("MatMul", ["features", "weights"], ["product"])
            nodes[1:1] = [
                helper.make_node("ReduceSum", ["features"], ["sum"], keepdims=0),
                helper.make_node("Mul", ["matrix", "sum"], ["scaled"]),
                helper.make_node("MatMul", ["scaled", "matrix"], ["square"]),
                helper.make_node("ReduceSum", ["square"], ["total"], keepdims=0),
                helper.make_node("Mul", ["total", "zero"], ["nothing"]),
                helper.make_node("Add", ["product", "nothing"], ["logits"]),
            ]
        graph = helper.make_graph(
            nodes,
            "linear",
            [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", self.columns])],
            [
                helper.make_tensor_value_info("label", TensorProto.INT64, ["rows"]),
                helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["rows", self.classes]),
            ],
            initializers,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        onnx.checker.check_model(model)
        return model.SerializeToString()

    def archive(self) -> bytes:
        return archive_of(self.files())


def archive_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0)  # the same bytes at any time


def request(*rows, **more) -> dict:
    tensor = {"name": "features", "datatype": "FP32", "shape": [len(rows), len(rows[0])], "data": list(rows)}
    return {"inputs": [tensor]} | more


@dataclass
class Cloud:
    """The artifact bucket and the parameters that say what is live."""

    environment: dict[str, str]

    def __post_init__(self):
        self.s3 = boto3.client("s3", region_name=REGION)
        self.ssm = boto3.client("ssm", region_name=REGION)
        self.s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})

    def live(self, number: int, archive: bytes, weight: int = 100, model: str = "digits", **changes) -> LiveVersion:
        """Upload an artifact; `changes` spoil what the parameter says of it."""
        key = f"{model}/{number}/{hashlib.sha256(archive).hexdigest()[:8]}.tar.gz"
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=archive)
        known = {"artifact": f"s3://{BUCKET}/{key}", "sha256": hashlib.sha256(archive).hexdigest()}
        return LiveVersion(version=number, weight=weight, **(known | changes))

    def publish(self, *versions: LiveVersion, model: str = "digits") -> None:
        self.publish_text(LiveVersions(versions=versions).model_dump_json(), model)

    def publish_text(self, value: str, model: str = "digits") -> None:
        self.ssm.put_parameter(Name=f"/mlp/live/{model}", Value=value, Type="String", Overwrite=True)


@pytest.fixture
def cloud(emulated_aws) -> Cloud:
    return Cloud({"MLP_MODELS": "digits", "MLP_LIVE_PARAMETERS": "/mlp/live", "MLP_REFRESH_SECONDS": "1"})


class InProcess(httpx.BaseTransport):
    """Lets an ordinary, synchronous httpx client talk to an ASGI application without a server."""

    def __init__(self, app: Service) -> None:
        self.transport = httpx.ASGITransport(app, raise_app_exceptions=False)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return asyncio.run(self._handle(request))

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        async def chunks():
            for chunk in request.stream:
                yield chunk

        passed = httpx.Request(request.method, request.url, headers=request.headers, content=chunks())
        answer = await self.transport.handle_async_request(passed)
        content = b"".join([chunk async for chunk in answer.aiter_raw()])
        return httpx.Response(answer.status_code, headers=answer.headers, content=content)


def client_of(app: Service) -> httpx.Client:
    return httpx.Client(transport=InProcess(app), base_url="http://service")


def serve_directory(folder, model: Linear, **environment: str) -> Service:
    """The service as a SageMaker endpoint runs it: the quickest way to one that answers."""
    for name, content in model.files().items():
        (folder / name).write_bytes(content)
    return create_app({"SM_MODEL_DIR": str(folder), **environment})


@pytest.fixture(scope="session")
def linear() -> Linear:
    return Linear()


@pytest.fixture(scope="session", params=["ASGI", "HTTP"])
def client(tmp_path_factory, linear, run_directory, request) -> httpx.Client:
    """Requests go the way of ASGI, as in a Lambda function, or over HTTP, where most to predict have their own."""
    limits = {"MLP_MAX_ROWS": "8", "MLP_MAX_BODY_BYTES": "100000"}
    if request.param == "HTTP":
        return run_directory(linear, **limits).client
    return client_of(serve_directory(tmp_path_factory.mktemp("model"), linear, **limits))


def start(*arguments, environment=None, **more):
    """The service as a process."""
    return subprocess.Popen(
        [sys.executable, "-m", "services.inference", *arguments],
        cwd=ROOT,
        env=os.environ | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


def is_ready(client):
    try:
        return client.get("/v2/health/ready").status_code == 200
    except httpx.TransportError:
        return False


@dataclass
class Running:
    """A service that runs as a process; its log is read when it has ended."""

    process: subprocess.Popen
    url: str
    log_file: Path

    def __post_init__(self):
        self.client = httpx.Client(base_url=self.url, timeout=PATIENCE_S)

    def wait(self) -> "Running":
        wait_until(lambda: is_ready(self.client) or self.process.poll() is not None)
        assert self.process.poll() is None, self.log_file.read_text()
        return self

    def infer(self, *rows, model="digits", headers=None, **more) -> httpx.Response:
        body = request(*(rows or [[1, 2, 3, 4]]), **more)
        return self.client.post(f"/v2/models/{model}/infer", json=body, headers=headers)

    def version(self) -> str:
        answer = self.infer()
        assert answer.status_code == 200, answer.text
        return answer.json()["model_version"]

    def metric(self, line: str) -> float:
        found = [row for row in self.client.get("/metrics").text.splitlines() if row.startswith(line + " ")]
        return float(found[0].rpartition(" ")[2]) if found else 0.0

    def log(self) -> list[dict]:
        return [json.loads(line) for line in self.log_file.read_text().splitlines()]

    def end(self, number=signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(ENDS_WITHIN_S)


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """Start the service as a process, with these variables in its environment, and clean up at the end.

    `before` is code that the process runs first, to change what no setting changes.
    """
    started = []

    def of(*arguments, environment: dict[str, str], before="") -> Running:
        main = "from services.inference.__main__ import main; raise SystemExit(main())"
        service = ["-c", f"{before}; {main}"] if before else ["-m", "services.inference"]
        port = free_port()
        log_file = tmp_path_factory.mktemp("log") / "log"
        with log_file.open("w") as log:
            process = subprocess.Popen(
                [sys.executable, *service, "--port", str(port), *arguments],
                cwd=ROOT,
                env={name: value for name, value in os.environ.items() if not name.startswith("MLP_")} | environment,
                stdout=log,
                stderr=log,
            )
        started.append(Running(process, f"http://127.0.0.1:{port}", log_file))
        return started[-1]

    yield of
    for running in started:  # all at once, as each takes a moment
        running.client.close()
        running.process.terminate()
    for running in started:
        running.process.wait(PATIENCE_S)


@pytest.fixture(scope="session")
def run_directory(run, tmp_path_factory):
    """The same for one model in a directory, as SageMaker has it: no AWS is asked for anything."""

    def of(model: Linear, *arguments, before="", **environment: str) -> Running:
        folder = tmp_path_factory.mktemp("model")
        for name, content in model.files().items():
            (folder / name).write_bytes(content)
        return run(*arguments, environment={"SM_MODEL_DIR": str(folder), **environment}, before=before).wait()

    return of


class Firehose(http.server.BaseHTTPRequestHandler):
    """Firehose as it is on a bad day; what it has taken is in `taken`, the records of each call."""

    protocol_version = "HTTP/1.1"
    plan: list = []
    taken: list = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        behave = self.plan.pop(0) if len(self.plan) > 1 else self.plan[0]
        if self.is_signed(body):
            status, answer = behave(json.loads(body)["Records"])
        else:
            status, answer = 403, {"__type": "InvalidSignatureException"}
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def is_signed(self, body: bytes) -> bool:
        """Whether the signature is the one that AWS would compute of what has arrived."""
        scope, names, signature = re.fullmatch(
            r"AWS4-HMAC-SHA256 Credential=[^/]+/(.+), SignedHeaders=(.+), Signature=(.+)", self.headers["authorization"]
        ).groups()
        _, region, service, _ = scope.split("/")
        signer = SigV4Auth(boto3.Session().get_credentials(), service, region)
        signed = {name: self.headers[name] for name in names.split(";")}
        request = AWSRequest("POST", f"http://{self.headers['host']}{self.path}", signed, body)
        request.context["timestamp"] = self.headers["x-amz-date"]
        text = signer.string_to_sign(request, signer.canonical_request(request))
        return signer.signature(text, request) == signature

    def log_message(self, *_):
        pass


def take(records):
    Firehose.taken.append([base64.b64decode(record["Data"]) for record in records])
    return 200, {"FailedPutCount": 0, "RequestResponses": [{"RecordId": "1"} for _ in records]}


@pytest.fixture
def firehose(emulated_aws, monkeypatch):
    Firehose.taken, Firehose.plan = [], [take]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Firehose)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_FIREHOSE", f"http://127.0.0.1:{server.server_port}")
    yield Firehose
    server.shutdown()
    server.server_close()
