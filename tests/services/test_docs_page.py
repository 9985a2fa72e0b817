"""The docs page in a real browser, and the OpenAPI document that it shows."""

from tests.browser import needs_browser, open_page
from tests.services.conftest import Linear


@needs_browser
def test_the_docs_page_renders_without_internet(run_directory, tmp_path):
    document = open_page(f"{run_directory(Linear()).url}/docs", tmp_path).document
    assert 'data-path="/v2/models/{model}/infer"' in document.replace("\u200b", "")
    assert "Predict with a live version" in document
    assert "InferRequest" in document
    assert "Failed to load" not in document


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
