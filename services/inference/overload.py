"""What keeps the service up when more is asked than it can do: a bounded queue, a deadline, threads for long work."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from contract.service import ServiceSettings
from services.inference.protocol import RequestError

Answer = TypeVar("Answer")

_RETRY_AFTER_S = 1


class Gate:
    """Lets requests in as long as the queue has room.

    The queue is the requests that have arrived and are not answered.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self._limit = settings.max_queue
        self._deadline_s = settings.deadline_ms / 1000
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._threads = ThreadPoolExecutor(max(1, cores // settings.workers), "predict")
        self.in_flight = 0
        """Requests being answered."""
        self.is_draining = False
        """Whether new requests should go elsewhere."""

    def enter(self) -> None:
        """Take a place in the queue, which `leave` has to give back even if there is no room.

        Raises:
            RequestError: if there is none.
        """
        self.in_flight += 1
        if self.in_flight > self._limit:
            raise RequestError(503, f"{self._limit} requests are waiting already; try again later", _RETRY_AFTER_S)

    def leave(self, places: int = 1) -> None:
        """Give places back."""
        self.in_flight -= places

    def check(self, arrived: float) -> None:
        """Refuse what is too late already.

        Raises:
            RequestError: if so.
        """
        if time.perf_counter() - arrived > self._deadline_s:
            raise self._too_late()

    async def in_thread(self, work: Callable[..., Answer], arguments: tuple[Any, ...], arrived: float) -> Answer:
        """Do what would hold up the event loop in a thread, where ONNX Runtime lets other threads run.

        Raises:
            RequestError: if it is not done by the deadline; what has not begun by then never does.
        """

        def begin() -> Answer:
            self.check(arrived)
            return work(*arguments)

        done = asyncio.get_running_loop().run_in_executor(self._threads, begin)
        try:
            return await asyncio.wait_for(done, arrived + self._deadline_s - time.perf_counter())
        except TimeoutError:
            raise self._too_late() from None

    async def until_deadline(self, work: Awaitable[Answer], arrived: float) -> Answer:
        """Wait for the client, no longer than until the deadline.

        Raises:
            RequestError: if it takes longer.
        """
        try:
            async with asyncio.timeout(arrived + self._deadline_s - time.perf_counter()):
                return await work
        except TimeoutError:
            raise RequestError(408, f"the body did not arrive within {self._deadline_s:g} s") from None

    def _too_late(self) -> RequestError:
        return RequestError(504, f"not answered within {self._deadline_s:g} s; try again later", _RETRY_AFTER_S)
