"""Batch inference of the digits model: rows a second of the whole job, beside the bare ONNX file, and its memory.

    python -m benchmarks.score [ROWS]

needs the laptop platform (`mlp up`). The job runs as `python -m training score` does, in a process of its own.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl

from contract.manifest import load_manifest
from embedded.local import Local

MODEL = "digits"
RUNS = 3
JOB = """
import resource, sys
from training.__main__ import main
main()
print("PEAK", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def main(rows: int) -> None:
    """Score a CSV of so many rows, and print the best of three runs."""
    from training import score
    from training.artifact import open_version
    from training.data import features, model_module

    platform = Local.of_this_checkout()
    platform.use_aws()
    outputs, manifest = platform.outputs(), load_manifest(MODEL)
    table = model_module(MODEL).raw_data()
    numbers = features(table, manifest.data)
    live = score.chosen(outputs.models[MODEL], None)
    opened = open_version(live, MODEL, manifest.data.columns)
    bare = max(len(numbers) / _seconds(lambda: opened.answer(numbers)) for _ in range(10))
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "in.csv", Path(folder) / "out.parquet"
        pl.concat([table] * -(-rows // len(table))).head(rows).write_csv(source)
        environment = os.environ | {"MLP_OUTPUTS": outputs.model_dump_json()}
        command = [sys.executable, "-c", JOB, "score", MODEL, "--input", str(source), "--output", str(output)]
        runs = []
        for _ in range(RUNS):
            start = time.perf_counter()
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            runs.append((time.perf_counter() - start, int(done.stdout.split()[-1])))
        size = source.stat().st_size
    best = rows / min(seconds for seconds, _ in runs)
    found = {
        "rows": rows,
        "input_mb": round(size / 2**20, 1),
        "cores": os.cpu_count(),
        "rows_per_s": round(best),
        "bare_onnx_one_thread_rows_per_s": round(bare),
        "ratio": round(best / bare, 2),
        "peak_memory_mb": max(peak for _, peak in runs),
    }
    print(json.dumps(found, indent=2))


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500_000)
