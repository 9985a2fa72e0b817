"""Fixtures that several folders of tests share."""

import os
import urllib.request
from collections.abc import Iterator

import pytest

from embedded.local import aws_environment
from embedded.processes import Process, Processes

pytest_plugins = ["tests.postgres"]

REGION = "eu-west-1"


@pytest.fixture(scope="session")
def aws_process(tmp_path_factory) -> Iterator[Process]:
    """The emulated AWS as a process of its own, one for all the tests that need it."""
    processes = Processes(tmp_path_factory.mktemp("aws"))
    process = processes.start("aws", ["embedded.server"], os.environ, "")
    processes.wait_until_ready(process, "/moto-api/")
    yield process
    processes.stop("aws")


@pytest.fixture
def emulated_aws(aws_process, monkeypatch) -> Process:
    """An empty emulated AWS that this process's AWS clients talk to."""
    reset = urllib.request.Request(f"{aws_process.url}/moto-api/reset", method="POST")
    urllib.request.urlopen(reset, timeout=10).close()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in aws_environment(aws_process, REGION).items():
        monkeypatch.setenv(name, value)
    return aws_process
