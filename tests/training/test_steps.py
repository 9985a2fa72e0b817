"""A step runs on its own, needs those before it, goes on where it was cut off, and starts as a container does."""

import json
import os
import re
import shutil
import subprocess
import sys
import types
import venv
from importlib import metadata
from pathlib import Path

import boto3
import pytest
from packaging.requirements import Requirement

from contract.errors import PlatformError
from contract.manifest import load_manifest, model_names
from contract.paths import ROOT
from contract.scoring import Scoring
from training import steps
from training.register import fingerprint
from training.steps import STEPS, Step, is_current, run_step

DOCKERFILE = (ROOT / "training" / "Dockerfile").read_text()


@pytest.fixture
def three(monkeypatch, context, manifest):
    """Three steps that count how often they run, and their context."""
    order = {"one": None, "two": "one", "three": "two"}
    monkeypatch.setattr(steps, "STEPS", {name: Step(name, ("data",), after) for name, after in order.items()})
    here, ran = context(manifest), []
    for name in ("one", "two", "three"):
        module = types.ModuleType(name)
        module.step = lambda context, name=name: ran.append(name) or f"{name} came out"
        monkeypatch.setitem(sys.modules, f"training.{name}", module)
    return types.SimpleNamespace(context=here, ran=ran, run=lambda name: run_step(name, here))


def test_a_step_reports_and_is_current_until_what_it_depends_on_changes(three, monkeypatch):
    assert three.run("one") == "one came out"
    assert three.run("two") == "two came out"
    assert [is_current(name, three.context) for name in ("one", "two", "three")] == [True, True, False]
    monkeypatch.setattr(steps, "code", lambda _: "other code")
    assert not is_current("two", three.context)


def test_a_step_depends_on_the_sections_that_it_reads_and_on_the_results_before_it(three, manifest):
    for name in ("one", "two"):
        three.run(name)
    gates = three.context.manifest.model_copy(update={"gates": {}})
    assert is_current("two", steps.Context(gates, three.context.outputs, three.context.work, print))
    data = manifest.model_copy(update={"data": manifest.data.model_copy(update={"max_quarantined": 0.1})})
    assert not is_current("two", steps.Context(data, three.context.outputs, three.context.work, print))
    sys.modules["training.one"].step = lambda _: "another result"
    three.run("one")
    assert not is_current("two", three.context)


def test_a_step_whose_predecessor_has_no_results_says_what_to_run(three):
    three.run("one")
    with pytest.raises(PlatformError) as caught:
        three.run("three")
    assert "two of digits has none that are up to date; run `mlp run two digits`, or `mlp train digits`" in str(
        caught.value
    )
    with pytest.raises(PlatformError, match="unknown step 'tree'; there are: one, two, three"):
        three.run("tree")


def test_a_step_that_fails_leaves_the_results_before_it_and_its_own_to_go_on_from(three, manifest):
    three.run("one")

    def fail(context):
        half = context.folder("two") / "half"
        if half.exists():
            return "went on"
        half.write_text("done")
        raise PlatformError("the disk is full")

    sys.modules["training.two"].step = fail
    with pytest.raises(PlatformError, match="the disk is full"):
        three.run("two")
    assert [is_current(name, three.context) for name in ("one", "two")] == [True, False]
    assert three.run("two") == "went on"
    data = manifest.model_copy(update={"data": manifest.data.model_copy(update={"max_quarantined": 0.1})})
    other = steps.Context(data, three.context.outputs, three.context.work, print)
    run_step("one", other)
    with pytest.raises(PlatformError, match="the disk is full"):  # what was half-done belongs to other settings
        run_step("two", other)


def test_every_step_is_a_module_and_reads_sections_that_there_are(manifest):
    for name, step in STEPS.items():
        assert (ROOT / "training" / f"{name}.py").exists(), name
        assert set(step.reads) <= set(type(manifest).model_fields)


