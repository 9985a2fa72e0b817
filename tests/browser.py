"""Opens a page in a real browser that has no network."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed (apt-get install chromium)")
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync --virtual-time-budget=15000 --enable-logging=stderr --dump-dom"


@dataclass(frozen=True)
class Page:
    """What came of a page: the document after its scripts ran, and what it wrote to the console."""

    document: str
    console: list[str]


def open_page(address: str | Path, profile: Path) -> Page:
    """Open a URL or a file; `profile` is a folder for the browser's own files."""
    assert CHROMIUM
    url = address.as_uri() if isinstance(address, Path) else address
    offline = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    command = [CHROMIUM, *FLAGS.split(), offline, f"--user-data-dir={profile}/chromium", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return Page(done.stdout, re.findall(r"CONSOLE[:(]\d+\)?\] (.*)", done.stderr))
