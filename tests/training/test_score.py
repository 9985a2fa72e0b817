"""Batch inference gives each row the right answer or an error, and refuses what it cannot score."""

from pathlib import Path

import boto3
import numpy as np
import polars as pl
import pytest

from contract.errors import PlatformError
from contract.service import METADATA_FILE, LiveVersions
from tests.services.conftest import Linear, archive_of
from training import registry
from training.score import chosen, score

COLUMNS = ["amount", "items", "express", "colour"]
LINEAR = Linear(metadata={"columns": COLUMNS})
ARCHIVE = LINEAR.archive()
CSV = """order,amount,items,express,colour,note
1,10,2,true,red,first
2,0.5,3,no,blue,"a, b"
3,99,1,F,green,
"""
FEATURES = [[10, 2, 1, 0], [0.5, 3, 0, 2], [99, 1, 0, 1]]


@pytest.fixture
def job(published, orders, tmp_path):
    """Scores a text as CSV; gives what came of it and the output."""

    def run(text=CSV, of=None, output="out.parquet", watch=lambda *_: None):
        source = tmp_path / "in.csv"
        source.write_bytes(text if isinstance(text, bytes) else text.encode())
        target = tmp_path / output
        done = score(orders(), of or published(ARCHIVE), str(source), str(target), watch)
        return done, pl.read_parquet(target)

    return run


def nothing_left(folder: Path) -> bool:
    return not [path for path in folder.iterdir() if path.name.startswith("out")]


def test_each_row_keeps_its_columns_and_gets_the_answer(job):
    done, table = job()
    assert (done.version, done.rows, done.errors, done.resumed) == (7, 3, 0, 0)
    expected = LINEAR.answer(FEATURES)
    assert table.columns == ["order", *COLUMNS, "note", "label", "probabilities", "version", "error"]
    assert table["label"].to_list() == expected["label"].tolist()
    assert np.allclose(table["probabilities"].to_numpy(), expected["probabilities"])
    assert table["version"].to_list() == [7, 7, 7]
    assert table["error"].null_count() == 3
    assert table.select("order", "express", "note").rows() == [(1, True, "first"), (2, False, "a, b"), (3, False, "")]


def test_the_output_says_who_answered(job, published, tmp_path):
    job()
    of = published(ARCHIVE)
    told = pl.read_parquet_metadata(tmp_path / "out.parquet")
    assert {name: told[name] for name in ("model", "version", "artifact", "sha256")} == {
        "model": "digits",
        "version": "7",
        "artifact": of.artifact,
        "sha256": of.sha256,
    }


def test_parquet_gives_the_same_as_csv(job, published, orders, tmp_path):
    _, expected = job()
    as_parquet = pl.read_csv(tmp_path / "in.csv").with_columns(pl.col("note").fill_null(""))
    as_parquet.write_parquet(tmp_path / "in.parquet")
    score(orders(), published(ARCHIVE), str(tmp_path / "in.parquet"), str(tmp_path / "two.parquet"), lambda *_: None)
    assert pl.read_parquet(tmp_path / "two.parquet").equals(expected)


def test_a_row_that_does_not_fit_gets_an_error_in_its_place(job):
    rows = [
        "1,10,2,true,red,ok",
        "2,101,2,true,red,too much",
        "3,x,2,true,red,no number",
        "4,,2,true,red,empty",
        "5,10,2,true,pink,no such colour",
        "6,10,2,true",
        "x,10,2,true,red,bad context",
        "8,99,1,F,green,ok",
    ]
    text = "\n".join(["order,amount,items,express,colour,note", *rows]).encode() + b"\n9,1,1,1,red,\xff\n"
    done, table = job(text)
    assert (done.rows, done.errors) == (9, 7)
    assert table["error"].to_list() == [
        None,
        "column amount: '101' is not a finite number from 0 to 100",
        "column amount: 'x' is not a finite number from 0 to 100",
        "column amount: it is empty",
        "column colour: 'pink' is not one of red, green, blue",
        "it has 4 cells, the header has 6",
        "column order: 'x' is not a whole number",
        None,
        "it is not text in UTF-8",
    ]
    assert done.first_error == table["error"][1]
    expected = LINEAR.answer([FEATURES[0], FEATURES[2]])["label"]
    assert table["label"].to_list() == [expected[0], *[None] * 6, expected[1], None]
    assert table["version"].to_list() == [7] * 9
    assert table["note"].to_list()[:5] == ["ok", "too much", "no number", "empty", "no such colour"]


