import gzip
import hashlib
import io
import tarfile
import tracemalloc

import numpy as np
import onnx
import pytest

from contract.service import METADATA_FILE, MODEL_FILE, LiveVersion
from services.inference import artifacts
from services.inference.artifacts import ArtifactError, load_archive, load_directory
from tests.services.conftest import Linear, archive_of
from tests.services.models import OneNode


def load(archive, sha256=None):
    digest = sha256 or hashlib.sha256(archive).hexdigest()
    return load_archive(archive, "digits", LiveVersion(version=3, weight=100, artifact="s3://b/k", sha256=digest))


@pytest.mark.parametrize(
    ("available", "used", "preloaded"),
    [
        (["CPUExecutionProvider"], ["CPUExecutionProvider"], 0),
        (
            ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
            ["CUDAExecutionProvider", "CPUExecutionProvider"],
            1,
        ),
    ],
)
def test_an_image_that_is_made_for_gpus_computes_on_them(monkeypatch, available, used, preloaded):
    calls = []
    monkeypatch.setattr(artifacts.onnxruntime, "get_available_providers", lambda: available)
    monkeypatch.setattr(artifacts.onnxruntime, "preload_dlls", lambda: calls.append(1))
    artifacts._processors.cache_clear()
    assert artifacts._processors() == used
    assert len(calls) == preloaded
    artifacts._processors.cache_clear()


def test_a_good_artifact_answers_as_the_model_does(linear):
    version = load(linear.archive())
    rows = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    labels, probabilities = version.predict(rows, ["label", "probabilities"])
    assert version.number == "3"
    assert labels.tolist() == linear.answer(rows)["label"].tolist()
    np.testing.assert_allclose(probabilities, linear.answer(rows)["probabilities"], rtol=1e-5)


def test_how_many_rows_are_quick_is_known(linear):
    assert load(linear.archive()).quick_rows > load(Linear(slow=50).archive()).quick_rows
    assert load(Linear(slow=1000).archive()).quick_rows == 0


@pytest.mark.parametrize(
    ("model", "can_batch"),
    [
        (OneNode("FP32", [[1, 0], [0, 2]]), True),
        (OneNode("FP32", [[1, 0], [1, 0]]), False),  # the same rows cannot tell
        (OneNode("FP32", [[1, 0]]), False),
        (OneNode("BYTES", [["a", "b"], ["a", "c"]]), True),
        (OneNode("FP32", [[5, 5]], "Softmax", answers=[[1, 1]], attributes={"axis": 0}), False),  # mixes rows
        (OneNode("FP32", [[5, 5]] * 2, "Softmax", answers=[[0.5, 0.5]] * 2, attributes={"axis": 0}), False),
    ],
)
def test_predictions_are_shared_only_if_the_self_test_proves_that_rows_do_not_mix(tmp_path, model, can_batch):
    for name, content in model.files().items():
        (tmp_path / name).write_bytes(content)
    assert load_directory(tmp_path).can_batch is can_batch


def test_a_model_that_takes_one_row_only_is_refused(tmp_path):
    files = OneNode("FP32").files()
    model = onnx.load_from_string(files[MODEL_FILE])
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    (tmp_path / MODEL_FILE).write_bytes(model.SerializeToString())
    (tmp_path / METADATA_FILE).write_bytes(files[METADATA_FILE])
    with pytest.raises(ArtifactError, match="it does not take any number of rows"):
        load_directory(tmp_path)


