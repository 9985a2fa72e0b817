"""The images, built without Docker: the Dockerfile's own files, packages and start command, in a clean folder."""

import re

import pytest

from contract.paths import ROOT
from tests.services.images import context, instructions

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
