"""A batch job that was stopped or killed goes on and comes to the same; nothing is ever there by half."""

import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import boto3
import numpy as np
import polars as pl
import pytest

from contract.errors import PlatformError
from contract.paths import ROOT
from contract.service import LiveVersions
from tests.services.conftest import Linear
from tests.waiting import wait_until
from training import csvfile, tables
from training.chunks import Chunks
from training.score import Scorer, score

COLUMNS = ["amount", "items", "express", "colour"]
ARCHIVE = Linear(metadata={"columns": COLUMNS}).archive()


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
def test_a_job_that_was_stopped_goes_on_and_comes_to_the_same(places, published, orders, monkeypatch, kind, where):
    source, whole, resumed = places(kind, where)
    of, asked = published(ARCHIVE), []
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


def test_an_old_output_stands_until_the_new_one_is_whole(places, published, orders):
    source, whole, _ = places("csv", "local")
    Path(whole).write_text("the old one")
    with pytest.raises(StoppedError):
        score(orders(), published(ARCHIVE), source, whole, Stop(2))
    assert Path(whole).read_text() == "the old one"


def test_a_chunk_that_was_lost_on_its_way_to_the_disk_is_told(places, published, orders):
    source, whole, _ = places("csv", "local")
    with pytest.raises(StoppedError):
        score(orders(), published(ARCHIVE), source, whole, Stop(3))
    first, *_ = sorted(Path(f"{whole}.parts").glob("*/000000-*.parquet"))
    first.write_bytes(b"")
    with pytest.raises(PlatformError, match=r"the finished chunks cannot be used .* all are deleted now, start again"):
        score(orders(), published(ARCHIVE), source, whole, lambda *_: None)
    assert content(whole) is None
    assert score(orders(), published(ARCHIVE), source, whole, lambda *_: None).resumed == 0


def test_another_input_or_version_starts_anew(places, published, orders):
    source, _, resumed = places("csv", "local")
    with pytest.raises(StoppedError):
        score(orders(), published(ARCHIVE), source, resumed, Stop(2))
    other = Linear(1, metadata={"columns": COLUMNS})
    assert score(orders(), published(other.archive(), 8), source, resumed, lambda *_: None).resumed == 0
    assert set(pl.read_parquet(resumed)["version"]) == {8}

    with pytest.raises(StoppedError):
        score(orders(), published(ARCHIVE), source, resumed, Stop(2))
    lines = Path(source).read_text().replace("red", "blue")
    Path(source).write_text(lines)
    assert score(orders(), published(ARCHIVE), source, resumed, lambda *_: None).resumed == 0


@pytest.mark.parametrize("version", [7, 8])
def test_two_runs_with_one_output_do_not_mix(places, published, orders, version):
    source, whole, _ = places("csv", "local")
    told = []

    def again(*_):
        if not told:
            told.append("now")
            with pytest.raises(PlatformError, match="another run writes this output; wait until it is done"):
                score(orders(), published(ARCHIVE, version), source, whole, lambda *_: None)

    assert score(orders(), published(ARCHIVE), source, whole, again).rows == 1000
    assert told
    assert not Path(f"{whole}.parts").exists()


def test_in_s3_two_jobs_with_one_output_let_each_other_be(places, published, orders):
    source, whole, _ = places("csv", "s3")
    with pytest.raises(StoppedError):
        score(orders(), published(ARCHIVE), source, whole, Stop(2))
    assert score(orders(), published(ARCHIVE, 8), source, whole, lambda *_: None).rows == 1000
    assert score(orders(), published(ARCHIVE), source, whole, lambda *_: None).resumed > 0
    assert set(pl.read_parquet(content(whole))["version"]) == {7}


def chunks_of(output: str) -> list[str]:
    """The names of the chunks that lie beside an output, in order."""
    if not output.startswith("s3://"):
        return [str(file) for file in sorted(Path(f"{output}.parts").glob("*/*-*-*.parquet"))]
    bucket, _, key = output.removeprefix("s3://").partition("/")
    found = boto3.client("s3").list_objects_v2(Bucket=bucket, Prefix=f"{key}.parts/").get("Contents", [])
    return [f"s3://{bucket}/{item['Key']}" for item in found]


