"""Runs the real `mlp` command against a state folder of its own."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

MLP = Path(sys.executable).with_name("mlp")


@dataclass
class Mlp:
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a user has who has credentials of an account: the local platform must not go near them."""
        return os.environ | {
            "MLP_STATE": str(self.folder),
            "AWS_PROFILE": "no-such-profile",
            "PATH": f"{MLP.parent}:{os.environ['PATH']}",
        }

    def __call__(self, *arguments: str, fails: bool = False) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [MLP, *arguments], env=self.environment, capture_output=True, text=True, check=False, timeout=400
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert bool(done.returncode) == fails, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments: str, fails: bool = False) -> dict:
        return json.loads(self(*arguments, "--json", fails=fails).stdout)

    def process(self, name: str) -> psutil.Process:
        (process,) = [p for p in self.json("status")["processes"] if p["name"] == name]
        return psutil.Process(process["pid"])


@pytest.fixture(scope="module")
def mlp(tmp_path_factory):
    mlp = Mlp(tmp_path_factory.mktemp("state"))
    yield mlp
    mlp("down")
