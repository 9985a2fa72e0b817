"""Puts the service together: the hot path, and around it what FastAPI is good at."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from msgspec import Struct
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from contract.errors import PlatformError
from contract.service import METADATA_FILE, MODEL_FILE, ServiceSettings, Tensor
from services.inference import openapi, protocol
from services.inference.artifacts import ArtifactError, Version, load_directory
from services.inference.infer import Inference, choose_version, find_model, find_version
from services.inference.live import Catalogue, Follower, Model
from services.inference.metrics import Metrics
from services.inference.protocol import RequestError

Endpoint = TypeVar("Endpoint", bound=Callable[..., Awaitable[Response]])


class Service(FastAPI):
    """The ASGI application."""

    def __init__(
        self, settings: ServiceSettings, catalogue: Catalogue, metrics: Metrics, follower: Follower | None
    ) -> None:
        self.catalogue = catalogue
        self.follower = follower
        self._inference = Inference(settings, catalogue, metrics)
        super().__init__(
            title="ML platform inference",
            version=metadata.version("ml-platform"),
            docs_url=None,
            redoc_url=None,
            lifespan=_life,
        )
        self.add_exception_handler(RequestError, _on_request_error)
        self.add_exception_handler(HTTPException, _on_http_exception)
        self.add_exception_handler(Exception, _on_exception)
        _add_routes(self, metrics)
        _add_docs(self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; one to predict passes none of the framework."""
        if scope["type"] == "http" and self._inference.handles(scope["path"]):
            await self._inference(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document; made anew each time, because its example follows the live versions."""
        self.openapi_schema = None
        return openapi.complete(super().openapi(), self.catalogue)


def create_app(environment: Mapping[str, str] = os.environ) -> Service:
    """The service as its environment configures it.

    Without MLP_MODELS, but with an unpacked artifact in SM_MODEL_DIR (/opt/ml/model), it is a SageMaker endpoint's
    container, and serves that artifact as version 1.

    Raises:
        PlatformError: if the environment, or the artifact in the model directory, is not valid.
    """
    metrics = Metrics()
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
    catalogue = Catalogue({name: Model(name) for name in settings.models})
    return Service(settings, catalogue, metrics, Follower(settings, catalogue, metrics))


def _catalogue_of(version: Version, metrics: Metrics) -> Catalogue:
    model = Model(version.model)
    model.serve({version.number: version}, ((version, 100),))
    model.problems = {}
    metrics.show_shares(model.name, {version.number: 100.0})
    return Catalogue({model.name: model})


@asynccontextmanager
async def _life(service: FastAPI) -> AsyncIterator[None]:
    """Follow the live versions for as long as the server runs; on Lambda the handler does it instead."""
    follower = service.follower if isinstance(service, Service) else None
    if follower:
        follower.start()
    yield
    if follower:
        follower.stop()


def _add_routes(service: Service, metrics: Metrics) -> None:
    catalogue = service.catalogue

    def route(path: str, summary: str, body: type[Struct], *errors: int) -> Callable[[Endpoint], Endpoint]:
        return service.get(path, summary=summary, tags=["Open Inference Protocol v2"], **openapi.answers(body, *errors))

    @route("/v2", "Server metadata", protocol.ServerMetadata)
    async def server_metadata() -> Response:
        return _json(protocol.ServerMetadata("ml-platform", service.version, []))

    @route("/v2/health/live", "Whether the process answers", protocol.Live)
    async def live() -> Response:
        return _json(protocol.Live(True))

    @route("/v2/health/ready", "Whether every model has a live version", protocol.Ready, 503)
    async def ready() -> Response:
        problems = {model.name: list(model.problems.values()) for model in catalogue.values() if model.problems}
        return _json(protocol.Ready(catalogue.is_ready, problems), 200 if catalogue.is_ready else 503)

    @route("/v2/models/{model}", "How to call a model, and its live versions", protocol.ModelMetadata, 404, 503)
    async def model_metadata(model: str) -> Response:
        known = find_model(catalogue, model)
        return _json(_describe(known, choose_version(known, "")))

    @route("/v2/models/{model}/versions/{version}", "How to call a version", protocol.ModelMetadata, 404)
    async def version_metadata(model: str, version: str) -> Response:
        known = find_model(catalogue, model)
        return _json(_describe(known, find_version(known, version)))

    @route("/v2/models/{model}/ready", "Whether a model has a live version", protocol.ModelReady, 404, 503)
    async def model_ready(model: str) -> Response:
        known = find_model(catalogue, model)
        body = protocol.ModelReady(known.name, known.is_ready, list(known.problems.values()))
        return _json(body, 200 if known.is_ready else 503)

    @route("/v2/models/{model}/versions/{version}/ready", "Whether a version is loaded", protocol.ModelReady, 404)
    async def version_ready(model: str, version: str) -> Response:
        known = find_model(catalogue, model)
        find_version(known, version)
        return _json(protocol.ModelReady(known.name, True, []))

    @service.get("/ping", summary="SageMaker's health check", tags=["SageMaker"])
    async def ping() -> Response:
        return Response(status_code=200 if catalogue.is_ready else 503)

    @service.get("/metrics", summary="Metrics for Prometheus", tags=["Operations"])
    async def prometheus() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _add_docs(service: Service) -> None:
    """The docs page with Swagger UI from an installed package: it works without internet."""
    service.mount("/docs/assets", StaticFiles(packages=[("fastapi_swagger", "resources")]))

    @service.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        # Relative, so that the page also works behind a path prefix and a TLS proxy.
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title=service.title,
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
        outputs=_tensors(tuple(version.outputs.values())),
        columns=list(version.columns),
        shares={version.number: share for version, share in model.shares},
        problems=list(model.problems.values()),
    )


def _tensors(tensors: tuple[Tensor, ...]) -> list[protocol.TensorMetadata]:
    return [protocol.TensorMetadata(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in tensors]


def _json(body: Struct, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(protocol.encode(body), status, headers, "application/json")


async def _on_request_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return _json(protocol.ErrorBody(error.reason), error.status)


async def _on_http_exception(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _json(protocol.ErrorBody(error.detail), error.status_code, error.headers)


async def _on_exception(_: Request, __: Exception) -> Response:
    return _json(protocol.ErrorBody("internal error; the log of the service has the details"), 500)
