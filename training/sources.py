"""Where raw data comes from: a file, the files below an S3 prefix, or a query, read a batch at a time."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import polars as pl
import psycopg
from botocore.exceptions import ClientError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from contract.data import Connection, Data, Source
from contract.errors import PlatformError
from contract.manifest import Manifest
from contract.outputs import Buckets
from training.csvfile import Batch, check_columns, read_csv
from training.parts import scan
from training.schema import TYPES

FORMATS = (".csv", ".parquet")
BLOCK = 4 * 2**20
ROWS = 100_000


def where(manifest: Manifest, buckets: Buckets) -> str:
    """Name a model's source, for messages and lineage; of a query without anything that is secret."""
    source = manifest.data.source
    if source.connection:
        return f"query at {source.connection.variable or source.connection.secret}"
    if source.is_raw_object:
        return f"s3://{buckets.raw}/{manifest.name}/{source.uri}"
    return str(source.uri)


def read(manifest: Manifest, buckets: Buckets) -> Iterator[Batch]:
    """Read a model's raw data.

    Raises:
        PlatformError: if there is none, or it is not what the manifest describes.
    """
    source = manifest.data.source
    if source.query:
        return _read_query(source, manifest.data)
    return _read_objects(where(manifest, buckets), manifest.data)


def version(manifest: Manifest, buckets: Buckets) -> str:
    """Name the state that the source is in, as far as it tells: the version of an object, the number of objects."""
    if manifest.data.source.query:
        return manifest.data.source.query
    objects = list(_objects(where(manifest, buckets)))
    if len(objects) > 1:
        return f"{len(objects)} objects, the last of {max(item['LastModified'] for item in objects).isoformat()}"
    return str(objects[0].get("VersionId") or objects[0]["ETag"].strip('"'))


def read_file(file: Path, data: Data, origin: str = "") -> Iterator[Batch]:
    """Read a local CSV or Parquet file.

    Raises:
        PlatformError: if it cannot be read or is not what the manifest describes.
    """
    origin = origin or str(file)
    types = {name: TYPES[column.type] for name, column in data.all_columns.items()}
    if Path(origin).suffix == ".parquet":
        yield from _read_parquet(file, types, origin)
        return
    # Only numbers are read faster by their type; what else there is the schema reads from text.
    likely = {name: type_ if type_.is_numeric() else pl.String() for name, type_ in types.items()}
    try:
        with file.open("rb") as stream:
            yield from read_csv(iter(lambda: stream.read(BLOCK), b""), likely, origin)
    except OSError as error:
        raise PlatformError(f"{file} cannot be read: {error.strerror}") from None


def _read_parquet(file: Path, types: dict[str, pl.DataType], origin: str) -> Iterator[Batch]:
    try:
        frame = scan([file])
        check_columns(frame.collect_schema().names(), types, origin)
        row = 1
        for table in frame.collect_batches(chunk_size=ROWS, maintain_order=True):
            yield Batch(origin, row, len(table), table)
            row += len(table)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise PlatformError(f"{origin} cannot be read as Parquet: {str(error).splitlines()[0]}") from None


def _read_objects(uri: str, data: Data) -> Iterator[Batch]:
    for item in _objects(uri):
        # A file of its own: a download goes on after a failure, comes in parallel and can be read at random.
        with tempfile.NamedTemporaryFile(suffix=Path(item["Key"]).suffix) as copy:
            extra = {"VersionId": item["VersionId"]} if item.get("VersionId") else {}
            boto3.client("s3").download_file(item["Bucket"], item["Key"], copy.name, ExtraArgs=extra)
            yield from read_file(Path(copy.name), data, f"s3://{item['Bucket']}/{item['Key']}")


def _objects(uri: str) -> Iterator[dict[str, Any]]:
    """The object of a URI or, if it ends in a slash, the data files below it in the order of their keys."""
    s3 = boto3.client("s3")
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    try:
        if key and not key.endswith("/"):
            yield {**s3.head_object(Bucket=bucket, Key=key), "Bucket": bucket, "Key": key}
            return
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
        found = [item for page in pages for item in page.get("Contents", [])]
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("404", "NoSuchKey", "NoSuchBucket"):
            raise
        raise PlatformError(f"{uri} does not exist; put the raw data there") from None
    data = [item for item in found if item["Key"].endswith(FORMATS) and not Path(item["Key"]).name.startswith("_")]
    if not data:
        raise PlatformError(f"below {uri} there is no {' or '.join(FORMATS)} file among {len(found)} objects")
    yield from ({**item, "Bucket": bucket} for item in data)


def _read_query(source: Source, data: Data) -> Iterator[Batch]:
    """Stream what a query gives, as CSV: PostgreSQL's COPY is its fastest way out, and never holds all of it."""
    assert source.query
    assert source.connection
    origin = f"the query at {source.connection.variable or source.connection.secret}"
    types = {name: TYPES[column.type] for name, column in data.all_columns.items()}
    likely = {name: type_ if type_.is_numeric() else pl.String() for name, type_ in types.items()}
    with _connected(source.connection, origin) as connection, connection.cursor() as cursor:
        # The same rows must come in the same order, or the same data would be another snapshot.
        cursor.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
        cursor.execute("SET synchronize_seqscans = off; SET max_parallel_workers_per_gather = 0; SET TimeZone = 'UTC'")
        command = f"COPY ({source.query.strip().rstrip(';')}) TO STDOUT (FORMAT csv, HEADER)"
        try:
            with cursor.copy(command.encode()) as copy:
                yield from read_csv((bytes(row) for row in copy), likely, origin)
        except psycopg.Error as error:
            raise PlatformError(f"{origin} failed: {str(error).splitlines()[0]}") from None


@contextmanager
def _connected(login: Connection, origin: str) -> Iterator[psycopg.Connection]:
    conninfo = _conninfo(login)
    try:
        conninfo_to_dict(conninfo)
    except psycopg.Error:  # whose message holds all of it
        raise PlatformError(
            f"{origin}: it holds no connection string that PostgreSQL understands, such as "
            "postgresql://user:password@host/database"
        ) from None
    try:
        connection = psycopg.connect(conninfo, autocommit=True, connect_timeout=10, client_encoding="utf8")
    except psycopg.Error as error:
        # libpq never repeats the password, and names the host, which is what helps.
        raise PlatformError(f"{origin}: cannot connect: {str(error).splitlines()[0]}") from None
    with connection:
        yield connection


def _conninfo(login: Connection) -> str:
    """The connection string; it is not to be shown."""
    if login.variable:
        if not (value := os.environ.get(login.variable)):
            raise PlatformError(
                f"the environment variable {login.variable}, which data.source.connection names, is not set; set it to "
                "a connection string such as postgresql://user:password@host/database"
            )
        return value
    try:
        value = boto3.client("secretsmanager").get_secret_value(SecretId=login.secret)["SecretString"]
    except ClientError as error:
        raise PlatformError(f"the secret {login.secret} cannot be read: {error.response['Error']['Code']}") from None
    if not value.lstrip().startswith("{"):
        return str(value)
    known = json.loads(value)
    parts = {
        "user": known.get("username"),
        "password": known.get("password"),
        "host": login.host or known.get("host"),
        "port": known.get("port") or login.port,
        "dbname": login.database or known.get("dbname"),
    }
    if missing := [name for name in ("user", "password", "host", "dbname") if not parts[name]]:
        raise PlatformError(
            f"the secret {login.secret} has no {' and no '.join(missing)}; say host and database in "
            "data.source.connection, or use the secret that RDS keeps for the database"
        )
    return make_conninfo(**parts)
