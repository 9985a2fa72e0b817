"""Measures the embedded preview of each environment, cold, next to the smallest Pulumi program there can be.

python -m benchmarks.preview [--runs N]
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from embedded.project import environments

MLP = str(Path(sys.executable).with_name("mlp"))
SMALLEST = """
import pulumi_aws as aws
from embedded.monitor import run
run(lambda: aws.s3.Bucket("only") and None, project="p", stack="s", config={})
"""


def main() -> None:
    """Print the minimum, median and maximum of each, in seconds, with the number of resources."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    commands = {"smallest program": [sys.executable, "-c", SMALLEST]}
    commands |= {f"preview {name}": [MLP, "preview", name, "--json"] for name in environments()}
    print(f"{'':18} {'min':>6} {'median':>6} {'max':>6}   resources   seconds, {runs} runs")
    for name, command in commands.items():
        seconds, output = [], ""
        for _ in range(runs):
            start = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds.append(time.perf_counter() - start)
            output = done.stdout
        resources = sum(json.loads(output)["totals"].values()) if output else 1
        print(f"{name:18} {min(seconds):6.2f} {statistics.median(seconds):6.2f} {max(seconds):6.2f} {resources:11}")


if __name__ == "__main__":
    main()
