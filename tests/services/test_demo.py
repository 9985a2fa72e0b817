"""The demo page at /, in a real browser that has no network but the service, and the files behind it."""

import gzip
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from services.inference import demo
from tests.browser import browser, needs_browser
from tests.services.conftest import Linear, client_of, serve_directory

NPM = Path(demo.__file__).parent / "npm"
FILES = json.loads((NPM / "vendor.json").read_text())
SIDE = 8
BOTH = "/^(Both|They)/.test(document.querySelector('#verdict[aria-busy=false]')?.textContent)"
DRAWN_PIXELS = (
    "[...document.querySelectorAll('#grid td')].map(cell => Number(cell.getAttribute('aria-label').split('ink ')[1]))"
)


class Digits(Linear):
    """A classifier of images with as many pixels as the page draws."""

    def __init__(self, **metadata):
        super().__init__(columns=SIDE * SIDE, classes=10, metadata=metadata)


@pytest.fixture(scope="module")
def model():
    return Digits(browser=True)


@pytest.fixture(scope="module")
def page(model, tmp_path_factory):
    return client_of(serve_directory(tmp_path_factory.mktemp("model"), model))


@pytest.fixture(scope="module")
def service(run_directory, model):
    return run_directory(model)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture
def tab(chromium, service):
    tab = chromium.tab()
    tab.open(f"{service.url}/")
    tab.wait("document.querySelectorAll('#grid td').length === 64")
    yield tab
    assert tab.errors() == []
    assert {url.split("/")[2] for url in tab.requests() if not url.startswith("data:")} == {service.url.split("/")[2]}


def drawn(tab):
    """What the page shows once both have answered: the pixels, and the label that both gave."""
    tab.wait(BOTH)
    said = tab.text("#verdict")
    assert said.startswith("Both say "), said
    return tab.run(DRAWN_PIXELS), int(said.removeprefix("Both say ")[0])


def expected(model, pixels):
    return int(model.answer([pixels])["label"][0])


def across(tab, *points):
    """Places on the paper, given from 0 to 1, in the window."""
    left, top, width, height = tab.box("#paper")
    return [(left + x * width, top + y * height) for x, y in points]


@needs_browser
def test_a_digit_that_is_drawn_is_read_by_the_api_and_by_the_browser(tab, model):
    tab.drag(across(tab, (0.3, 0.2), (0.7, 0.2), (0.7, 0.5), (0.4, 0.8)))
    pixels, label = drawn(tab)
    assert sum(pixels) > 100
    assert max(pixels) == 16
    assert label == expected(model, pixels)
    for who in ("api", "browser"):
        assert tab.text(f"#{who}-version") == "1"
        assert tab.text(f"#{who}-ms").endswith(" ms")
        assert tab.text(f"#{who}-median").endswith(")")
    bars = tab.run("[...document.querySelectorAll('.bar.browser')].map(bar => parseFloat(bar.textContent))")
    assert bars == pytest.approx((100 * model.answer([pixels])["probabilities"][0]).tolist(), abs=0.1)


@needs_browser
def test_all_of_it_works_by_keyboard(tab, model):
    tab.run("document.querySelector('#grid td').focus()")
    tab.press(" ", "ArrowRight", "ArrowDown", "Enter", "End", "+", "+", "-")
    pixels, label = drawn(tab)
    assert {place: ink for place, ink in enumerate(pixels) if ink} == {0: 16, SIDE + 1: 16, 2 * SIDE - 1: 1}
    assert label == expected(model, pixels)
    tab.run("document.querySelector('#clear').focus()")
    tab.press("Enter")
    tab.wait("document.querySelector('#verdict').textContent === 'Draw a digit.'")
    assert not any(tab.run(DRAWN_PIXELS))


