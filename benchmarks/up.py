"""Measures `mlp up` from nothing to the first prediction, and again when everything is up to date.

python -m benchmarks.up [--runs N]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MLP = Path(sys.executable).with_name("mlp")


def main() -> None:
    """Print the minimum, median and maximum of both, in seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    seconds: dict[str, list[float]] = {"first up": [], "second up": []}
    for run in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            environment = os.environ | {"MLP_STATE": folder}
            try:
                for name in seconds:
                    seconds[name].append(_time("up", environment))
                    print(f"run {run + 1} of {runs}: {name} {seconds[name][-1]:.1f} s", file=sys.stderr)
            finally:
                _time("down", environment)
    print(f"{'':10} {'min':>6} {'median':>6} {'max':>6}   seconds, {runs} runs")
    for name, values in seconds.items():
        print(f"{name:10} {min(values):6.1f} {statistics.median(values):6.1f} {max(values):6.1f}")


def _time(command: str, environment: dict[str, str]) -> float:
    start = time.perf_counter()
    done = subprocess.run([MLP, command], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"mlp {command} failed:\n{done.stderr}")
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
