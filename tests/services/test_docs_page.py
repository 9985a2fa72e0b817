"""The docs page in a real browser, and the OpenAPI document that it shows."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.services.conftest import Linear, free_port, is_ready
from tests.waiting import PATIENCE_S, wait_until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed (apt-get install chromium)")
def test_the_docs_page_renders_without_internet(tmp_path):
    (tmp_path / "model").mkdir()
    for name, content in Linear().files().items():
        (tmp_path / "model" / name).write_bytes(content)
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLP_")}
    service = subprocess.Popen(
        [sys.executable, "-m", "services.inference", "--port", str(port)],
        cwd=Path(__file__).parents[2],
        env=environment | {"SM_MODEL_DIR": str(tmp_path / "model")},
        stderr=subprocess.DEVNULL,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            wait_until(lambda: is_ready(client))
        flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
        flags += " --disable-component-update --disable-sync --virtual-time-budget=15000 --dump-dom"
        # Any name but this machine's own fails to resolve: the page has to do with what the service gives it.
        offline = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
        page = subprocess.run(
            [
                CHROMIUM,
                *flags.split(),
                offline,
                f"--user-data-dir={tmp_path}/chromium",
                f"http://127.0.0.1:{port}/docs",
            ],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=True,
        ).stdout
    finally:
        service.terminate()
        service.wait(PATIENCE_S)
    assert 'data-path="/v2/models/{model}/infer"' in page.replace("\u200b", "")
    assert "Predict with a live version" in page
    assert "InferRequest" in page
    assert "Failed to load" not in page


def test_the_document_describes_the_routes_that_predict_with_an_example_that_works(client):
    document = client.get("/openapi.json").json()
    operation = document["paths"]["/v2/models/{model}/infer"]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    assert content["schema"] == {"$ref": "#/components/schemas/InferRequest"}
    assert client.post("/v2/models/digits/infer", json=content["example"]).status_code == 200
    invocation = document["paths"]["/invocations"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert client.post("/invocations", json=invocation).status_code == 200
    text = client.get("/openapi.json").text
    for part in text.split('"#/components/schemas/')[1:]:
        assert part.partition('"')[0] in document["components"]["schemas"]
    assert "422" not in text


def test_the_page_and_its_parts_come_from_the_service(client):
    page = client.get("/docs").text
    assert "http://" not in page
    assert "https://" not in page
    for part in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"):
        assert f"docs/assets/{part}" in page
        assert client.get(f"/docs/assets/{part}").status_code == 200
