"""LitServe, with `fast_queue`, which its documentation advises for many requests a second."""

import os
import sys
from typing import Any

import litserve
import numpy as np
import onnxruntime


class Digits(litserve.LitAPI):
    """The model."""

    def setup(self, device: str) -> None:  # noqa: ARG002
        """Load it."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(f"{os.environ['MODEL']}/model.onnx", options)

    def decode_request(self, request: dict[str, Any]) -> Any:
        """Read the rows."""
        return np.array(request["instances"], np.float32)

    def predict(self, x: Any) -> Any:
        """Predict."""
        return self.session.run(["label", "probabilities"], {"features": x})

    def encode_response(self, output: Any) -> dict[str, Any]:
        """Write the answer."""
        return {"label": output[0].tolist(), "probabilities": output[1].tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Digits(), accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(port=int(sys.argv[1]), log_level="error", generate_client_file=False, access_log=False)