@pytest.mark.parametrize("model", model_names())
def test_the_data_steps_of_every_model_run_one_after_the_other(context, model):
    here = context(load_manifest(model))
    for name in ("ingest", "validate", "explore", "split"):
        run_step(name, here)
        assert is_current(name, here)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """The folder that the Dockerfile's COPY lines make."""
    folder = tmp_path_factory.mktemp("image")
    for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE):
        for name in line.split():
            source = ROOT / name
            shutil.copytree(source, folder / name) if source.is_dir() else shutil.copy(source, folder)
    return folder


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A folder with the packages that the image installs, and no others of this environment.

    They are linked, as installing torch anew would take longer than all the other tests together.
    """
    (extra,) = re.findall(r'^RUN pip .* --constraint constraints.txt "\.\[(\w+)\]"$', DOCKERFILE, re.MULTILINE)
    folder, missing, known = tmp_path_factory.mktemp("packages"), [("ml-platform", extra)], set()
    while missing:
        name, wanted = missing.pop()
        known.add((name, wanted))
        found = metadata.distribution(name)
        if name != "ml-platform":
            tops = {file.parts[0] for file in found.files or [] if file.parts[0] not in ("..", "__pycache__")}
            for top in tops:
                if not (folder / top).exists():
                    (folder / top).symlink_to(Path(str(found.locate_file(top))))
        for requirement in map(Requirement, found.requires or []):
            if not requirement.marker or requirement.marker.evaluate({"extra": wanted}):
                pairs = {(requirement.name, each) for each in (requirement.extras or {""})} | {(requirement.name, "")}
                missing += sorted(pairs - known)
    return folder


@pytest.fixture
def container(image, packages, tmp_path):
    """Runs the image's entry point with the files and the packages that it holds, and nothing else that is here."""
    python, *command = json.loads(re.search(r"^ENTRYPOINT (.*)$", DOCKERFILE, re.MULTILINE)[1])
    assert python == "python"
    venv.create(tmp_path / "bare", symlinks=True)  # whose Python, and what it starts in turn, knows no package

    def run(*arguments, **environment):
        known = {name: value for name, value in os.environ.items() if not name.startswith(("MLP_", "SM_"))}
        known |= {"PYTHONPATH": f"{image}:{packages}", "MLP_WORK": str(tmp_path / "work"), **environment}
        done = subprocess.run(
            [tmp_path / "bare" / "bin" / "python", *command, *arguments],
            cwd=image,
            env=known,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    return run


def test_the_image_runs_steps_and_hands_their_results_on(container, outputs, tmp_path):
    given = {"MLP_OUTPUTS": outputs.model_dump_json()}
    code, said, error = container("ingest", "diabetes", **given)
    assert (code, error) == (0, "")
    assert "ingest: snapshot " in said
    file = tmp_path / "outputs.json"
    file.write_text(outputs.model_dump_json())
    code, said, error = container("validate", "diabetes", MLP_OUTPUTS=str(file))
    assert (code, error) == (0, "")
    assert "442 rows keep the schema" in said
    code, _, error = container("split", "diabetes", **given)
    assert code == 1
    assert error.startswith("error: split needs the results of explore")


def test_the_image_as_batch_starts_it_works_on_a_folder_in_s3(container, outputs):
    """Batch cannot replace an image's entry point, as the other backends do."""
    s3, bucket = boto3.client("s3"), outputs.buckets.artifacts
    s3.put_object(Bucket=bucket, Key="_work/diabetes/outputs.json", Body=outputs.model_dump_json().encode())
    work = f"s3://{bucket}/_work/diabetes"
    code, said, error = container("ingest", "diabetes", MLP_WORK=work, MLP_OUTPUTS=f"{work}/outputs.json")
    assert (code, error) == (0, "")
    assert "ingest: snapshot " in said
    left = s3.list_objects_v2(Bucket=bucket, Prefix="_work/diabetes/diabetes/")["Contents"]
    assert any("/ingest/" in item["Key"] for item in left)


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "said"),
    [
        ([], {}, 2, "usage: python -m training STEP MODEL [SEGMENT of tune]\nsteps: ingest, validate"),
        (["ingest"], {}, 2, "usage"),
        (["ingest", "digits"], {}, 1, "error: the variable MLP_OUTPUTS is not set"),
        (["ingest", "digits"], {"MLP_OUTPUTS": "{}"}, 1, "MLP_OUTPUTS is not valid:\n  environment: this key is"),
        (["ingest", "digits"], {"MLP_OUTPUTS": "{"}, 1, "error: MLP_OUTPUTS is not valid JSON: "),
        (["ingest", "digits"], {"MLP_OUTPUTS": "/none.json"}, 1, "error: /none.json does not exist"),
        (["ingest", "digit"], {}, 1, "error: unknown model 'digit'"),
        (["score", "digits"], {}, 2, "the following arguments are required: --input, --output"),
    ],
)
def test_a_container_that_is_started_wrongly_says_how(container, arguments, environment, code, said):
    got = container(*arguments, **environment)
    assert got[0] == code
    assert said in got[2]
    assert "Traceback" not in got[2]


def test_the_image_holds_no_package_of_the_service_or_of_pulumi(packages):
    assert {"torch", "boto3", "pydantic"} <= {path.name for path in packages.iterdir()}
    assert not {"pulumi", "mangum", "moto", "pytest", "services"} & {path.name for path in packages.iterdir()}


def test_the_image_is_not_run_by_root():
    stages = DOCKERFILE.split("FROM ")
    assert len(stages) == 3
    assert re.search(r"^USER (?!root)\w+$", stages[-1], re.MULTILINE)


def test_a_schedule_for_scoring_makes_no_new_version(context, manifest):
    here = context(manifest)
    run_step("ingest", here)
    named = {
        fingerprint(steps.Context(manifest.model_copy(update=change), here.outputs, here.work, print))
        for change in ({}, {"scoring": Scoring(schedule="rate(1 day)", input="in.csv")})
    }
    assert len(named) == 1
    assert (
        fingerprint(steps.Context(manifest.model_copy(update={"limits": ()}), here.outputs, here.work, print))
        not in named
    )
