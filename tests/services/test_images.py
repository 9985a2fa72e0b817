"""The images, built without Docker: the Dockerfile's own files, packages and start command, in a clean folder."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import httpx
import pytest

from contract.paths import ROOT
from tests.services.conftest import Linear, free_port, is_ready, request, wait_until
from tests.services.images import build, context, instructions

DOCKERFILES = [*sorted(ROOT.glob("services/*/Dockerfile")), ROOT / "training" / "Dockerfile"]
by_name = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)


@by_name
def test_the_base_is_pinned_by_digest_and_the_image_has_two_stages(path):
    lines = instructions(path)
    ((_, base),) = [line for line in lines if line[0] == "ARG" and line[1].startswith("PYTHON=")]
    assert re.fullmatch(r"PYTHON=[\w./-]+:3\.\d+-slim(-\w+)?@sha256:[0-9a-f]{64}", base)
    assert [rest for word, rest in lines if word == "FROM"] == ["${PYTHON} AS build", "${PYTHON}"]


@by_name
def test_it_runs_as_a_user_without_rights_and_starts_without_a_shell(path):
    lines = instructions(path)
    last = lines[max(index for index, line in enumerate(lines) if line[0] == "FROM") :]
    words = [word for word, _ in last]
    assert re.search(r"useradd --system --uid 10001 ", dict(last)["RUN"])
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert dict(last)["USER"] not in ("root", "0")
    assert dict(last)["ENTRYPOINT"].startswith("[")
    assert words.count("ENTRYPOINT") == 1
    assert words.count("HEALTHCHECK") <= 1


@by_name
def test_it_is_built_from_named_files_without_secrets_or_unpinned_packages(path):
    for word, rest in instructions(path):
        assert not re.search(r"(?i)password|secret|token|credential", rest) or word == "RUN", rest
        if word == "COPY" and not rest.startswith("--from"):
            assert rest.split()[0] not in (".", "./"), "COPY . takes whatever lies around"
        if word == "RUN" and "install" in rest and rest.startswith("pip"):
            assert "--no-cache-dir" in rest
            assert re.search(r"--constraint|--requirement", rest)
        if word == "ADD":
            assert rest.split()[-2].startswith("https://"), "COPY is for files"


def test_the_builds_see_sources_alone(tmp_path):
    seen = {path.relative_to(tmp_path).parts[0] for path in context(tmp_path).rglob("*") if path.is_file()}
    assert seen <= {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", "contract", "services", "training"}
    assert {"contract", "services"} <= seen
    assert not list(tmp_path.rglob("Pulumi*"))
    assert not list(tmp_path.rglob(".*"))


@pytest.fixture(scope="module")
def image():
    """Where any user may read: the container's user is not the one who built the image."""
    folder = Path(tempfile.mkdtemp(prefix="image-"))
    folder.chmod(0o755)
    yield build(ROOT / "services/inference/Dockerfile", folder)
    for path in folder.rglob("*"):
        if path.is_dir():
            path.chmod(0o755)
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture
def writable():
    """The one folder that the service may write to."""
    folder = Path(tempfile.mkdtemp(prefix="tmp-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.e2e
def test_the_inference_image_answers_from_a_read_only_file_system(image, writable):
    model = writable / "model"
    model.mkdir()
    for name, content in Linear().files().items():
        (model / name).write_bytes(content)
    before, port = image.files(), free_port()
    variables = {"PORT": str(port), "TMPDIR": str(writable), "SM_MODEL_DIR": str(model)}
    process = image.run([*image.entrypoint, "serve"], **variables)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            wait_until(lambda: is_ready(client) or process.poll() is not None, seconds=30)
            assert process.poll() is None
            answer = client.post("/v2/models/digits/infer", json=request([1, 2, 3, 4]))
            assert answer.status_code == 200, answer.text
            assert answer.json()["outputs"][0]["data"] == Linear().answer([[1, 2, 3, 4]])["label"].tolist()
        assert image.run(image.health, **variables).wait(10) == 0
        assert image.run(["touch", "/opt/venv/written"]).wait(10) != 0, "the file system must be read-only"
    finally:
        process.terminate()
        process.wait(20)
    assert image.files() == before
    assert image.run(image.health, **variables).wait(10) != 0, "the health check must fail once nothing serves"


@pytest.mark.e2e
def test_the_inference_image_holds_what_the_service_needs_alone(image):
    python = image.root / "opt/venv/bin/python"
    listed = "import importlib.metadata as m; print(*sorted({d.name.lower() for d in m.distributions()}))"
    packages = subprocess.run([python, "-c", listed], capture_output=True, text=True, check=True).stdout.split()
    assert {"fastapi", "uvicorn", "onnxruntime", "boto3", "awslambdaric"} <= set(packages)
    assert not {"torch", "pulumi", "moto", "mlflow", "typer", "onnx", "pip", "setuptools", "wheel"} & set(packages)
    ours = {path.name for path in (image.root / "opt/venv").glob("lib/python*/site-packages/services/*")}
    assert "inference" in ours
    assert "mlflow" not in ours