@needs_browser
@pytest.mark.parametrize("width", [320, 390])
def test_on_a_phone_a_finger_draws_and_nothing_sticks_out(tab, model, width):
    tab.call("Emulation.setDeviceMetricsOverride", width=width, height=700, deviceScaleFactor=2, mobile=True)
    tab.call("Emulation.setTouchEmulationEnabled", enabled=True)
    tab.swipe(across(tab, (0.5, 0.1), (0.5, 0.5), (0.5, 0.9)))
    pixels, label = drawn(tab)
    assert label == expected(model, pixels)
    assert tab.run("document.documentElement.scrollWidth") <= width


BAR_LINES = """[...document.querySelectorAll('.bar')].map((bar) => {
  const text = document.createRange();
  text.selectNodeContents(bar);
  const sticksOut = text.getBoundingClientRect().right > bar.getBoundingClientRect().right;
  return [bar.textContent, text.getClientRects().length, sticksOut];
})"""


@needs_browser
@pytest.mark.parametrize("width", [320, 390, 768, 1200])
def test_a_probability_is_one_line_beside_its_bar(tab, width):
    tab.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
    tab.click("#samples button")
    drawn(tab)
    bars = tab.run(BAR_LINES)
    assert [text for text, _, _ in bars].count("100.0 %") == 2
    assert {(lines, sticks_out) for _, lines, sticks_out in bars} == {(1, False)}


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_that_keeps_anybody_out(tab, scheme):
    tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    tab.click("#samples button")
    drawn(tab)
    axe = Path(__file__).parent / "vendor" / "axe.min.js.gz"
    tab.run(gzip.decompress(axe.read_bytes()).decode() + "; true")
    found = tab.run("axe.run(document).then(({violations, passes}) => ({violations, passes: passes.length}))")
    assert [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]] == []
    assert found["passes"] > 20


@needs_browser
def test_an_api_that_is_gone_is_said_in_words_and_the_browser_still_answers(chromium, run_directory, model):
    service, tab = run_directory(model), chromium.tab()
    tab.open(f"{service.url}/")
    tab.wait("performance.getEntriesByType('resource').some(entry => entry.name.endsWith('.wasm'))")
    tab.click("#samples button")
    drawn(tab)
    service.end()
    tab.click("#samples button:last-child")
    tab.wait("/the API does not answer/.test(document.querySelector('#verdict').textContent)")
    assert tab.text("#verdict").startswith("The browser says ")
    assert "The API cannot be reached" in tab.text("#problems")


FAILS_ONCE = """
let failed = false;
const real = window.fetch;
window.fetch = (address, ...rest) => {
  if (failed || !String(address).endsWith(PATH)) return real(address, ...rest);
  failed = true;
  return Promise.resolve(new Response('{"error": "it is loading"}', { status: 503 }));
};
"""


@needs_browser
@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("v2/models/digits", "The API answers with an error (503: it is loading)"),
        ("versions/1", "The API answers with an error (503: it is loading)"),
        ("versions/1/model.onnx", "The API answers with an error (503: it is loading)"),
        ("vendor/ort-wasm-simd-threaded.wasm", "What runs the model in this browser cannot be loaded: status 503"),
    ],
)
def test_what_fails_at_first_is_tried_again_with_the_next_digit(chromium, service, path, said):
    tab = chromium.tab()
    tab.call("Page.addScriptToEvaluateOnNewDocument", source=FAILS_ONCE.replace("PATH", json.dumps(path)))
    tab.open(f"{service.url}/")
    tab.wait(f"document.querySelector('#problems').textContent.includes({json.dumps(said)})")
    tab.click("#samples button")
    drawn(tab)
    assert tab.text("#problems") == ""
    assert tab.errors() == []


@needs_browser
def test_a_model_that_stays_on_the_server_is_asked_there_alone(chromium, run_directory):
    model, tab = Digits(), chromium.tab()
    tab.open(f"{run_directory(model).url}/")
    tab.click("#samples button")
    tab.wait("/^The API says/.test(document.querySelector('#verdict').textContent)")
    tab.wait("document.querySelector('#problems').textContent !== ''")
    for digit in range(2, 5):  # it is asked for once, and the reason stays
        assert "its manifest does not say" in tab.text("#problems")
        tab.click(f"#samples button:nth-child({digit})")
        tab.wait(
            f"performance.getEntriesByType('resource').filter(({{name}}) => name.endsWith('infer')).length >= {digit}"
        )
    assert sum(url.endswith("versions/1") for url in tab.requests()) == 1
    assert not any(url.endswith((".onnx", ".wasm")) for url in tab.requests())


