"""Batch inference: right answers, errors by row, a job that was killed goes on, and nothing is ever there by half."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import boto3
import numpy as np
import polars as pl
import pytest

from contract.errors import PlatformError
from contract.paths import ROOT
from contract.service import METADATA_FILE, LiveVersion, LiveVersions
from tests.services.conftest import Linear, archive_of
from training import csvfile, registry, tables
from training.score import Scorer, chosen, score

COLUMNS = ["amount", "items", "express", "colour"]
LINEAR = Linear(metadata={"columns": COLUMNS})
CSV = """order,amount,items,express,colour,note
1,10,2,true,red,first
2,0.5,3,no,blue,"a, b"
3,99,1,F,green,
"""
FEATURES = [[10, 2, 1, 0], [0.5, 3, 0, 2], [99, 1, 0, 1]]


@pytest.fixture
def live(outputs):
    """Puts an artifact into the bucket; `changes` spoil what is promised of it."""

    def put(archive: bytes = LINEAR.archive(), number=7, **changes) -> LiveVersion:
        key = f"digits/{hashlib.sha256(archive).hexdigest()}/model.tar.gz"
        boto3.client("s3").put_object(Bucket=outputs.buckets.artifacts, Key=key, Body=archive)
        promised = {
            "artifact": f"s3://{outputs.buckets.artifacts}/{key}",
            "sha256": hashlib.sha256(archive).hexdigest(),
        }
        return LiveVersion(version=number, weight=100, **promised | changes)

    return put


@pytest.fixture
def job(live, orders, tmp_path):
    """Scores a text as CSV; gives what came of it and the output."""

    def run(text=CSV, of=None, output="out.parquet", watch=lambda *_: None):
        source = tmp_path / "in.csv"
        source.write_bytes(text if isinstance(text, bytes) else text.encode())
        target = tmp_path / output
        done = score(orders(), of or live(), str(source), str(target), watch)
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


def test_the_output_says_who_answered(job, live, tmp_path):
    job()
    of = live()
    told = pl.read_parquet_metadata(tmp_path / "out.parquet")
    assert {name: told[name] for name in ("model", "version", "artifact", "sha256")} == {
        "model": "digits",
        "version": "7",
        "artifact": of.artifact,
        "sha256": of.sha256,
    }


def test_parquet_gives_the_same_as_csv(job, live, orders, tmp_path):
    _, expected = job()
    as_parquet = pl.read_csv(tmp_path / "in.csv").with_columns(pl.col("note").fill_null(""))
    as_parquet.write_parquet(tmp_path / "in.parquet")
    score(orders(), live(), str(tmp_path / "in.parquet"), str(tmp_path / "two.parquet"), lambda *_: None)
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
        ("s3://no-such-bucket/in.csv", "out.parquet", "s3://no-such-bucket/in.csv cannot be read"),
        ("s3://bucket", "out.parquet", "must end in .csv or .parquet"),
    ],
)
def test_wrong_names_are_told_before_anything_happens(live, orders, tmp_path, monkeypatch, source, output, said):
    monkeypatch.chdir(tmp_path)
    for name in ("in.csv", "in.txt", "not.parquet"):
        Path(name).write_text(CSV)
    pl.DataFrame({"amount": [1]}).write_parquet("in.parquet")
    Path("folder.parquet").mkdir()
    Path(".csv").mkdir()
    with pytest.raises(PlatformError, match=said):
        score(orders(), live(), source, output, lambda *_: None)
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
def test_a_poisoned_artifact_answers_nothing(job, live, tmp_path, archive, changes, said):
    with pytest.raises(PlatformError, match=said):
        job(of=live(archive(), **changes))
    assert nothing_left(tmp_path)


def test_a_version_is_the_one_named_or_the_live_one_with_the_most_traffic(outputs, live):
    names = outputs.models["digits"]
    with pytest.raises(PlatformError, match=r"no version is live in /test/models/digits; name one with --version"):
        chosen(names, None)
    few, most = live(number=1), live(number=2)
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


class StoppedError(Exception):
    """Stands for whatever ends a run in its middle."""


class Stop:
    """Ends a run after so many chunks; what an earlier run did is told first."""

    def __init__(self, chunks: int) -> None:
        self.left = chunks + 1

    def __call__(self, rows: int, share: float) -> None:
        assert 0 <= share <= 1
        self.left -= 1
        if not self.left:
            raise StoppedError


@pytest.fixture
def places(outputs, tmp_path, monkeypatch):
    """Inputs of many small chunks, local and in S3; gives the names of an input and outputs."""
    monkeypatch.setattr(csvfile, "PIECE", 2000)
    monkeypatch.setattr(tables, "BLOCK", 700)
    monkeypatch.setattr(tables, "ROWS", 90)
    generator = np.random.default_rng(0)
    table = pl.DataFrame(
        {
            "amount": generator.uniform(0, 101, 1000).round(3),  # some are too large
            "items": generator.integers(0, 9, 1000),
            "express": generator.integers(0, 2, 1000),
            "colour": generator.choice(["red", "green", "blue"], 1000),
            "note": [f'"{i}\n' * (i % 3) for i in range(1000)],
        }
    )
    table.write_csv(tmp_path / "in.csv")
    table.write_parquet(tmp_path / "in.parquet", row_group_size=170)
    prefixes = {"local": f"{tmp_path}/", "s3": f"s3://{outputs.buckets.curated}/scores/"}
    for name in ("in.csv", "in.parquet"):
        boto3.client("s3").upload_file(str(tmp_path / name), outputs.buckets.curated, f"scores/{name}")

    def names(kind: str, where: str) -> tuple[str, str, str]:
        return tuple(f"{prefixes[where]}{name}" for name in (f"in.{kind}", "whole.parquet", "resumed.parquet"))

    return names


def content(name: str) -> bytes | None:
    """The bytes of a file or an object, None if there is none."""
    if not name.startswith("s3://"):
        return Path(name).read_bytes() if Path(name).exists() else None
    bucket, _, key = name.removeprefix("s3://").partition("/")
    found = boto3.client("s3").list_objects_v2(Bucket=bucket, Prefix=key).get("Contents", [])
    if key not in {item["Key"] for item in found}:
        return None
    return boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()


@pytest.mark.parametrize("where", ["local", "s3"])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_job_that_was_stopped_goes_on_and_comes_to_the_same(places, live, orders, monkeypatch, kind, where):
    source, whole, resumed = places(kind, where)
    of, asked = live(), []
    real = Scorer.score
    monkeypatch.setattr(Scorer, "score", lambda self, batch: asked.append(batch.count) or real(self, batch))
    score(orders(), of, source, whole, lambda *_: None)
    chunks = len(asked)
    assert (sum(asked), chunks > 8) == (1000, True)

    asked.clear()
    for stop in (Stop(2), Stop(0), Stop(3)):
        with pytest.raises(StoppedError):
            score(orders(), of, source, resumed, stop)
        assert content(resumed) is None
    done = score(orders(), of, source, resumed, lambda *_: None)
    assert len(asked) == chunks  # nothing was done twice
    assert done.resumed == sum(asked[:5])
    assert content(resumed) == content(whole)
    assert pl.read_parquet(content(whole))["note"].to_list() == [f'"{i}\n' * (i % 3) for i in range(1000)]
    if where == "s3":
        left = boto3.client("s3").list_objects_v2(Bucket="test-curated", Prefix="scores/")["Contents"]
        assert [item["Key"] for item in left if ".parts" in item["Key"]] == []
    else:
        assert not Path(f"{resumed}.parts").exists()


def test_an_old_output_stands_until_the_new_one_is_whole(places, live, orders):
    source, whole, _ = places("csv", "local")
    Path(whole).write_text("the old one")
    with pytest.raises(StoppedError):
        score(orders(), live(), source, whole, Stop(2))
    assert Path(whole).read_text() == "the old one"


def test_another_input_or_version_starts_anew(places, live, orders):
    source, _, resumed = places("csv", "local")
    with pytest.raises(StoppedError):
        score(orders(), live(), source, resumed, Stop(2))
    other = Linear(1, metadata={"columns": COLUMNS})
    assert score(orders(), live(other.archive(), 8), source, resumed, lambda *_: None).resumed == 0
    assert set(pl.read_parquet(resumed)["version"]) == {8}

    with pytest.raises(StoppedError):
        score(orders(), live(), source, resumed, Stop(2))
    lines = Path(source).read_text().replace("red", "blue")
    Path(source).write_text(lines)
    assert score(orders(), live(), source, resumed, lambda *_: None).resumed == 0


CONTAINER = """
import sys
from training import __main__ as container, csvfile
csvfile.PIECE = 10_000
container.main()
assert not {"torch", "sklearn", "scipy"} & set(sys.modules)
"""


@pytest.fixture
def container(outputs, tmp_path):
    """Starts `python -m training score`, with small chunks."""

    def start(*arguments: str) -> subprocess.Popen:
        environment = os.environ | {"MLP_OUTPUTS": outputs.model_dump_json(), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", CONTAINER, "score", *arguments]
        return subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    return start


def test_a_container_that_is_killed_goes_on_in_another(outputs, container, live, manifest, table, tmp_path):
    linear = Linear(columns=64, classes=10, metadata={"columns": manifest.data.columns})
    of = LiveVersions(versions=(live(linear.archive(), 3),))
    boto3.client("ssm").put_parameter(
        Name=outputs.models["digits"].live_parameter, Value=of.model_dump_json(exclude_none=True), Overwrite=True
    )
    s3, curated = boto3.client("s3"), outputs.buckets.curated
    s3.put_object(Bucket=curated, Key="scores/in.csv", Body=table.write_csv().encode())
    arguments = ("digits", "--input", f"s3://{curated}/scores/in.csv", "--output")
    killed = container(*arguments, f"s3://{curated}/scores/out.parquet")
    deadline = time.monotonic() + 60
    while "Contents" not in s3.list_objects_v2(Bucket=curated, Prefix="scores/out.parquet.parts/"):
        assert time.monotonic() < deadline
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert content(f"s3://{curated}/scores/out.parquet") is None

    out, err = container(*arguments, f"s3://{curated}/scores/out.parquet").communicate(timeout=60)
    said = re.search(r"out.parquet: rows=1797 errors=0 version=3 resumed=(\d+) rows_per_s=\d+\n$", out)
    assert said, err
    assert 0 < int(said[1]) < 1797
    out, err = container(*arguments, "whole.parquet", "--version", "9").communicate(timeout=60)
    assert err == "error: the model package group test-digits has no version 9; there are: none yet\n"
    done = container(*arguments, "whole.parquet")
    assert done.communicate(timeout=60)[1] == ""
    assert done.returncode == 0
    assert (tmp_path / "whole.parquet").read_bytes() == content(f"s3://{curated}/scores/out.parquet")
    scored = pl.read_parquet(tmp_path / "whole.parquet")
    assert scored["label"].to_list() == linear.answer(table.select(manifest.data.columns).to_numpy())["label"].tolist()


def test_the_container_tells_a_wrong_command_line(container):
    for arguments, status, said in (
        (("digits",), 2, "the following arguments are required: --input, --output"),
        (("digit", "--input", "a.csv", "--output", "b.parquet"), 1, "unknown model 'digit'"),
    ):
        process = container(*arguments)
        assert said in process.communicate(timeout=60)[1]
        assert process.returncode == status


MEASURE = """
import re, sys
from pathlib import Path
from contract.manifest import load_manifest
from contract.service import LiveVersion
from training import chunks, csvfile
from training.score import score
csvfile.PIECE, chunks.ROW_GROUP = 2**20, 10_000
live = LiveVersion.model_validate_json(sys.argv[1])
done = score(load_manifest("digits"), live, "big.csv", "out.parquet", lambda *_: None)
print(done.rows, re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_memory_does_not_grow_with_the_input(live, manifest, table, tmp_path):
    of = live(Linear(columns=64, classes=10, metadata={"columns": manifest.data.columns}).archive())
    header, *lines = table.write_csv().encode().splitlines(keepends=True)
    peaks = []
    for times in (20, 200):  # 3 MB and 29 MB, whose columns in memory would be 180 MB
        with (tmp_path / "big.csv").open("wb") as file:
            file.writelines([header, *lines * times])
        command = [sys.executable, "-c", MEASURE, of.model_dump_json(exclude_none=True)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment)
        rows, peak = map(int, done.stdout.split())
        assert rows == times * len(table)
        peaks.append(peak / 1024)
    assert peaks[1] - peaks[0] < 60, peaks
