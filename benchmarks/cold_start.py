"""Measures a cold start on AWS Lambda: from the start of the process to the first prediction through the handler.

python -m benchmarks.cold_start [--runs 10]

The packages are the image's, in an environment of their own below the cache folder: the extra `serving` at its pins,
without what slim.py takes out. The parameter and the artifact come from an emulated AWS, or, next to that, the model
lies in a folder and nothing is asked of AWS. Lambda's own work before the process (pulling the image) is not in it.
"""

import argparse
import hashlib
import io
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from pathlib import Path

import boto3

from benchmarks.digits import trained
from benchmarks.serving import CACHE, body_of, free_port, process
from contract.paths import ROOT
from contract.service import METADATA_FILE, MODEL_FILE, LiveVersion, LiveVersions
from services.inference.slim import size_mb, slim

REGION = "eu-west-1"
IN_IMAGE = ("pyproject.toml", "constraints.txt", "README.md", "LICENSE", "contract", "services")
PHASES = ("start of Python", "imports and loading", "first prediction")
CHILD = """
import json, os, time
began = time.time()
from services.inference.lambda_handler import handler
loaded = time.time()
answer = handler(json.loads(os.environ["EVENT"]), None)
done = time.time()
assert answer["statusCode"] == 200, answer
print(json.dumps([began - float(os.environ["STARTED"]), loaded - began, done - loaded]))
"""


def main() -> None:
    """Print sizes, medians by phase, and which packages the imports take their time for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--cache", type=Path, default=CACHE)
    arguments = parser.parse_args()
    model = trained(arguments.cache)
    image = image_environment(arguments.cache)
    print_sizes(image)
    port = free_port()
    with process([sys.executable, "-m", "moto.server", "-p", str(port)], {}, ROOT):
        cases = {"from SSM and S3": publish(model, port), "from a folder": {"SM_MODEL_DIR": str(model)}}
        for name, environment in cases.items():
            runs = [cold_start(image, environment) for _ in range(arguments.runs)]
            totals = sorted(sum(phases) for phases in runs)
            print(f"\n{name}: best {totals[0]:.2f} s, median {statistics.median(totals):.2f} s of {len(runs)}")
            for phase, seconds in zip(PHASES, zip(*runs, strict=True), strict=True):
                print(f"  {phase:22} {min(seconds):6.3f} s best {statistics.median(seconds):6.3f} s median")
        print_imports(image, cases["from SSM and S3"])


def image_environment(cache: Path) -> Path:
    """An environment with the image's packages; made anew when the pins or the sources have changed."""
    folder = cache / "environments" / "image"
    files = [
        file for name in IN_IMAGE for file in (ROOT / name, *sorted((ROOT / name).rglob("*.py"))) if file.is_file()
    ]
    state = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    if not (folder / state).exists():
        print("installing the image's packages", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", folder], check=True)
        with tempfile.TemporaryDirectory() as sources:
            for name in IN_IMAGE:
                copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
                copy(ROOT / name, Path(sources) / name)
            pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "--quiet"]
            subprocess.run([*pip, "--constraint", "constraints.txt", ".[serving]"], cwd=sources, check=True)
        slim(folder)
        (folder / state).touch()
    return folder


def publish(model: Path, port: int) -> dict[str, str]:
    """Make the model live in the emulated AWS; gives the function's environment."""
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_REGION": REGION,
    }
    os.environ.update(environment)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name in (MODEL_FILE, METADATA_FILE):
            tar.add(model / name, name)
    archive = packed.getvalue()
    wait_for(port)
    s3, ssm = (boto3.client(service, region_name=REGION) for service in ("s3", "ssm"))
    s3.create_bucket(Bucket="artifacts", CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket="artifacts", Key="model.tar.gz", Body=archive)
    digest = hashlib.sha256(archive).hexdigest()
    live = LiveVersion(version=1, weight=100, artifact="s3://artifacts/model.tar.gz", sha256=digest)
    value = LiveVersions(versions=(live,)).model_dump_json()
    ssm.put_parameter(Name="/live/digits", Value=value, Type="String", Overwrite=True)
    return environment | {"MLP_MODELS": "digits", "MLP_LIVE_PARAMETERS": "/live"}


def wait_for(port: int) -> None:
    """Wait until a server listens."""
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def cold_start(image: Path, environment: dict[str, str]) -> list[float]:
    """One cold start; the seconds of each phase."""
    done = run(image, environment, CHILD)
    phases: list[float] = json.loads(done.stdout.splitlines()[-1])
    return phases


def run(image: Path, environment: dict[str, str], code: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run code in the image's environment, with nothing of this process's own."""
    own = {"PATH": os.environ["PATH"], "EVENT": json.dumps(event()), "STARTED": str(time.time())}
    command = [image / "bin" / "python", *options, "-c", code]
    return subprocess.run(command, env=own | environment, cwd="/", capture_output=True, text=True, check=True)


def event() -> dict[str, object]:
    """A request as an HTTP API passes it on."""
    path = "/v2/models/digits/infer"
    http = {"method": "POST", "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1", "userAgent": "benchmark"}
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"content-type": "application/json", "host": "api"},
        "requestContext": {"http": http, "requestId": "1", "stage": "$default", "timeEpoch": 0},
        "body": body_of("v2", 1).decode(),
        "isBase64Encoded": False,
    }


def print_sizes(image: Path) -> None:
    """What the packages weigh, and the heaviest."""
    (packages,) = image.glob("lib/python*/site-packages")
    sizes = Counter({of.name: _bytes(of) / 1e6 for of in packages.iterdir()})
    heaviest = ", ".join(f"{name} {size:.0f}" for name, size in sizes.most_common(8))
    print(f"dependencies unzipped: {size_mb(image):.0f} MB ({heaviest})")


def print_imports(image: Path, environment: dict[str, str]) -> None:
    """How long the modules of each package take, by `-X importtime`, which makes all of them slower."""
    seconds: Counter[str] = Counter()
    for line in run(image, environment, CHILD, "-X", "importtime").stderr.splitlines():
        if found := re.match(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)", line):
            seconds[found[2].split(".")[0]] += int(found[1]) / 1e6
    ours = sum(seconds.values())
    print(f"\nimports, {ours:.2f} s in all, by package:")
    for name, own in seconds.most_common(12):
        print(f"  {name:22} {own:6.3f} s")


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


if __name__ == "__main__":
    main()