def delete(name: str) -> None:
    if not name.startswith("s3://"):
        Path(name).unlink()
        return
    bucket, _, key = name.removeprefix("s3://").partition("/")
    boto3.client("s3").delete_object(Bucket=bucket, Key=key)


@pytest.mark.parametrize("where", ["local", "s3"])
@pytest.mark.parametrize("gone", [[0, 1], [2], [1, 3, 5]])
def test_chunks_after_one_that_is_missing_are_not_used(places, published, orders, where, gone):
    source, whole, resumed = places("csv", where)
    score(orders(), published(ARCHIVE), source, whole, lambda *_: None)
    with pytest.raises(StoppedError):
        score(orders(), published(ARCHIVE), source, resumed, Stop(6))
    chunks = chunks_of(resumed)
    for number in gone:
        delete(chunks[number])
    done = score(orders(), published(ARCHIVE), source, resumed, lambda *_: None)
    assert (done.rows, done.resumed > 0) == (1000, gone[0] > 0)
    assert content(resumed) == content(whole)
    assert chunks_of(resumed) == []


def test_chunks_of_which_it_is_not_plain_which_comes_next_are_not_used(places, published, orders):
    source, whole, resumed = places("csv", "local")
    score(orders(), published(ARCHIVE), source, whole, lambda *_: None)
    with pytest.raises(StoppedError):
        score(orders(), published(ARCHIVE), source, resumed, Stop(4))
    first, second, *_ = (Path(name) for name in chunks_of(resumed))
    (second.parent / "000001-70-1800.parquet").write_bytes(second.read_bytes())
    done = score(orders(), published(ARCHIVE), source, resumed, lambda *_: None)
    assert done.resumed == int(first.name.split("-")[1])
    assert content(resumed) == content(whole)


@pytest.mark.parametrize("where", ["local", "s3"])
def test_a_run_that_is_killed_while_it_deletes_its_chunks_does_no_harm(places, published, orders, monkeypatch, where):
    source, whole, resumed = places("csv", where)
    score(orders(), published(ARCHIVE), source, whole, lambda *_: None)
    forget, there = Chunks.forget, []

    def killed(chunks: Chunks) -> None:
        there.extend(chunks_of(resumed))
        owner, name = (chunks._s3, "delete_object") if where == "s3" else (Path, "unlink")
        delete = getattr(owner, name)

        def or_die(*given, **named):
            if len(chunks_of(resumed)) == 4:
                raise StoppedError
            delete(*given, **named)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, or_die)
            forget(chunks)

    monkeypatch.setattr(Chunks, "forget", killed)
    with pytest.raises(StoppedError):
        score(orders(), published(ARCHIVE), source, resumed, lambda *_: None)
    monkeypatch.setattr(Chunks, "forget", forget)
    assert content(resumed) == content(whole)
    assert chunks_of(resumed) == there[:4]
    done = score(orders(), published(ARCHIVE), source, resumed, lambda *_: None)
    assert (done.rows, 0 < done.resumed < 1000) == (1000, True)
    assert content(resumed) == content(whole)


def test_chunks_that_do_not_hold_what_they_should_are_told(places, published, orders):
    source, whole, _ = places("csv", "local")
    Path(whole).write_text("the old one")
    with pytest.raises(StoppedError):
        score(orders(), published(ARCHIVE), source, whole, Stop(3))
    second = chunks_of(whole)[1]
    pl.read_parquet(second).head(3).write_parquet(second)
    with pytest.raises(PlatformError, match=r"cannot be used \(they hold \d+ rows instead of 1000\); all are deleted"):
        score(orders(), published(ARCHIVE), source, whole, lambda *_: None)
    assert Path(whole).read_text() == "the old one"
    assert score(orders(), published(ARCHIVE), source, whole, lambda *_: None).resumed == 0


def test_a_damaged_cell_in_a_chunk_is_told(places, published, orders):
    source, whole, _ = places("parquet", "local")
    with pytest.raises(StoppedError):
        score(orders(), published(ARCHIVE), source, whole, Stop(3))
    first = Path(chunks_of(whole)[0])
    spoiled = bytearray(first.read_bytes())
    spoiled[40:400] = bytes(360)  # of the first column, which is not looked at before the output is written
    first.write_bytes(spoiled)
    with pytest.raises(PlatformError, match=r"the finished chunks cannot be used .* all are deleted now, start again"):
        score(orders(), published(ARCHIVE), source, whole, lambda *_: None)
    assert not Path(whole).exists()
    assert not Path(f"{whole}.parts").exists()


