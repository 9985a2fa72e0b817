"""One worker: the application under uvicorn, and how it ends."""

import gc
import os
import signal
import socket
import sys
import time
from types import FrameType

import uvicorn

from services.inference.app import Service
from services.inference.connection import Connection
from services.inference.logs import configure_logs

_SHORTEST_DRAIN_S, _LONGEST_DRAIN_S = 1, 20
# How long the thread that sends captured lines may keep the interpreter while a request waits for it. With Python's own
# 5 ms the 99th percentile at 8 connections was three times as high.
_THREAD_TURN_S = 0.0001


def serve(service: Service, listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT, and finish what has begun."""
    configure_logs()
    sys.setswitchinterval(_THREAD_TURN_S)
    gc.collect()
    gc.freeze()
    # uvicorn raises the signal again when it has finished; a wanted end is a success.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    config = uvicorn.Config(
        service,
        interface="asgi3",
        loop="uvloop",
        http=Connection,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # it is a middleware, and nothing here asks for the client's address
        server_header=False,
        timeout_keep_alive=75,  # longer than a load balancer's 60 s, or it would send into a closing connection
        timeout_graceful_shutdown=_SHORTEST_DRAIN_S,
    )
    DrainingServer(config, service).run(sockets=[listener])


class DrainingServer(uvicorn.Server):
    """Stays open after the signal to end, but not ready, until the load balancer had time to notice.

    That is as long as the settings say and as requests are in flight; a second signal ends it at once.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._signal: int | None = None
        self._drained = (0.0, 0.0)
        self._supervisor = int(os.environ.get("MLP_SUPERVISOR", "0"))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain."""
        if self._signal is not None:
            super().handle_exit(sig, frame)
            return
        self._signal = sig
        self._service.drain()
        now, seconds = time.monotonic(), self._service.settings.drain_seconds
        self._drained = (now + seconds, now + max(seconds, _LONGEST_DRAIN_S))

    async def on_tick(self, counter: int) -> bool:
        """Look, every tenth of a second, whether it is time to end."""
        if self._supervisor not in (0, os.getppid()):
            self.should_exit = True  # nobody would ever end this process
        if self._signal is not None and not self.should_exit:
            earliest, latest = self._drained
            now = time.monotonic()
            if now >= latest or (now >= earliest and not self._service.in_flight):
                # What is left is for requests that do not predict.
                self.config.timeout_graceful_shutdown = max(_SHORTEST_DRAIN_S, round(latest - now))
                super().handle_exit(self._signal, None)
        return await super().on_tick(counter)
