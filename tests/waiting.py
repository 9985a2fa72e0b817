"""How tests wait for what other processes and threads do."""

import time
from collections.abc import Callable

PATIENCE_S = 60.0
"""For what must happen: no test that passes waits as long, however slow the machine is."""


def wait_until(condition: Callable[[], object], seconds: float = PATIENCE_S) -> None:
    """Ask again and again until it is true.

    Raises:
        AssertionError: if that takes longer.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
