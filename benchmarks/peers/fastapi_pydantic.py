"""FastAPI as its tutorial has it: pydantic models of request and answer, an async route."""

import os
import sys

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(f"{os.environ['MODEL']}/model.onnx", options)
app = FastAPI()


class Tensor(BaseModel):
    """An input or output."""

    name: str
    datatype: str
    shape: list[int]
    data: list[float]


class Request(BaseModel):
    """What is asked."""

    inputs: list[Tensor]


class Answer(BaseModel):
    """What is answered."""

    outputs: list[Tensor]


@app.post("/v2/models/digits/infer")
async def infer(request: Request) -> Answer:
    """Answer a request."""
    tensor = request.inputs[0]
    features = np.array(tensor.data, np.float32).reshape(tensor.shape)
    label, probabilities = session.run(["label", "probabilities"], {"features": features})
    return Answer(
        outputs=[
            Tensor(name="label", datatype="INT64", shape=label.shape, data=label.ravel().tolist()),
            Tensor(
                name="probabilities",
                datatype="FP32",
                shape=probabilities.shape,
                data=probabilities.ravel().tolist(),
            ),
        ]
    )


if __name__ == "__main__":
    uvicorn.run(
        app, port=int(sys.argv[1]), loop="uvloop", http="httptools", ws="none", access_log=False, log_level="error"
    )
