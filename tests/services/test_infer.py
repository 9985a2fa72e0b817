"""The Open Inference Protocol over HTTP: what is answered, and how bad input is refused."""

import asyncio
import json
import uuid

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.inference.infer import _read_body
from services.inference.protocol import RequestError
from tests.services.conftest import client_of, request, serve_directory
from tests.services.models import lookup, numbers_of_texts

ROW = [1.0, 2.0, 3.0, 4.0]
INFER = "/v2/models/digits/infer"


def tensor(**changes):
    return {"name": "features", "datatype": "FP32", "shape": [1, 4], "data": ROW} | changes


def test_predictions_are_the_model_s(client, linear):
    rows = np.random.default_rng(2).normal(size=(5, 4)).astype(np.float32)
    answer = client.post(INFER, json=request(*rows.tolist(), id="my id")).json()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("digits", "1", "my id")
    label, probabilities = answer["outputs"]
    expected = linear.answer(rows)
    assert label == {"name": "label", "datatype": "INT64", "shape": [5], "data": expected["label"].tolist()}
    assert (probabilities["datatype"], probabilities["shape"]) == ("FP32", [5, 3])
    np.testing.assert_allclose(probabilities["data"], expected["probabilities"].ravel(), rtol=1e-5)


def test_flat_and_nested_data_are_the_same(client):
    flat = client.post(INFER, json={"inputs": [tensor(shape=[2, 4], data=ROW + ROW)]}).json()["outputs"]
    nested = client.post(INFER, json={"inputs": [tensor(shape=[2, 4], data=[ROW, ROW])]}).json()["outputs"]
    assert flat == nested


def test_every_prediction_has_an_id(client):
    answer = client.post("/v2/models/digits/versions/1/infer", json=request(ROW)).json()
    assert uuid.UUID(answer["id"])
    assert answer["id"] != client.post(INFER, json=request(ROW)).json()["id"]
    assert answer["model_version"] == "1"


def test_an_id_that_looks_like_no_number_is_an_id(client):
    assert client.post(INFER, json=request(ROW, id="null")).json()["id"] == "null"


def test_only_the_outputs_asked_for_are_answered_in_their_order(client):
    def names(*asked):
        answer = client.post(INFER, json=request(ROW, outputs=[{"name": name} for name in asked]))
        return [output["name"] for output in answer.json()["outputs"]]

    assert names("label") == ["label"]
    assert names("probabilities", "label") == ["probabilities", "label"]
    assert names() == ["label", "probabilities"]


def test_what_a_stock_client_adds_is_no_error(client):
    body = request(ROW, parameters={"binary_data_output": False}, outputs=[{"name": "label", "parameters": {"x": 1}}])
    body["inputs"][0]["parameters"] = {"content_type": "np"}
    assert client.post(INFER, json=body).status_code == 200


def test_metadata_and_health(client):
    assert client.get("/v2").json()["name"] == "ml-platform"
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True, "problems": {}}
    assert client.get("/ping").status_code == 200
    model = client.get("/v2/models/digits").json()
    assert model == client.get("/v2/models/digits/versions/1").json()
    assert model["versions"] == ["1"]
    assert model["inputs"] == [{"name": "features", "datatype": "FP32", "shape": [-1, 4]}]
    assert [output["name"] for output in model["outputs"]] == ["label", "probabilities"]
    assert model["columns"] == ["x0", "x1", "x2", "x3"]
    for path in ("/v2/models/digits/ready", "/v2/models/digits/versions/1/ready"):
        assert client.get(path).json() == {"name": "digits", "ready": True, "problems": []}


