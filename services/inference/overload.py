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
_FEW = 32


class Gate:
    """Lets requests in as long as the queue has room.

    The queue is the requests that have arrived and are not answered. Those that the event loop answers by itself are
    never seen waiting: their tasks lie ready and run one after another, in one pass of the loop. So a pass counts all
    that it runs, and gives the places back when it has ended; those that wait for a body or a thread keep theirs.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self._limit = settings.max_queue
        self._few = min(_FEW, self._limit)
        self._deadline_s = settings.deadline_ms / 1000
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._threads = ThreadPoolExecutor(max(1, cores // settings.workers), "predict")
        self._taken = 0
        self._left = 0
        self._arrived = 0.0
        self._in_pass = False
        self._in_this_pass = 0
        self.has_company = False
        """Whether requests come several at a time: whether the last pass had more than one."""
        self.is_draining = False
        """Whether new requests should go elsewhere."""

    @property
    def in_flight(self) -> int:
        """Requests being answered."""
        return self._taken - self._left

    def enter(self) -> float:
        """Take a place in the queue, which `leave` has to give back.

        Returns:
            When the request had arrived at the latest: before the pass that it is answered in.
        """
        if not self._in_pass:
            self._in_pass = True
            self._taken -= self._left
            self._left = 0
            self._arrived = time.perf_counter()
            asyncio.get_running_loop().call_soon(self._end_pass)
        self._in_this_pass += 1
        self._taken += 1
        return self._arrived

    def check(self, arrived: float) -> None:
        """Refuse what there was no room for, or what is too late already.

        Raises:
            RequestError: if so.
        """
        if self._taken <= self._few:
            return  # these few have not waited for longer than a moment
        if self._taken > self._limit:
            raise RequestError(503, f"{self._limit} requests are waiting already; try again later", _RETRY_AFTER_S)
        if time.perf_counter() - arrived > self._deadline_s:
            raise self._too_late()

    def leave(self) -> None:
        """Give a place back."""
        self._left += 1

    async def in_thread(self, work: Callable[..., Answer], arguments: tuple[Any, ...], arrived: float) -> Answer:
        """Do what would hold up the event loop in a thread, where ONNX Runtime lets other threads run.

        Raises:
            RequestError: if it is not done by the deadline; what has not begun by then never does.
        """

        def begin() -> Answer:
            if time.perf_counter() - arrived > self._deadline_s:
                raise self._too_late()
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

    def _end_pass(self) -> None:
        self.has_company = self._in_this_pass > 1
        self._in_this_pass = 0
        self._in_pass = False

    def _too_late(self) -> RequestError:
        return RequestError(504, f"not answered within {self._deadline_s:g} s; try again later", _RETRY_AFTER_S)
