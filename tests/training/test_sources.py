"""The same table gives the same snapshot from CSV, Parquet, an S3 prefix and a real PostgreSQL server."""

import json
from datetime import datetime, timedelta

import boto3
import polars as pl
import psycopg
import pytest

from contract.errors import PlatformError
from tests.training.conftest import PASSWORD, USER
from training import ingest, sources

N = 2000
SQL = {"query": 'SELECT * FROM orders ORDER BY "order";', "connection": {"variable": "WAREHOUSE"}}
CREATE = """
CREATE TABLE orders (amount double precision, items integer, express boolean, colour text, returned smallint,
                     "order" bigint, placed timestamptz, customer text)
"""


@pytest.fixture(scope="session")
def table():
    return pl.DataFrame(
        {
            "amount": [i % 100 / 3 for i in range(N)],
            "items": [None if i % 10 == 0 else i for i in range(N)],
            "express": [i % 2 == 0 for i in range(N)],
            "colour": [("red", "green", "blue")[i % 3] for i in range(N)],
            "returned": [i % 2 for i in range(N)],
            "order": list(range(N)),
            "placed": [datetime(2024, 1, 1) + timedelta(minutes=90 * i) for i in range(N)],
            "customer": ['o\'hara, "ann"\nof cork' if i % 50 == 0 else f"customer {i % 20}" for i in range(N)],
        }
    )


@pytest.fixture
def warehouse(postgres_server, table, monkeypatch):
    """The connection string of a database with the table of orders in it."""
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS orders")
        connection.execute(CREATE)
        with connection.cursor() as cursor, cursor.copy("COPY orders FROM STDIN") as copy:
            for row in table.with_columns(pl.col("placed").dt.replace_time_zone("UTC")).rows():
                copy.write_row(row)
    monkeypatch.setenv("WAREHOUSE", postgres_server)
    return postgres_server


@pytest.fixture
def run(outputs, tmp_path):
    return lambda manifest: ingest.ingest(manifest, outputs.buckets, tmp_path / "ingest")


def put(key: str, content: bytes, bucket: str = "test-raw") -> None:
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=content)


def parquet(table: pl.DataFrame, folder) -> bytes:
    table.write_parquet(folder / "x.parquet", row_group_size=300)
    return (folder / "x.parquet").read_bytes()


def test_every_kind_of_source_gives_the_same_snapshot(run, orders, warehouse, table, tmp_path):
    put("digits/orders.csv", table.write_csv().encode())
    from_csv = run(orders())
    assert (from_csv.rows, from_csv.quarantined) == (N, 0)
    kept = pl.read_parquet(tmp_path / "ingest" / "snapshot" / "*.parquet")
    assert kept.select(table.columns).equals(table.with_columns(pl.col("placed").cast(pl.Datetime("us"))))

    put("digits/orders.parquet", parquet(table, tmp_path))
    put("lake/orders/_SUCCESS", b"")
    put("lake/orders/1.csv", table.head(500).write_csv().encode())
    put("lake/orders/2/a.parquet", parquet(table.slice(500, 600), tmp_path))
    put("lake/orders/3.csv", table.slice(1100).select(reversed(table.columns)).write_csv().encode())
    for source in ("orders.parquet", "s3://test-raw/lake/orders/", SQL):
        assert run(orders(source)).id == from_csv.id, source


def test_rows_of_a_database_that_do_not_fit_are_in_quarantine(run, orders, warehouse):
    with psycopg.connect(warehouse, autocommit=True) as connection:
        connection.execute("UPDATE orders SET amount = 'NaN' WHERE \"order\" = 5")
        connection.execute('UPDATE orders SET colour = NULL WHERE "order" = 7')
    snapshot = run(orders(SQL))
    assert (snapshot.rows, snapshot.quarantined) == (N - 2, 2)
    assert snapshot.source == "query at WAREHOUSE"


@pytest.mark.parametrize(
    "secret",
    [
        lambda address: (address, {}),
        lambda address: (_rds(address, host="127.0.0.1", dbname="postgres"), {}),
        lambda address: (_rds(address), {"host": "127.0.0.1", "database": "postgres"}),
    ],
    ids=["a connection string", "what RDS keeps", "what Aurora keeps"],
)
def test_a_secret_says_how_to_log_in(run, orders, warehouse, secret):
    value, more = secret(warehouse)
    boto3.client("secretsmanager").create_secret(Name="warehouse", SecretString=value)
    assert run(orders(SQL | {"connection": {"secret": "warehouse", **more}})).rows == N


