"""Prediction capture and feedback: lines of JSON, sent to Firehose in batches by a thread of their own.

A request only appends a line to a queue. The queue is bounded, the thread has patience of its own, and what cannot be
delivered is counted, logged once and dropped: whatever becomes of the lines, requests never notice.
"""

import base64
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from services.inference.artifacts import Version
from services.inference.aws import client
from services.inference.hashes import HashKey
from services.inference.metrics import Metrics
from services.inference.protocol import Output
from services.inference.tensors import Array, encode, to_json

logger = logging.getLogger(__name__)

_INTERVAL_S = 1.0  # or sooner, with as much as a call takes
_MAX_PENDING_BYTES = 32 * 2**20
# A record is encoded as soon as it has that much: each request pays a little. All of it at once, in the thread, would
# make requests wait for the interpreter.
_RECORD_BYTES = 48 * 1024
_MAX_RECORD_BYTES = 1000 * 1024  # Firehose's limit of a record; only a single line can be longer than the above
_MAX_BATCH_BYTES = 3000 * 1024  # as base64 nearly the 4 MiB that Firehose takes
_MAX_BATCH_RECORDS = 500  # Firehose's limit
_ATTEMPTS = 3
CLOSE_S = 5.0
"""For what is still to be sent at the end."""
# A line of more would keep the event loop for more than a fraction of a millisecond.
_MANY_NUMBERS = 4096
_MANY_BYTES = 32 * 1024
_MANY_HASHES = 64


class Record(NamedTuple):
    """Some lines, as Firehose takes them."""

    json: bytes
    size: int
    """Bytes of the lines."""
    lines: int


