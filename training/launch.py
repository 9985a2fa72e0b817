"""The start of a training container, the same on SageMaker, Batch and Kubernetes.

    python -m training.launch STEP MODEL

It fetches the work folder from S3, runs `python -m training STEP MODEL` (under torchrun if the job has several
processes), and brings back what changes, while it runs and in the end. On SageMaker, which does so itself with a folder
of checkpoints, the work folder is that one. It is told by its environment:

- MLP_WORK: the work folder, local or an S3 prefix;
- MLP_OUTPUTS: a file in it with the stack's outputs;
- MLP_PROCESSES: processes on this instance, one a GPU;
- who the other instances are, each backend in its own way.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PORT = 29500
SECONDS_BETWEEN_UPLOADS = 60
RESOURCES = Path("/opt/ml/input/config/resourceconfig.json")
"""Where SageMaker tells a container of its hosts."""


@dataclass(frozen=True)
class Peers:
    """The instances of a job: how many, which of them this is, and the first one's address."""

    nodes: int = 1
    rank: int = 0
    master: str = "127.0.0.1"

    @classmethod
    def find(cls, environment: Mapping[str, str], resources: Path = RESOURCES) -> "Peers":
        """Read what the backend that this container runs on tells of them."""
        if resources.exists():
            told = json.loads(resources.read_text())
            hosts = sorted(told["hosts"])
            return cls(len(hosts), hosts.index(told["current_host"]), hosts[0])
        if nodes := environment.get("AWS_BATCH_JOB_NUM_NODES"):
            rank = int(environment["AWS_BATCH_JOB_NODE_INDEX"])
            # The first one is not told its own address, and needs none.
            return cls(int(nodes), rank, environment.get("AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS", cls.master))
        if nodes := environment.get("MLP_NODES"):
            return cls(int(nodes), int(environment.get("JOB_COMPLETION_INDEX", "0")), environment["MLP_MASTER"])
        return cls()


def command(peers: Peers, processes: int, arguments: list[str]) -> list[str]:
    """The command that runs a step: under torchrun if there is more than one process in the job."""
    if peers.nodes * processes == 1:
        return [sys.executable, "-m", "training", *arguments]
    return [
        *(sys.executable, "-m", "torch.distributed.run"),
        f"--nnodes={peers.nodes}",
        f"--node-rank={peers.rank}",
        f"--nproc-per-node={processes}",
        f"--master-addr={peers.master}",
        f"--master-port={PORT}",
        *("-m", "training", *arguments),
    ]


def main() -> None:
    """Run the step that the command line names; exit with its status."""
    environment = dict(os.environ)
    peers = Peers.find(environment)
    processes = int(environment.get("MLP_PROCESSES", "1"))
    with local_work(environment, keep=peers.rank == 0) as told:
        sys.exit(run(command(peers, processes, sys.argv[1:]), told))


def run(command: list[str], environment: Mapping[str, str]) -> int:
    """Run a command to its end, and hand it the signal with which a backend takes an instance back."""
    with subprocess.Popen(command, env=dict(environment)) as job:
        signal.signal(signal.SIGTERM, lambda *_: job.terminate())
        status = job.wait()
    return 128 - status if status < 0 else status  # as a shell has it for a process that a signal ended


@contextmanager
def local_work(environment: dict[str, str], *, keep: bool) -> Iterator[dict[str, str]]:
    """Give an environment in which the work folder is local, and bring its changes back to S3.

    Args:
        environment: the container's.
        keep: whether this instance brings the changes back; one of a job does.
    """
    work = environment.get("MLP_WORK", "")
    if not work.startswith("s3://"):
        yield environment
        return
    with tempfile.TemporaryDirectory() as folder:
        remote = RemoteFolder(work, Path(folder))
        remote.fetch()
        told = {name: value.replace(work, folder, 1) for name, value in environment.items() if value.startswith(work)}
        done = threading.Event()
        uploads = threading.Thread(target=_bring_back, args=(remote, done), daemon=True)
        if keep:
            uploads.start()
        try:
            yield environment | told
        finally:
            done.set()
            if keep:
                uploads.join()
                remote.bring_back()


def _bring_back(remote: "RemoteFolder", done: threading.Event) -> None:
    while not done.wait(SECONDS_BETWEEN_UPLOADS):
        remote.bring_back()


class RemoteFolder:
    """A local copy of the objects below an S3 prefix."""

    def __init__(self, uri: str, folder: Path) -> None:
        import boto3  # a step that works locally needs none

        self._bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        self._prefix, self._folder = f"{prefix.rstrip('/')}/", folder
        self._s3 = boto3.client("s3")
        self._known: dict[Path, tuple[int, int]] = {}

    def fetch(self) -> None:
        """Download every object."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
        for found in (item for page in pages for item in page.get("Contents", [])):
            file = self._folder / found["Key"].removeprefix(self._prefix)
            file.parent.mkdir(parents=True, exist_ok=True)
            self._s3.download_file(self._bucket, found["Key"], str(file))
            self._known[file] = _state(file)

    def bring_back(self) -> None:
        """Upload the files that are new or have changed; nothing is ever deleted."""
        for file in sorted(path for path in self._folder.rglob("*") if path.is_file()):
            try:
                state = _state(file)
                if self._known.get(file) != state:
                    key = self._prefix + file.relative_to(self._folder).as_posix()
                    self._s3.upload_file(str(file), self._bucket, key)
                    self._known[file] = state
            except FileNotFoundError:
                continue  # a step has moved it on in the meantime


def _state(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_mtime_ns, found.st_size


if __name__ == "__main__":
    main()
