"""What load balancers and monitors ask, many times a minute: answered without the framework, which may never load."""

import re
from collections.abc import Mapping

from msgspec import Struct
from starlette.responses import Response

from contract.service import LIVE_PATH, METRICS_PATH, READY_PATH, ServiceSettings
from services.inference import protocol
from services.inference.live import Catalogue
from services.inference.metrics import Metrics
from services.inference.protocol import RequestError
from services.inference.targets import find_model, find_version
from services.inference.tensors import encode

_match_ready = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/ready").fullmatch


class Health:
    """Whether the process lives and takes traffic, and its metrics."""

    def __init__(self, settings: ServiceSettings, catalogue: Catalogue, metrics: Metrics) -> None:
        self.is_draining = False
        self._catalogue = catalogue
        self._metrics = metrics
        self._fixed = {LIVE_PATH: self.live, READY_PATH: self.ready, "/ping": self.ping}
        if not settings.metrics_port:
            self._fixed[METRICS_PATH] = self.metrics

    def answer(self, method: str, path: str) -> Response | None:
        """The answer, or None if the path is not one of these."""
        fixed, model = self._fixed.get(path), _match_ready(path)
        if not fixed and not model:
            return None
        if method not in ("GET", "HEAD"):
            return json_response(protocol.ErrorBody("Method Not Allowed"), 405, {"allow": "GET"})
        try:
            if fixed:
                return fixed()
            assert model
            return self.version_ready(model[1], model[2]) if model[2] else self.model_ready(model[1])
        except RequestError as error:
            return json_response(protocol.ErrorBody(error.reason), error.status)

    def live(self) -> Response:
        """Whether the process answers."""
        return json_response(protocol.Live(True))

    def ready(self) -> Response:
        """Whether every model has a live version."""
        problems = {model.name: list(model.problems.values()) for model in self._catalogue.values() if model.problems}
        if self.is_draining:
            problems["service"] = ["it ends: what has begun is finished, and new requests go elsewhere"]
        return json_response(protocol.Ready(self._is_ready, problems), 200 if self._is_ready else 503)

    def ping(self) -> Response:
        """SageMaker's health check."""
        return Response(status_code=200 if self._is_ready else 503)

    def metrics(self) -> Response:
        """Metrics for Prometheus, of all workers."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest  # nobody asks a Lambda function

        from services.inference.exposition import registry_of

        return Response(generate_latest(registry_of(self._metrics)), media_type=CONTENT_TYPE_LATEST)

    def model_ready(self, model: str) -> Response:
        """Whether a model has a live version."""
        known = find_model(self._catalogue, model)
        is_ready = known.is_ready and not self.is_draining
        body = protocol.ModelReady(known.name, is_ready, list(known.problems.values()))
        return json_response(body, 200 if is_ready else 503)

    def version_ready(self, model: str, version: str) -> Response:
        """Whether a version is loaded."""
        known = find_model(self._catalogue, model)
        find_version(known, version)
        return json_response(
            protocol.ModelReady(known.name, not self.is_draining, []), 503 if self.is_draining else 200
        )

    @property
    def _is_ready(self) -> bool:
        return self._catalogue.is_ready and not self.is_draining


def json_response(body: Struct, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A message of the protocol as a response."""
    return Response(encode(body), status, headers, "application/json")
