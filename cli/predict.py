"""`mlp predict`: send rows to a model's endpoint."""

import contextlib
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from cli.output import AsJson, results
from contract.errors import PlatformError
from contract.manifest import load_manifest
from contract.paths import MODELS
from embedded.local import INFERENCE, Local


def predict(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    file: Annotated[
        Path | None,
        typer.Option(help="JSON with rows or a v2 request; a bare name may also be a file in the model's folder."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask a model of the laptop platform for predictions.

    The file holds a list of rows ([[0, 5, 13, ...], ...]), one row, {"instances": [rows]}, or a whole v2 request
    ({"inputs": [...]}). Without a file the sample in the model's folder is sent.
    """
    service = Local.of_this_checkout().processes.get(INFERENCE)
    if not service or service.state != "running":
        raise PlatformError("the inference service is not running; run `mlp up`")
    load_manifest(model)  # an unknown model is told before the file is read
    answer = request_prediction(service.url, model, read_request(model, file) if file else shipped_sample(model))
    if as_json:
        print(json.dumps(answer, indent=2))
        return
    results.print(f"model {answer['model_name']} version {answer['model_version']}, request {answer['id']}")
    table = Table(box=None, padding=(0, 2, 0, 0))
    columns = {output["name"]: _rows(output) for output in answer["outputs"]}
    for name in ("row", *columns):
        table.add_column(name)
    for number, values in enumerate(zip(*columns.values(), strict=True)):
        table.add_row(str(number), *(_text(value) for value in values))
    results.print(table)


def shipped_sample(model: str) -> dict[str, Any]:
    """The request in the model's folder."""
    return read_request(model, Path("sample.json"), MODELS / model)


def read_request(model: str, file: Path, folder: Path = Path()) -> dict[str, Any]:
    """Read rows or a request from a JSON file and make it a v2 request.

    Raises:
        PlatformError: if there is no such file, or it holds something else.
    """
    path = folder / file
    if not path.exists() and file.name == str(file):
        path = MODELS / model / file
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise PlatformError(f"{file} does not exist, here or in {MODELS / model}") from None
    except (OSError, ValueError) as error:
        raise PlatformError(f"{file} cannot be read as JSON: {error}") from None
    if isinstance(content, dict) and "inputs" in content:
        return content
    rows = content.get("instances") if isinstance(content, dict) else content
    if not isinstance(rows, list) or not rows:
        raise PlatformError(f'{file} must hold a list of rows, {{"instances": [rows]}} or a v2 request with "inputs"')
    if not isinstance(rows[0], list):
        rows = [rows]
    columns = len(load_manifest(model).data.columns)
    tensor = {"name": "features", "datatype": "FP32", "shape": [len(rows), columns], "data": rows}
    return {"inputs": [tensor]}


def request_prediction(url: str, model: str, request: dict[str, Any]) -> dict[str, Any]:
    """Send a v2 request and return the answer.

    Raises:
        PlatformError: with what the service says, if it refuses the request or cannot be reached; or if it was asked
            for binary data.
    """
    body = json.dumps(request).encode()
    post = urllib.request.Request(
        f"{url}/v2/models/{model}/infer", data=body, headers={"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(post, timeout=30) as answer:
            if answer.headers["Inference-Header-Content-Length"]:  # JSON, and then what it describes
                raise PlatformError(
                    "the service answered with binary data, which is not shown here; leave binary_data_output and "
                    "binary_data out of the request's parameters"
                )
            response: dict[str, Any] = json.load(answer)
            return response
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        with contextlib.suppress(ValueError, KeyError, TypeError):  # if not the protocol's error body: as it came
            text = json.loads(text)["error"]
        raise PlatformError(f"the service answered {error.code}: {text}") from None
    except OSError as error:
        raise PlatformError(f"the service at {url} cannot be reached: {error}") from None


def _rows(output: dict[str, Any]) -> list[Any]:
    """A tensor's flat data, cut into rows."""
    rows, *inner = output["shape"]
    if not inner:
        return list(output["data"])
    width = len(output["data"]) // rows
    return [output["data"][i * width : (i + 1) * width] for i in range(rows)]


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(f"{number:.3f}" for number in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
