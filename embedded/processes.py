"""Starts, watches and stops the laptop platform's processes, across runs of the command line."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import psutil

from contract.errors import PlatformError
from contract.paths import ROOT
from embedded.files import write_atomically

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Process:
    """A process that was started; `started` tells it from a later one that got the same pid."""

    name: str
    pid: int
    started: float
    port: int
    fingerprint: str
    """What it was started with; another fingerprint means that it has to be started anew."""

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{HOST}:{self.port}"

    @property
    def identity(self) -> str:
        """Tells this run of the process from any other."""
        return f"{self.pid}@{self.started}"

    @property
    def state(self) -> Literal["running", "died"]:
        """Whether the very process that was started is still there."""
        return "running" if self._handle() else "died"

    def stop(self, patience_s: float = 15) -> None:
        """End it: politely, then by force."""
        if handle := self._handle():
            try:
                handle.send_signal(signal.SIGTERM)
                handle.wait(patience_s)
            except psutil.TimeoutExpired:
                handle.kill()
                handle.wait(5)
            except psutil.NoSuchProcess:
                pass  # it ended by itself in the meantime

    def _handle(self) -> psutil.Process | None:
        try:
            handle = psutil.Process(self.pid)
            alive = handle.create_time() == self.started and handle.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return handle if alive else None


@dataclass(frozen=True)
class Processes:
    """The processes that this platform has started, remembered in a file in `folder`."""

    folder: Path

    def all(self) -> list[Process]:
        """Every process that was started and not stopped, alive or not, in the order of their start."""
        file = self.folder / "processes.json"
        return [Process(**known) for known in json.loads(file.read_text())] if file.exists() else []

    def get(self, name: str) -> Process | None:
        """The process with this name, alive or not."""
        return next((process for process in self.all() if process.name == name), None)

    def log(self, name: str) -> Path:
        """The file that takes the process's output."""
        return self.folder / "logs" / f"{name}.log"

    def start(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], fingerprint: str, port: int = 0
    ) -> Process:
        """Start `python -m <command> --fd <n>` on a listening socket that is bound here.

        Binding here rather than in the child means that no other process can take the port in between, and that a
        taken port is an error before anything has started.

        Args:
            name: name of the process.
            command: the module and its arguments.
            environment: its whole environment.
            fingerprint: what it is started with.
            port: the port to listen on; 0 takes any free one.

        Raises:
            PlatformError: if the port is taken or the log cannot be written.
        """
        with listen(port) as listener:
            try:
                self.log(name).parent.mkdir(parents=True, exist_ok=True)
                output = self.log(name).open("ab")
            except OSError as error:
                raise PlatformError(f"cannot write {self.log(name)}: {error.strerror}") from None
            with output:
                child = subprocess.Popen(
                    [sys.executable, "-m", *command, "--fd", str(listener.fileno())],
                    cwd=ROOT,
                    env=dict(environment),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(listener.fileno(),),
                    start_new_session=True,  # a Ctrl-C in the terminal is for the command, not for the platform
                )
            port = listener.getsockname()[1]
        process = Process(name, child.pid, psutil.Process(child.pid).create_time(), port, fingerprint)
        try:
            self._remember([*(other for other in self.all() if other.name != name), process])
        except PlatformError:
            process.stop()  # what is not remembered could never be stopped
            raise
        return process

    def stop(self, name: str) -> None:
        """End a process and forget it."""
        if process := self.get(name):
            process.stop()
            self._remember([other for other in self.all() if other.name != name])

    def wait_until_ready(self, process: Process, path: str, timeout_s: float = 30) -> None:
        """Wait until the process answers with 200.

        Raises:
            PlatformError: with the end of its log, if it dies or does not answer in time.
        """
        deadline = time.monotonic() + timeout_s
        answer = "no answer"
        while time.monotonic() < deadline and process.state == "running":
            try:
                with urllib.request.urlopen(process.url + path, timeout=5):
                    return
            except urllib.error.HTTPError as error:
                answer = f"status {error.code}: {error.read().decode(errors='replace')[:500]}"
            except OSError as error:
                answer = str(error)
            time.sleep(0.05)
        what = "died" if process.state == "died" else f"is not ready after {timeout_s:.0f} s ({answer})"
        lines = self.log(process.name).read_text(errors="replace").splitlines()[-15:]
        raise PlatformError("\n".join([f"{process.name} {what}; the end of {self.log(process.name)}:", *lines]))

    def _remember(self, processes: list[Process]) -> None:
        write_atomically(self.folder / "processes.json", json.dumps([asdict(process) for process in processes]))


def listen(port: int) -> socket.socket:
    """A socket that listens on a loopback port; 0 takes any free one.

    Raises:
        PlatformError: if the port is taken.
    """
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise PlatformError(
            f"port {port} cannot be used: {os.strerror(error.errno or 0)}; stop what listens there, or choose another "
            "with `mlp up --port N`"
        ) from None
    return listener