def _rds(address: str, **more) -> str:
    port = psycopg.conninfo.conninfo_to_dict(address)["port"]
    return json.dumps({"username": USER, "password": PASSWORD, "port": int(port), **more})


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "the environment variable WAREHOUSE, which data.source.connection names, is not set"),
        (f"postgresql://reader:{PASSWORD}@127.0.0.1:1/postgres", "cannot connect: connection"),
        (f"postgresql//reader:{PASSWORD}@127.0.0.1/postgres", "no connection string that PostgreSQL understands"),
    ],
    ids=["not set", "no server", "no connection string"],
)
def test_a_login_that_fails_says_why_and_not_with_what(run, orders, monkeypatch, value, said):
    monkeypatch.delenv("WAREHOUSE", raising=False)
    if value:
        monkeypatch.setenv("WAREHOUSE", value)
    with pytest.raises(PlatformError) as caught:
        run(orders(SQL))
    assert said in str(caught.value)
    assert PASSWORD not in str(caught.value)


def test_a_wrong_password_is_not_shown(run, orders, warehouse, monkeypatch):
    monkeypatch.setenv("WAREHOUSE", warehouse.replace(PASSWORD, "another-s3cret"))
    with pytest.raises(PlatformError, match="password authentication failed") as caught:
        run(orders(SQL))
    assert "another-s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT * FROM nothing", 'relation "nothing" does not exist'),
        ("SELECT amount FROM orders", "the query at WAREHOUSE lacks colour, customer"),
        ("SELECT * FROM orders WHERE false", "query at WAREHOUSE has no rows"),
        ("DELETE FROM orders RETURNING *", "cannot execute DELETE in a read-only transaction"),
        ("SELEC", "syntax error"),
    ],
)
def test_a_query_that_fails_says_why(run, orders, warehouse, query, said):
    with pytest.raises(PlatformError) as caught:
        run(orders(SQL | {"query": query}))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("secret", "said"),
    [(None, "the secret warehouse cannot be read: ResourceNotFoundException"), ("{}", "has no user and no password")],
)
def test_a_secret_that_does_not_do_is_named(run, orders, emulated_aws, secret, said):
    if secret:
        boto3.client("secretsmanager").create_secret(Name="warehouse", SecretString=secret)
    with pytest.raises(PlatformError, match=said):
        run(orders(SQL | {"connection": {"secret": "warehouse"}}))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("s3://test-raw/none/", "below s3://test-raw/none/ there is no .csv or .parquet file among 0 objects"),
        ("s3://no-such-bucket/x/", "s3://no-such-bucket/x/ does not exist"),
        ("orders.parquet", "s3://test-raw/digits/orders.parquet cannot be read as Parquet"),
    ],
)
def test_a_source_that_is_not_there_is_named(run, orders, source, said):
    put("digits/orders.parquet", b"PAR1 and no more")
    with pytest.raises(PlatformError) as caught:
        run(orders(source))
    assert said in str(caught.value)


def test_parquet_of_other_types_is_read_or_in_quarantine(run, orders, table, tmp_path):
    other = table.with_columns(
        amount=pl.col("amount").cast(pl.Decimal(10, 2)),
        items=pl.col("items").cast(pl.Float32),
        colour=pl.when(pl.col("order") == 3).then(pl.lit("pink")).otherwise("colour").cast(pl.Categorical),
        placed=pl.col("placed").dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo"),
    )
    put("digits/orders.parquet", parquet(other, tmp_path))
    snapshot = run(orders("orders.parquet"))
    assert (snapshot.rows, snapshot.quarantined) == (N - 1, 1)
    kept = pl.read_parquet(tmp_path / "ingest" / "snapshot" / "*.parquet")
    assert kept["placed"][0] == table["placed"][0]


def test_the_version_of_a_source_says_what_state_it_was_in(outputs, orders):
    put("digits/orders.csv", b"a")
    first = sources.version(orders(), outputs.buckets)
    put("digits/orders.csv", b"b")
    assert first != sources.version(orders(), outputs.buckets)
    put("lake/1.csv", b"a")
    put("lake/2.csv", b"b")
    assert sources.version(orders("s3://test-raw/lake/"), outputs.buckets).startswith("2 objects, the last of 20")


def test_a_local_file_whose_name_looks_like_a_pattern_is_read(orders, table, tmp_path):
    table.write_parquet(tmp_path / "in[1].parquet")
    assert sum(batch.count for batch in sources.read_file(tmp_path / "in[1].parquet", orders().data)) == N
