"""Several workers: processes that share one listening socket, watched over by this one.

They are processes of their own rather than forks, so that one that is killed takes nothing with it but the requests
that it was answering: connections that wait to be accepted belong to the socket, and go to the others.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from services.inference.logs import configure_logs

logger = logging.getLogger(__name__)

_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_LIVED_LONG_S = 60.0
_INVALID = 2


@dataclass
class Slot:
    """The place of a worker: who has it, and when it may be taken again."""

    number: int
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    pause: float = _SHORTEST_PAUSE_S
    due: float = 0.0


def supervise(count: int, listener: socket.socket) -> int:
    """Run workers until SIGTERM or SIGINT, and start each that ends anew; a second signal reaches them like the first.

    Returns:
        The exit status: 2 if a worker refuses its environment, or else 0.
    """
    configure_logs()
    slots = [Slot(number) for number in range(count)]
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        if stopping:
            _terminate(slots)
        stopping = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    with tempfile.TemporaryDirectory(prefix="mlp-metrics-") as folder:
        status = 0
        while not stopping and status != _INVALID:
            for slot in slots:
                if slot.process is None and time.monotonic() >= slot.due:
                    _start(slot, listener, Path(folder))
                elif slot.process and slot.process.poll() is not None:
                    status = _note_end(slot, slot.process.returncode)
            time.sleep(0.05)  # a signal ends it early
        _terminate(slots)
        for slot in slots:
            if slot.process:
                slot.process.wait()
    return _INVALID if status == _INVALID else 0


def _start(slot: Slot, listener: socket.socket, folder: Path) -> None:
    command = [sys.executable, "-m", "services.inference", "--fd", str(listener.fileno()), "--workers", "1"]
    of = {
        "MLP_WORKER": str(slot.number),
        "MLP_METRICS_FOLDER": str(folder),
        "MLP_SUPERVISOR": str(os.getpid()),
    }
    slot.process = subprocess.Popen(command, env=os.environ | of, pass_fds=(listener.fileno(),), start_new_session=True)
    slot.started = time.monotonic()


def _note_end(slot: Slot, status: int) -> int:
    """Say that a worker has ended, and let its place rest for a moment, longer each time that it did not live long."""
    lived = time.monotonic() - slot.started
    slot.pause = _SHORTEST_PAUSE_S if lived > _LIVED_LONG_S else min(2 * slot.pause, _LONGEST_PAUSE_S)
    slot.due = time.monotonic() + (0 if lived > 1 else slot.pause)
    slot.process = None
    logger.error("a worker has ended", extra={"worker": slot.number, "status": status, "seconds": round(lived, 1)})
    return status


def _terminate(slots: list[Slot]) -> None:
    for slot in slots:
        if slot.process:
            slot.process.terminate()
