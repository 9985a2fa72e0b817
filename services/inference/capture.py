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
from functools import cached_property, lru_cache
from typing import Any

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

_INTERVAL_S = 1.0
_MAX_PENDING_BYTES = 32 * 2**20
_MAX_RECORD_BYTES = 1000 * 1024  # Firehose's limit of a record
_MAX_BATCH_BYTES = 512 * 1024  # Firehose takes eight times that; small batches keep the interpreter free for requests
_PIECE_BYTES = 3 * 2**14  # a multiple of three, as the ends of pieces must not show
_ATTEMPTS = 3
_CLOSE_S = 5.0


class Stream:
    """Lines on their way to one Firehose stream."""

    def __init__(self, name: str, metrics: Metrics) -> None:
        self.name = name
        self._metrics = metrics
        self._lines: deque[bytes] = deque()
        self._put_bytes = self._taken_bytes = 0  # each is written by one thread only, so none needs a lock
        self._wake = threading.Event()
        self._sending = threading.Lock()
        self._closing = False
        self._failing = False
        self._body = b""
        self._thread = threading.Thread(target=self._run, name=f"stream {name}", daemon=True)

    def start(self) -> None:
        """Send in the background from now on."""
        self._thread.start()

    def put(self, line: bytes) -> bool:
        """Queue a line; False if the queue is full, in which case it is counted as lost."""
        if self._put_bytes - self._taken_bytes > _MAX_PENDING_BYTES:
            self._metrics.add("mlp_capture_lost", (self.name,))
            return False
        self._lines.append(line)
        self._put_bytes += len(line)
        return True

    def flush(self) -> None:
        """Send what is queued now; returns when it is delivered or given up."""
        with self._sending:
            lines = self._take()
            if lines:
                for batch in _batches(lines):
                    self._deliver(batch)

    def close(self) -> None:
        """Send what is queued, for a few seconds at most, and end the thread."""
        self._closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(_CLOSE_S)
        if left := len(self._lines):
            self._metrics.add("mlp_capture_lost", (self.name,), left)
            logger.error("captured lines were lost at the end", extra={"stream": self.name, "lines": left})

    def _run(self) -> None:
        while not self._closing:
            self._wake.wait(_INTERVAL_S)
            self.flush()

    def _take(self) -> list[bytes]:
        # One after the other: requests append at the same time, and these two operations cannot be torn.
        lines, taken_bytes = [], 0
        for _ in range(len(self._lines)):
            lines.append(self._lines.popleft())
            taken_bytes += len(lines[-1])
        self._taken_bytes += taken_bytes
        return lines

    def _deliver(self, batch: list[tuple[bytes, int]]) -> None:
        """Send records, those again that Firehose refuses, and count what remains as lost."""
        reason = ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                self._wake.wait(0.2 * 2**attempt * (0.5 + random.random()))  # jitter: workers fail together
            try:
                answer = self._put([record for record, _ in batch])
            except Exception as error:  # whatever boto3 raises, the lines are not delivered
                reason = str(error) or type(error).__name__
                continue
            results = answer["RequestResponses"] if answer["FailedPutCount"] else [{}] * len(batch)
            delivered = sum(n for (_, n), result in zip(batch, results, strict=True) if "ErrorCode" not in result)
            self._metrics.add("mlp_capture_delivered", (self.name,), delivered)
            reason = next((f"{r['ErrorCode']}: {r.get('ErrorMessage')}" for r in results if "ErrorCode" in r), "")
            batch = [record for record, result in zip(batch, results, strict=True) if "ErrorCode" in result]
            if not batch:
                break
        lost = sum(lines for _, lines in batch)
        if lost:
            self._metrics.add("mlp_capture_lost", (self.name,), lost)
        if bool(lost) != self._failing:
            self._failing = bool(lost)
            say = logger.error if lost else logger.info
            say(
                "captured lines are lost" if lost else "captured lines are delivered again",
                extra={"stream": self.name, "lines": lost, "reason": reason},
            )

    def _put(self, records: Sequence[bytes]) -> Any:
        data = b",".join(b'{"Data":"%b"}' % _base64_of(record) for record in records)
        self._body = b'{"DeliveryStreamName":%b,"Records":[%b]}' % (encode(self.name), data)
        return self._firehose.put_record_batch(DeliveryStreamName=self.name, Records=[{"Data": b""}] * len(records))

    @cached_property
    def _firehose(self) -> Any:
        firehose = client("firehose")
        firehose.meta.events.register("before-call.firehose.PutRecordBatch", self._set_body)
        return firehose

    def _set_body(self, params: dict[str, Any], **_: object) -> None:
        """Send the body made above: botocore would take twice as long for it, in which requests would have to wait."""
        params["body"] = self._body


def _base64_of(record: bytes) -> bytes:
    """In pieces, between which requests get the interpreter."""
    return b"".join(base64.b64encode(record[i : i + _PIECE_BYTES]) for i in range(0, len(record), _PIECE_BYTES))


def _batches(lines: Sequence[bytes]) -> Iterator[list[tuple[bytes, int]]]:
    """Lines packed into records, and records into batches; each record with its number of lines."""
    batch: list[tuple[bytes, int]] = []
    record: list[bytes] = []
    record_bytes = batch_bytes = 0
    for line in lines:
        if record and record_bytes + len(line) > _MAX_RECORD_BYTES:
            batch.append((b"".join(record), len(record)))
            batch_bytes += record_bytes
            record, record_bytes = [], 0
        if batch and batch_bytes + record_bytes + len(line) > _MAX_BATCH_BYTES:
            yield batch
            batch, batch_bytes = [], 0
        record.append(line)
        record_bytes += len(line)
    yield [*batch, (b"".join(record), len(record))]


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


@lru_cache(maxsize=1)  # a millisecond has many requests
def _text_of(milliseconds: int) -> bytes:
    seconds, rest = divmod(milliseconds, 1000)
    return b"%b.%03d" % (time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds)).encode(), rest)
