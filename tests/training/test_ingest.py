"""Ingest: the same data is one snapshot, what does not fit is in quarantine, and what is no table is refused."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import boto3
import polars as pl
import pytest

from contract.errors import PlatformError
from contract.paths import ROOT
from training import ingest, parts
from training.data import model_module
from training.parts import PartWriter


@pytest.fixture
def raw(outputs):
    """Puts content where the source system would."""

    def put(content: bytes, key: str = "digits/digits.csv") -> None:
        boto3.client("s3").put_object(Bucket=outputs.buckets.raw, Key=key, Body=content)

    return put


def keys(bucket: str, prefix: str = "") -> list[str]:
    found = boto3.client("s3").list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
    return [item["Key"] for item in found]


def body(bucket: str, key: str) -> bytes:
    return boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()


@pytest.fixture
def run(outputs, manifest, tmp_path):
    return lambda m=manifest: ingest.ingest(m, outputs.buckets, tmp_path / "ingest")


def test_a_snapshot_is_parquet_with_a_description(run, outputs, manifest, raw, table, tmp_path):
    raw(table.write_csv().encode())
    snapshot = run()
    assert (snapshot.rows, snapshot.quarantined) == (1797, 0)
    assert keys(outputs.buckets.curated) == [
        f"digits/snapshot={snapshot.id}/_snapshot.json",
        f"digits/snapshot={snapshot.id}/part-00000.parquet",
    ]
    description = json.loads(body(outputs.buckets.curated, f"digits/snapshot={snapshot.id}/_snapshot.json"))
    assert description["source"] == "s3://test-raw/digits/digits.csv"
    assert description["source_version"]
    assert list(description["columns"]) == [*manifest.data.columns, "digit"]
    ingest.download(snapshot.uri, tmp_path / "copy")
    assert pl.read_parquet(tmp_path / "copy" / "*.parquet").cast(pl.UInt8).equals(table)
    with pytest.raises(PlatformError, match="there is no snapshot s3://test-curated/digits/snapshot=0"):
        ingest.download("s3://test-curated/digits/snapshot=0", tmp_path / "none")


def test_the_same_data_is_one_snapshot_whatever_it_was_written_like(run, outputs, raw, table):
    raw(table.write_csv().encode())
    first = run()
    raw(table.select(reversed(table.columns)).with_columns(pl.all().cast(pl.Float64)).write_csv().encode())
    assert run() == first
    assert len(keys(outputs.buckets.curated)) == 2


def test_a_snapshot_is_never_written_again(run, outputs, raw, table):
    raw(table.write_csv().encode())
    run()
    s3 = boto3.client("s3")
    before = {key: s3.head_object(Bucket="test-curated", Key=key)["LastModified"] for key in keys("test-curated")}
    described = body("test-curated", min(before))
    run()
    assert body("test-curated", min(before)) == described
    assert before == {key: s3.head_object(Bucket="test-curated", Key=key)["LastModified"] for key in before}


def test_other_data_is_another_snapshot(run, outputs, raw, table):
    raw(table.write_csv().encode())
    first = run()
    raw(table.head(-1).write_csv().encode())
    assert run().id != first.id
    assert len(keys(outputs.buckets.curated)) == 4


def test_an_upload_that_was_cut_off_is_done_again(run, outputs, raw, table, monkeypatch):
    raw(table.write_csv().encode())
    with monkeypatch.context() as patch:
        patch.setattr(ingest, "_put_once", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run()
    assert len(keys(outputs.buckets.curated)) == 1  # no description: it is no snapshot yet
    snapshot = run()
    assert f"digits/snapshot={snapshot.id}/_snapshot.json" in keys(outputs.buckets.curated)


def test_concurrent_ingests_leave_whole_snapshots(outputs, manifest, raw, table, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "CELLS", 65 * 300)  # six files each
    raw(table.write_csv().encode())

    def one(number: int):
        return ingest.ingest(manifest, outputs.buckets, tmp_path / str(number))

    with ThreadPoolExecutor(6) as pool:
        snapshots = list(pool.map(one, range(6)))
    assert len(set(snapshots)) == 1
    assert len(keys(outputs.buckets.curated)) == 7
    ingest.download(snapshots[0].uri, tmp_path / "copy")
    assert pl.read_parquet(tmp_path / "copy" / "*.parquet").cast(pl.UInt8).equals(table)


ORDERS = """amount,items,express,colour,returned,order,placed,customer
1.5,2,true,red,0,1,2024-01-01 10:00:00,ann
200,2,true,red,0,2,2024-01-02 10:00:00,ann
2.5,,false,green,1,3,2024-01-03 10:00:00,bob
3,x,false,green,1,4,2024-01-04 10:00:00,bob
4,1,false,pink,1,5,2024-01-05 10:00:00,bob
5,1,false,blue,7,6,2024-01-06 10:00:00,bob
6,1,maybe,blue,1,7,2024-01-07 10:00:00,bob
7,1,no,blue,1,8,soon,bob
8,1,no,blue,1,9
9,1,no,blue,0,10,2024-01-08T10:00:00Z,carl
"""
REASONS = [
    (2, "column amount: '200' is not a finite number from 0 to 100"),
    (4, "column items: 'x' is not a whole number"),
    (5, "column colour: 'pink' is not one of red, green, blue"),
    (6, "column returned: '7' is not a whole number from 0 to 1"),
    (7, "column express: 'maybe' is not true or false"),
    (8, "column placed: 'soon' is not a time in ISO 8601"),
    (9, "it has 6 cells, the header has 8"),
]


def test_rows_that_do_not_fit_are_in_quarantine_with_their_reason(run, outputs, raw, orders, tmp_path):
    raw(ORDERS.encode(), "digits/orders.csv")
    snapshot = run(orders(max_quarantined=0.8))
    assert (snapshot.rows, snapshot.quarantined) == (3, 7)
    (key,) = keys(outputs.buckets.curated, "digits/_quarantine/")
    assert key.startswith(f"digits/_quarantine/snapshot={snapshot.id}/")
    (tmp_path / "wrong.parquet").write_bytes(body(outputs.buckets.curated, key))
    wrong = pl.read_parquet(tmp_path / "wrong.parquet")
    assert wrong.select("row", "reason").rows() == REASONS
    assert set(wrong["origin"]) == {"s3://test-raw/digits/orders.csv"}
    assert json.loads(wrong["record"][0])["amount"] == "200"
    assert wrong["record"][-1] == "8,1,no,blue,1,9"
    kept = pl.read_parquet(tmp_path / "ingest" / "snapshot" / "*.parquet")
    assert kept["order"].to_list() == [1, 3, 10]


def test_too_many_rows_that_do_not_fit_are_refused_with_the_first(run, outputs, raw, orders, tmp_path):
    raw(ORDERS.encode(), "digits/orders.csv")
    with pytest.raises(PlatformError) as caught:
        run(orders())
    message = str(caught.value)
    assert "7 of 10 rows do not fit the schema of digits (data.max_quarantined allows 50%)" in message
    assert all(f"row {row}: {reason}" in message for row, reason in REASONS[:3])
    assert len(pl.read_parquet(tmp_path / "ingest" / "quarantine" / "*.parquet")) == 7
    assert keys(outputs.buckets.curated) == []


def test_a_source_of_which_no_row_fits_is_refused(run, outputs, raw, orders):
    raw("".join(ORDERS.splitlines(True)[i] for i in (0, 2, 4)).encode(), "digits/orders.csv")
    with pytest.raises(PlatformError, match=r"2 of 2 rows do not fit the schema of digits \(all of them\)"):
        run(orders(max_quarantined=0.99))
    assert keys(outputs.buckets.curated) == []


HEADER = ",".join(f"pixels_{i}" for i in range(64)) + ",digit\n"
ROW = ",".join(["5"] * 64)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it has no header"),
        (b"\x89PNG\x0d\x0a\x1a\x0a\x00\xff\xfe\x00", "is not a CSV file: line 1 is not text in UTF-8"),
        (bytes(100), r"has unknown '\x00\x00"),
        (b"\x1f\x8b\x08\x00" + bytes(range(100)), "is not a CSV file"),
        (
            b"a,b\n1,2\n",
            "lacks digit, pixels_0, pixels_1, pixels_10, pixels_11 and 60 more and has unknown a, b column(s)",
        ),
        (HEADER.encode(), "has no rows"),
        (f"{HEADER}{ROW},three\n".encode(), "row 1: column digit: 'three' is not a whole number from 0 to 9"),
        (f"{HEADER}{ROW},12\n".encode(), "row 1: column digit: 12 is not a whole number from 0 to 9"),
        (f"{HEADER}5,5,5".encode(), "row 1: it has 3 cells, the header has 65"),
        (f'{HEADER}{ROW},3\n"{ROW},3\n'.encode(), "a quote in line 3 or after it is never closed"),
    ],
    ids=["empty", "binary", "zeros", "broken gzip", "other columns", "no rows", "text", "label", "cut off", "quote"],
)
def test_what_is_no_table_of_the_manifest_is_refused_and_nothing_is_written(run, outputs, raw, content, said):
    raw(content)
    with pytest.raises(PlatformError) as caught:
        run()
    assert "s3://test-raw/digits/digits.csv" in str(caught.value)
    assert said in str(caught.value)
    assert keys(outputs.buckets.curated) == []


def test_a_missing_object_is_named(run):
    with pytest.raises(PlatformError, match=r"s3://test-raw/digits/digits.csv does not exist"):
        run()


def test_a_local_file_replaces_the_raw_data_only_if_it_is_good(outputs, manifest, raw, table, tmp_path, orders):
    raw(b"what was there")
    bad, good, other = tmp_path / "bad.csv", tmp_path / "good.csv", tmp_path / "other.parquet"
    bad.write_text("a,b\n1,2\n")
    good.write_bytes(table.head(5).write_csv().encode())
    table.write_parquet(other)
    stored = lambda: body("test-raw", "digits/digits.csv")  # noqa: E731
    for file, said in (
        (bad, r"bad\.csv lacks"),
        (tmp_path / "none.csv", r"none\.csv cannot be read"),
        (other, "replace"),
    ):
        with pytest.raises(PlatformError, match=said):
            ingest.put_raw(manifest, outputs.buckets, file, tmp_path / "scratch")
    assert stored() == b"what was there"
    ingest.put_raw(manifest, outputs.buckets, good, tmp_path / "scratch")
    assert stored() == good.read_bytes()
    with pytest.raises(PlatformError, match="the source of digits is no file"):
        ingest.put_raw(orders("s3://some-bucket/orders/"), outputs.buckets, good, tmp_path / "scratch")


def test_an_empty_raw_bucket_is_filled_once(outputs, manifest, run):
    assert ingest.seed_raw(manifest, outputs.buckets)
    assert not ingest.seed_raw(manifest, outputs.buckets)
    assert run().rows == len(model_module("digits").raw_data())


def test_where_batches_and_files_end_does_not_show(tmp_path, monkeypatch):
    table = pl.DataFrame(
        {
            "number": [None if i % 7 == 0 else i / 3 for i in range(100)],
            "text": [None if i % 5 == 0 else "x" * (i % 4) for i in range(100)],
            "flag": [i % 3 == 0 for i in range(100)],
        }
    )
    ids = set()
    for size, cells in ((100, 1000), (1, 30), (7, 33), (64, 3)):
        monkeypatch.setattr(parts, "CELLS", cells)
        writer = PartWriter(tmp_path / str(size), table.schema)
        for start in range(0, len(table), size):
            writer.add(table.slice(start, size))
        writer.close()
        assert pl.read_parquet(writer.files).equals(table)
        assert {len(pl.read_parquet(file)) for file in writer.files[:-1]} <= {cells // 3}
        ids.add(writer.id)
    assert len(ids) == 1


@pytest.mark.parametrize(
    "change",
    [
        pl.col("text").reverse(),
        pl.col("text").fill_null(""),
        pl.when(pl.col("number") == 2).then(None).otherwise("number").alias("number"),
        pl.Series("text", ["ab", "", "c", None]),
    ],
)
def test_an_id_depends_on_every_value(tmp_path, change):
    table = pl.DataFrame({"number": [0, 1, 2, 3], "text": ["a", "b", "c", None]})

    def id_of(frame: pl.DataFrame) -> str:
        writer = PartWriter(tmp_path, frame.schema)
        writer.add(frame)
        return writer.id

    assert id_of(table) == id_of(table.clone())
    assert id_of(table) != id_of(table.with_columns(change))
    assert id_of(table) != id_of(table.rename({"text": "words"}))


MEASURE = """
import re, sys
from pathlib import Path
from contract.manifest import load_manifest
from training import csvfile, ingest, parts, sources
csvfile.PIECE = sources.BLOCK = 2**20
parts.CELLS = 2**19
manifest, file = load_manifest("digits"), Path(sys.argv[1])
rows, _ = ingest.read(manifest, sources.read_file(file, manifest.data), "big", file.parent / "out")
print(rows.count, re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_memory_does_not_grow_with_the_source(table, tmp_path):
    header, *lines = table.write_csv().encode().splitlines(keepends=True)
    peaks = []
    for times in (20, 200):  # 5 MB and 53 MB, which are 190 MB as numbers
        with (tmp_path / "big.csv").open("wb") as file:
            file.writelines([header, *lines * times])
        command = [sys.executable, "-c", MEASURE, tmp_path / "big.csv"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        rows, peak = done.stdout.split()
        assert int(rows) == times * len(table)
        peaks.append(int(peak) / 1024)
    assert peaks[1] - peaks[0] < 50, peaks
