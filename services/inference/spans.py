"""OpenTelemetry spans of the requests whose callers record their trace; needs the extra `telemetry`."""

import os
import time
from collections.abc import Mapping
from typing import Any

from opentelemetry import trace as otel
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

from services.inference.tracing import Trace

_PATIENCE_S = 2


class Spans:
    """Sends a span for each sampled request to the collector that OTEL_EXPORTER_OTLP_ENDPOINT names."""

    def __init__(self) -> None:
        name = os.environ.get("OTEL_SERVICE_NAME", "ml-platform-inference")
        self._ids = _AnsweredIds()
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": name}), id_generator=self._ids, shutdown_on_exit=False
        )
        # The exporter's own patience of 10 s would hold up the end of the process when the collector is away.
        patience = float(os.environ.get("OTEL_EXPORTER_OTLP_TIMEOUT", _PATIENCE_S))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=patience)))
        self._tracer = self._provider.get_tracer(__name__)

    def record(self, trace: Trace, name: str, seconds: float, attributes: Mapping[str, Any]) -> None:
        """Record a finished request."""
        caller = otel.SpanContext(
            int(trace.id, 16), int(trace.parent, 16), is_remote=True, trace_flags=otel.TraceFlags(int(trace.flags, 16))
        )
        end = time.time_ns()
        self._ids.next = int(trace.span, 16)
        span = self._tracer.start_span(
            name,
            otel.set_span_in_context(otel.NonRecordingSpan(caller)),
            otel.SpanKind.SERVER,
            attributes,
            start_time=end - int(seconds * 1e9),
        )
        if attributes["http.response.status_code"] >= 500:
            span.set_status(otel.StatusCode.ERROR)
        span.end(end)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


class _AnsweredIds(RandomIdGenerator):
    """Gives a span the id that its request has been answered with."""

    next = 0

    def generate_span_id(self) -> int:
        return self.next
