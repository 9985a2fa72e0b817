"""Ingest: the same data is one snapshot, and a corrupt file is refused with its line, before anything is written."""

import json

import boto3
import polars as pl
import pytest

from contract.errors import PlatformError
from training import ingest
from training.ingest import content_id, read_table


@pytest.fixture
def raw(outputs, manifest):
    """Puts content where the source system would."""

    def put(content: bytes) -> None:
        boto3.client("s3").put_object(Bucket=outputs.buckets.raw, Key="digits/digits.csv", Body=content)

    return put


def keys(bucket: str) -> list[str]:
    return [item["Key"] for item in boto3.client("s3").list_objects_v2(Bucket=bucket).get("Contents", [])]


def test_a_snapshot_is_parquet_with_a_description(outputs, manifest, raw, table, tmp_path):
    raw(table.write_csv().encode())
    snapshot = ingest.ingest(manifest, outputs.buckets)
    assert snapshot.rows == 1797
    assert keys(outputs.buckets.curated) == [
        f"digits/snapshot={snapshot.id}/_snapshot.json",
        f"digits/snapshot={snapshot.id}/part-0.parquet",
    ]
    body = boto3.client("s3").get_object(
        Bucket=outputs.buckets.curated, Key=f"digits/snapshot={snapshot.id}/_snapshot.json"
    )
    description = json.load(body["Body"])
    assert description["source"] == "s3://test-raw/digits/digits.csv"
    assert description["source_version"]
    assert description["columns"] == [*manifest.data.columns, "digit"]
    ingest.download(snapshot, tmp_path)
    read = pl.read_parquet(tmp_path / "part-0.parquet")
    assert read.cast(pl.UInt8).equals(table)


def test_the_same_data_is_one_snapshot_whatever_it_was_written_like(outputs, manifest, raw, table):
    raw(table.write_csv().encode())
    first = ingest.ingest(manifest, outputs.buckets)
    shuffled = table.select(reversed(table.columns))
    raw(
        shuffled.with_columns(pl.all().cast(pl.Float64))
        .with_columns(pl.col("digit").cast(pl.Int8))
        .write_csv()
        .encode()
    )
    assert ingest.ingest(manifest, outputs.buckets) == first
    assert len(keys(outputs.buckets.curated)) == 2


def test_other_data_is_another_snapshot(outputs, manifest, raw, table):
    raw(table.write_csv().encode())
    first = ingest.ingest(manifest, outputs.buckets)
    raw(table.head(-1).write_csv().encode())
    assert ingest.ingest(manifest, outputs.buckets).id != first.id
    assert len(keys(outputs.buckets.curated)) == 4


def test_an_id_depends_on_values_and_names():
    frame = pl.DataFrame({"a": [1.0, 2.0], "b": [3, 4]})
    assert content_id(frame) == content_id(frame.clone())
    assert content_id(frame) != content_id(frame.with_columns(a=pl.col("a") + 1))
    assert content_id(frame) != content_id(frame.rename({"a": "c"}))
    assert content_id(frame) != content_id(frame.reverse())


HEADER = ",".join(f"pixels_{i}" for i in range(64)) + ",digit\n"
ROW = ",".join(["5"] * 64)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not a CSV file"),
        (b"\x89PNG\x0d\x0a\x1a\x0a\x00\xff\xfe\x00", "is not a CSV file: line 1 is not text in UTF-8"),
        (bytes(100), r"has unknown '\x00\x00"),
        (b"\x1f\x8b\x08\x00" + bytes(range(100)), "is not a CSV file"),
        (
            b"a,b\n1,2\n",
            "lacks digit, pixels_0, pixels_1, pixels_10, pixels_11 and 60 more and has unknown a, b column(s)",
        ),
        (HEADER.encode(), "has no rows"),
        (f"{HEADER}{ROW},3\n{ROW.replace('5', 'x', 1)},3\n".encode(), "line 3, column pixels_0: 'x' is not a number"),
        (f"{HEADER}{ROW},three\n".encode(), "line 2, column digit: 'three' is not a whole number"),
        (f"{HEADER}{ROW},3.5\n".encode(), "line 2, column digit: '3.5' is not a whole number"),
        (f"{HEADER}{ROW},3\n{ROW}\n".encode(), "line 3, column digit: '' is not a whole number"),
        (f"{HEADER}{ROW},3\n5,5,5".encode(), "line 3, column pixels_3: '' is not a number"),
        (f"{HEADER}{ROW},3\n{ROW},3,3\n".encode(), "is not a CSV file: line 3 has 66 cells, the header has 65"),
        (f'{HEADER}{ROW},3\n"{ROW},3\n'.encode(), "is not a CSV file: line 3: unexpected end of data"),
        (HEADER.encode() + b"\xff," + ROW.encode() + b"\n", "is not a CSV file: line 2 is not text in UTF-8"),
    ],
    ids=[
        "empty",
        "binary",
        "zeros",
        "broken gzip",
        "other columns",
        "no rows",
        "text",
        "label",
        "fraction",
        "short line",
        "cut off",
        "long line",
        "open quote",
        "other encoding",
    ],
)
def test_a_corrupt_file_is_refused_and_nothing_is_written(outputs, manifest, raw, content, said):
    raw(content)
    with pytest.raises(PlatformError) as caught:
        ingest.ingest(manifest, outputs.buckets)
    assert "s3://test-raw/digits/digits.csv" in str(caught.value)
    assert said in str(caught.value)
    assert keys(outputs.buckets.curated) == []


def test_a_missing_object_is_named(outputs, manifest):
    with pytest.raises(PlatformError, match=r"s3://test-raw/digits/digits.csv does not exist"):
        ingest.ingest(manifest, outputs.buckets)


def test_a_local_file_replaces_the_raw_data_only_if_it_is_good(outputs, manifest, raw, table, tmp_path):
    raw(b"what was there")
    bad, good = tmp_path / "bad.csv", tmp_path / "good.csv"
    bad.write_text("a,b\n1,2\n")
    good.write_bytes(table.head(5).write_csv().encode())
    with pytest.raises(PlatformError, match=r"bad\.csv lacks"):
        ingest.put_raw(manifest, outputs.buckets, bad)
    with pytest.raises(PlatformError, match=r"none\.csv cannot be read"):
        ingest.put_raw(manifest, outputs.buckets, tmp_path / "none.csv")
    stored = lambda: boto3.client("s3").get_object(Bucket="test-raw", Key="digits/digits.csv")["Body"].read()  # noqa: E731
    assert stored() == b"what was there"
    ingest.put_raw(manifest, outputs.buckets, good)
    assert stored() == good.read_bytes()


def test_an_empty_raw_bucket_is_filled_once(outputs, manifest):
    assert ingest.seed_raw(manifest, outputs.buckets)
    assert not ingest.seed_raw(manifest, outputs.buckets)
    content = boto3.client("s3").get_object(Bucket="test-raw", Key="digits/digits.csv")["Body"].read()
    assert len(read_table(content, manifest.data, "raw")) == 1797