BAD_BODIES = {
    "wrong width": (tensor(shape=[1, 3], data=[1, 2, 3]), "the shape must be [rows, 4], given: [1, 3]"),
    "one dimension": (tensor(shape=[4]), "the shape must be [rows, 4], given: [4]"),
    "negative rows": (tensor(shape=[-1, 4]), "the shape must be [rows, 4], given: [-1, 4]"),
    "huge shape": (tensor(shape=[10**30, 4]), "from 1 to 8 rows"),
    "fractional shape": (tensor(shape=[1.5, 4]), "`body.inputs[0].shape[0]`"),
    "data too short": (tensor(data=[1, 2, 3]), "data has 3 numbers, but the shape [1, 4] needs 4"),
    "data too long": (tensor(data=[*ROW, 5]), "data has 5 numbers, but the shape [1, 4] needs 4"),
    "no data": (tensor(data=[]), "data has 0 numbers"),
    "nested rows too few": (tensor(shape=[2, 4], data=[ROW]), "data has 1 rows, but the shape is [2, 4]"),
    "ragged": (tensor(shape=[2, 4], data=[ROW, [1]]), "row 1 has 1 numbers, but the model takes 4"),
    "half nested": (tensor(shape=[2, 4], data=[ROW, 1]), "Expected `array`, got `int` - at `data[1]`"),
    "three dimensions": (tensor(data=[[ROW]]), "Expected `float`, got `array` - at `data[0][0]`"),
    "data is a number": (tensor(data=1), "Expected `array`"),
    "data is null": (tensor(data=None), "Expected `array`, got `null`"),
    "datatype": (tensor(datatype="INT64"), "the datatype must be FP32, given: 'INT64'"),
    "null": (tensor(data=[1, None, 3, 4]), "Expected `float`, got `null` - at `data[1]`"),
    "text": (tensor(data=[1, "2", 3, 4]), "Expected `float`, got `str` - at `data[1]`"),
    "boolean": (tensor(data=[1, True, 3, 4]), "Expected `float`, got `bool` - at `data[1]`"),
    "too large for 32 bits": (tensor(data=[1, 2, 1e39, 4]), "row 0, column 'x2': the number does not fit 32 bits"),
    "absurd": (tensor(data=[3e38] * 4), "no finite answer"),
    "too many rows": (tensor(shape=[9, 4], data=ROW * 9), "from 1 to 8 rows, given: 9"),
    "zero rows": (tensor(shape=[0, 4], data=[]), "from 1 to 8 rows, given: 0"),
    "unknown input": (
        tensor(name="image"),
        "unknown input: the model takes exactly one",
    ),
}


@pytest.mark.parametrize(("given", "said"), BAD_BODIES.values(), ids=BAD_BODIES)
def test_a_bad_tensor_is_refused(client, given, said):
    answer = client.post(INFER, json={"inputs": [given]})
    assert answer.status_code == 400, answer.text
    assert list(answer.json()) == ["error"]
    assert said in answer.json()["error"]


@pytest.mark.parametrize("value", ["false", "yes", 0, 1, None, [True]])
@pytest.mark.parametrize("name", ["explain", "binary_data_output", "binary_data"])
def test_a_parameter_that_is_neither_true_nor_false_is_refused(client, name, value):
    parameters = {"parameters": {name: value}}
    more = {"outputs": [{"name": "label", **parameters}]} if name == "binary_data" else parameters
    answer = client.post(INFER, json=request(ROW, **more))
    assert answer.status_code == 400
    assert f"parameter '{name}' must be true or false, given: {value!r}" in answer.json()["error"]


RAW = '{"inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, %s]}]}'
BAD_TEXTS = {
    "empty": ("", "not valid JSON"),
    "half": (RAW[:30], "not valid JSON"),
    "not JSON": ("features=1", "not valid JSON"),
    "trailing": (RAW % "4" + "x", "trailing characters"),
    "NaN": (RAW % "NaN", "NaN is not a number in JSON"),
    "Infinity": (RAW % "-Infinity", "-Infinity is not a number in JSON"),
    "overflow": (RAW % "1e999", "Number out of range - at `data[3]`"),
    "long number": (RAW % ("9" * 400), "Number out of range"),
    "not UTF-8": (b'{"inputs": [], "id": "\xff"}', "not valid"),
    "lone surrogate": ('{"inputs": [], "id": "\\ud800"}', "not valid"),
    "null": ("null", "Expected `object`, got `null`"),
    "list": ("[]", "Expected `object`, got `array`"),
    "no inputs": ("{}", "missing required field `inputs`"),
    "missing input": ('{"inputs": []}', "missing input"),
    "duplicate input": (json.dumps({"inputs": [tensor(), tensor()]}), "duplicate input"),
    "no name": ('{"inputs": [{"shape": [1], "datatype": "FP32", "data": []}]}', "missing required field `name`"),
    "id is a number": (json.dumps(request(ROW, id=7)), "Expected `str | null`, got `int` - at `body.id`"),
    "deep": ('{"inputs": ' + "[" * 40_000, "Expected `object`, got `array`"),
    "deep data": (RAW % ("[" * 20_000 + "]" * 20_000), "nested too deeply"),
    "deep extra": ('{"inputs": [], "x": ' + "[" * 20_000 + "]" * 20_000 + "}", "nested too deeply"),
    "unknown output": (json.dumps(request(ROW, outputs=[{"name": "score"}])), "given: ['score']"),
    "output twice": (json.dumps(request(ROW, outputs=[{"name": "label"}] * 2)), "each once"),
}


