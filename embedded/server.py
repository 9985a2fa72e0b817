"""The emulated AWS as a process of its own: moto's server on a socket that the parent has already bound.

It keeps everything in memory; when the process ends, its buckets, parameters and model packages are gone.
"""

import argparse
import signal
import socket
import sys

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="file descriptor of a listening socket")
    fd = parser.parse_args().fd
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    listener = socket.socket(fileno=fd)
    host, port = listener.getsockname()
    server = make_server(
        host,
        port,
        DomainDispatcherApplication(create_backend_app),
        threaded=True,
        request_handler=MotoRequestHandler,
        fd=fd,
    )
    server.serve_forever()


if __name__ == "__main__":
    main()
