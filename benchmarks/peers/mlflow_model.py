"""MLflow: the ONNX file as a logged model, served by `mlflow models serve` with one worker and no environment manager.

python mlflow_model.py FOLDER writes the model.
"""

import os
import sys

import mlflow.onnx
import onnx

if __name__ == "__main__":
    model = onnx.load(f"{os.environ['MODEL']}/model.onnx")
    mlflow.onnx.save_model(
        model, sys.argv[1], onnx_session_options={"intra_op_num_threads": 1, "inter_op_num_threads": 1}
    )
