"""The project and environment files are read as the Pulumi CLI reads them, and mistakes in them are named."""

import json

import pytest

from contract.errors import PlatformError
from contract.paths import ROOT
from contract.strict import read_yaml
from embedded import project

PROJECT = """
name: shop
runtime: python
main: stacks/
config:
  size: {type: integer, description: how large}
  zones: {type: array, items: {type: string}, default: [a]}
  network: {type: object, description: the network}
"""


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(project, "ROOT", tmp_path)
    (tmp_path / "Pulumi.yaml").write_text(PROJECT)

    def write(text, environment="dev"):
        (tmp_path / f"Pulumi.{environment}.yaml").write_text(text)

    return write


def test_values_defaults_and_structures_become_configuration(checkout):
    checkout(
        "config: {aws:region: eu-west-1, shop:size: 3, shop:network: {cidr: 10.0.0.0/16}, aws:defaultTags: {a: b}}"
    )
    config = project.read_config("dev")
    assert config["shop:size"] == "3"
    assert json.loads(config["shop:zones"]) == ["a"]
    assert json.loads(config["shop:network"]) == {"cidr": "10.0.0.0/16"}
    assert config["aws:region"] == "eu-west-1"
    assert json.loads(config["aws:defaultTags"]) == {"a": "b"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "config: {shop:sise: 3}",
            "Pulumi.dev.yaml is not valid:\n  unknown key 'shop:sise'; allowed: shop:network, shop:size",
        ),
        ("config: {aws:region: a, shop:size: 3}", "shop:network: this key is missing; the network"),
        (
            "config: {aws:region: a, shop:size: big, shop:network: {}}",
            "shop:size: must be of type integer, but it is 'big'",
        ),
        (
            "config: {aws:region: a, shop:size: true, shop:network: {}}",
            "shop:size: must be of type integer, but it is True",
        ),
        ("config: {shop:size: 3, shop:network: {}}", "aws:region: this key is missing"),
        ("- a list", "must hold a mapping"),
        ("config: [", "is not valid YAML"),
    ],
)
def test_a_mistake_names_the_file_the_key_and_what_is_allowed(checkout, text, said):
    checkout(text)
    with pytest.raises(PlatformError) as caught:
        project.read_config("dev")
    assert said in str(caught.value)


def test_an_unknown_environment_names_those_there_are(checkout):
    checkout("config: {}")
    with pytest.raises(PlatformError, match=r"unknown environment 'prod'; .* for: dev"):
        project.read_config("prod")


def test_the_program_runs_with_the_environments_configuration(checkout, tmp_path):
    checkout("config: {aws:region: a, shop:size: 3, shop:network: {}}")
    (tmp_path / "stacks").mkdir()
    program = "import pulumi\npulumi.export('size', pulumi.Config().require_int('size') * 2)\n"
    (tmp_path / "stacks" / "__main__.py").write_text(program)
    assert project.run_environment("dev").outputs == {"size": 6}


@pytest.mark.parametrize("file", ["Pulumi.yaml", "stacks/bootstrap/Pulumi.yaml"])
def test_a_project_declares_nothing_that_pulumi_refuses(file):
    """Pulumi wants types and defaults for the project's own keys only, and a value for any other."""
    declared = read_yaml(ROOT / file)["config"]
    assert all(":" not in key and declaration["description"] for key, declaration in declared.items())
    assert all("items" in declaration for declaration in declared.values() if declaration["type"] == "array")
