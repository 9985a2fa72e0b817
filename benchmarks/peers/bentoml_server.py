"""BentoML: one service, one worker, an asynchronous API that takes a list of rows."""

import os
from typing import Any

import bentoml
import numpy as np
import onnxruntime


@bentoml.service(workers=1, logging={"access": {"enabled": False}}, metrics={"enabled": False})
class Digits:
    """The model."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(f"{os.environ['MODEL']}/model.onnx", options)

    @bentoml.api(route="/predict")
    async def predict(self, instances: list[list[float]]) -> dict[str, Any]:
        """Predict."""
        features = np.array(instances, np.float32)
        label, probabilities = self.session.run(["label", "probabilities"], {"features": features})
        return {"label": label.tolist(), "probabilities": probabilities.tolist()}
