"""Feedback: the true label of a prediction, once it is known, on its way to where the predictions are captured."""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from services.inference.capture import Stream, now
from services.inference.live import Model
from services.inference.metrics import Metrics
from services.inference.protocol import RequestError, bad_json
from services.inference.tensors import encode


class Truth(Struct, forbid_unknown_fields=True):
    """The true label of a row of a prediction: the number of a class, or the value that was to be predicted."""

    id: Annotated[str, Meta(min_length=1, max_length=1000, description="id of the prediction, as it was answered")]
    label: Annotated[float, Meta(ge=-1e308, le=1e308)]
    row: Annotated[int, Meta(ge=0, le=2**31)] = 0


class Accepted(Struct):
    """How many labels are on their way."""

    accepted: int


_decode = msgspec.json.Decoder(Truth).decode
_decode_many = msgspec.json.Decoder(Annotated[list[Truth], Meta(min_length=1, max_length=1000)]).decode


class Feedback:
    """Takes true labels in, one or a list, as `contract.capture.FEEDBACK_COLUMNS` says."""

    def __init__(self, stream: Stream | None, metrics: Metrics) -> None:
        self._stream = stream
        self._metrics = metrics

    def accept(self, model: Model, body: bytes) -> Accepted:
        """Queue what a request holds.

        Raises:
            RequestError: if it is not valid, or cannot be kept: unlike a capture, the caller can send it again.
        """
        if not self._stream:
            raise RequestError(404, "feedback is not kept here: MLP_FEEDBACK_STREAM names no Firehose stream")
        try:
            truths = _decode_many(body) if body.lstrip()[:1] == b"[" else [_decode(body)]
        except (msgspec.DecodeError, RecursionError, ValueError) as error:
            raise bad_json(body, error) from None
        for number, truth in enumerate(truths):
            line = b'{"time":"%b","model":%b,"prediction_id":%b,"row":%d,"label":%b}\n' % (
                now(),
                encode(model.name),
                encode(truth.id),
                truth.row,
                encode(truth.label),
            )
            if not self._stream.put(line):
                raise RequestError(503, f"the queue is full; {number} of {len(truths)} were taken", retry_after_s=5)
            self._metrics.add("mlp_feedback", (model.name,))
        return Accepted(len(truths))
