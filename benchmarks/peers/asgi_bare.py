"""The ceiling: a bare ASGI handler with msgspec and ONNX Runtime; no versions, ids, metrics, limits or errors."""

import os
import sys
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import uvicorn

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(f"{os.environ['MODEL']}/model.onnx", options)


class Tensor(msgspec.Struct):
    """An input or output."""

    name: str
    datatype: str
    shape: list[int]
    data: list[float]


class Request(msgspec.Struct):
    """What is asked."""

    inputs: list[Tensor]


class Answer(msgspec.Struct):
    """What is answered."""

    model_name: str
    model_version: str
    outputs: list[Tensor]


decode, encode = msgspec.json.Decoder(Request).decode, msgspec.json.Encoder().encode


async def app(_: Any, receive: Any, send: Any) -> None:
    """Answer a request."""
    message = await receive()
    body = message["body"]
    while message.get("more_body"):
        message = await receive()
        body += message["body"]
    tensor = decode(body).inputs[0]
    features = np.array(tensor.data, np.float32).reshape(tensor.shape)
    label, probabilities = session.run(["label", "probabilities"], {"features": features})
    outputs = [
        Tensor("label", "INT64", list(label.shape), label.ravel().tolist()),
        Tensor("probabilities", "FP32", list(probabilities.shape), probabilities.ravel().tolist()),
    ]
    content = encode(Answer("digits", "1", outputs))
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


if __name__ == "__main__":
    uvicorn.run(
        app,
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="error",
        proxy_headers=False,
        server_header=False,
    )
