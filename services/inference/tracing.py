"""W3C trace context: requests keep the trace that they came with, in logs, captures, answers and spans."""

import random
import re
from typing import NamedTuple

_match = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?").fullmatch


class Trace(NamedTuple):
    """The place of a request in its caller's trace; `span` is this service's own step in it."""

    id: str
    parent: str
    span: str
    flags: str

    @property
    def is_sampled(self) -> bool:
        """Whether the caller records this trace."""
        return bool(int(self.flags, 16) & 1)

    @property
    def traceparent(self) -> bytes:
        """The header for whatever comes after this step."""
        return f"00-{self.id}-{self.span}-{self.flags}".encode()


def read_trace(traceparent: bytes) -> Trace | None:
    """The trace that a `traceparent` header names, or None if it is not valid (W3C Trace Context, section 3.2)."""
    parts = _match(traceparent.strip())
    if not parts or parts[1] == b"ff" or (parts[1] == b"00" and parts[5]):
        return None
    if parts[2] == b"0" * 32 or parts[3] == b"0" * 16:
        return None
    span = f"{random.getrandbits(64) or 1:016x}"
    return Trace(parts[2].decode(), parts[3].decode(), span, parts[4].decode())
