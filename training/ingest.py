"""Ingest: raw data becomes an immutable Parquet snapshot in the curated bucket, named by what is in it.

Rows that do not fit the schema are kept beside it, with the reason. Data is read, checked and written a batch at a
time: a source may be larger than memory.
"""

import io
import json
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import polars as pl
from botocore.exceptions import ClientError

from contract.data import Column
from contract.errors import PlatformError
from contract.manifest import Manifest
from contract.outputs import Buckets
from training import schema, sources
from training.csvfile import Batch
from training.parts import PartWriter
from training.steps import Context, Report

# Folders are named as Hive names partitions and what is no data as Hive names that, so that Athena reads a snapshot as
# a partition of the model's table.
DESCRIPTION_FILE, QUARANTINE = "_snapshot.json", "_quarantine"
SHOWN = 3
QUARANTINE_TYPES: Mapping[str, Any] = {
    "origin": pl.String,
    "row": pl.Int64,
    "reason": pl.String,
    "record": pl.String,
}


@dataclass(frozen=True)
class Snapshot:
    """A data set that never changes: the same content has the same id, wherever and whenever it was ingested.

    Attributes:
        id: names the content.
        uri: its folder in the curated bucket.
        rows: how many there are.
        source: where it was read from.
        quarantined: how many rows of the source did not fit the schema.
    """

    id: str
    uri: str
    rows: int
    source: str
    quarantined: int = 0


def step(context: Context) -> str:
    """Ingest the model's source; its local copy is `snapshot/`, its description `snapshot.json`."""
    manifest, buckets, folder = context.manifest, context.outputs.buckets, context.folder("ingest")
    if seed_raw(manifest, buckets):
        context.report(f"wrote the example's raw data to {sources.where(manifest, buckets)}")
    snapshot = ingest(manifest, buckets, folder, context.report)
    (folder / "snapshot.json").write_text(json.dumps(asdict(snapshot), indent=1))
    aside = f", {snapshot.quarantined} rows are in quarantine" if snapshot.quarantined else ""
    return f"snapshot {snapshot.id} of {snapshot.rows} rows{aside}"


def ingested(context: Context) -> Snapshot:
    """The snapshot that the step has left."""
    return Snapshot(**json.loads((context.folder("ingest") / "snapshot.json").read_text()))


def ingest(manifest: Manifest, buckets: Buckets, folder: Path, report: Report = lambda _: None) -> Snapshot:
    """Read the model's source and keep it as a snapshot; data that was ingested before makes no second one.

    Args:
        manifest: the model's.
        buckets: the environment's.
        folder: where the snapshot's files are made and stay, in `snapshot/`, and the quarantine's, in `quarantine/`.
        report: told how far it is.

    Raises:
        PlatformError: if there is no source, it is not the table that the manifest describes, or more of its rows than
            `max_quarantined` do not fit; nothing is kept then but the quarantine in `folder`.
    """
    source = sources.where(manifest, buckets)
    version = sources.version(manifest, buckets)
    rows, wrong = read(manifest, sources.read(manifest, buckets), source, folder, report)
    prefix = f"{manifest.name}/snapshot={rows.id}"
    snapshot = Snapshot(rows.id, f"s3://{buckets.curated}/{prefix}", rows.count, source, wrong.count)
    s3 = boto3.client("s3")
    if not exists(s3, buckets.curated, f"{prefix}/{DESCRIPTION_FILE}"):
        _upload(s3, rows.files, buckets.curated, prefix)
        # The description comes last: what has one is whole. Who loses a race leaves the winner's, which says the same.
        description = asdict(snapshot) | {
            "source_version": version,
            "files": [file.name for file in rows.files],
            "columns": {name: str(type_) for name, type_ in rows.types.items()},
            "created": datetime.now(UTC).isoformat(),
        }
        _put_once(s3, buckets.curated, f"{prefix}/{DESCRIPTION_FILE}", json.dumps(description, indent=1).encode())
    if wrong.count:
        _upload(s3, wrong.files, buckets.curated, f"{manifest.name}/{QUARANTINE}/snapshot={rows.id}/{wrong.id}")
    return snapshot


def read(
    manifest: Manifest, batches: Iterator[Batch], source: str, folder: Path, report: Report = lambda _: None
) -> tuple[PartWriter, PartWriter]:
    """Write the rows that fit the manifest's schema to `snapshot/` in a folder, and the others to `quarantine/`.

    Raises:
        PlatformError: if there are no rows, or too many do not fit.
    """
    columns = manifest.data.all_columns
    types = {name: schema.TYPES[column.type] for name, column in columns.items()}
    for name in ("snapshot", "quarantine"):
        shutil.rmtree(folder / name, ignore_errors=True)
    rows, wrong = PartWriter(folder / "snapshot", types), PartWriter(folder / "quarantine", QUARANTINE_TYPES)
    first: list[str] = []
    # While one batch is hashed and written, the next is read and checked.
    with ThreadPoolExecutor(1) as background:
        pending = background.submit(lambda: None)
        for batch in batches:
            good, bad = _divide(batch, columns)
            first += [f"row {row}: {reason}" for row, reason in bad[["row", "reason"]].head(SHOWN - len(first)).rows()]
            pending.result()
            pending = background.submit(_write, rows, good, wrong, bad)
            report(f"ingest: {batch.first + batch.count - 1:,} rows of {batch.origin}")
        pending.result()
    rows.close()
    wrong.close()
    if not rows.count + wrong.count:
        raise PlatformError(f"{source} has no rows")
    if not rows.count or wrong.count / (rows.count + wrong.count) > manifest.data.max_quarantined:
        told = "\n".join(f"  {line}" for line in first)
        of = "all of them" if not rows.count else f"data.max_quarantined allows {manifest.data.max_quarantined:.0%}"
        raise PlatformError(
            f"{source}: {wrong.count} of {rows.count + wrong.count} rows do not fit the schema of {manifest.name} "
            f"({of}); the first:\n{told}\nall of them, with their reasons, are in {folder / 'quarantine'}"
        )
    return rows, wrong