@pytest.fixture
def full_disk():
    """Lets no file get larger than so many bytes from its call on: the error is the kernel's, as on a full disk."""
    limits, before = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("where", ["local", "s3"])
@pytest.mark.parametrize("size", [100, 12_000])
def test_a_full_disk_is_told_and_the_chunks_stay(places, published, orders, full_disk, where, size):
    source, whole, resumed = places("csv", where)
    score(orders(), published(ARCHIVE), source, whole, lambda *_: None)
    said = r"resumed.parquet cannot be written: .*File too large.*; the finished chunks stay, and the same command goes"
    with pytest.raises(PlatformError, match=said):
        score(orders(), published(ARCHIVE), source, resumed, lambda *_: full_disk(size))
    full_disk(resource.RLIM_INFINITY)
    kept = len(chunks_of(resumed))
    assert kept == 0 if size == 100 else kept > 10  # of the larger ones the output alone has no room
    assert list(Path(f"{resumed}.parts").glob("**/*.new")) == []
    assert (score(orders(), published(ARCHIVE), source, resumed, lambda *_: None).resumed > 0) == (kept > 0)
    assert content(resumed) == content(whole)


def test_an_upload_that_fails_is_told(places, published, orders):
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="short-lived", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    source, said = places("csv", "local")[0], r"--output s3://short-lived/x.parquet cannot be written: .*NoSuchBucket"
    with pytest.raises(PlatformError, match=said):
        score(
            orders(),
            published(ARCHIVE),
            source,
            "s3://short-lived/x.parquet",
            lambda *_: s3.delete_bucket(Bucket="short-lived"),
        )


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

    def start(*arguments: str, **changes: str) -> subprocess.Popen:
        environment = os.environ | {"MLP_OUTPUTS": outputs.model_dump_json(), "PYTHONPATH": str(ROOT)} | changes
        command = [sys.executable, "-c", CONTAINER, "score", *arguments]
        return subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    return start


def test_a_container_that_is_killed_goes_on_in_another(outputs, container, published, manifest, table, tmp_path):
    linear = Linear(columns=64, classes=10, metadata={"columns": manifest.data.columns})
    of = LiveVersions(versions=(published(linear.archive(), 3),))
    boto3.client("ssm").put_parameter(
        Name=outputs.models["digits"].live_parameter, Value=of.model_dump_json(exclude_none=True), Overwrite=True
    )
    s3, curated = boto3.client("s3"), outputs.buckets.curated
    s3.put_object(Bucket=curated, Key="scores/in.csv", Body=table.write_csv().encode())
    arguments = ("digits", "--input", f"s3://{curated}/scores/in.csv", "--output")
    killed = container(*arguments, f"s3://{curated}/scores/out.parquet")
    parts = {"Bucket": curated, "Prefix": "scores/out.parquet.parts/"}
    wait_until(lambda: killed.poll() is not None or "Contents" in s3.list_objects_v2(**parts))
    assert killed.poll() is None, killed.communicate()
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


def test_the_container_tells_what_aws_says(container):
    nobody = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true"}
    nowhere = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    for changes, said in (
        (nobody, "error: AWS: Unable to locate credentials\n"),
        (nowhere, 'error: AWS: Could not connect to the endpoint URL: "http://127.0.0.1:9/"\n'),
        ({"MLP_OUTPUTS": "{}"}, "error: MLP_OUTPUTS is not valid:\n  environment: this key is "),
    ):
        process = container("digits", "--input", "a.csv", "--output", "b.parquet", **changes)
        error = process.communicate(timeout=60)[1]
        assert error.startswith(said)
        assert "Traceback" not in error
        assert process.returncode == 1


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
def test_memory_does_not_grow_with_the_input(published, manifest, table, tmp_path):
    of = published(Linear(columns=64, classes=10, metadata={"columns": manifest.data.columns}).archive())
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