class Stream:
    """Lines on their way to one Firehose stream."""

    def __init__(self, name: str, metrics: Metrics) -> None:
        self.name = name
        self._metrics = metrics
        self._lines: deque[bytes] = deque()
        self._lines_bytes = 0
        self._records: deque[Record] = deque()
        # Each is written by one thread only, so none needs a lock.
        self._put_bytes = self._taken_bytes = 0
        self._put_lines = self._settled_lines = 0
        self._wake, self._closing = threading.Event(), threading.Event()
        self._sending = threading.Lock()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name=f"stream {name}", daemon=True)

    def start(self) -> None:
        """Send in the background from now on."""
        self._thread.start()

    def put(self, line: bytes) -> bool:
        """Queue a line; False if the queue is full or the line too long for Firehose, and it is counted as lost."""
        size = len(line)
        if size > _MAX_RECORD_BYTES:
            self._lose(1, f"a line has more than the {_MAX_RECORD_BYTES} bytes that Firehose takes")
            return False
        if self._put_bytes - self._taken_bytes > _MAX_PENDING_BYTES:
            self._lose(1, f"{_MAX_PENDING_BYTES} bytes are waiting already")
            return False
        if self._lines_bytes + size > _RECORD_BYTES:
            self._pack()
            self._lines_bytes = 0
            if self._put_bytes - self._taken_bytes > _MAX_BATCH_BYTES:
                self._wake.set()
        self._lines.append(line)
        self._lines_bytes += size
        self._put_bytes += size
        self._put_lines += 1
        return True

    def _lose(self, lines: int, reason: str) -> None:
        """Count lines that are lost; the first after some that were not is logged."""
        self._metrics.add("mlp_capture_lost", (self.name,), lines)
        if not self._failing:
            self._failing = True
            logger.error("captured lines are lost", extra={"stream": self.name, "lines": lines, "reason": reason})

    def flush(self) -> None:
        """Send what is queued now; returns when it is delivered or given up."""
        with self._sending:
            self._pack()
            for batch in self._batches():
                self._deliver(batch)

    def begin_to_close(self) -> None:
        """Send what is queued, and end the thread."""
        self._closing.set()
        self._wake.set()

    def close(self, patience_s: float = CLOSE_S) -> None:
        """Wait for that, and count what is not sent by then as lost."""
        self.begin_to_close()
        if self._thread.is_alive():
            self._thread.join(patience_s)
        if left := self._put_lines - self._settled_lines:
            self._metrics.add("mlp_capture_lost", (self.name,), left)
            logger.error("captured lines were lost at the end", extra={"stream": self.name, "lines": left})

    def _run(self) -> None:
        with suppress(Exception):  # whatever is wrong, it is said once there are lines that cannot be sent
            _ = self._firehose  # making a client takes long, and there may be no requests yet
        while not self._closing.is_set():
            self._wake.wait(_INTERVAL_S)
            self._wake.clear()
            self.flush()
        self.flush()  # what has come since the last one had begun

    def _pack(self) -> None:
        """Make a record of the lines there are.

        Requests and the thread may do so at once: no line can be taken by both, as taking one cannot be torn.
        """
        lines = []
        with suppress(IndexError):
            while True:
                lines.append(self._lines.popleft())
        if lines:
            content = b"".join(lines)
            self._records.append(Record(b'{"Data":"%b"}' % base64.b64encode(content), len(content), len(lines)))

    def _batches(self) -> Iterator[list[Record]]:
        """The records there are now, packed into calls."""
        batch: list[Record] = []
        size = 0
        for _ in range(len(self._records)):
            record = self._records.popleft()
            self._taken_bytes += record.size
            if batch and (size + record.size > _MAX_BATCH_BYTES or len(batch) == _MAX_BATCH_RECORDS):
                yield batch
                batch, size = [], 0
            batch.append(record)
            size += record.size
        if batch:
            yield batch

    def _deliver(self, batch: list[Record]) -> None:
        """Send records, those again that Firehose refuses, and count what remains as lost."""
        reason, lines = "", _lines(batch)
        for attempt in range(_ATTEMPTS):
            if attempt:
                self._closing.wait(0.2 * 2**attempt * (0.5 + random.random()))  # jitter: workers fail together
            try:
                refused = _refused(batch, self._put(batch))
            except Exception as error:  # whatever boto3 raises or Firehose answers, the lines are not delivered
                reason = str(error) or type(error).__name__
                continue
            self._metrics.add("mlp_capture_delivered", (self.name,), _lines(batch) - _lines(of for of, _ in refused))
            batch = [record for record, _ in refused]
            if not batch:
                break
            reason = refused[0][1]
        self._settled_lines += lines
        if batch:
            self._lose(_lines(batch), reason)
        elif self._failing:
            self._failing = False
            logger.info("captured lines are delivered again", extra={"stream": self.name})

    def _put(self, batch: Sequence[Record]) -> Any:
        pieces = [b'{"DeliveryStreamName":%b,"Records":[' % encode(self.name)]
        for record in batch:
            pieces += (record.json, b",")
        pieces[-1] = b"]}"
        self._body = Body(pieces)
        try:
            return self._firehose.put_record_batch(DeliveryStreamName=self.name, Records=[{"Data": b""}])
        finally:
            del self._body  # some megabytes

    @cached_property
    def _firehose(self) -> Any:
        firehose = client("firehose")
        firehose.meta.events.register("before-call.firehose.PutRecordBatch", self._set_body)
        return firehose

    def _set_body(self, params: dict[str, Any], **_: object) -> None:
        """Send the body made above: to make one, botocore would keep the interpreter for long."""
        params["body"] = self._body


def _refused(batch: Sequence[Record], answer: dict[str, Any]) -> list[tuple[Record, str]]:
    """The records that Firehose has not taken, and why.

    Raises:
        LookupError, TypeError, ValueError: if that is no answer of Firehose's.
    """
    if not answer["FailedPutCount"]:
        return []
    return [
        (record, f"{result['ErrorCode']}: {result.get('ErrorMessage')}")
        for record, result in zip(batch, answer["RequestResponses"], strict=True)
        if "ErrorCode" in result
    ]


def _lines(records: Iterable[Record]) -> int:
    return sum(record.lines for record in records)


class Body:
    """A body that botocore hashes and sends piece by piece, as it does with files.

    In one piece it would keep a processor for milliseconds; between two, requests get it, and the interpreter.
    """

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces
        self._next = 0

    def __len__(self) -> int:
        return sum(map(len, self._pieces))

    def read(self, _size: int = -1) -> bytes:
        """The next piece, whatever size is asked for; nothing after the last."""
        if self._next == len(self._pieces):
            return b""
        self._next += 1
        return self._pieces[self._next - 1]

    def tell(self) -> int:
        """The number of pieces read."""
        return self._next

    def seek(self, position: int) -> None:
        """Go to where `tell` was."""
        self._next = position