def test_the_page_may_load_nothing_from_elsewhere_and_is_asked_for_anew(page):
    answer = page.get("/")
    assert answer.status_code == 200
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self' 'wasm-unsafe-eval'"
    assert "http" not in answer.text.replace("http-equiv", "")
    assert answer.headers["cache-control"] == "no-cache"
    same = page.get("/", headers={"if-none-match": answer.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")


def test_files_are_kept_for_ever_under_an_address_that_names_their_content(page):
    build = page.get("/").text.partition('href="assets/')[2].partition("/")[0]
    for name in ("page.js", "page.css", "vendor/ort-wasm-simd-threaded.wasm"):
        packed = page.get(f"/assets/{build}/{name}")
        plain = page.get(f"/assets/{build}/{name}", headers={"accept-encoding": "identity"})
        assert packed.content == plain.content  # the client unpacks
        assert packed.headers["content-encoding"] == "gzip"
        assert "content-encoding" not in plain.headers
        assert packed.headers["etag"] != plain.headers["etag"]
        assert "immutable" in packed.headers["cache-control"]
    assert page.get("/assets/older/page.js").headers["cache-control"] == "no-cache"
    for name in ("none.js", "index.html", "%2e%2e/demo.py"):
        assert page.get(f"/assets/{build}/{name}").status_code == 404


def test_the_file_of_a_model_is_given_out_only_if_its_manifest_says_so(page, model, tmp_path):
    path = "/v2/models/digits/versions/1/model.onnx"
    answer = page.get(path)
    assert answer.content == model.onnx()
    assert page.get(path, headers={"if-none-match": answer.headers["etag"]}).status_code == 304
    assert page.get("/v2/models/digits").json()["browser"] is True
    assert page.get("/v2/models/digits/versions/9/model.onnx").status_code == 404
    kept = client_of(serve_directory(tmp_path, Digits())).get(path)
    assert kept.status_code == 403
    assert "its manifest has no `browser: true`" in kept.json()["error"]


def test_a_service_without_digits_says_what_it_has(tmp_path):
    model = Linear(model="a<b")
    text = client_of(serve_directory(tmp_path, model)).get("/").text
    assert "a&lt;b" in text
    assert "which this service does not have" in text


def test_the_page_can_be_switched_off(tmp_path, model):
    without = client_of(serve_directory(tmp_path, model, MLP_DEMO="false"))
    assert without.get("/").status_code == 404
    assert without.get("/v2/models/digits/versions/1/model.onnx").status_code == 404
    assert without.post("/v2/models/digits/infer", json={"inputs": []}).status_code == 400


@pytest.mark.parametrize("known", FILES, ids=lambda known: known["from"])
def test_what_comes_from_npm_is_what_was_locked(known):
    content = gzip.decompress((NPM / known["file"]).read_bytes())
    assert hashlib.sha256(content).hexdigest() == known["sha256"]
    locked = json.loads((NPM / "package-lock.json").read_text())["packages"][f"node_modules/{known['package']}"]
    assert {key: locked[key] for key in ("version", "license", "integrity")} == {
        key: known[key] for key in ("version", "license", "integrity")
    }


def test_samples_are_images_of_the_data_set():
    from sklearn.datasets import load_digits

    digits = load_digits()
    text = (Path(demo.__file__).parent / "page" / "samples.js").read_text()
    samples = json.loads(
        "[" + text.partition("[")[2].rpartition("]")[0].replace(",\n  ]", "\n  ]").rstrip(", \n") + "]"
    )
    for digit, sample in enumerate(samples):
        same = (digits.data == np.array(sample)).all(axis=1)
        assert digits.target[same].tolist() == [digit]
