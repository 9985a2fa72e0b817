"""Builds what a Dockerfile says into a folder, without Docker: its files, its packages, its start command."""

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from contract.paths import ROOT


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Each instruction with its arguments, comments dropped and continued lines joined."""
    lines = [line for line in dockerfile.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in joined if line.strip()]


def context(into: Path) -> Path:
    """What the build gets to see of the repository: `.dockerignore` read as Docker reads it, the last match decides."""
    patterns = [line for line in (ROOT / ".dockerignore").read_text().split("\n") if line and line[0] != "#"]
    tracked = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(tracked, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\n"):
        if name and (ROOT / name).is_file() and _passes(name, patterns):
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, into / name)
    return into


def _passes(name: str, patterns: list[str]) -> bool:
    taken = True
    above = [name, *(str(parent) for parent in Path(name).parents if str(parent) != ".")]
    for pattern in patterns:
        bare = pattern.removeprefix("!").rstrip("/")
        forms = (bare, bare.removeprefix("**/"))
        parts = [*above, *Path(name).parts] if bare.startswith("**/") else above
        if any(fnmatch.fnmatchcase(part, form) for part in parts for form in forms):
            taken = pattern.startswith("!")
    return taken


@dataclass
class Image:
    """The last stage of a build, below a folder that stands for `/`."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    user: str = "root"
    entrypoint: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)

    def at(self, text: str) -> str:
        """A text in which the image's absolute paths are where they are in the folder."""
        return re.sub(r"(?<![\w.$/])/opt(?=/|$)", f"{self.root}/opt", text)

    def run(self, command: list[str], **environment: str) -> subprocess.Popen:
        """Start a command that may write to TMPDIR alone.

        No file below `root` is writable. Whoever runs the tests as root gets the capability to write nevertheless
        taken away; another user would not do, as the interpreter itself may be out of that user's reach.
        """
        without_rights = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.getuid() == 0 else []
        known = {name: self.at(value).replace("$PATH", os.environ["PATH"]) for name, value in self.environment.items()}
        return subprocess.Popen(
            [*without_rights, *(self.at(word) for word in command)],
            cwd=self.root,
            env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"} | known | environment,
        )

    def files(self) -> dict[str, int]:
        """Every file with the time of its last change: what a read-only file system would keep."""
        return {str(path): path.lstat().st_mtime_ns for path in self.root.rglob("*")}


def build(dockerfile: Path, folder: Path) -> Image:
    """Follow a Dockerfile of two stages: `build`, which makes /opt/venv, and the image itself.

    A virtual environment cannot be moved, so it is made where the image has it. Only `python -m venv`, `pip` and
    `useradd` are known as commands; any other fails the test, which then has to learn it.
    """
    image = Image(folder / "image")
    seen, stage = context(folder / "context"), folder / "build"
    stage.mkdir()
    last = False
    for word, rest in instructions(dockerfile):
        arguments = shlex.split(rest)
        match word:
            case "FROM":
                last = "AS" not in arguments
            case "ARG" | "WORKDIR" | "EXPOSE" | "VOLUME":
                pass
            case "COPY" if arguments[0].startswith("--from="):
                assert arguments[1:] == ["/opt/venv", "/opt/venv"]
            case "COPY":
                _copy(seen, arguments[:-1], image.root if last else stage, arguments[-1])
            case "RUN":
                _run(image, rest, stage)
            case "ADD":
                assert arguments[-2].startswith("https://")
            case "ENV":
                image.environment |= dict(argument.split("=", 1) for argument in arguments)
            case "USER":
                image.user = rest
            case "HEALTHCHECK":
                image.health = json.loads(rest[rest.index("[") :])
            case "ENTRYPOINT":
                image.entrypoint = json.loads(rest)
            case _:
                raise AssertionError(f"{dockerfile}: {word} is not known to this test")
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o555 if path.is_dir() or os.access(path, os.X_OK) else 0o444)
    return image


def _copy(seen: Path, sources: list[str], base: Path, target: str) -> None:
    to = base / target.lstrip("/")
    for source in sources:
        if (seen / source).is_dir():
            shutil.copytree(seen / source, to, dirs_exist_ok=True)
        else:
            into = to / Path(source).name if target.endswith(("/", ".")) else to
            into.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(seen / source, into)


def _run(image: Image, command: str, stage: Path) -> None:
    words = shlex.split(image.at(command))
    match words[0]:
        case "python":
            words = [sys.executable, *words[1:]]
        case "pip":
            # The same pins; the cache only saves the test from loading everything anew.
            words = [sys.executable, "-m", *(word for word in words if word != "--no-cache-dir")]
        case "useradd":
            return
        case _:
            raise AssertionError(f"{command!r} is not known to this test")
    done = subprocess.run(words, cwd=stage, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
