"""Adds to FastAPI's OpenAPI document what FastAPI cannot see: the msgspec messages and the routes of the hot path."""

from typing import Any

import msgspec
from msgspec import Struct

from contract.service import INPUT
from services.inference import feedback, protocol, sagemaker
from services.inference.live import Catalogue

_MESSAGES = (
    protocol.InferRequest,
    protocol.InferResponse,
    protocol.ErrorBody,
    protocol.ServerMetadata,
    protocol.ModelMetadata,
    protocol.Live,
    protocol.Ready,
    protocol.ModelReady,
    sagemaker.Instances,
    sagemaker.Predictions,
    feedback.Truth,
    feedback.Accepted,
)
_REASONS = {
    200: "The answer",
    202: "It is on its way",
    304: "The client has it already",
    400: "The request is not valid",
    403: "It is not for clients",
    404: "There is no such model or version",
    406: "None of the forms that the client accepts is there",
    408: "The body did not arrive in time",
    413: "The body is over the limit",
    415: "The content type or encoding is not supported",
    503: "Nothing is live, or too many requests are waiting",
    504: "It took longer than the deadline",
}


def answers(body: type[Struct], *errors: int, status: int = 200) -> dict[str, Any]:
    """Keyword arguments for a FastAPI route that answers with `body`, or with one of these errors."""
    return {"responses": _responses(body, *errors, status=status)}


def answers_file(media_type: str, *errors: int) -> dict[str, Any]:
    """The same for a route that answers with a file."""
    file = {"description": _REASONS[200], "content": {media_type: {"schema": {"type": "string", "format": "binary"}}}}
    known = {"description": _REASONS[304]}
    return {"responses": {200: file, 304: known} | _responses(protocol.ErrorBody, *errors, status=404)}


def complete(document: dict[str, Any], catalogue: Catalogue) -> dict[str, Any]:
    """The document with the messages, the routes that predict, and an example that a live version answers."""
    _, schemas = msgspec.json.schema_components(_MESSAGES, ref_template="#/components/schemas/{name}")
    document["components"] = {"schemas": schemas}  # FastAPI's own are of its validation errors, which cannot occur
    row = next((version.background[0].tolist() for model in catalogue.values() for version, _ in model.shares), [0.0])
    tensor = {"name": INPUT, "datatype": "FP32", "shape": [1, len(row)], "data": row}
    tag = "Open Inference Protocol v2"
    for path, summary in (
        ("/v2/models/{model}/infer", "Predict with a live version, chosen by weight"),
        ("/v2/models/{model}/versions/{version}/infer", "Predict with one version"),
    ):
        operation = _predict(tag, summary, protocol.InferRequest, {"inputs": [tensor]}, protocol.InferResponse)
        document["paths"][path] = {
            "post": operation | {"parameters": [_path_parameter(n) for n in path.split("{")[1:]]}
        }
    invoke = _predict(
        "SageMaker", "Predict rows", sagemaker.Instances, {"instances": [row]}, sagemaker.Predictions, 406
    )
    document["paths"]["/invocations"] = {"post": invoke}
    truth = {"application/json": {"schema": _reference(feedback.Truth), "example": {"id": "1", "label": 0}}}
    document["paths"]["/v2/models/{model}/feedback"]["post"]["requestBody"] = {"required": True, "content": truth}
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "model":
                    parameter["schema"] = {"type": "string", "enum": list(catalogue)}
    return document


def _predict(
    tag: str, summary: str, body: type[Struct], example: Any, answer: type[Struct], *more: int
) -> dict[str, Any]:
    content = {"application/json": {"schema": _reference(body), "example": example}}
    responses = _responses(answer, 400, 404, 408, 413, 415, 503, 504, *more)
    return {
        "tags": [tag],
        "summary": summary,
        "description": body.__doc__,
        "requestBody": {"required": True, "content": content},
        "responses": {str(code): value for code, value in responses.items()},
    }


def _path_parameter(rest: str) -> dict[str, Any]:
    return {"name": rest.partition("}")[0], "in": "path", "required": True, "schema": {"type": "string"}}


def _responses(body: type[Struct], *errors: int, status: int = 200) -> dict[int | str, dict[str, Any]]:
    bodies: dict[int, type[Struct]] = {status: body} | dict.fromkeys(errors, protocol.ErrorBody)
    if body in (protocol.Ready, protocol.ModelReady) and 503 in bodies:
        bodies[503] = body  # not being ready is what these routes are asked about, not an error
    return {
        code: {"description": _REASONS[code], "content": {"application/json": {"schema": _reference(of)}}}
        for code, of in bodies.items()
    }


def _reference(body: type[Struct]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{body.__name__}"}