def spoiled_self_test():
    return {"self_test": {"inputs": [[1, 0, 0, 0]], "outputs": {"label": [7], "probabilities": [[0, 0, 0]]}}}


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Linear(metadata=spoiled_self_test()), "self-test fails: label is off by"),
        (Linear(metadata={"self_test": {"inputs": [[1, 2]], "outputs": {}}}), "its self-test has outputs []"),
        (Linear(metadata={"self_test": {"inputs": []}}), "metadata.json is not valid: self_test"),
        (Linear(metadata={"model": "other"}), "an artifact of model 'other'"),
        (Linear(metadata={"columns": ["x0"]}), "its inputs are"),
        (Linear(metadata={"outputs": [{"name": "score", "datatype": "FP32", "shape": [-1]}]}), "promises outputs"),
        (Linear(metadata={"outputs": []}), "promises outputs"),
        (Linear(metadata={"surprise": 1}), "unknown key 'surprise'"),
    ],
)
def test_an_artifact_that_does_not_keep_its_promises_is_refused(model, said):
    with pytest.raises(ArtifactError) as caught:
        load(model.archive())
    assert said in str(caught.value)


def test_a_wrong_checksum_is_refused_before_anything_is_unpacked():
    with pytest.raises(ArtifactError, match="checksum"):
        load(b"not even an archive", sha256="0" * 64)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_archive_is_refused_even_with_a_matching_checksum(linear, share):
    archive = linear.archive()
    with pytest.raises(ArtifactError, match=r"cannot be unpacked|it has no"):
        load(archive[: int(len(archive) * share)])


def test_a_corrupt_archive_is_refused(linear):
    archive = bytearray(linear.archive())
    archive[len(archive) // 2] ^= 0xFF
    with pytest.raises(ArtifactError):
        load(bytes(archive))


@pytest.mark.parametrize("missing", [MODEL_FILE, METADATA_FILE])
def test_an_archive_without_a_file_is_refused(linear, missing):
    files = linear.files()
    del files[missing]
    with pytest.raises(ArtifactError, match=f"it has no {missing}"):
        load(archive_of(files))


def test_what_is_not_onnx_is_refused(linear):
    with pytest.raises(ArtifactError, match="ONNX Runtime cannot load"):
        load(archive_of(linear.files() | {MODEL_FILE: b"not onnx"}))


def test_other_members_of_an_archive_are_ignored_wherever_they_point_to(linear, tmp_path):
    outside = tmp_path / "outside"
    load(archive_of({f"../../../../{outside}": b"x", **{f"./{name}": data for name, data in linear.files().items()}}))
    assert not outside.exists()


def packed(*members):
    """An archive of members of so many zeros, with these attributes."""
    content = io.BytesIO()
    with gzip.GzipFile(fileobj=content, mode="wb") as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        for name, size, changes in members:
            member = tarfile.TarInfo(name)
            for key, value in changes.items():
                setattr(member, key, value)
            member.size = size
            tar.addfile(member, io.BytesIO(bytes(size)))
    return content.getvalue()


MB = 2**20


@pytest.mark.parametrize(
    ("members", "said"),
    [
        (
            [(MODEL_FILE, 80 * MB, {})],
            r"its model.onnx has 83886080 bytes: of an archive of \d+ bytes, at most 67108864 ",
        ),
        ([("other", 80 * MB, {})], r"its other has 83886080 bytes"),
        ([("a", 40 * MB, {}), ("b", 40 * MB, {})], r"it holds more than 67108864 bytes: of an archive of \d+ bytes"),
        ([(MODEL_FILE, 80 * MB, {"type": tarfile.XHDTYPE})], "it holds more than 67108864 bytes"),  # its extra headers
        ([(MODEL_FILE, 0, {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"})], "it has no model.onnx"),
    ],
)
def test_an_archive_that_unpacks_to_far_too_much_is_refused_before_it_is_in_memory(members, said):
    archive = packed(*members)
    tracemalloc.start()
    try:
        with pytest.raises(ArtifactError, match=said):
            load(archive)
        assert tracemalloc.get_traced_memory()[1] < 150 * MB
    finally:
        tracemalloc.stop()


def test_a_directory_is_version_1(linear, tmp_path):
    for name, content in linear.files().items():
        (tmp_path / name).write_bytes(content)
    assert load_directory(tmp_path).number == "1"
    (tmp_path / MODEL_FILE).unlink()
    with pytest.raises(ArtifactError, match=MODEL_FILE):
        load_directory(tmp_path)
