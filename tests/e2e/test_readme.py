"""The README's commands work as they stand there, in their order."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from contract.paths import ROOT

pytestmark = pytest.mark.e2e

COMMANDS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    for line in block.splitlines()
]


def test_the_readme_has_the_two_commands():
    assert COMMANDS[:2] == ["make up", "make test"]
    assert COMMANDS[-1] == "mlp down"


def test_the_commands_work(mlp):
    for command in COMMANDS:
        if command == "make test":
            continue  # it is what runs this test
        done = subprocess.run(
            ["bash", "-c", f"{command} VENV={sys.prefix}" if command.startswith("make") else command],
            cwd=ROOT,
            env=mlp.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"


def test_every_folder_is_in_the_map():
    told = set(re.findall(r"^\| `([a-z]+)/` \|", (ROOT / "README.md").read_text(), re.M))
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert told == {Path(file).parts[0] for file in tracked.splitlines() if "/" in file and file[0] != "."}
