"""Ingest: raw CSV becomes an immutable Parquet snapshot in the curated bucket, named by what is in it."""

import csv
import hashlib
import io
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.exceptions import ClientError

from contract.data import Data
from contract.errors import PlatformError
from contract.manifest import Manifest
from contract.outputs import Buckets

if TYPE_CHECKING:
    import polars as pl

# The folder is named as Hive names partitions and the description as Hive names what is no data, so that Athena reads
# a snapshot as a partition of the model's table.
DATA_FILE, DESCRIPTION_FILE = "part-0.parquet", "_snapshot.json"


@dataclass(frozen=True)
class Snapshot:
    """A data set that never changes: the same content has the same id, wherever and whenever it was ingested."""

    id: str
    uri: str
    rows: int
    source: str


def ingest(manifest: Manifest, buckets: Buckets) -> Snapshot:
    """Read the model's raw object and keep it as a snapshot; data that was ingested before makes no second one.

    Raises:
        PlatformError: if the object is missing or is not the table that the manifest describes; nothing is written.
    """
    s3 = boto3.client("s3")
    key = f"{manifest.name}/{manifest.data.source}"
    source = f"s3://{buckets.raw}/{key}"
    try:
        raw = s3.get_object(Bucket=buckets.raw, Key=key)
    except s3.exceptions.NoSuchKey:
        raise PlatformError(f"{source} does not exist; put the raw data there") from None
    table = read_table(raw["Body"].read(), manifest.data, source)
    id_ = content_id(table)
    prefix = f"{manifest.name}/snapshot={id_}"
    snapshot = Snapshot(id_, f"s3://{buckets.curated}/{prefix}", len(table), source)
    if not _exists(s3, buckets.curated, f"{prefix}/{DESCRIPTION_FILE}"):
        parquet = io.BytesIO()
        table.write_parquet(parquet)
        s3.put_object(Bucket=buckets.curated, Key=f"{prefix}/{DATA_FILE}", Body=parquet.getvalue())
        # The description comes last: what has one is whole.
        description = asdict(snapshot) | {
            "source_version": raw.get("VersionId") or raw["ETag"].strip('"'),
            "columns": table.columns,
            "created": datetime.now(UTC).isoformat(),
        }
        body = json.dumps(description, indent=1).encode()
        s3.put_object(Bucket=buckets.curated, Key=f"{prefix}/{DESCRIPTION_FILE}", Body=body)
    return snapshot


def download(snapshot: Snapshot, folder: Path) -> None:
    """Put a snapshot's Parquet files into a folder, as SageMaker does with a training channel."""
    bucket, _, prefix = snapshot.uri.removeprefix("s3://").partition("/")
    folder.mkdir(parents=True, exist_ok=True)
    boto3.client("s3").download_file(bucket, f"{prefix}/{DATA_FILE}", str(folder / DATA_FILE))


def put_raw(manifest: Manifest, buckets: Buckets, file: Path) -> None:
    """Replace the model's raw object by a local file, once it has been read without a mistake.

    Raises:
        PlatformError: if there is no such file, or it is not the table that the manifest describes.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise PlatformError(f"{file} cannot be read: {error.strerror}") from None
    read_table(content, manifest.data, str(file))
    key = f"{manifest.name}/{manifest.data.source}"
    boto3.client("s3").put_object(Bucket=buckets.raw, Key=key, Body=content)


def seed_raw(manifest: Manifest, buckets: Buckets) -> bool:
    """Fill an empty raw bucket with the example's data, which the model's folder can make; tell whether it was."""
    s3, key = boto3.client("s3"), f"{manifest.name}/{manifest.data.source}"
    if _exists(s3, buckets.raw, key):
        return False
    from training.data import model_module

    s3.put_object(Bucket=buckets.raw, Key=key, Body=model_module(manifest.name).raw_data().write_csv().encode())
    return True


def read_table(content: bytes, data: Data, source: str) -> "pl.DataFrame":
    """Parse a CSV as the manifest describes it.

    Args:
        content: the file.
        data: the columns it must have.
        source: what to call it in an error.

    Returns:
        The feature columns as float32, in the manifest's order, then the target as int64.

    Raises:
        PlatformError: naming the line and the column of the first cell that is wrong.
    """
    import polars as pl

    try:
        text = pl.read_csv(content, infer_schema=False)
    except (pl.exceptions.PolarsError, OSError) as error:  # an OSError for what looks like gzip, and is broken
        reason = _first_mistake(content) or str(error).splitlines()[0]
        raise PlatformError(f"{source} is not a CSV file: {reason}") from None
    wanted = [*data.columns, data.target.name]
    missing, unknown = sorted(set(wanted) - set(text.columns)), sorted(set(text.columns) - set(wanted))
    if missing or unknown:
        told = [f"{what} {_few(names)}" for what, names in (("lacks", missing), ("has unknown", unknown)) if names]
        raise PlatformError(f"{source} {' and '.join(told)} column(s); the manifest describes {_few(wanted)}")
    if text.is_empty():
        raise PlatformError(f"{source} has no rows")
    types = dict.fromkeys(data.columns, pl.Float32) | {data.target.name: pl.Int64}
    table = text.select(pl.col(name).str.strip_chars().cast(types[name], strict=False) for name in wanted)
    for name in wanted:
        if table[name].null_count():
            row = int(table[name].is_null().arg_max() or 0)
            kind = "a whole number" if types[name] is pl.Int64 else "a number"
            raise PlatformError(f"{source}, line {row + 2}, column {name}: {text[name][row] or ''!r} is not {kind}")
    return table


def content_id(table: "pl.DataFrame") -> str:
    """Name a table by its columns and values, whatever file format or library wrote it."""
    digest = hashlib.sha256(json.dumps([table.columns, [str(dtype) for dtype in table.dtypes]]).encode())
    for column in table.iter_columns():
        digest.update(column.to_numpy().tobytes())
    return digest.hexdigest()[:32]


def _first_mistake(content: bytes) -> str | None:
    """Find the line at which a file is no CSV any more, which polars does not tell."""
    line = width = 0
    try:
        for line, cells in enumerate(csv.reader(io.StringIO(content.decode(), newline=""), strict=True), 1):
            width = width or len(cells)
            if len(cells) > width:
                return f"line {line} has {len(cells)} cells, the header has {width}"
    except UnicodeDecodeError as error:
        return f"line {content.count(bytes([10]), 0, error.start) + 1} is not text in UTF-8"
    except csv.Error as error:
        return f"line {line + 1}: {error}"
    return None


def _exists(s3: Any, bucket: str, key: str) -> bool:
    try:
        s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] == "404":
            return False
        raise
    return True


def _few(names: list[str]) -> str:
    # Of binary data, the header can be anything, and long.
    shown = [name if name.isidentifier() else ascii(name[:40]) for name in names[:5]]
    return ", ".join(shown) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
