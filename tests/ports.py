"""Ports for the servers that tests start."""

import random
import socket
from contextlib import suppress


def free_port() -> int:
    """A port on loopback that nothing listens on.

    It is none of those that systems give to outgoing connections: of all that tests open meanwhile, one could get it
    before the server does.
    """
    while True:
        port = random.SystemRandom().randrange(10_000, 32_768)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
