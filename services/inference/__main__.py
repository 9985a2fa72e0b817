"""Runs the service with uvicorn: `python -m services.inference --port 8080`."""

import argparse
import os
import socket
import sys
from pathlib import Path

from contract.errors import PlatformError
from contract.service import PORT


def main() -> int:
    """Serve until SIGTERM or SIGINT, and finish what has begun."""
    parser = argparse.ArgumentParser(prog="python -m services.inference", description=__doc__)
    parser.add_argument("command", nargs="?", choices=["serve"], help="SageMaker says so; there is nothing else")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--fd", type=int, help="file descriptor of a listening socket, instead of host and port")
    parser.add_argument("--workers", type=_count, help="processes that share the port (default: MLP_WORKERS, or 1)")
    arguments = parser.parse_args()
    workers = arguments.workers or os.environ.get("MLP_WORKERS") or "1"
    try:
        listener = _listen(arguments.host, arguments.port) if arguments.fd is None else _adopt(arguments.fd)
    except (OSError, OverflowError) as error:
        where = f"{arguments.host}:{arguments.port}" if arguments.fd is None else f"file descriptor {arguments.fd}"
        print(f"cannot listen on {where}: {getattr(error, 'strerror', None) or error}", file=sys.stderr)
        return 1
    if workers != "1" and workers.isdigit():
        from services.inference.workers import supervise  # it needs nothing of what the workers load

        os.environ["MLP_WORKERS"] = workers
        return supervise(int(workers), listener)
    return _work(listener)


def _work(listener: socket.socket) -> int:
    from services.inference.app import create_app
    from services.inference.metrics import Metrics
    from services.inference.server import serve

    folder = os.environ.get("MLP_METRICS_FOLDER")
    metrics = Metrics(Path(folder) if folder else None, int(os.environ.get("MLP_WORKER", "0")))
    try:
        app = create_app(metrics=metrics)
    except PlatformError as error:
        print(error, file=sys.stderr)
        return 2
    serve(app, listener)
    return 0


def _count(text: str) -> str:
    if not text.isdigit() or not 1 <= int(text) <= 256:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to 256, given: {text!r}")
    return text


def _listen(host: str, port: int) -> socket.socket:
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    listener.listen(2048)
    return listener


def _adopt(fd: int) -> socket.socket:
    listener = socket.socket(fileno=fd)
    if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise OSError(0, "it is not a listening socket")
    return listener


if __name__ == "__main__":
    sys.exit(main())
