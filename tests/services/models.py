"""Models of one ONNX node, for whatever a linear classifier cannot be: other datatypes, and nodes that can fail."""

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from contract.service import METADATA_FILE, MODEL_FILE

ONNX_TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


@dataclass
class OneNode:
    """A model with an output `same` of the shape of its features; as it is, it answers with its features."""

    datatype: str
    rows: list[list[Any]] = field(default_factory=lambda: [[1, 0]])
    """Of its self-test; as long as they are, so many columns it has."""
    op: str = "Identity"
    made: str = ""
    """The datatype of its output, if it is another one."""
    answers: list[list[Any]] | None = None
    """To the rows of its self-test, if they are not the rows."""
    table: np.ndarray | None = None
    """The first input of the node, if it has two."""
    attributes: dict[str, Any] = field(default_factory=dict)
    sensitive: dict[str, str] = field(default_factory=dict)

    def files(self) -> dict[str, bytes]:
        made, columns = self.made or self.datatype, len(self.rows[0])
        metadata = {
            "model": "same",
            "task": "none",
            "columns": list("abcdefgh"[:columns]),
            "inputs": [{"name": "features", "datatype": self.datatype, "shape": [-1, columns]}],
            "outputs": [{"name": "same", "datatype": made, "shape": [-1, columns]}],
            "self_test": {"inputs": self.rows, "outputs": {"same": self.answers or self.rows}},
            "sensitive": self.sensitive,
        }
        inputs = ["features"] if self.table is None else ["table", "features"]
        graph = helper.make_graph(
            [helper.make_node(self.op, inputs, ["same"], **self.attributes)],
            "one",
            [helper.make_tensor_value_info("features", ONNX_TYPES[self.datatype], ["rows", columns])],
            [helper.make_tensor_value_info("same", ONNX_TYPES[made], ["rows", columns])],
            [] if self.table is None else [numpy_helper.from_array(self.table, "table")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        onnx.checker.check_model(model)
        return {MODEL_FILE: model.SerializeToString(), METADATA_FILE: json.dumps(metadata).encode()}


def lookup() -> OneNode:
    """Looks its features up in a table of ten numbers."""
    table = np.arange(10, dtype=np.float32)
    return OneNode("INT64", [[1, 2], [3, 4]], "Gather", made="FP32", table=table)


def numbers_of_texts() -> OneNode:
    """Reads its features as numbers."""
    to = {"to": TensorProto.FLOAT}
    return OneNode("BYTES", [["1", "2"], ["3", "4"]], "Cast", made="FP32", answers=[[1, 2], [3, 4]], attributes=to)
