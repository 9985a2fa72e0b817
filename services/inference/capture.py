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
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import msgspec
import numpy as np
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
_CLOSE_S = 5.0


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
        self._put_bytes = self._taken_bytes = 0  # each is written by one thread only, so none needs a lock
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
        if self._put_bytes - self._taken_bytes > _MAX_PENDING_BYTES or size > _MAX_RECORD_BYTES:
            self._metrics.add("mlp_capture_lost", (self.name,))
            return False
        if self._lines_bytes + size > _RECORD_BYTES:
            self._pack()
            self._lines_bytes = 0
            if self._put_bytes - self._taken_bytes > _MAX_BATCH_BYTES:
                self._wake.set()
        self._lines.append(line)
        self._lines_bytes += size
        self._put_bytes += size
        return True

    def flush(self) -> None:
        """Send what is queued now; returns when it is delivered or given up."""
        with self._sending:
            self._pack()
            for batch in self._batches():
                self._deliver(batch)

    def close(self) -> None:
        """Send what is queued, for a few seconds at most, and end the thread."""
        self._closing.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(_CLOSE_S)
        if left := len(self._lines) + sum(record.lines for record in list(self._records)):
            self._metrics.add("mlp_capture_lost", (self.name,), left)
            logger.error("captured lines were lost at the end", extra={"stream": self.name, "lines": left})

    def _run(self) -> None:
        with suppress(Exception):  # whatever is wrong, it is said once there are lines that cannot be sent
            _ = self._firehose  # making a client takes long, and there may be no requests yet
        while not self._closing.is_set():
            self._wake.wait(_INTERVAL_S)
            self._wake.clear()
            self.flush()

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
        reason = ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                self._closing.wait(0.2 * 2**attempt * (0.5 + random.random()))  # jitter: workers fail together
            try:
                answer = self._put(batch)
            except Exception as error:  # whatever boto3 raises, the lines are not delivered
                reason = str(error) or type(error).__name__
                continue
            results = answer["RequestResponses"] if answer["FailedPutCount"] else [{}] * len(batch)
            delivered = sum(
                record.lines for record, result in zip(batch, results, strict=True) if "ErrorCode" not in result
            )
            self._metrics.add("mlp_capture_delivered", (self.name,), delivered)
            reason = next((f"{r['ErrorCode']}: {r.get('ErrorMessage')}" for r in results if "ErrorCode" in r), "")
            batch = [record for record, result in zip(batch, results, strict=True) if "ErrorCode" in result]
            if not batch:
                break
        lost = sum(record.lines for record in batch)
        if lost:
            self._metrics.add("mlp_capture_lost", (self.name,), lost)
        if bool(lost) != self._failing:
            self._failing = bool(lost)
            say = logger.error if lost else logger.info
            say(
                "captured lines are lost" if lost else "captured lines are delivered again",
                extra={"stream": self.name, "lines": lost, "reason": reason},
            )

    def _put(self, batch: Sequence[Record]) -> Any:
        pieces = [b'{"DeliveryStreamName":%b,"Records":[' % encode(self.name)]
        for record in batch:
            pieces += (record.json, b",")
        pieces[-1] = b"]}"
        self._body = Body(pieces)
        return self._firehose.put_record_batch(DeliveryStreamName=self.name, Records=[{"Data": b""}])

    @cached_property
    def _firehose(self) -> Any:
        firehose = client("firehose")
        firehose.meta.events.register("before-call.firehose.PutRecordBatch", self._set_body)
        return firehose

    def _set_body(self, params: dict[str, Any], **_: object) -> None:
        """Send the body made above: to make one, botocore would keep the interpreter for long."""
        params["body"] = self._body


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
    """As an array, or as the JSON that the client sent."""
    outputs: Sequence[Output]
    numbers: Sequence[bytes]
    """Of each output, as JSON."""


class Capture:
    """Writes predictions down, as `contract.capture.PREDICTION_COLUMNS` says."""

    def __init__(self, stream: Stream, percent: int, hash_key: HashKey) -> None:
        self._stream = stream
        self._percent = percent
        self._hash_key = hash_key

    def add(
        self, version: Version, prediction_id: str, trace_id: str, seconds: float, rows: int, captured: Captured
    ) -> None:
        """Write a prediction down: who made it, what feedback calls it, how long it took, what went in and out."""
        features = captured.features
        if self._percent < 100 and random.random() * 100 >= self._percent:
            return
        more = b',"trace_id":"%b"' % trace_id.encode() if trace_id else b""
        if version.sensitive:
            inputs, hashed = self._without_secrets(version, features)
            more += b',"hashed":%b' % hashed
        elif isinstance(features, msgspec.Raw):
            inputs = _flat(features)
        else:
            inputs = to_json(features + 0) if features.dtype.kind in "fiub" else b"[]"
        outputs = b",".join(
            [
                b"%b:%b" % (output.key, data)
                for output, data in zip(captured.outputs, captured.numbers, strict=True)
                if output.datatype not in ("BOOL", "BYTES")
            ]
        )
        self._stream.put(
            b'{"time":"%b",%b,"prediction_id":%b,"rows":%d,"latency_ms":%.3f,"inputs":%b,"outputs":{%b}%b}\n'
            % (
                _text_of(int(time.time() * 1000)),
                version.capture_prefix,
                encode(prediction_id),
                rows,
                seconds * 1000,
                inputs,
                outputs,
                more,
            )
        )

    def _without_secrets(self, version: Version, features: Array | msgspec.Raw) -> tuple[bytes, bytes]:
        """The inputs with null for sensitive features, and the hashes of those that are to be hashed."""
        rows = features
        if isinstance(rows, msgspec.Raw):
            rows = np.array(msgspec.json.decode(_flat(rows)), np.float64).reshape(-1, len(version.columns))
        values: list[list[Any]] = rows.tolist()
        hashed: dict[str, list[str | None]] = {}
        for column, name in enumerate(version.columns):
            how = version.sensitive.get(name)
            if how == "hash":
                hashed[name] = [self._hash_key.hash(version.model, name, row[column]) for row in values]
            if how:
                for row in values:
                    row[column] = None
        return encode([number for row in values for number in row]), encode(hashed)


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
