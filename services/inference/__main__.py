"""Runs the service with uvicorn: `python -m services.inference --port 8080`."""

import argparse
import signal
import socket
import sys

import uvicorn

from contract.errors import PlatformError
from services.inference.app import create_app
from services.inference.logs import configure_logs


def main() -> int:
    """Serve until SIGTERM or SIGINT, and finish what has begun."""
    parser = argparse.ArgumentParser(prog="python -m services.inference", description=__doc__)
    parser.add_argument("command", nargs="?", choices=["serve"], help="SageMaker says so; there is nothing else")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--fd", type=int, help="file descriptor of a listening socket, instead of host and port")
    arguments = parser.parse_args()
    try:
        app = create_app()
    except PlatformError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        listener = _listen(arguments.host, arguments.port) if arguments.fd is None else _adopt(arguments.fd)
    except (OSError, OverflowError) as error:
        where = f"{arguments.host}:{arguments.port}" if arguments.fd is None else f"file descriptor {arguments.fd}"
        print(f"cannot listen on {where}: {getattr(error, 'strerror', None) or error}", file=sys.stderr)
        return 1
    configure_logs()
    # uvicorn raises the signal again when it has finished; a wanted end is a success.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # it is a middleware, and nothing here asks for the client's address
        server_header=False,
        timeout_keep_alive=75,  # longer than a load balancer's 60 s, or it would send into a closing connection
        timeout_graceful_shutdown=20,
    )
    uvicorn.Server(config).run(sockets=[listener])
    return 0


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
