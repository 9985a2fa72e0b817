"""MLServer: a custom runtime; `parallel_workers` is 0, as its documentation advises for light models."""

import os

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Digits(MLModel):
    """The model."""

    async def load(self) -> bool:
        """Load it."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(f"{os.environ['MODEL']}/model.onnx", options)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Predict."""
        features = NumpyCodec.decode_input(payload.inputs[0])
        label, probabilities = self.session.run(["label", "probabilities"], {"features": features})
        outputs = [
            NumpyCodec.encode_output("label", label),
            NumpyCodec.encode_output("probabilities", probabilities),
        ]
        return InferenceResponse(model_name=self.name, outputs=outputs)
