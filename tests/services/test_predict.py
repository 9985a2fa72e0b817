"""`mlp predict` makes one message of an answer that it cannot show."""

import pytest

from cli.predict import request_prediction
from contract.errors import PlatformError
from tests.services.conftest import Linear

INPUT = {"name": "features", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}


@pytest.fixture(scope="module")
def predict(run_directory):
    service = run_directory(Linear())
    return lambda **more: request_prediction(service.url, "digits", {"inputs": [INPUT]} | more)


def test_an_answer_has_its_outputs(predict):
    assert "label" in [output["name"] for output in predict()["outputs"]]


@pytest.mark.parametrize(
    "more",
    [
        {"parameters": {"binary_data_output": True}},
        {"outputs": [{"name": "label", "parameters": {"binary_data": True}}]},
    ],
)
def test_binary_outputs_are_not_shown(predict, more):
    with pytest.raises(PlatformError, match="answered with binary data, which is not shown here; leave binary_data_o"):
        predict(**more)
