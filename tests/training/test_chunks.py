"""A batch job that was stopped or killed goes on and comes to the same; nothing is ever there by half."""

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
from contract.service import LiveVersions
from tests.services.conftest import Linear
from training import csvfile, tables
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
    with pytest.raises(PlatformError, match=r"a finished chunk cannot be read .* all are deleted now, start again"):
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


def test_two_runs_of_one_job_do_not_mix(places, published, orders):
    source, whole, _ = places("csv", "local")
    told = []

    def again(*_):
        if not told:
            told.append("now")
            with pytest.raises(PlatformError, match="another run of the same job is under way"):
                score(orders(), published(ARCHIVE), source, whole, lambda *_: None)

    assert score(orders(), published(ARCHIVE), source, whole, again).rows == 1000
    assert told


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