@pytest.mark.parametrize(("body", "said"), BAD_TEXTS.values(), ids=BAD_TEXTS)
def test_a_bad_body_is_refused(client, body, said):
    answer = client.post(INFER, content=body)
    assert answer.status_code == 400, answer.text
    assert said in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("POST", "/v2/models/wine/infer", 404, "unknown model 'wine'; this service has: digits"),
        ("POST", "/v2/models/digits/versions/7/infer", 404, "has no version '7' loaded; loaded: 1"),
        ("POST", "/v2/models/digits/versions/x%2Fy/infer", 404, "not found"),
        ("POST", "/infer", 404, "not found"),
        ("GET", "/v2/models/wine", 404, "unknown model 'wine'"),
        ("GET", "/v2/models/digits/versions/7", 404, "has no version '7'"),
        ("GET", "/v2/models/wine/ready", 404, "unknown model"),
        ("GET", INFER, 405, "must be POST"),
        ("PUT", "/invocations", 405, "must be POST"),
        ("POST", "/v2/health/live", 405, "Method Not Allowed"),
        ("GET", "/nowhere", 404, "Not Found"),
    ],
)
def test_wrong_routes_and_methods(client, method, path, status, said):
    answer = client.request(method, path, content=json.dumps(request(ROW)) if method == "POST" else None)
    assert answer.status_code == status
    assert said in answer.json()["error"]
    assert status != 405 or answer.headers["allow"]


def test_a_body_over_the_limit_is_refused(client):
    answer = client.post(INFER, content=b" " * 100_001)
    assert answer.status_code == 413
    assert "limit of 100000 bytes" in answer.json()["error"]
    assert client.post(INFER, content=(b" " * 30_000 for _ in range(4))).status_code == 413
    assert client.post("/invocations", content=b" " * 100_001).status_code == 413


def test_a_body_without_a_length_is_read_no_further_than_the_limit():
    read = 0

    async def receive():
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b"x" * 40, "more_body": True}

    with pytest.raises(RequestError) as caught:
        asyncio.run(_read_body(receive, {}, 100))
    assert caught.value.status == 413
    assert read == 3


@pytest.mark.parametrize(
    ("model", "data", "said"),
    [
        (lookup(), [1, 99], "Gather: indices element out of data bounds, idx=99 must be within"),
        (numbers_of_texts(), ["1", "x"], "Cast: stod"),
    ],
)
def test_features_at_which_the_model_fails_are_refused(tmp_path, capfd, model, data, said):
    client = client_of(serve_directory(tmp_path, model))
    asked = {"inputs": [tensor(datatype=model.datatype, shape=[1, 2], data=data)]}
    for path, body in (("/v2/models/same/infer", asked), ("/invocations", [data])):
        answer = client.post(path, json=body)
        assert (answer.status_code, said in answer.json()["error"]) == (400, True)
        assert answer.json()["error"].startswith("the model cannot answer these features: ")
    assert "onnxruntime" not in capfd.readouterr().err  # which is no JSON


def test_a_broken_session_is_not_the_client_s_fault(tmp_path):
    app = serve_directory(tmp_path, lookup())
    app.catalogue["same"].shares[0][0].proven = np.array([[99, 99]])  # what it could answer, it can no longer
    asked = {"inputs": [tensor(datatype="INT64", shape=[1, 2], data=[1, 99])]}
    assert client_of(app).post("/v2/models/same/infer", json=asked).status_code == 500


def test_a_large_request_is_answered_by_a_thread(client, linear):
    padded = json.dumps(request(ROW)).encode() + b" " * 70_000
    answer = client.post(INFER, content=padded)
    assert answer.json()["outputs"][0]["data"] == linear.answer([ROW])["label"].tolist()
    assert client.post(INFER, content=padded + b"x").status_code == 400


def test_metrics_count_by_model_version_and_code(tmp_path, linear):
    client = client_of(serve_directory(tmp_path, linear))
    client.post(INFER, json=request(ROW, ROW))
    client.post(INFER, json={})
    client.post("/v2/models/anything/infer", json={})
    lines = client.get("/metrics").text.splitlines()
    for line in (
        'mlp_requests_total{code="200",model="digits",version="1"} 1.0',
        'mlp_requests_total{code="400",model="digits",version=""} 1.0',
        'mlp_requests_total{code="404",model="",version=""} 1.0',
        'mlp_rows_total{model="digits",version="1"} 2.0',
        'mlp_request_seconds_count{code="200",model="digits",version="1"} 1.0',
        'mlp_version_share{model="digits",version="1"} 100.0',
        "mlp_in_flight 0.0",
    ):
        assert line in lines


anything = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
almost = st.fixed_dictionaries(
    {"name": st.just("features"), "datatype": st.just("FP32"), "shape": st.just([1, 4]) | anything, "data": anything}
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.one_of(
        st.binary(max_size=200),
        anything.map(lambda value: json.dumps(value).encode()),
        st.lists(almost, max_size=2).map(lambda inputs: json.dumps({"inputs": inputs}).encode()),
    )
)
def test_no_body_makes_the_service_fail(client, body):
    for path in (INFER, "/invocations"):
        assert client.post(path, content=body).status_code in (200, 400)
    assert client.post("/invocations", content=body, headers={"content-type": "text/csv"}).status_code in (200, 400)
