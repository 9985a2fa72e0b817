"""Every datatype of the protocol goes in and out, as JSON and as bytes, through a model that takes it."""

import gzip
import json
import zlib

import numpy as np
import pytest
import tritonclient.http as triton
from hypothesis import given, settings
from hypothesis import strategies as st

from services.inference.content import decompress
from services.inference.protocol import RequestError
from services.inference.tensors import KINDS, Reader, TensorError, to_bytes
from tests.services.conftest import client_of, serve_directory
from tests.services.models import ONNX_TYPES, OneNode

VALUES = {"BOOL": [True, False], "BYTES": ["grün", ""], "FP16": [0.5, -2], "FP32": [0.5, -2], "FP64": [1e300, -2.5]}


def values_of(datatype):
    if datatype in VALUES:
        return VALUES[datatype]
    limits = np.iinfo(KINDS[datatype].dtype)
    return [int(limits.min), int(limits.max)]


def identity(datatype):
    return OneNode(datatype, [VALUES.get(datatype, [1, 0])])


@pytest.mark.parametrize("datatype", ONNX_TYPES)
def test_a_stock_client_gets_back_what_it_sends(tmp_path, datatype):
    client = client_of(serve_directory(tmp_path, identity(datatype)))
    dtype = np.dtype(object) if datatype == "BYTES" else KINDS[datatype].dtype
    rows = np.array([values_of(datatype), values_of(datatype)[::-1]], dtype)
    for binary_in, binary_out in ((True, True), (False, True), (True, False), (False, False)):
        if datatype == "FP16" and not (binary_in and binary_out):
            continue  # tritonclient has no JSON for it
        tensor = triton.InferInput("features", rows.shape, datatype)
        tensor.set_data_from_numpy(rows, binary_data=binary_in)
        wanted = [triton.InferRequestedOutput("same", binary_data=binary_out)]
        body, json_size = triton.InferenceServerClient.generate_request_body([tensor], outputs=wanted)
        headers = {"inference-header-content-length": str(json_size)} if json_size else {}
        answer = client.post("/v2/models/same/infer", content=bytes(body), headers=headers)
        assert answer.status_code == 200, answer.text
        length = answer.headers.get("inference-header-content-length")
        same = triton.InferenceServerClient.parse_response_body(
            answer.content, header_length=int(length) if length else None
        ).as_numpy("same")
        assert bool(length) == binary_out
        texts = [of.decode() if isinstance(of, bytes) else of for of in same.ravel().tolist()]
        assert texts == rows.ravel().tolist()


@pytest.mark.parametrize(
    ("datatype", "data", "said"),
    [
        ("UINT8", "[1, 256]", "row 0, column 'b': the number does not fit 8 bits (UINT8"),
        ("INT8", "[-129, 1]", "row 0, column 'a': the number does not fit 8 bits"),
        ("UINT64", "[1, 18446744073709551616]", "column 'b': the number does not fit 64 bits"),
        ("INT32", "[1, 1.5]", "Expected `int`, got `float` - at `data[1]`"),
        ("FP16", "[1, 70000]", "column 'b': the number does not fit 16 bits"),
        ("FP32", "[[1, 1e39]]", "row 0, column 'b': the number does not fit 32 bits"),
        ("BOOL", "[1, 0]", "Expected `bool`, got `int`"),
        ("BYTES", "[1, 2]", "Expected `str`, got `int`"),
    ],
)
def test_a_number_that_does_not_fit_is_named(datatype, data, said):
    with pytest.raises(TensorError) as caught:
        Reader(datatype, ["a", "b"]).from_json(data.encode(), 1)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("datatype", "data", "said"),
    [
        ("FP32", b"123", "3 bytes are no whole number of FP32"),
        ("FP32", b"1234", "it has 1 numbers, but the shape [1, 2] needs 2"),
        ("FP32", np.array([1, np.inf], "<f4").tobytes(), "column 'b': the number does not fit"),
        ("BOOL", b"\x01\x02", "row 0, column 'b': the byte is 2, but a BOOL is 0 or 1"),
        ("BYTES", b"\x01\x00", "longer than the data"),
        ("BYTES", b"\xff\xff\xff\xff", "longer than the data"),
        ("BYTES", b"\x01\x00\x00\x00\xff", "not UTF-8"),
    ],
)
def test_bad_binary_data_is_refused(datatype, data, said):
    with pytest.raises(TensorError) as caught:
        Reader(datatype, ["a", "b"]).from_bytes(data, 1)
    assert said in str(caught.value)


@pytest.mark.parametrize("datatype", ["BOOL", "INT8", "FP32"])
def test_an_array_of_bytes_that_are_no_bools_is_refused(datatype):
    array = np.array([[0, 1], [1, 255]], np.uint8).view(bool)
    with pytest.raises(TensorError, match=r"row 1, column 'b': the byte is 255, but a BOOL is 0 or 1"):
        Reader(datatype, ["a", "b"]).from_array(array)
    assert Reader(datatype, ["a", "b"]).from_array(array[:1]).tolist() == [[0, 1]]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=6, max_size=6))
