"""The service as a real process, asked by clients that know nothing of it: tritonclient and boto3."""

import io
import json

import boto3
import numpy as np
import pytest
import tritonclient.http as triton
from botocore import UNSIGNED
from botocore.config import Config
from tritonclient.utils import InferenceServerException

from tests.services.conftest import Linear

ROWS = np.random.default_rng(3).normal(size=(5, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def url(run_directory):
    return run_directory(Linear()).url


@pytest.fixture(scope="module")
def client(url):
    with triton.InferenceServerClient(url.removeprefix("http://")) as client:
        yield client


def features(rows=ROWS, binary=True):
    tensor = triton.InferInput("features", rows.shape, "FP32")
    tensor.set_data_from_numpy(rows, binary_data=binary)
    return [tensor]


def test_health_and_metadata(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "1")
    assert not client.is_model_ready("digits", "2")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    model = client.get_model_metadata("digits")
    assert model["inputs"] == [{"name": "features", "datatype": "FP32", "shape": [-1, 4]}]
    assert client.get_model_metadata("digits", "1") == model


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_inference_in_every_form(client, binary_in, binary_out):
    outputs = (
        [triton.InferRequestedOutput(name, binary_data=binary_out) for name in ("probabilities", "label")]
        if binary_out is not None
        else None
    )
    answer = client.infer("digits", features(binary=binary_in), request_id="mine", outputs=outputs)
    expected = Linear().answer(ROWS)
    np.testing.assert_allclose(answer.as_numpy("probabilities"), expected["probabilities"], rtol=1e-5)
    assert answer.as_numpy("label").tolist() == expected["label"].tolist()
    assert answer.as_numpy("label").dtype == np.int64
    response = answer.get_response()
    assert (response["id"], response["model_name"], response["model_version"]) == ("mine", "digits", "1")


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests(client, algorithm):
    answer = client.infer("digits", features(), request_compression_algorithm=algorithm)
    assert len(answer.as_numpy("label")) == 5


def test_mixed_outputs_and_a_version(client):
    outputs = [
        triton.InferRequestedOutput("label", binary_data=False),
        triton.InferRequestedOutput("probabilities", binary_data=True),
    ]
    answer = client.infer("digits", features(), model_version="1", outputs=outputs)
    assert answer.as_numpy("label").shape == (5,)
    assert answer.as_numpy("probabilities").shape == (5, 3)


def test_errors_are_the_protocol_s(client):
    with pytest.raises(InferenceServerException, match="unknown model 'wine'"):
        client.infer("wine", features())
    with pytest.raises(InferenceServerException, match=r"the shape must be \[rows, 4\], given: \[5, 2\]"):
        client.infer("digits", features(ROWS[:, :2].copy()))
    with pytest.raises(InferenceServerException, match="column 'x1': the number does not fit 32 bits"):
        client.infer("digits", features(np.array([[1, np.nan, 3, 4]], np.float32)))
    with pytest.raises(InferenceServerException, match="classification extension is not supported"):
        client.infer("digits", features(), outputs=[triton.InferRequestedOutput("probabilities", class_count=2)])


def test_asynchronous_requests(url):
    with triton.InferenceServerClient(url.removeprefix("http://"), concurrency=4) as client:
        answers = [client.async_infer("digits", features()) for _ in range(20)]
        assert {tuple(answer.get_result().as_numpy("label").tolist()) for answer in answers} == {
            tuple(Linear().answer(ROWS)["label"].tolist())
        }


@pytest.fixture(scope="module")
def runtime(url):
    """SageMaker's runtime client, whose endpoint is the container; SageMaker passes the same headers on."""
    client = boto3.client(
        "sagemaker-runtime", region_name="eu-west-1", endpoint_url=url, config=Config(signature_version=UNSIGNED)
    )

    def to_container(request, **_):
        request.url = f"{url}/invocations"

    client.meta.events.register("before-send.sagemaker-runtime.InvokeEndpoint", to_container)
    return client


def test_invoke_endpoint_with_json(runtime):
    answer = runtime.invoke_endpoint(
        EndpointName="any",
        ContentType="application/json",
        Body=json.dumps({"instances": ROWS.tolist()}),
        InferenceId="seven",
    )
    labels = [prediction["label"] for prediction in json.load(answer["Body"])["predictions"]]
    assert labels == Linear().answer(ROWS)["label"].tolist()
    assert answer["CustomAttributes"] == "model=digits;version=1;id=seven"
    assert answer["ContentType"] == "application/json"


def test_invoke_endpoint_with_csv(runtime):
    body = "\n".join(",".join(map(str, row)) for row in ROWS.tolist())
    answer = runtime.invoke_endpoint(EndpointName="any", ContentType="text/csv", Accept="text/csv", Body=body)
    lines = answer["Body"].read().decode().splitlines()
    assert [int(line.split(",")[0]) for line in lines] == Linear().answer(ROWS)["label"].tolist()


@pytest.mark.parametrize("dtype", ["float32", "float64", ">f4", "int16", "float16", "bool"])
def test_invoke_endpoint_with_npy(runtime, dtype):
    rows, file = ROWS.astype(dtype), io.BytesIO()
    np.save(file, np.asfortranarray(rows))
    answer = runtime.invoke_endpoint(
        EndpointName="any", ContentType="application/x-npy", Accept="application/x-npy", Body=file.getvalue()
    )
    table = np.load(io.BytesIO(answer["Body"].read()))
    expected = Linear().answer(rows.astype(np.float32))
    assert table[:, 0].tolist() == expected["label"].tolist()
    np.testing.assert_allclose(table[:, 1:], expected["probabilities"], rtol=1e-5)
