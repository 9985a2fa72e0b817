"""Processes are started, watched and stopped by their own identity, across commands."""

import os
import signal
import socket
import subprocess
import sys

import psutil
import pytest

from contract.errors import PlatformError
from embedded.files import write_atomically
from embedded.processes import Processes, listen
from tests.waiting import wait_until

SERVER = ["embedded.server"]


@pytest.fixture
def processes(tmp_path):
    processes = Processes(tmp_path)
    yield processes
    for process in processes.all():
        process.stop()


def test_a_process_is_found_again_and_stopped(processes, tmp_path):
    process = processes.start("aws", SERVER, os.environ, "fingerprint")
    processes.wait_until_ready(process, "/moto-api/")
    again = Processes(tmp_path).get("aws")
    assert again == process
    assert again.state == "running"
    processes.stop("aws")
    assert not psutil.pid_exists(process.pid) or psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE
    assert processes.all() == []


def test_a_killed_process_has_died(processes):
    process = processes.start("aws", SERVER, os.environ, "")
    os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: process.state != "running")
    assert process.state == "died"


def test_a_pid_that_another_process_got_is_not_ours(processes):
    process = processes.start("aws", SERVER, os.environ, "")
    stranger = type(process)("aws", os.getpid(), process.started, process.port, "")
    assert stranger.state == "died"
    stranger.stop()  # must not end the test run


def test_a_taken_port_is_an_error_before_anything_starts(processes):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PlatformError, match=rf"port {port} cannot be used: Address already in use.*--port"):
            processes.start("aws", SERVER, os.environ, "", port)
    assert processes.all() == []


def test_a_process_that_dies_at_once_shows_the_end_of_its_log(processes):
    process = processes.start("broken", ["no.such.module"], os.environ, "")
    with pytest.raises(PlatformError, match=r"broken died; the end of .*broken.log:\n(.*\n)*.*No module named"):
        processes.wait_until_ready(process, "/")


def test_free_ports_differ():
    with listen(0) as one, listen(0) as two:
        assert one.getsockname() != two.getsockname()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_a_clear_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PlatformError, match=r"cannot write .*Permission denied.*MLP_STATE"):
        write_atomically(tmp_path / "file", "text")


def test_a_full_disk_is_a_clear_error_and_keeps_the_old_file(tmp_path):
    file = tmp_path / "state.json"
    file.write_text("old")
    script = f"""
import resource, pathlib
from embedded.files import write_atomically
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # from here on every write fails, as on a full disk
write_atomically(pathlib.Path({str(file)!r}), "new")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert f"PlatformError: cannot write {file}: File too large" in done.stderr
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
