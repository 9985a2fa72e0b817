"""What the network takes: numbers in the manifest's order, the same for a row wherever it comes from."""

import json
import math
import warnings

import numpy as np
import onnxruntime
import polars as pl
import pytest
import torch

from contract.errors import PlatformError
from contract.manifest import load_manifest, model_names
from contract.paths import MODELS
from training.data import encoded, features, load, model_module

ROW = {"amount": 1.5, "items": None, "express": True, "colour": "blue", "returned": 1}


@pytest.fixture
def folder(tmp_path):
    def write(table: pl.DataFrame):
        table.write_parquet(tmp_path / "part-00000.parquet")
        return tmp_path

    return write


def test_rows_keep_the_order_of_the_manifest(folder, manifest, table):
    rows = load(folder(table.select(reversed(table.columns))), manifest)
    assert rows.features.dtype == np.float32
    assert rows.targets.dtype == np.int64
    assert (rows.features == table.drop("digit").to_numpy()).all()
    some = rows.take(np.array([5, 3]))
    assert (some.features == rows.features[[5, 3]]).all()
    assert some.table["digit"].to_list() == some.targets.tolist()


def test_a_name_of_a_folder_is_no_pattern(tmp_path, manifest, table):
    named = tmp_path / "work[1]"
    named.mkdir()
    table.write_parquet(named / "part-00000.parquet")
    assert len(load(named, manifest)) == len(table)


def test_a_category_is_its_position_a_boolean_0_or_1_and_a_null_nan(orders):
    data = orders().data
    table = pl.DataFrame([ROW, ROW | {"items": 7, "express": False, "colour": "red"}])
    numbers = features(table, data)
    assert numbers[1].tolist() == [1.5, 7, 0, 0]
    assert numbers[0, [0, 2, 3]].tolist() == [1.5, 1, 2]
    assert math.isnan(numbers[0, 1])


def test_labels_are_numbered_by_their_position(orders):
    target = orders(target={"name": "returned", "classes": 2, "labels": ["no", "yes"]}).data.target
    numbers = encoded(pl.Series(["yes", "no", "yes"]), target)
    assert numbers.tolist() == [1, 0, 1]
    assert numbers.dtype == np.int64


def test_a_target_of_a_regression_is_a_float_and_none_is_needed_for_a_density(orders, folder, tmp_path):
    assert encoded(pl.Series([1.25]), orders(target={"name": "returned"}).data.target).dtype == np.float32
    unlabelled = orders(target=None, context={})
    assert load(folder(pl.DataFrame([ROW])), unlabelled).targets is None


def test_a_folder_without_data_or_with_other_columns_is_refused(tmp_path, manifest):
    with pytest.raises(PlatformError, match="holds no Parquet file"):
        load(tmp_path, manifest)
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "part-00000.parquet")
    with pytest.raises(PlatformError, match=str(tmp_path)):
        load(tmp_path, manifest)


@pytest.mark.parametrize("model", model_names())
def test_the_shipped_sample_is_a_row_of_the_raw_data(model):
    manifest, sample = load_manifest(model), json.loads((MODELS / model / "sample.json").read_text())
    raw = model_module(model).raw_data()
    known = features(raw, manifest.data)
    assert all((np.asarray(row, np.float32) == known).all(1).any() for row in sample["instances"])


@pytest.mark.parametrize("model", model_names())
def test_the_same_row_gives_the_same_answer_offline_in_a_batch_and_online_alone(model, tmp_path):
    """The network as training has it, on rows of a snapshot; and as the service has it, on a row of a request."""
    manifest = load_manifest(model)
    rows = features(model_module(model).raw_data(), manifest.data)[:50]
    torch.manual_seed(0)
    network = model_module(model).network(manifest.data)
    network.train()(torch.from_numpy(rows))  # so that what it standardises by is no longer as at the start
    offline = network.eval()(torch.from_numpy(rows)).detach().numpy()
    file = tmp_path / "model.onnx"
    shapes = {"features": {0: torch.export.Dim("rows")}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside torch's own exporter
        program = torch.onnx.export(
            network, (torch.from_numpy(rows),), input_names=["features"], dynamic_shapes=shapes, verbose=False
        )
    program.save(file)
    session = onnxruntime.InferenceSession(file)
    for number, row in enumerate(rows[:5].tolist()):
        request = json.loads(json.dumps([row]))  # as it travels
        (online,) = session.run(None, {"features": np.asarray(request, np.float32)})
        assert np.allclose(online[0], offline[number], rtol=1e-4, atol=1e-4)
