"""Models of a few numbers, written as ONNX files by hand: what they answer is known, and nothing is trained."""

from pathlib import Path

import numpy as np
import onnx
import polars as pl
from onnx import TensorProto, helper, numpy_helper

from contract.manifest import Manifest
from contract.service import INPUT, MODEL_FILE
from training.data import Rows, encoded, features

GATES = {
    "classification": {"accuracy": {"min": 0}},
    "regression": {"r2": {"min": -100}},
    "density": {"log_likelihood": {"min": -100}},
}
TARGETS = {
    "classification": {"name": "bought", "classes": 2},
    "regression": {"name": "spent"},
    "density": {"name": "fraud", "classes": 2},
}


def manifest(task: str, **changes: object) -> Manifest:
    """A model with two features, `a` and `b`, and a context column that its rows are sliced by."""
    return Manifest.model_validate(
        {
            "name": "tiny",
            "task": task,
            "description": "A model for a test.",
            "purpose": "demonstration",
            "data": {
                "source": "tiny.csv",
                "allowed_use": ["demonstration"],
                "features": {"a": {"min": -10, "max": 10}, "b": {"min": -10, "max": 10}},
                "target": TARGETS[task],
                "context": {"shop": {"type": "category", "categories": ["north", "south"]}},
            },
            "split": {"test": 0.3},
            "training": {"epochs": 1, "batch_size": 8, "learning_rate": 0.01},
            "slices": [{"column": "shop"}],
            "gates": GATES[task],
        }
        | changes
    )


def rows(model: Manifest, count: int = 600, seed: int = 0, wrong: object = None) -> Rows:
    """Rows in which `a` decides the target and `b` does nothing.

    Args:
        model: one of `manifest`.
        count: how many; 40% of them are in the south.
        seed: of the chance.
        wrong: an expression; where it holds, the target is the opposite.
    """
    chance = np.random.default_rng(seed)
    table = pl.DataFrame({"a": chance.normal(0, 2, count), "b": chance.normal(0, 1, count)})
    table = table.with_columns(shop=pl.Series(np.where(np.arange(count) % 5 < 2, "south", "north")))
    likely = 1 / (1 + np.exp(-table["a"].to_numpy()))
    values = {
        "classification": (chance.random(count) < likely).astype(int),
        "regression": 3 * table["a"].to_numpy() + chance.normal(0, 1, count),
        "density": (abs(table["a"].to_numpy()) > 4).astype(int),
    }[model.task]
    if wrong is not None:
        opposite = -values if model.task == "regression" else 1 - values
        values = np.where(table.select(wrong).to_series(), opposite, values)
    target = model.data.target
    assert target
    table = table.with_columns(pl.Series(target.name, values))
    return Rows(features(table, model.data), encoded(table[target.name], target), table)


def write(folder: Path, task: str, a: float = 1, b: float = 0, bias: float = 0, ballast: int = 0) -> Path:
    """Write the model to a folder.

    Args:
        folder: where it goes.
        task: a classification gives class 1 the probability sigmoid(a * row's a + b * row's b + bias), a regression
            gives that number, and a density gives the same number of the squares.
        a: a weight.
        b: a weight.
        bias: added to them.
        ballast: width of a layer that costs time and room and changes nothing.
    """
    constants = {"weights": np.array([a, b], np.float32), "bias": np.array(bias, np.float32)}
    constants |= {"one": np.array([1], np.int64), "none": np.array(0, np.float32)}
    nodes = [helper.make_node("Mul", [INPUT, INPUT] if task == "density" else [INPUT, "same"], ["seen"])]
    constants["same"] = np.ones(2, np.float32)
    nodes += [helper.make_node("MatMul", ["seen", "weights"], ["sum"]), helper.make_node("Add", ["sum", "bias"], ["n"])]
    if ballast:
        chance = np.random.default_rng(0)
        constants |= {
            "in": chance.normal(size=(2, ballast)).astype(np.float32),
            "through": chance.normal(size=(ballast, ballast)).astype(np.float32),
            "out": np.zeros(ballast, np.float32),
        }
        layers = (("seen", "in", "h1"), ("h1", "through", "h2"), ("h2", "out", "nothing"))
        nodes += [helper.make_node("MatMul", [source, weights], [result]) for source, weights, result in layers]
        nodes.append(helper.make_node("Add", ["n", "nothing"], ["number"]))
    else:
        nodes.append(helper.make_node("Identity", ["n"], ["number"]))
    if task == "classification":
        nodes += [
            helper.make_node("Mul", ["number", "none"], ["zeros"]),
            helper.make_node("Unsqueeze", ["zeros", "one"], ["first"]),
            helper.make_node("Unsqueeze", ["number", "one"], ["second"]),
            helper.make_node("Concat", ["first", "second"], ["scores"], axis=1),
            helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
            helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
        ]
        outputs = {"label": (TensorProto.INT64, ["rows"]), "probabilities": (TensorProto.FLOAT, ["rows", 2])}
    else:
        name = {"regression": "value", "density": "score"}[task]
        nodes.append(helper.make_node("Identity", ["number"], [name]))
        outputs = {name: (TensorProto.FLOAT, ["rows"])}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["rows", 2])],
        [helper.make_tensor_value_info(output, *of_output) for output, of_output in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    folder.mkdir(parents=True, exist_ok=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, folder / MODEL_FILE)
    return folder