def test_json_and_bytes_give_the_same_numbers(numbers):
    reader = Reader("FP32", ["a", "b", "c"])
    expected = np.array(numbers, np.float32).reshape(2, 3)
    assert np.array_equal(reader.from_json(json.dumps(numbers).encode(), 2), expected)
    assert np.array_equal(reader.from_json(json.dumps([numbers[:3], numbers[3:]]).encode(), 2), expected)
    assert np.array_equal(reader.from_bytes(to_bytes(expected, "FP32"), 2), expected)


@pytest.mark.parametrize("datatype", ONNX_TYPES)
@pytest.mark.parametrize("data", [b'["\xff", "a"]', b'[["a", "\xff"]]', b'[["a"], "\xff"]', b'[["a", {"\xff": 1}]]'])
def test_json_that_is_not_utf_8_is_refused(datatype, data):
    with pytest.raises(TensorError):
        Reader(datatype, ["a", "b"]).from_json(data, 1)


@pytest.mark.parametrize("length", ["", "x", "-1", "0", "1000000", "9" * 30, "12.5"])
def test_a_wrong_length_of_the_json_is_refused(client, length):
    answer = client.post(
        "/v2/models/digits/infer", content=b"{}" * 10, headers={"inference-header-content-length": length}
    )
    assert answer.status_code == 400
    assert "Inference-Header-Content-Length must be the size of the JSON" in answer.json()["error"]


@pytest.mark.parametrize(
    ("parameters", "data", "attached", "said"),
    [
        ({"binary_data_size": 16}, None, b"1" * 15, "binary_data_size is 16, but 15 bytes follow"),
        ({"binary_data_size": "16"}, None, b"1" * 16, "binary_data_size is '16'"),
        ({"binary_data_size": 16}, [1, 2, 3, 4], b"1" * 16, "binary_data_size is 16"),
        (None, [1, 2, 3, 4], b"1" * 16, "no parameter binary_data_size"),
        (None, None, b"", "it has no data"),
    ],
)
def test_json_and_binary_data_must_agree(client, parameters, data, attached, said):
    tensor = {"name": "features", "datatype": "FP32", "shape": [1, 4], "parameters": parameters, "data": data}
    body = json.dumps({"inputs": [{name: value for name, value in tensor.items() if value is not None}]}).encode()
    answer = client.post(
        "/v2/models/digits/infer",
        content=body + attached,
        headers={"inference-header-content-length": str(len(body))},
    )
    assert answer.status_code == 400
    assert said in answer.json()["error"]


@pytest.mark.parametrize(
    ("encoding", "content", "status", "said"),
    [
        ("br", b"", 415, "must be gzip or deflate, given: 'br'"),
        ("gzip", b"not gzip", 400, "the body is not gzip"),
        ("gzip", b"", 400, "it ends too early"),
        ("gzip", bytes.fromhex("1f8b0800000000000003"), 400, "it ends too early"),
        ("gzip", gzip.compress(b"{}", mtime=0) + b"junk", 400, "the body is not gzip"),
        ("gzip", gzip.compress(b"{}", mtime=0) + b"\x00", 400, "the body is not gzip"),
        ("gzip", gzip.compress(b"{}", mtime=0) + gzip.compress(b"", mtime=0)[:-1], 400, "it ends too early"),
        ("gzip", gzip.compress(b" ", mtime=0) * 2000, 400, "there is more after 1024 of its members"),
        ("gzip", gzip.compress(b" " * 60_000, mtime=0) * 2, 413, "more than the limit of 100000 bytes"),
        ("deflate", zlib.compress(b"{}") * 2, 400, "there is more after 1 of its members"),
    ],
)
def test_a_bad_encoding_is_refused(client, encoding, content, status, said):
    answer = client.post("/v2/models/digits/infer", content=content, headers={"content-encoding": encoding})
    assert answer.status_code == status
    assert said in answer.json()["error"]


@pytest.mark.parametrize("length", [1, 7, 100_000])  # of the text in a member; random digits hardly pack
def test_all_members_of_a_gzip_body_are_read(length):
    text = "".join(map(str, np.random.default_rng(0).integers(0, 10, 70 * length // (1 + length // 1000)))).encode()
    parts = [text[at : at + length] for at in range(0, len(text), length)]
    packed = b"".join(gzip.compress(part) for part in [b"", *parts, b""])
    assert decompress(packed, b"gzip", len(text)) == text
    with pytest.raises(RequestError):
        decompress(packed, b"gzip", len(text) - 1)


def test_a_bomb_is_not_unpacked(client):
    bomb = gzip.compress(b" " * 50_000_000)
    answer = client.post("/v2/models/digits/infer", content=bomb, headers={"content-encoding": "gzip"})
    assert answer.status_code == 413
