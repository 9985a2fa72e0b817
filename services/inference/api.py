"""The rest of the API, as a FastAPI application: metadata, feedback and documentation."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from msgspec import Struct
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from contract.service import LIVE_PATH, METRICS_PATH, READY_PATH, ServiceSettings, Tensor
from services.inference import openapi, protocol
from services.inference.artifacts import Version
from services.inference.content import decompress
from services.inference.demo import add_demo
from services.inference.feedback import Accepted, Feedback
from services.inference.health import Health, json_response
from services.inference.live import Catalogue, Model
from services.inference.protocol import RequestError
from services.inference.targets import choose_version, find_model, find_version

Endpoint = TypeVar("Endpoint", bound=Callable[..., Awaitable[Response]])

EXTENSIONS = ["binary_tensor_data"]


class Api(FastAPI):
    """What is asked so seldom that a framework's comfort is worth its time."""

    def __init__(
        self, version: str, settings: ServiceSettings, catalogue: Catalogue, health: Health, feedback: Feedback
    ) -> None:
        self._catalogue = catalogue
        super().__init__(title="ML platform inference", version=version, docs_url=None, redoc_url=None)
        self.add_exception_handler(RequestError, _on_request_error)
        self.add_exception_handler(HTTPException, _on_http_exception)
        self.add_exception_handler(Exception, _on_exception)
        _add_health(self, settings, health)
        _add_metadata(self, catalogue)
        _add_feedback(self, catalogue, feedback, settings)
        _add_docs(self)
        if settings.demo:
            add_demo(self, catalogue)

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document; made anew each time, because its example follows the live versions."""
        self.openapi_schema = None
        return openapi.complete(super().openapi(), self._catalogue)

    def v2(self, path: str, summary: str, body: type[Struct], *errors: int) -> Callable[[Endpoint], Endpoint]:
        """Add a GET route of the protocol."""
        return self.get(path, summary=summary, tags=["Open Inference Protocol v2"], **openapi.answers(body, *errors))


def _add_health(api: Api, settings: ServiceSettings, health: Health) -> None:
    """The routes that `Health` answers before they get here, for the documentation to name them."""

    @api.v2(LIVE_PATH, "Whether the process answers", protocol.Live)
    async def live() -> Response:
        return health.live()

    @api.v2(READY_PATH, "Whether every model has a live version", protocol.Ready, 503)
    async def ready() -> Response:
        return health.ready()

    @api.v2("/v2/models/{model}/ready", "Whether a model has a live version", protocol.ModelReady, 404, 503)
    async def model_ready(model: str) -> Response:
        return health.model_ready(model)

    @api.v2("/v2/models/{model}/versions/{version}/ready", "Whether a version is loaded", protocol.ModelReady, 404, 503)
    async def version_ready(model: str, version: str) -> Response:
        return health.version_ready(model, version)

    @api.get(
        "/ping",
        summary="SageMaker's health check",
        tags=["SageMaker"],
        response_class=Response,
        responses={503: {"description": "Nothing is live"}},
    )
    async def ping() -> Response:
        return health.ping()

    if not settings.metrics_port:

        @api.get(
            METRICS_PATH,
            summary="Metrics for Prometheus",
            tags=["Operations"],
            response_class=Response,
            responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        )
        async def metrics() -> Response:
            return health.metrics()


def _add_metadata(api: Api, catalogue: Catalogue) -> None:
    @api.v2("/v2", "Server metadata", protocol.ServerMetadata)
    async def server_metadata() -> Response:
        return json_response(protocol.ServerMetadata("ml-platform", api.version, EXTENSIONS))

    @api.v2("/v2/models/{model}", "How to call a model, and its live versions", protocol.ModelMetadata, 404, 503)
    async def model_metadata(model: str) -> Response:
        known = find_model(catalogue, model)
        return json_response(_describe(known, choose_version(known, "")))

    @api.v2("/v2/models/{model}/versions/{version}", "How to call a version", protocol.ModelMetadata, 404)
    async def version_metadata(model: str, version: str) -> Response:
        known = find_model(catalogue, model)
        return json_response(_describe(known, find_version(known, version)))


def _add_feedback(api: Api, catalogue: Catalogue, feedback: Feedback, settings: ServiceSettings) -> None:
    @api.post(
        "/v2/models/{model}/feedback",
        summary="Tell the true label of a prediction",
        tags=["Feedback"],
        status_code=202,
        **openapi.answers(Accepted, 400, 404, 408, 413, 415, 503, status=202),
    )
    async def give_feedback(model: str, request: Request) -> Response:
        known = find_model(catalogue, model)
        body = await _read(request, settings.max_body_bytes, settings.deadline_ms / 1000)
        return json_response(feedback.accept(known, body), 202)


def _add_docs(api: Api) -> None:
    """The docs page with Swagger UI from an installed package: it works without internet."""
    api.mount("/docs/assets", StaticFiles(packages=[("fastapi_swagger", "resources")]))

    @api.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        # Relative, so that the page also works behind a path prefix and a TLS proxy.
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title=api.title,
            swagger_js_url="docs/assets/swagger-ui-bundle.js",
            swagger_css_url="docs/assets/swagger-ui.css",
            swagger_favicon_url="docs/assets/favicon-32x32.png",
        )


def _describe(model: Model, version: Version) -> protocol.ModelMetadata:
    return protocol.ModelMetadata(
        name=model.name,
        versions=list(model.versions),
        platform="onnxruntime_onnx",
        inputs=_tensors(version.inputs),
        outputs=_tensors(version.output_tensors),
        columns=list(version.columns),
        shares={version.number: share for version, share in model.shares},
        problems=list(model.problems.values()),
        browser=version.file is not None,
    )


def _tensors(tensors: tuple[Tensor, ...]) -> list[protocol.TensorMetadata]:
    return [protocol.TensorMetadata(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in tensors]


async def _read(request: Request, limit: int, deadline_s: float) -> bytes:
    """The whole body, unpacked; refused if it is over the limit, or does not come in time."""
    body = bytearray()
    try:
        async with asyncio.timeout(deadline_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise RequestError(413, f"the body is larger than the limit of {limit} bytes")
    except TimeoutError:
        raise RequestError(408, f"the body did not arrive within {deadline_s:g} s") from None
    encoding = request.headers.get("content-encoding", "identity")
    return decompress(bytes(body), encoding.encode("latin-1"), limit)


async def _on_request_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    headers = {"retry-after": str(error.retry_after_s)} if error.retry_after_s else {}
    if error.status in (408, 413):
        headers["connection"] = "close"  # the rest of the body is still on its way
    return json_response(protocol.ErrorBody(error.reason), error.status, headers)


async def _on_http_exception(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return json_response(protocol.ErrorBody(error.detail), error.status_code, error.headers)


async def _on_exception(_: Request, __: Exception) -> Response:
    return json_response(protocol.ErrorBody("internal error; the log of the service has the details"), 500)
