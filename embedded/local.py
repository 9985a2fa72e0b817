"""The laptop platform: its processes, its stack and where it stands, for the commands to build on."""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from contract.errors import PlatformError
from contract.outputs import Outputs
from contract.paths import ROOT
from contract.strict import parse
from embedded.files import write_atomically
from embedded.processes import Process, Processes, listen

AWS, INFERENCE = "aws", "inference"


@dataclass(frozen=True)
class Local:
    """The one laptop platform of a checkout; `folder` keeps what it must remember between commands."""

    folder: Path

    @classmethod
    def of_this_checkout(cls) -> "Local":
        """The platform whose state is in `.mlp/`, or in the folder that MLP_STATE names."""
        return cls(Path(os.environ.get("MLP_STATE") or ROOT / ".mlp").resolve())

    @cached_property
    def processes(self) -> Processes:
        """The platform's processes."""
        return Processes(self.folder)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the lock that keeps two commands from changing the platform at the same time.

        Raises:
            PlatformError: if another command holds it, or the folder cannot be written.
        """
        write_atomically(self.folder / ".gitignore", "*\n")
        with (self.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise PlatformError("another mlp command is changing the platform; wait until it has ended") from None
            yield

    def start_aws(self) -> tuple[Process, bool]:
        """Start the emulated AWS unless it runs; tell whether it was started."""
        known = self.processes.get(AWS)
        if known and known.state == "running":
            return known, False
        # After a crash the same port keeps what points there valid.
        process = self.processes.start(AWS, ["embedded.server"], _without_aws(), "", _again(known))
        self.processes.wait_until_ready(process, "/moto-api/")
        return process, True

    def use_aws(self, region: str | None = None) -> None:
        """Point this process's AWS clients at the emulated AWS, away from any account of the user's.

        Args:
            region: the region, or None for that of the stack's outputs.

        Raises:
            PlatformError: if the emulated AWS is not running.
        """
        process = self.processes.get(AWS)
        if not process or process.state != "running":
            raise PlatformError("the platform is not up; run `mlp up`")
        environment = _without_aws() | aws_environment(process, region or self.outputs().region)
        os.environ.clear()
        os.environ.update(environment)

    def start_service(self, outputs: Outputs, port: int | None, anew: bool) -> tuple[Process, bool]:
        """Start the inference service unless it runs as it should; tell whether it was started.

        Args:
            outputs: the stack's outputs, which configure it.
            port: the port to listen on, or None for the one it had, or any.
            anew: start it even if it runs, because what it talks to is new.
        """
        aws = self.processes.get(AWS)
        if not aws:
            raise PlatformError("the emulated AWS is not running; run `mlp up`")
        # Nothing makes metrics of a laptop's log; /metrics has them.
        settings = outputs.service_settings.model_copy(update={"metrics_namespace": None})
        environment = settings.environment() | aws_environment(aws, outputs.region)
        fingerprint = _fingerprint(environment)
        known = self.processes.get(INFERENCE)
        fits = known and known.fingerprint == fingerprint and port in (None, known.port)
        if known and known.state == "running" and fits and not anew:
            return known, False
        self.check_port(port)
        if known:
            known.stop()
        command = ["services.inference"]
        wanted = _again(known) if port is None else port
        process = self.processes.start(INFERENCE, command, _without_aws() | environment, fingerprint, wanted)
        return process, True

    def check_port(self, port: int | None) -> None:
        """Raise PlatformError if the service is to listen on a port that something else has taken."""
        known = self.processes.get(INFERENCE)
        if port and not (known and known.port == port and known.state == "running"):
            listen(port).close()

    def save_outputs(self, outputs: Outputs) -> None:
        """Remember the stack's outputs for the commands to come."""
        write_atomically(self.folder / "outputs.json", outputs.model_dump_json(indent=1))

    def outputs(self) -> Outputs:
        """The stack's outputs.

        Raises:
            PlatformError: if the platform has never been up.
        """
        file = self.folder / "outputs.json"
        if not file.exists():
            raise PlatformError("the platform is not up; run `mlp up`")
        return parse(Outputs, json.loads(file.read_text()), file)

    def stop(self, report: Callable[[Process], None]) -> None:
        """Stop every process, the service before what it needs, and forget what went with them."""
        for process in reversed(self.processes.all()):
            self.processes.stop(process.name)
            report(process)
        for name in ("outputs.json", "state.json"):
            (self.folder / name).unlink(missing_ok=True)


def aws_environment(process: Process, region: str) -> dict[str, str]:
    """The variables that lead an AWS client to the emulated AWS, and past the user's own files."""
    return {
        "AWS_ENDPOINT_URL": process.url,
        "AWS_ACCESS_KEY_ID": "emulated",
        "AWS_SECRET_ACCESS_KEY": "emulated",
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def _again(known: Process | None) -> int:
    """The port that a process had, if it is free, or else any."""
    try:
        listen(known.port if known else 0).close()
    except PlatformError:
        return 0
    return known.port if known else 0


def _without_aws() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}


def _fingerprint(environment: dict[str, str]) -> str:
    """Tells one configuration and code of the service from another."""
    digest = hashlib.sha256(repr(sorted(environment.items())).encode())
    for folder in ("contract", "services"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()
