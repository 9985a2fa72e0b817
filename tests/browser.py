"""A real browser that has no network: opens a page and looks at it, or drives it by the DevTools protocol."""

import json
import os
import re
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import PATIENCE_S

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed (apt-get install chromium)")
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync"
# Any name but this machine's own fails to resolve: a page has to do with what its server gives it.
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"


@dataclass(frozen=True)
class Page:
    """What came of a page: the document after its scripts ran, and what it wrote to the console."""

    document: str
    console: list[str]


def open_page(address: str | Path, profile: Path) -> Page:
    """Open a URL or a file; `profile` is a folder for the browser's own files."""
    assert CHROMIUM
    url = address.as_uri() if isinstance(address, Path) else address
    flags = f"{FLAGS} --virtual-time-budget=15000 --enable-logging=stderr --dump-dom"
    command = [CHROMIUM, *flags.split(), OFFLINE, f"--user-data-dir={profile}/chromium", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    return Page(done.stdout, re.findall(r"CONSOLE[:(]\d+\)?\] (.*)", done.stderr))


@dataclass
class Browser:
    """A running browser; speaks the DevTools protocol (https://chromedevtools.github.io/devtools-protocol) by pipes."""

    to: int
    back: int
    events: list[dict[str, Any]] = field(default_factory=list)
    _sent: int = 0
    _read: bytes = b""

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Call a method and give its result; events that come meanwhile are kept."""
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": parameters}
        os.write(self.to, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._sent:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self.events.append(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            assert select.select([self.back], [], [], 60)[0], "the browser does not answer"
            chunk = os.read(self.back, 1 << 16)
            assert chunk, "the browser has ended"
            self._read += chunk
        message, _, self._read = self._read.partition(b"\0")
        return json.loads(message)

    def tab(self) -> "Tab":
        """An empty tab with a profile of its own: no cache, no storage."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            tab.call(f"{domain}.enable")
        return tab


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Start a browser, and end it; `profile` is a folder for its own files."""
    assert CHROMIUM
    (from_us, to), (back, from_it) = os.pipe(), os.pipe()
    command = [CHROMIUM, *FLAGS.split(), OFFLINE, "--remote-debugging-pipe", f"--user-data-dir={profile}/chromium"]
    process = subprocess.Popen(
        ["bash", "-c", f'exec "$@" 3<&{from_us} 4>&{from_it}', "bash", *command],  # it insists on these two numbers
        pass_fds=(from_us, from_it),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(from_us)
    os.close(from_it)
    running = Browser(to, back)
    try:
        yield running
        running.call("Browser.close")
    finally:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(to)
        os.close(back)


@dataclass
class Tab:
    """A tab of a browser, and what a user does there."""

    browser: Browser
    session: str

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol for this tab."""
        return self.browser.call(method, self.session, **parameters)

    def open(self, url: str) -> None:
        """Go there, and wait until it has loaded."""
        self.call("Page.navigate", url=url)
        self.wait(f"location.href.startsWith({json.dumps(url)}) && document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; a promise is waited for."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait(self, condition: str, seconds: float = PATIENCE_S) -> Any:
        """Wait until a JavaScript expression is true, and give its value."""
        deadline = time.monotonic() + seconds
        while not (value := self.run(condition)):
            assert time.monotonic() < deadline, (
                f"it never came true: {condition}\n{self.run('document.body.innerText')}"
            )
            time.sleep(0.02)
        return value

    def text(self, selector: str) -> str:
        """What is to be read in an element."""
        return self.run(f"document.querySelector({json.dumps(selector)}).innerText")

    def box(self, selector: str) -> tuple[float, float, float, float]:
        """Where an element is in the window, after scrolling to it: left, top, width and height."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.run(f"{element}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        return tuple(
            self.run(f"(({{x, y, width, height}}) => [x, y, width, height])({element}.getBoundingClientRect())")
        )

    def click(self, selector: str) -> None:
        """Click on the middle of an element."""
        x, y, width, height = self.box(selector)
        self.drag([(x + width / 2, y + height / 2)])

    def drag(self, points: list[tuple[float, float]]) -> None:
        """Press the mouse at the first point, go through the others, and let go at the last."""

        def mouse(kind: str, x: float, y: float, buttons: int) -> None:
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=buttons, clickCount=1)

        mouse("mousePressed", *points[0], 1)
        for point in points[1:]:
            mouse("mouseMoved", *point, 1)
        mouse("mouseReleased", *points[-1], 0)

    def swipe(self, points: list[tuple[float, float]]) -> None:
        """The same with a finger."""
        for kind, (x, y) in [("touchStart", points[0]), *(("touchMove", point) for point in points[1:])]:
            self.call("Input.dispatchTouchEvent", type=kind, touchPoints=[{"x": x, "y": y}])
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def press(self, *keys: str) -> None:
        """Press keys one after the other: names as in KeyboardEvent.key, or characters."""
        codes = {"Tab": 9, "Enter": 13}
        for key in keys:
            text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
            parameters = {"key": key, "text": text, "windowsVirtualKeyCode": codes.get(key, 0)}
            self.call("Input.dispatchKeyEvent", type="keyDown", **parameters)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def errors(self) -> list[str]:
        """What went wrong so far: errors and warnings on the console, exceptions, failed requests."""
        found = []
        for event in self._events():
            parameters = event["params"]
            match event["method"]:
                case "Runtime.consoleAPICalled" if parameters["type"] in ("error", "warning", "assert"):
                    found.append(str([each.get("value", each.get("description")) for each in parameters["args"]]))
                case "Runtime.exceptionThrown":
                    found.append(parameters["exceptionDetails"].get("exception", {}).get("description", "exception"))
                case "Log.entryAdded" if parameters["entry"]["level"] in ("error", "warning"):
                    found.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")
        return found

    def requests(self) -> list[str]:
        """The URLs that were asked for so far."""
        return [
            event["params"]["request"]["url"]
            for event in self._events()
            if event["method"] == "Network.requestWillBeSent"
        ]

    def _events(self) -> list[dict[str, Any]]:
        self.run("0")  # whatever was on its way before this answer has arrived with it
        return [event for event in self.browser.events if event.get("sessionId") == self.session]
