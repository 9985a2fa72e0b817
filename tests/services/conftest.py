"""Real model artifacts, small enough to make in a millisecond, and a service that serves one."""

import asyncio
import hashlib
import io
import json
import tarfile
from dataclasses import dataclass, field

import boto3
import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from contract.service import METADATA_FILE, MODEL_FILE, LiveVersion, LiveVersions
from services.inference.app import Service, create_app
from tests.conftest import REGION

BUCKET = "artifacts"


@dataclass
class Linear:
    """A linear classifier: label = argmax(softmax(features @ weights))."""

    seed: int = 0
    columns: int = 4
    classes: int = 3
    model: str = "digits"
    metadata: dict = field(default_factory=dict)
    """Replaces keys of metadata.json."""

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
        graph = helper.make_graph(
            nodes,
            "linear",
            [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", self.columns])],
            [
                helper.make_tensor_value_info("label", TensorProto.INT64, ["rows"]),
                helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["rows", self.classes]),
            ],
            [numpy_helper.from_array(self.weights, "weights")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        onnx.checker.check_model(model)
        return model.SerializeToString()

    def archive(self) -> bytes:
        return archive_of(self.files())


def archive_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


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
        return httpx.Response(answer.status_code, headers=answer.headers, content=await answer.aread())


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


@pytest.fixture(scope="session")
def client(tmp_path_factory, linear) -> httpx.Client:
    limits = {"MLP_MAX_ROWS": "8", "MLP_MAX_BODY_BYTES": "100000"}
    return client_of(serve_directory(tmp_path_factory.mktemp("model"), linear, **limits))