class Captured(Struct, gc=False):
    """What went into a prediction and came out of it."""

    features: Array | msgspec.Raw
    """As an array, or, if none of them is sensitive, as the JSON that the client sent."""
    outputs: Sequence[Output]
    numbers: Sequence[bytes]
    """Of each output, as JSON."""


class Capture:
    """Writes predictions down, as `contract.capture.PREDICTION_COLUMNS` says."""

    def __init__(self, stream: Stream, percent: int, hash_key: HashKey) -> None:
        self._stream = stream
        self._percent = percent
        self._hash_key = hash_key

    def takes(self) -> bool:
        """Whether the next prediction is among those that are captured."""
        return self._percent == 100 or random.random() * 100 < self._percent

    def is_long(self, version: Version, rows: int, captured: Captured) -> bool:
        """Whether a line takes so long to write that the event loop should not do it."""
        if version.sensitive and rows * [*version.sensitive.values()].count("hash") > _MANY_HASHES:
            return True
        return rows * len(version.columns) > _MANY_NUMBERS or sum(map(len, captured.numbers)) > _MANY_BYTES

    def put(self, line: bytes) -> None:
        """Send a line."""
        self._stream.put(line)

    def line(
        self, version: Version, prediction_id: str, trace_id: str, seconds: float, rows: int, captured: Captured
    ) -> bytes:
        """A prediction: who made it, what feedback calls it, how long it took, what went in and out."""
        more = b',"trace_id":"%b"' % trace_id.encode() if trace_id else b""
        features = captured.features
        if version.sensitive:
            assert not isinstance(features, msgspec.Raw)
            inputs, hashed = self._without_secrets(version, features)
            more += b',"hashed":%b' % hashed
        elif isinstance(features, msgspec.Raw):
            inputs = _flat(features)
        else:
            inputs = to_json(features + 0) if _is_number(features) else b"[]"
        outputs = b",".join(
            [
                b"%b:%b" % (output.key, data)
                for output, data in zip(captured.outputs, captured.numbers, strict=True)
                if output.datatype not in ("BOOL", "BYTES")
            ]
        )
        return b'{"time":"%b",%b,"prediction_id":%b,"rows":%d,"latency_ms":%.3f,"inputs":%b,"outputs":{%b}%b}\n' % (
            _text_of(int(time.time() * 1000)),
            version.capture_prefix,
            encode(prediction_id),
            rows,
            seconds * 1000,
            inputs,
            outputs,
            more,
        )

    def _without_secrets(self, version: Version, features: Array) -> tuple[bytes, bytes]:
        """The inputs with null for sensitive features, and the hashes of those that are to be hashed."""
        values: list[Any] = msgspec.json.decode(to_json(features + 0 if _is_number(features) else features))
        width = len(version.columns)
        hashed: dict[str, list[str | None]] = {}
        for column, name in enumerate(version.columns):
            how = version.sensitive.get(name)
            if how == "hash":
                hashed[name] = [self._hash_key.hash(version.model, name, value) for value in values[column::width]]
            if how:
                values[column::width] = [None] * len(features)
        return encode(values) if _is_number(features) else b"[]", encode(hashed)


def _is_number(features: Array) -> bool:
    return features.dtype.kind in "fiub"


def _flat(numbers: msgspec.Raw) -> bytes:
    """A JSON array of numbers as one list, however it was nested."""
    return b"[%b]" % bytes(numbers).translate(None, b"[] \t\r\n")


def now() -> bytes:
    """The time in UTC, as both of Firehose's JSON readers take it for a timestamp."""
    return _text_of(int(time.time() * 1000))


def _text_of(milliseconds: int) -> bytes:
    return b"%b.%03d" % (_text_of_second(milliseconds // 1000), milliseconds % 1000)


@lru_cache(maxsize=1)  # a second has many requests
def _text_of_second(seconds: int) -> bytes:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds)).encode()
