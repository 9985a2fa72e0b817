"""Puts the service together, as one ASGI application for uvicorn, Lambda and SageMaker."""

import asyncio
import logging
import os
import time
from collections.abc import Coroutine, Mapping
from functools import cached_property, partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.types import Receive, Scope, Send

from contract.errors import PlatformError
from contract.service import METADATA_FILE, MODEL_FILE, ServiceSettings
from services.inference.artifacts import ArtifactError, Version, load_directory
from services.inference.capture import CLOSE_S, Capture, Stream
from services.inference.feedback import Feedback
from services.inference.follower import Follower
from services.inference.hashes import HashKey
from services.inference.health import Health
from services.inference.infer import Inference
from services.inference.live import Catalogue, Model
from services.inference.metrics import Metrics
from services.inference.overload import Gate
from services.inference.targets import Call
from services.inference.tracing import Answered, Trace, Traced

if TYPE_CHECKING:
    from services.inference.api import Api
    from services.inference.emf import EmfSums

logger = logging.getLogger(__name__)


class Service:
    """The ASGI application.

    A request to predict passes none of the framework, and neither does a health check; for all else FastAPI is loaded
    when it is first needed, which spares a cold start 0.13 s and each worker 20 MB.
    """

    def __init__(
        self, settings: ServiceSettings, catalogue: Catalogue, metrics: Metrics, follower: Follower | None
    ) -> None:
        self.settings = settings
        self.catalogue = catalogue
        self.metrics = metrics
        self.follower = follower
        self.streams: dict[str, Stream] = {}
        hash_key = HashKey(settings.hash_key)
        hash_key.fetch()
        self._captures = {
            model: Capture(stream, settings.capture_percent, hash_key)
            for model, stream in self._streams(settings.capture_stream).items()
        }
        self._labels = self._streams(settings.feedback_stream)
        self._gate = Gate(settings)
        metrics.in_flight = lambda: self._gate.in_flight
        self.inference = Inference(settings, catalogue, self._gate, self._on_answered)
        self._health = Health(settings, catalogue, metrics)
        self._sums: EmfSums | None = None
        self._is_running = False
        self._writing: set[asyncio.Future[bytes]] = set()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """Answer a request."""
        if scope["type"] == "http":
            path: str = scope["path"]
            if path.endswith("/infer") or path == "/invocations":
                return self.inference(scope, receive, send)
            if answer := self._health.answer(scope["method"], path):
                return answer(scope, receive, send)
        elif scope["type"] == "lifespan":
            return self._live(receive, send)
        return self._ask_api(scope, receive, send)

    @cached_property
    def api(self) -> "Api":
        """The FastAPI application."""
        from services.inference.api import Api

        feedback = Feedback(self._labels, self.metrics)
        return Api(metadata.version("ml-platform"), self.settings, self.catalogue, self._health, feedback)

    @cached_property
    def _traced_api(self) -> Traced:
        return Traced(self.api, self._on_api_answered)

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document."""
        return self.api.openapi()

    def start(self) -> None:
        """Begin what goes on beside the requests, for a process that lives on between them."""
        self._is_running = True
        self.metrics.start()
        if self.settings.metrics_port:
            self._serve_metrics(self.settings.metrics_port)
        if self.settings.metrics_namespace:
            self._print_sums(self.settings.metrics_namespace)
        self.start_streams()
        _ = self._spans  # to load them takes a tenth of a second, for which no request should wait
        if self.follower:
            self.follower.start()

    def _streams(self, name: str | None) -> dict[str, Stream]:
        """The stream of each model; several may share one."""
        if not name:
            return {}
        names = {model: self.settings.stream(name, model) for model in self.catalogue}
        for each in names.values():
            self.streams.setdefault(each, Stream(each, self.metrics))
        return {model: self.streams[each] for model, each in names.items()}

    def start_streams(self) -> None:
        """Begin to send what is captured."""
        for stream in self.streams.values():
            stream.start()

    def flush(self) -> None:
        """Send what has been captured so far."""
        for stream in self.streams.values():
            stream.flush()

    def drain(self) -> None:
        """Say from now on that new requests should go elsewhere."""
        self._health.is_draining = self._gate.is_draining = True

    @property
    def in_flight(self) -> int:
        """Requests to predict that are being answered."""
        return self._gate.in_flight

    def stop(self) -> None:
        """End it; what was counted is printed and what was captured is sent before."""
        if self._sums:
            self._sums.stop()
        if self.follower:
            self.follower.stop()
        for stream in self.streams.values():
            stream.begin_to_close()
        latest = time.monotonic() + CLOSE_S
        for stream in self.streams.values():
            stream.close(max(0.0, latest - time.monotonic()))
        if self._spans:
            self._spans.close()
        self.metrics.stop()

    def _serve_metrics(self, port: int) -> None:
        """Serve the metrics of all workers on a port of their own; one worker is enough for that."""
        from prometheus_client import start_http_server

        from services.inference.exposition import registry_of

        if self.metrics.worker == 0:
            start_http_server(port, registry=registry_of(self.metrics))

    def _print_sums(self, namespace: str) -> None:
        """Print what this worker counts for CloudWatch; a Lambda function, which never starts, does so by request."""
        from services.inference.emf import EmfSums

        self._sums = EmfSums(self.metrics, namespace)
        self._sums.start()

    @cached_property
    def _spans(self) -> Any:
        if not any(os.environ.get(f"OTEL_EXPORTER_OTLP_{of}ENDPOINT") for of in ("", "TRACES_")):
            return None
        try:
            from services.inference.spans import Spans
        except ImportError as error:
            logger.error("no spans are sent: %s; install ml-platform[telemetry], or unset OTEL_EXPORTER_OTLP_*", error)
            return None
        return Spans()

    def _on_answered(self, call: Call) -> None:
        model = call.model.name if call.model else ""
        version = call.version.number if call.version else ""
        self.metrics.record(model, version, call.status, call.rows, call.seconds)
        if call.captured and (capture := self._captures.get(model)) and capture.takes():
            self._capture(capture, call)
        if self._is_logged(call.trace, call.status):
            of = {"model": model, "version": version, "id": call.id, "rows": call.rows}
            self._log(Answered(f"infer {model}", "POST", call.path, call.status, call.seconds, call.trace), of)

    def _capture(self, capture: Capture, call: Call) -> None:
        """Write a prediction down; a long line in a thread, so that the other requests need not wait for it."""
        assert call.version
        assert call.captured
        trace_id = call.trace.id if call.trace else ""
        write = partial(capture.line, call.version, call.id, trace_id, call.seconds, call.rows, call.captured)
        if self._is_running and capture.is_long(call.version, call.rows, call.captured):
            writing = asyncio.get_running_loop().run_in_executor(None, write)
            self._writing.add(writing)
            writing.add_done_callback(lambda done: self._written(capture, done))
        else:
            capture.put(write())

    def _written(self, capture: Capture, writing: asyncio.Future[bytes]) -> None:
        self._writing.discard(writing)
        capture.put(writing.result())

    def _on_api_answered(self, answered: Answered) -> None:
        if self._is_logged(answered.trace, answered.status):
            self._log(answered, {})

    def _is_logged(self, trace: Trace | None, status: int) -> bool:
        return (trace is not None and trace.is_sampled) or status >= 500 or self.settings.access_log

    def _log(self, answered: Answered, of: Mapping[str, Any]) -> None:
        """Write a request down, as a line of the log and, if its caller records the trace, as a span."""
        name, method, path, status, seconds, trace = answered
        ids = {"trace_id": trace.id, "span_id": trace.span} if trace else {}
        known = {"path": path, "status": status, "ms": round(seconds * 1000, 3), **of, **ids}
        logger.log(logging.ERROR if status == 500 else logging.INFO, "request", extra=known)
        if trace and trace.is_sampled and self._spans:
            attributes = {"http.request.method": method, "http.response.status_code": status, "url.path": path}
            attributes |= {f"mlp.{key}": value for key, value in of.items()}
            self._spans.record(trace, name, seconds, attributes)

    async def _ask_api(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The first one loads it, in a thread: requests to predict do not wait meanwhile.
        if "api" not in self.__dict__:
            await asyncio.to_thread(lambda: self.api)
        await self._traced_api(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        """The lifespan protocol."""
        await receive()
        self.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await asyncio.gather(*self._writing, return_exceptions=True)
        await asyncio.to_thread(self.stop)
        await send({"type": "lifespan.shutdown.complete"})


def create_app(environment: Mapping[str, str] = os.environ, metrics: Metrics | None = None) -> Service:
    """The service as its environment configures it.

    Without MLP_MODELS, but with an unpacked artifact in SM_MODEL_DIR (/opt/ml/model), it is a SageMaker endpoint's
    container, and serves that artifact as version 1.

    Raises:
        PlatformError: if the environment, or the artifact in the model directory, is not valid.
    """
    metrics = metrics or Metrics()
    folder = Path(environment.get("SM_MODEL_DIR", "/opt/ml/model"))
    if "MLP_MODELS" not in environment and all((folder / name).exists() for name in (MODEL_FILE, METADATA_FILE)):
        try:
            version = load_directory(folder)
        except ArtifactError as error:
            raise PlatformError(f"the model in {folder} cannot be served: {error}") from None
        # The limits count here too; nothing is live in SSM, so the parameter is never read.
        needed = {"MLP_MODELS": version.model, "MLP_LIVE_PARAMETERS": "/none"}
        settings = ServiceSettings.from_environment({**environment, **needed})
        return Service(settings, _catalogue_of(version, metrics), metrics, follower=None)
    settings = ServiceSettings.from_environment(environment)
    catalogue = Catalogue(Model(name) for name in settings.models)
    return Service(settings, catalogue, metrics, Follower(settings, catalogue, metrics))


def _catalogue_of(version: Version, metrics: Metrics) -> Catalogue:
    model = Model(version.model)
    model.serve({version.number: version}, ((version, 100),))
    model.problems = {}
    metrics.show_shares(model.name, {version.number: 100.0})
    return Catalogue([model])
