"""The demo page at `/`: its files in page/, and the ONNX files of the models that it may run in a browser."""

import gzip
import hashlib
import html
from functools import cached_property
from pathlib import Path
from string import Template

from fastapi import FastAPI, Request, Response

from contract.service import MODEL_FILE
from services.inference import openapi
from services.inference.live import Catalogue
from services.inference.protocol import RequestError
from services.inference.targets import find_model, find_version

MODEL = "digits"
"""The model that the page is for."""

_FOLDER = Path(__file__).parent / "page"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}
_ASK_ALWAYS, _KEEP = "no-cache", "public, max-age=31536000, immutable"
_SAFE = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
_SAFE_PAGE = _SAFE | {
    # Everything comes from here; WebAssembly is the one thing that may be compiled.
    "content-security-policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    # Both together isolate the page, and the clock of an isolated page has steps of 5 microseconds, not 100.
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
}


class Assets:
    """The files that the page loads: only those in its folder with a known suffix, which may be kept as `.gz`."""

    def __init__(self, folder: Path) -> None:
        found = [path for path in folder.rglob("*") if path.is_file()]
        names = {str(path.relative_to(folder)).removesuffix(".gz"): path for path in found}
        self._paths = {name: path for name, path in sorted(names.items()) if _type_of(name)}

    @cached_property
    def build(self) -> str:
        """Names this content: an address with it never changes its meaning, so browsers need not ask again."""
        digest = hashlib.sha256()
        for name, path in self._paths.items():
            digest.update(name.encode() + hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()[:16]

    def answer(self, request: Request, build: str, name: str) -> Response:
        """A file, compressed if the client takes that.

        Raises:
            RequestError: if there is none of this name.
        """
        if not (path := self._paths.get(name)):
            raise RequestError(404, f"there is no file {name!r} of the page")
        # The page of another instance, older or newer than this one, asks by another address; it gets what there is.
        keep = _KEEP if build == self.build else _ASK_ALWAYS
        return _answer(request, path.read_bytes(), path.suffix == ".gz", _type_of(name) or "", keep, _SAFE)


def add_demo(api: FastAPI, catalogue: Catalogue) -> None:
    """Add the page with its files, and the route of ONNX files."""
    assets = Assets(_FOLDER)

    # Reading and compressing takes milliseconds: functions without `async` run in threads.
    def page(request: Request) -> Response:
        known = [f'<li><a href="v2/models/{name}">{html.escape(name)}</a></li>' for name in catalogue]
        template = Template((_FOLDER / ("index.html" if MODEL in catalogue else "models.html")).read_text())
        text = template.substitute(assets=f"assets/{assets.build}", model=MODEL, models="\n".join(known))
        return _answer(request, text.encode(), False, "text/html; charset=utf-8", _ASK_ALWAYS, _SAFE_PAGE)

    def asset(request: Request) -> Response:
        return assets.answer(request, request.path_params["build"], request.path_params["name"])

    api.add_route("/", page, include_in_schema=False)
    api.add_route("/assets/{build}/{name:path}", asset, include_in_schema=False)

    @api.get(
        f"/v2/models/{{model}}/versions/{{version}}/{MODEL_FILE}",
        summary="The ONNX file of a version, if `serving.browser` of its manifest is true",
        tags=["Devices"],
        response_class=Response,
        **openapi.answers_file("application/octet-stream", 403, 404),
    )
    def file(request: Request, model: str, version: str) -> Response:
        found = find_version(find_model(catalogue, model), version)
        if found.file is None:
            raise RequestError(
                403, f"version {version} of {model!r} stays on the server: its manifest has no `browser: true`"
            )
        return _answer(request, found.file, False, "application/octet-stream", _ASK_ALWAYS, _SAFE)


def _type_of(name: str) -> str | None:
    return _TYPES.get(Path(name).suffix)


def _answer(
    request: Request, content: bytes, is_gzip: bool, media_type: str, keep: str, headers: dict[str, str]
) -> Response:
    """A file, or 304 if the client has it already. Whether it is compressed is part of its ETag."""
    takes_gzip = "gzip" in request.headers.get("accept-encoding", "")
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}{"-gzip" if takes_gzip else ""}"'
    known = headers | {"cache-control": keep, "etag": etag, "vary": "accept-encoding"}
    given = [part.strip().removeprefix("W/") for part in request.headers.get("if-none-match", "").split(",")]
    if etag in given or "*" in given:
        return Response(status_code=304, headers=known)
    if takes_gzip:
        known["content-encoding"] = "gzip"
        content = content if is_gzip else gzip.compress(content, mtime=0)
    elif is_gzip:
        content = gzip.decompress(content)
    return Response(content, 200, known, media_type)
