"""Measures ingest next to polars and duckdb that do the same by hand: read a CSV, check it, write Parquet.

python -m benchmarks.ingest [--gb 5] [--runs 3] [--contenders platform polars duckdb] [--limit-mb 1024]

The file has ten columns; one row in a thousand is out of range, one in a million is no number, and both have to be kept
apart. Ingest also says why, and names the data by its content; the others do not. Each run is a process of its own, and
the contenders take turns. With --limit-mb the status is 1 if the platform's peak of memory is above it.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from contract.data import Data
from contract.manifest import Manifest, load_manifest

NUMBERS, ROWS = 8, 500_000
DATA = {
    "source": "big.csv",
    "allowed_use": ["demonstration"],
    "features": {
        "x": {"size": NUMBERS, "min": -4, "max": 4},
        "kind": {"type": "category", "categories": ["red", "green", "blue"]},
    },
    "target": {"name": "y", "classes": 2},
}
NAMES = [f"x_{i}" for i in range(NUMBERS)]


def main() -> None:
    """Print seconds, megabytes a second and the peak of memory of each contender."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=5)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--limit-mb", type=float, help="most resident memory that the platform's ingest may use")
    parser.add_argument("--only", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        run_one(arguments.only, arguments.folder)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        megabytes = write_csv(folder / "big.csv", arguments.gb * 1e9) / 1e6
        print(
            f"{megabytes / 1e3:.1f} GB of CSV, {arguments.runs} runs; good and other rows must agree", file=sys.stderr
        )
        came: dict[str, list[list[str]]] = {contender: [] for contender in arguments.contenders}
        for _ in range(arguments.runs):
            for contender, results in came.items():
                command = [sys.executable, "-m", __spec__.name, "--only", contender, "--folder", str(folder)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                results.append(done.stdout.split())
                print(f"{contender}: {done.stdout.strip()}", file=sys.stderr)
    print(f"{'':10} {'best s':>7} {'median s':>9} {'MB/s':>6} {'peak MB':>8} {'good rows':>11} {'others':>8}")
    for contender, results in came.items():
        seconds = [float(result[0]) for result in results]
        peak, good, other = max(float(result[1]) for result in results), *results[0][2:]
        speed = megabytes / min(seconds)
        median = statistics.median(seconds)
        print(f"{contender:10} {min(seconds):7.1f} {median:9.1f} {speed:6.0f} {peak:8.0f} {good:>11} {other:>8}")
        if contender == "platform" and arguments.limit_mb and peak > arguments.limit_mb:
            sys.exit(f"the platform used {peak:.0f} MB, but the limit is {arguments.limit_mb:.0f} MB")


def write_csv(file: Path, size: float) -> int:
    """Write rows until the file has a size in bytes; gives the size."""
    random = np.random.default_rng(0)
    with file.open("wb") as stream:
        while stream.tell() < size:
            table = pl.DataFrame(
                {
                    **{name: random.normal(0, 0.7, ROWS).clip(-4, 4).round(6) for name in NAMES},
                    "kind": random.choice(["red", "green", "blue"], ROWS),
                    "y": random.integers(0, 2, ROWS),
                }
            )
            row = pl.int_range(pl.len())
            out_of_range = pl.when(row % 1000 == 7).then(5.0).otherwise("x_3")
            first = stream.tell() == 0
            table = table.with_columns(out_of_range.alias("x_3"))
            if stream.tell() // (ROWS * 80) % 2 == 0:  # every other block
                no_number = pl.when(row == 1).then(pl.lit("?")).otherwise(pl.col("x_0").cast(pl.String))
                table = table.with_columns(no_number.alias("x_0"))
            table.write_csv(stream, include_header=first)
        return stream.tell()


def run_one(contender: str, folder: Path) -> None:
    """Print the seconds, the peak of memory in MB, and how many rows were good and how many not."""
    out = folder / contender
    out.mkdir(exist_ok=True)
    start = time.perf_counter()
    good, other = CONTENDERS[contender](folder / "big.csv", out)
    seconds = time.perf_counter() - start
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak
    print(f"{seconds:.2f} {int(peak[1]) / 1024:.0f} {good} {other}")


def by_platform(file: Path, out: Path) -> tuple[int, int]:
    """The ingest step, without the buckets on either side."""
    from training import ingest, sources

    manifest: Manifest = load_manifest("digits").model_copy(update={"data": Data.model_validate(DATA)})
    rows, wrong = ingest.read(manifest, sources.read_file(file, manifest.data), "big.csv", out)
    return rows.count, wrong.count


def by_polars(file: Path, out: Path) -> tuple[int, int]:
    """A streaming scan that makes nulls of what is no number."""
    types = {**dict.fromkeys(NAMES, pl.Float64), "kind": pl.String, "y": pl.Int64}
    frame = pl.scan_csv(file, schema=types, ignore_errors=True)
    fits = pl.all_horizontal(
        *(pl.col(name).is_between(-4, 4) for name in NAMES),
        pl.col("kind").is_in(["red", "green", "blue"]),
        pl.col("y").is_between(0, 1),
    ).fill_null(False)
    files = out / "good.parquet", out / "other.parquet"
    sinks = [
        frame.filter(fits).sink_parquet(files[0], compression_level=1, lazy=True),
        frame.filter(~fits).sink_parquet(files[1], compression_level=1, lazy=True),
    ]
    pl.collect_all(sinks, engine="streaming")
    good, other = (int(pl.scan_parquet(file).select(pl.len()).collect().item()) for file in files)
    return good, other


def by_duckdb(file: Path, out: Path) -> tuple[int, int]:
    """A scan that stores what it cannot read in its table of rejects, and two copies."""
    import duckdb

    types = {**dict.fromkeys(NAMES, "DOUBLE"), "kind": "VARCHAR", "y": "BIGINT"}
    columns = ", ".join(f"'{name}': '{type_}'" for name, type_ in types.items())
    scan = f"read_csv('{file}', header = true, columns = {{{columns}}}, store_rejects = true)"
    ranges = " AND ".join(f"{name} BETWEEN -4 AND 4" for name in NAMES)
    fits = f"coalesce({ranges} AND kind IN ('red', 'green', 'blue') AND y BETWEEN 0 AND 1, false)"
    parquet = "(FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)"
    connection = duckdb.connect()
    connection.execute("SET enable_progress_bar = false; SET memory_limit = '1GB'; SET preserve_insertion_order = true")
    connection.execute(f"SET temp_directory = '{out}'")
    # One scan: the rows that do not fit are few, and go through a table.
    connection.execute(f"COPY (FROM {scan} WHERE {fits}) TO '{out}/good.parquet' {parquet}")
    rejected = connection.execute("SELECT count(DISTINCT line) FROM reject_errors").fetchone()
    connection.execute("DROP TABLE reject_errors; DROP TABLE reject_scans")
    connection.execute(f"COPY (FROM {scan} WHERE NOT {fits}) TO '{out}/other.parquet' {parquet}")
    counts = [
        connection.execute(f"SELECT count(*) FROM '{out}/{name}.parquet'").fetchone() for name in ("good", "other")
    ]
    assert rejected
    assert counts[0]
    assert counts[1]
    return counts[0][0], counts[1][0] + rejected[0]


CONTENDERS = {"platform": by_platform, "polars": by_polars, "duckdb": by_duckdb}

if __name__ == "__main__":
    main()