def download(uri: str, folder: Path) -> None:
    """Put a snapshot's Parquet files into a folder, as SageMaker does with a training channel.

    Raises:
        PlatformError: if there is no such snapshot.
    """
    s3 = boto3.client("s3")
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    try:
        body = s3.get_object(Bucket=bucket, Key=f"{prefix}/{DESCRIPTION_FILE}")["Body"]
    except (s3.exceptions.NoSuchKey, s3.exceptions.NoSuchBucket):
        raise PlatformError(f"there is no snapshot {uri}") from None
    folder.mkdir(parents=True, exist_ok=True)
    for name in json.load(body)["files"]:
        s3.download_file(bucket, f"{prefix}/{name}", str(folder / name))


def put_raw(manifest: Manifest, buckets: Buckets, file: Path, scratch: Path) -> None:
    """Replace the model's raw object by a local file, once it has been read as ingest will read it.

    Raises:
        PlatformError: if there is no such file, ingest would refuse it, or the source is no object in the raw bucket.
    """
    uri = manifest.data.source.uri
    if not manifest.data.source.is_raw_object or uri is None:
        raise PlatformError(f"the source of {manifest.name} is no file, so none can replace it; change data.source")
    if file.suffix != Path(uri).suffix:
        raise PlatformError(f"{file} cannot replace {uri}: data.source says that it is a {Path(uri).suffix} file")
    read(manifest, sources.read_file(file, manifest.data), str(file), scratch)
    boto3.client("s3").upload_file(str(file), buckets.raw, f"{manifest.name}/{uri}")


def seed_raw(manifest: Manifest, buckets: Buckets) -> bool:
    """Fill an empty raw bucket with the example's data, if the model's folder can make some; tell whether it was."""
    uri = manifest.data.source.uri
    s3, key = boto3.client("s3"), f"{manifest.name}/{uri}"
    if not manifest.data.source.is_raw_object or uri is None or exists(s3, buckets.raw, key):
        return False
    from training.data import model_module  # imports torch, which only this needs

    module = model_module(manifest.name)
    if not hasattr(module, "raw_data"):
        return False
    made, content = module.raw_data(), io.BytesIO()
    made.write_parquet(content) if uri.endswith(".parquet") else made.write_csv(content)
    s3.put_object(Bucket=buckets.raw, Key=key, Body=content.getvalue())
    return True


def exists(s3: Any, bucket: str, key: str) -> bool:
    """Whether there is an object."""
    try:
        s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] == "404":
            return False
        raise
    return True


def _divide(batch: Batch, columns: Mapping[str, Column]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows of a batch that fit, and the others as the quarantine keeps them."""
    good, bad = schema.fit(batch.table, columns)
    if bad.is_empty() and not batch.unreadable:
        return good, pl.DataFrame(schema=QUARANTINE_TYPES)
    place = pl.col(schema.POSITION).cast(pl.Int64)
    if batch.positions is not None:
        place = pl.lit(pl.Series(batch.positions, dtype=pl.Int64)).gather(place)
    kept = bad.select(
        origin=pl.lit(batch.origin),
        row=place + batch.first,
        reason=pl.col(schema.REASON),
        record=pl.struct(pl.exclude(schema.POSITION, schema.REASON)).struct.json_encode(),
    )
    unreadable = [(batch.origin, batch.first + one.position, one.reason, one.text) for one in batch.unreadable]
    return good, pl.concat([kept, pl.DataFrame(unreadable, schema=QUARANTINE_TYPES, orient="row")]).sort("row")


def _write(rows: PartWriter, good: pl.DataFrame, wrong: PartWriter, bad: pl.DataFrame) -> None:
    rows.add(good)
    wrong.add(bad)


def _upload(s3: Any, files: list[Path], bucket: str, prefix: str) -> None:
    for file in files:
        s3.upload_file(str(file), bucket, f"{prefix}/{file.name}")


def _put_once(s3: Any, bucket: str, key: str, body: bytes) -> None:
    try:
        s3.put_object(Bucket=bucket, Key=key, Body=body, IfNoneMatch="*")
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("PreconditionFailed", "ConditionalRequestConflict"):
            raise
