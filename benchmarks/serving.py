"""Measures the inference service next to bare ASGI, FastAPI and packaged model servers, with wrk, in one run.

python -m benchmarks.serving [--peers litserve mlserver ...] [--seconds 3] [--rounds 3]

Each server has one worker and one thread of ONNX Runtime, and serves the same ONNX file (digits, trained on the first
run). The packaged servers are installed into environments of their own below the cache folder. The servers take turns
within each round, so that a noisy machine is noisy for all, and are stopped (SIGSTOP) between their turns; of each
figure the best round counts. wrk needs a core of its own; where it has none, or others use the machine, the processor
time of a request says more than the requests a second.
"""

import argparse
import json
import os
import platform
import re
import resource
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path

import psutil

from benchmarks.digits import trained
from contract.paths import ROOT

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ml-platform" / "benchmarks"
PEERS = ROOT / "benchmarks" / "peers"
V2 = "/v2/models/digits/infer"


@dataclass(frozen=True)
class Server:
    """A way to serve the model."""

    command: str
    path: str = V2
    body: str = "v2"
    packages: tuple[str, ...] = ()
    """What its own environment holds; empty for this one."""
    prepare: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    settings: str = ""


CAPTURE = {
    "MLP_CAPTURE_STREAM": "predictions",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:{firehose}",
    "AWS_ACCESS_KEY_ID": "none",
    "AWS_SECRET_ACCESS_KEY": "none",
    "AWS_REGION": "eu-west-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
SERVICE = "{python} -m services.inference --port {port}"
SERVERS = {
    "empty ASGI route": Server("{python} {peers}/asgi_empty.py {port}", settings="uvicorn, uvloop, httptools"),
    "bare ASGI + ONNX": Server("{python} {peers}/asgi_bare.py {port}", settings="uvicorn, uvloop, httptools, msgspec"),
    "service": Server(SERVICE, environment=CAPTURE, settings="versions, metrics, limits, ids and capture of all on"),
    "service, no capture": Server(SERVICE, settings="the same without capture"),
    "FastAPI + pydantic": Server("{python} {peers}/fastapi_pydantic.py {port}", settings="async route, uvloop"),
    "mlserver": Server(
        "{bin}/mlserver start {work}",
        packages=("mlserver", "onnxruntime"),
        settings="custom runtime, parallel_workers 0, no gRPC traffic",
    ),
    "litserve": Server(
        "{bin}/python {peers}/litserve_server.py {port}",
        "/predict",
        "instances",
        packages=("litserve", "onnxruntime", "numpy"),
        settings="fast_queue, one worker",
    ),
    "bentoml": Server(
        "{bin}/bentoml serve bentoml_server:Digits --port {port} --working-dir {peers}",
        "/predict",
        "instances",
        packages=("bentoml", "onnxruntime", "numpy"),
        settings="async API, one worker, no access log, no metrics",
    ),
    "mlflow": Server(
        "{bin}/mlflow models serve --model-uri {work}/model --port {port} --env-manager local --workers 1",
        "/invocations",
        "inputs",
        packages=("mlflow", "onnx", "onnxruntime"),
        prepare="{bin}/python {peers}/mlflow_model.py {work}/model",
        settings="mlflow models serve, env-manager local, one worker",
    ),
}
PACKAGED = [name for name, server in SERVERS.items() if server.packages]


@dataclass(frozen=True)
class Result:
    """What wrk and the operating system have seen of one round."""

    rate: float
    p50_ms: float
    p99_ms: float
    cpu_us: float = 0.0
    """Processor time of the server's processes, a request."""
    wrk_cores: float = 0.0
    """How many processors wrk took."""


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    url: str
    process: psutil.Process

    @property
    def family(self) -> list[psutil.Process]:
        """All its processes."""
        return [self.process, *self.process.children(recursive=True)]

    def cpu_seconds(self) -> float:
        """Processor time so far, of all its processes."""
        return sum(of.user + of.system for of in (member.cpu_times() for member in self.family))

    def pause(self) -> None:
        """Take no processor time until `go_on`: some servers do while they wait for requests."""
        for member in self.family:
            member.suspend()

    def go_on(self) -> None:
        """Take requests again."""
        for member in self.family:
            member.resume()
        time.sleep(0.1)  # what has piled up meanwhile


def main() -> None:
    """Print versions, settings, a table for each load, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", nargs="*", default=PACKAGED, choices=PACKAGED, metavar="PEER")
    parser.add_argument("--connections", nargs="*", type=int, default=[1, 8, 64])
    parser.add_argument("--rows", nargs="*", type=int, default=[1, 32])
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=CACHE)
    arguments = parser.parse_args()
    model = trained(arguments.cache)
    names = [name for name, server in SERVERS.items() if not server.packages or name in arguments.peers]
    environments = {name: environment_of(name, arguments.cache) for name in names}
    print_versions({name: environments[name] for name in names if SERVERS[name].packages})
    print(
        f"\nbare ONNX Runtime loop: {onnx_rate(model, 1):,.0f} runs/s of 1 row, {onnx_rate(model, 32):,.0f} of 32 rows"
    )
    with ExitStack() as stack:
        firehose = free_port()
        # With the lowest priority: a real Firehose does not take processor time from the server.
        receiver = ["nice", "-n", "19", sys.executable, str(PEERS / "firehose.py"), str(firehose)]
        stack.enter_context(process(receiver, {}, PEERS))
        servers = {
            name: stack.enter_context(running(name, model, environments[name], arguments.cache, firehose))
            for name in names
        }
        for server in servers.values():
            server.pause()
        for rows in arguments.rows:
            for connections in arguments.connections:
                load = measure(servers, rows, connections, arguments)
                print_table(load, rows, connections)
        servers["service"].go_on()
        print_captured(servers["service"])
    print_workers(model, arguments)


def environment_of(name: str, cache: Path) -> Path:
    """The folder of executables for a server; its environment is made if there is none."""
    packages = SERVERS[name].packages
    if not packages:
        return Path(sys.executable).parent
    folder = cache / "environments" / name
    if not (folder / "complete").exists():
        print(f"installing {name}, once", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([folder / "bin" / "pip", "install", "--quiet", *packages], check=True)
        (folder / "complete").touch()
    return folder / "bin"


@contextmanager
def running(name: str, model: Path, executables: Path, cache: Path, firehose: int) -> Iterator[Running]:
    """A server, started and asked once."""
    server, port = SERVERS[name], free_port()
    work = cache / "work" / name.replace(" ", "-")
    work.mkdir(parents=True, exist_ok=True)
    if name == "mlserver":
        settings = {"parallel_workers": 0, "http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
        (work / "settings.json").write_text(json.dumps(settings | {"debug": False, "host": "127.0.0.1"}))
        (work / "model-settings.json").write_text(
            json.dumps({"name": "digits", "implementation": "mlserver_runtime.Digits"})
        )
    places = {
        "python": sys.executable,
        "bin": str(executables),
        "peers": str(PEERS),
        "port": str(port),
        "work": str(work),
    }
    environment = {"MODEL": str(model), "SM_MODEL_DIR": str(model), "PYTHONPATH": f"{ROOT}:{PEERS}"}
    if server.packages:
        environment |= {"PYTHONPATH": str(PEERS), "PATH": f"{executables}:{os.environ['PATH']}"}
    environment |= {key: value.format(firehose=firehose) for key, value in server.environment.items()}
    if server.prepare and not (work / "model").exists():
        subprocess.run(server.prepare.format(**places).split(), env=os.environ | environment, check=True)
    with process(server.command.format(**places).split(), environment, ROOT) as started:
        url = f"http://127.0.0.1:{port}{server.path}"
        wait_until_it_answers(url, body_of(server.body, 1), name)
        yield Running(url, started)


@contextmanager
def process(command: list[str], environment: dict[str, str], folder: Path) -> Iterator[psutil.Process]:
    """A process, ended with all that it has started."""
    started = subprocess.Popen(
        command,
        env=os.environ | environment,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    known = psutil.Process(started.pid)
    try:
        yield known
    finally:
        family = [*known.children(recursive=True), known]
        for member in family:
            member.resume()  # one that is paused would not end
            member.terminate()
        _, alive = psutil.wait_procs(family, timeout=10)
        for member in alive:
            member.kill()
        started.wait()


def wait_until_it_answers(url: str, body: bytes, name: str) -> None:
    """Ask until there is an answer.

    Raises:
        SystemExit: after a minute, or with what is wrong about the answer.
    """
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                answer.read()
                return
        except urllib.error.HTTPError as error:
            if error.code not in (404, 503) or time.monotonic() > deadline:
                sys.exit(f"{name} answers {error.code}: {error.read()[:300]!r}")
        except OSError as error:
            if time.monotonic() > deadline:
                sys.exit(f"{name} does not answer: {error}")
        time.sleep(0.2)


def body_of(kind: str, rows: int) -> bytes:
    """The same rows in the form that a server takes them."""
    row = json.loads((ROOT / "training/models/digits/sample.json").read_text())["instances"][0]
    if kind == "v2":
        tensor = {"name": "features", "datatype": "FP32", "shape": [rows, 64], "data": row * rows}
        return json.dumps({"inputs": [tensor]}, separators=(",", ":")).encode()
    if kind == "inputs":
        row = [float(number) for number in row]  # MLflow makes whole numbers integers, which the model does not take
    return json.dumps({kind: [row] * rows}, separators=(",", ":")).encode()


def measure(
    servers: dict[str, Running], rows: int, connections: int, arguments: argparse.Namespace
) -> dict[str, Result]:
    """The best round of each server, figure by figure."""
    results: dict[str, list[Result]] = {name: [] for name in servers}
    for _ in range(arguments.rounds):
        for name, server in servers.items():
            server.go_on()
            body, before = body_of(SERVERS[name].body, rows), server.cpu_seconds()
            result = wrk(server.url, body, connections, arguments.seconds, arguments.cache)
            cpu_us = 1e6 * (server.cpu_seconds() - before) / (result.rate * arguments.seconds)
            results[name].append(replace(result, cpu_us=cpu_us))
            server.pause()
    return {name: best(rounds) for name, rounds in results.items()}


def best(rounds: list[Result]) -> Result:
    """The highest rate, and the shortest times."""
    rates, p50s, p99s, cpus, wrks = zip(*map(astuple, rounds), strict=True)
    return Result(max(rates), min(p50s), min(p99s), min(cpus), min(wrks))


def wrk(url: str, body: bytes, connections: int, seconds: int, cache: Path) -> Result:
    """One round of load, closed loop."""
    script = cache / "request.lua"
    content = f'wrk.method="POST" wrk.headers["content-type"]="application/json" wrk.body=[==[{body.decode()}]==]'
    script.write_text(content)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script), url]
    taken = resource.getrusage(resource.RUSAGE_CHILDREN)
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    wrk_s = now.ru_utime + now.ru_stime - taken.ru_utime - taken.ru_stime
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    p50, p99 = (re.search(rf"{share}%\s+([\d.]+)(us|ms|s)", text) for share in (50, 99))
    if not (rate and p50 and p99):
        sys.exit(f"wrk says nothing of use: {text}")
    if failed := re.search(r"Non-2xx or 3xx responses: (\d+)", text):
        sys.exit(f"{url}: {failed[1]} answers were errors, whose rate says nothing")
    to_ms = {"us": 0.001, "ms": 1.0, "s": 1000.0}
    times = [float(of[1]) * to_ms[of[2]] for of in (p50, p99)]
    return Result(float(rate[1]), *times, wrk_cores=wrk_s / seconds)


def print_versions(environments: dict[str, Path]) -> None:
    """What was measured, with which settings."""
    print(
        f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}"
    )
    installed = {"this environment": Path(sys.executable).parent} | environments
    wanted = {"fastapi", "uvicorn", "onnxruntime", "msgspec", *PACKAGED}
    for name, executables in installed.items():
        command = [executables / "python", "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"]
        listed = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        known = [f"{of['name']} {of['version']}" for of in listed if of["name"].lower() in wanted]
        print(f"{name}: {', '.join(known)}")
    for name in SERVERS:
        print(f"  {name}: {SERVERS[name].settings}")


def print_table(results: dict[str, Result], rows: int, connections: int) -> None:
    """One load, and how the service stands in it."""
    print(f"\n{rows} rows, {connections} connections")
    print(f"{'':22} {'requests/s':>10} {'p50 ms':>8} {'p99 ms':>8} {'CPU us':>8}")
    for name, result in results.items():
        times = f"{result.p50_ms:8.2f} {result.p99_ms:8.2f} {result.cpu_us:8.0f}"
        print(f"{name:22} {result.rate:10,.0f} {times}")
    service, bare = results["service"], results["bare ASGI + ONNX"]
    by_cpu = bare.cpu_us / service.cpu_us
    print(f"service / bare: {service.rate / bare.rate:.2f} ({by_cpu:.2f} by processor time)", end="")
    packaged = {name: result for name, result in results.items() if SERVERS[name].packages}
    if packaged:
        peer = max(packaged, key=lambda name: packaged[name].rate)
        print(
            f"; service / {peer}: {service.rate / packaged[peer].rate:.1f}, "
            f"p99 {service.p99_ms / packaged[peer].p99_ms:.2f} of its",
            end="",
        )
    print()


def print_captured(service: Running) -> None:
    """What has become of the captured lines: a capture that fails would cost less than one that works."""
    with urllib.request.urlopen(service.url.replace(V2, "/metrics")) as answer:
        metrics = answer.read().decode()
    counts = {line.split("{")[0]: float(line.split()[1]) for line in metrics.splitlines() if "_total{stream" in line}
    delivered, lost = (counts.get(f"mlp_capture_{what}_total", 0) for what in ("delivered", "lost"))
    resident = service.process.memory_info().rss / 2**20
    print(f"\ncaptured lines: {delivered:,.0f} delivered, {lost:,.0f} lost; {resident:.0f} MB resident with capture")
    if lost or not delivered:
        sys.exit("the capture did not work, so the service was not measured with it")


def print_workers(model: Path, arguments: argparse.Namespace) -> None:
    """How two workers scale, next to one, and the memory of a worker.

    With one row wrk takes so much of two cores that it is the limit; with 32 it leaves nearly all to the server.
    """
    results: dict[tuple[int, int], Result] = {}
    for workers in (1, 2):
        port = free_port()
        command = [sys.executable, "-m", "services.inference", "--port", str(port), "--workers", str(workers)]
        environment = {"SM_MODEL_DIR": str(model), "PYTHONPATH": str(ROOT)}
        with process(command, environment, ROOT) as parent:
            url = f"http://127.0.0.1:{port}{V2}"
            wait_until_it_answers(url, body_of("v2", 1), "service")
            time.sleep(1)
            for rows in (1, 32):
                rounds = [
                    wrk(url, body_of("v2", rows), 64, arguments.seconds, arguments.cache)
                    for _ in range(arguments.rounds)
                ]
                results[workers, rows] = best(rounds)
            memory = [member.memory_full_info() for member in parent.children() or [parent]]
            resident, shared = (
                statistics.mean(of) / 2**20 for of in zip(*((m.rss, m.pss) for m in memory), strict=True)
            )
        print(f"\n{workers} workers: {resident:.0f} MB resident each ({shared:.0f} with what they share divided)")
    for rows in (1, 32):
        one, two = results[1, rows], results[2, rows]
        print(
            f"{rows} rows, 64 connections: {one.rate:,.0f} requests/s with one, {two.rate:,.0f} with two, "
            f"{two.rate / one.rate:.2f} times; of {os.cpu_count()} cores wrk took {two.wrk_cores:.2f}"
        )


def onnx_rate(model: Path, rows: int) -> float:
    """Predictions a second in a loop of nothing else."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model / "model.onnx", options)
    features = np.zeros((rows, 64), np.float32)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < 1:
        session.run(["label", "probabilities"], {"features": features})
        count += 1
    return count / (time.perf_counter() - start)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
