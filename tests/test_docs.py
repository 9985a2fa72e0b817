"""The documentation: its links lead somewhere, every page can be found, and the settings that it shows are ones."""

import re

import pytest
import yaml

from contract.manifest import load_manifest
from contract.paths import ROOT
from contract.scoring import Scoring
from contract.training import Compute
from infra.settings.training import TrainingSettings
from infra.sizes import fargate_mistake

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_its_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if not target.startswith(("http", "mailto")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readme_leads_to_every_page():
    readme = (ROOT / "README.md").read_text()
    assert [page.name for page in PAGES[1:] if f"docs/{page.name}" not in readme] == []


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL)


def test_the_settings_of_training_are_ones():
    sections = [yaml.safe_load(text) for text in blocks("training-on-sagemaker.md", "yaml")]
    computes = [each["compute"] for each in sections if "compute" in each]
    settings = [each["ml-platform:training"] for each in sections if "ml-platform:training" in each]
    assert [Compute.model_validate(each).gpus for each in computes] == [1]
    assert [TrainingSettings.model_validate(each).backend for each in settings] == ["sagemaker", "batch"]


def test_the_settings_of_serving_are_ones():
    served = type(load_manifest("digits"))
    given = load_manifest("digits").model_dump(mode="json")
    examples = [line for text in blocks("serving-runtimes.md", "yaml") for line in re.split(r"\n(?=serving:)", text)]
    examples = [yaml.safe_load(each)["serving"] for each in examples if each.startswith("serving:")]
    assert {served.model_validate(given | {"serving": each}).serving.runtime for each in examples} == {
        "lambda",
        "ecs",
        "sagemaker",
    }


def test_the_settings_of_scheduled_scoring_are_ones():
    (text,) = blocks("rollout.md", "yaml")
    scoring = Scoring.model_validate(yaml.safe_load(text)["scoring"])
    assert fargate_mistake(1024 * scoring.vcpus, 1024 * scoring.memory_gib) is None


def test_the_image_for_gpus_has_the_services_version_of_onnx_runtime():
    (text,) = blocks("serving-runtimes.md", "dockerfile")
    (gpu,) = re.findall(r"onnxruntime-gpu==([\d.]+)", text)
    assert f"\nonnxruntime=={gpu}\n" in (ROOT / "constraints.txt").read_text()