def test_labels_and_context_may_be_missing_or_empty_or_new(job):
    _, table = job("returned,amount,items,express,colour,customer\n,10,2,1,red,\n17,10,,1,red,somebody new\n")
    assert table["error"].null_count() == 2
    assert table["returned"].to_list() == [None, 17]


def test_a_file_without_rows_gives_an_output_without_rows(job):
    done, table = job("amount,items,express,colour\n")
    assert (done.rows, len(table)) == (0, 0)
    assert table.schema["probabilities"] == pl.Array(pl.Float32, 3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("amount,items\n1,2\n", r"in.csv lacks express, colour of the 4 column\(s\) that digits takes"),
        ("amount,amount,items,express,colour\n1,1,2,1,red\n", "has the column amount more than once"),
        ("amount,items,express,colour,label\n1,2,1,red,0\n", r"has the column\(s\) label, which the output has itself"),
        ("amount,items,express,colour,version\n1,2,1,red,0\n", r"column\(s\) version, which the output has itself"),
        ("", "in.csv is not a CSV file: it has no header"),
        ('amount,items,express,colour\n1,2,1,"red\n', "a quote in line 2 or after it is never closed"),
        ("amount,items,express,colour\n1,x,1,red\n2,2,?,red\n", "no row of .* fits digits, and nothing was written; "),
    ],
)
def test_a_file_that_cannot_be_scored_is_refused_and_nothing_is_left(job, tmp_path, text, said):
    with pytest.raises(PlatformError, match=said):
        job(text)
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("name", ["[1].parquet", "*.parquet", "?.parquet"])
def test_a_name_is_no_pattern(published, orders, tmp_path, name):
    (tmp_path / "day=1").mkdir()
    source, output = tmp_path / "day=1" / f"in{name}", tmp_path / f"out{name}"
    rows = {"amount": [10.0, 0.5], "items": [2, 3], "express": [True, False], "colour": ["red", "blue"]}
    pl.DataFrame(rows).write_parquet(source)
    (tmp_path / "day=1" / "in1.parquet").write_bytes(b"another one that the pattern fits")
    assert score(orders(), published(ARCHIVE), str(source), str(output), lambda *_: None).rows == 2
    with output.open("rb") as file:
        table = pl.read_parquet(file)
    assert table.columns == [*COLUMNS, "label", "probabilities", "version", "error"]
    assert table["amount"].to_list() == rows["amount"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["day=1", output.name]


@pytest.mark.parametrize(
    ("source", "output", "said"),
    [
        ("no-such.csv", "out.parquet", "no-such.csv cannot be read: No such file"),
        ("in.txt", "out.parquet", "must end in .csv or .parquet"),
        (".csv", "out.parquet", "is a folder"),
        ("in.csv", "out.csv", "must end in .parquet"),
        ("in.csv", "no-such/out.parquet", "there is no folder"),
        ("in.csv", "folder.parquet", "is a folder"),
        ("in.parquet", "in.parquet", "are the same file"),
        ("not.parquet", "out.parquet", "not.parquet cannot be read as Parquet"),
        (
            "s3://no-such-bucket/in.csv",
            "out.parquet",
            "--input s3://no-such-bucket/in.csv cannot be read: 404, .* or no bucket no-such-bucket",
        ),
        ("in.csv", "s3://no-such-bucket/out.parquet", "--output s3://no-such-bucket/out.parquet .*NoSuchBucket"),
        ("in.csv", "s3://no-such-bucket", "must end in .parquet"),
        ("s3://bucket", "out.parquet", "must end in .csv or .parquet"),
    ],
)
def test_wrong_names_are_told_before_anything_happens(published, orders, tmp_path, monkeypatch, source, output, said):
    monkeypatch.chdir(tmp_path)
    for name in ("in.csv", "in.txt", "not.parquet"):
        Path(name).write_text(CSV)
    pl.DataFrame({"amount": [1]}).write_parquet("in.parquet")
    Path("folder.parquet").mkdir()
    Path(".csv").mkdir()
    with pytest.raises(PlatformError, match=said):
        score(orders(), published(ARCHIVE), source, output, lambda *_: None)
    assert nothing_left(tmp_path)


def truncated() -> bytes:
    return LINEAR.archive()[:-100]


def with_other_columns() -> bytes:
    return Linear(metadata={"columns": ["amount", "items", "express", "size"]}).archive()


def with_another_network() -> bytes:
    return archive_of(LINEAR.files() | {METADATA_FILE: Linear(1, metadata={"columns": COLUMNS}).files()[METADATA_FILE]})


@pytest.mark.parametrize(
    ("archive", "changes", "said"),
    [
        (LINEAR.archive, {"sha256": "0" * 64}, "its checksum is .* but 0000"),
        (LINEAR.archive, {"artifact": "s3://test-artifacts/gone.tar.gz"}, "gone.tar.gz cannot be read: NoSuchKey"),
        (truncated, {}, "cannot be unpacked"),
        (with_other_columns, {}, "it was made for other columns"),
        (Linear(model="diabetes", metadata={"columns": COLUMNS}).archive, {}, "artifact of model 'diabetes'"),
        (with_another_network, {}, "its self-test fails: .* is off by"),
        (lambda: archive_of(LINEAR.files() | {"model.onnx": b"poison"}), {}, "ONNX Runtime cannot load it"),
    ],
)
def test_a_poisoned_artifact_answers_nothing(job, published, tmp_path, archive, changes, said):
    with pytest.raises(PlatformError, match=said):
        job(of=published(archive(), **changes))
    assert nothing_left(tmp_path)


def test_a_version_is_the_one_named_or_the_live_one_with_the_most_traffic(outputs, published):
    names = outputs.models["digits"]
    with pytest.raises(PlatformError, match=r"no version is live in /test/models/digits; name one with --version"):
        chosen(names, None)
    few, most = published(ARCHIVE, 1), published(ARCHIVE, 2)
    both = LiveVersions(versions=(few.model_copy(update={"weight": 10}), most.model_copy(update={"weight": 90})))
    boto3.client("ssm").put_parameter(
        Name=names.live_parameter, Value=both.model_dump_json(exclude_none=True), Type="String", Overwrite=True
    )
    assert chosen(names, None).version == 2
    with pytest.raises(PlatformError, match="has no version 9; there are: none yet"):
        chosen(names, 9)
    arn = boto3.client("sagemaker").create_model_package(
        ModelPackageGroupName=names.package_group,
        ModelApprovalStatus=registry.PENDING,
        InferenceSpecification={"Containers": [{"Image": "image", "ModelDataUrl": most.artifact}]},
        CustomerMetadataProperties={"sha256": most.sha256},
    )["ModelPackageArn"]
    with pytest.raises(PlatformError, match="version 1 is not approved, but PendingManualApproval"):
        chosen(names, 1)
    registry.approve(registry.describe(arn))
    assert (chosen(names, 1).version, chosen(names, 1).sha256) == (1, most.sha256)


def test_an_input_that_changes_meanwhile_gives_nothing(job, tmp_path):
    def change(*_):
        with (tmp_path / "in.csv").open("a") as file:
            file.write("4,1,1,1,red,late")

    with pytest.raises(PlatformError, match=r"in.csv was changed while it was read, and nothing was written"):
        job(watch=change)
    assert nothing_left(tmp_path)
