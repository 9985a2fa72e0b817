"""`mlp new`: what it writes is a model like those that ship. It is tried in a copy of the checkout."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import yaml

from contract.paths import ROOT

TASKS = {"churn": "classification", "lifetime": "regression", "faults": "density"}
HARD = 'Says "who" leaves: \\ #1'


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the code, and a way to run Python in it."""
    folder = tmp_path_factory.mktemp("copy") / "checkout"
    left_out = shutil.ignore_patterns(".*", "__pycache__", "node_modules")
    shutil.copytree(ROOT, folder, ignore=left_out)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MLP_"))}
    environment |= {"PYTHONPATH": str(folder), "MLP_STATE": str(folder / "state")}

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    run.folder = folder
    return run


@pytest.fixture(scope="module")
def made(checkout):
    """The new models' folders."""
    for name, task in TASKS.items():
        done = checkout("cli", "new", name, "--task", task, "--description", HARD, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["files"] == [
            f"training/models/{name}/{file}" for file in ("__init__.py", "model.py", "model.yaml", "sample.json")
        ]
    return checkout.folder / "training" / "models"


def test_the_manifest_says_what_was_asked_for(made):
    for name, task in TASKS.items():
        manifest = yaml.safe_load((made / name / "model.yaml").read_text())
        assert (manifest["name"], manifest["task"], manifest["description"]) == (name, task, HARD)
        assert manifest["data"]["source"] == f"{name}.csv"
        for file in (made / name).iterdir():
            if file.suffix:
                assert "NAME" not in file.read_text()


def test_the_tests_of_the_models_pass_with_the_new_ones(checkout, made):
    chosen = " or ".join(TASKS)
    files = ["tests/contract/test_manifest.py", "tests/training/test_data.py", "tests/training/test_steps.py"]
    done = checkout("pytest", "-q", "-p", "no:cacheprovider", *files, "-k", chosen)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "[100%]" in done.stdout


def test_the_new_folders_are_in_the_project_s_style(checkout, made):
    folders = [f"training/models/{name}" for name in TASKS]
    assert checkout("ruff", "check", *folders).stdout == "All checks passed!\n"
    assert checkout("ruff", "format", "--check", *folders).returncode == 0


def test_the_infrastructure_has_what_they_need(checkout, made):
    done = checkout("cli", "preview", "local", "--json")
    assert done.returncode == 0, done.stderr
    names = {resource["name"] for resource in json.loads(done.stdout)["resources"]}
    assert {f"mlp-local-inference-{name}" for name in TASKS} <= names
