"""Setting an image's digest changes that one line, whatever the file looks like."""

import pytest
import yaml

from cli.digest import SECTIONS, with_digest
from contract.errors import PlatformError
from contract.paths import ROOT

NEW = "sha256:" + "c" * 64
FILES = [path.name for path in sorted(ROOT.glob("Pulumi.*.yaml")) if path.name != "Pulumi.local.yaml"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("section", SECTIONS)
def test_one_line_changes_and_everything_else_stays(file, section):
    before = (ROOT / file).read_text()
    after = with_digest(before, section, NEW, file)
    changed = yaml.safe_load(after)["config"]
    assert changed[f"ml-platform:{section}"].pop("image_digest") == NEW
    given = yaml.safe_load(before)["config"]
    given[f"ml-platform:{section}"].pop("image_digest", None)
    assert changed == given
    assert len(set(after.splitlines()) - set(before.splitlines())) == 1
    assert with_digest(after, section, NEW, file) == after


def test_a_digest_is_replaced():
    text = "config:\n  ml-platform:inference:\n    architecture: arm64\n    image_digest: old\n  other: {}\n"
    assert with_digest(text, "inference", NEW, "f") == text.replace("old", NEW)


def test_a_comment_stands_for_the_key():
    text = "config:\n  ml-platform:inference:\n    # image_digest: sha256:...  Until it is set\n    waf: {}\n"
    assert with_digest(text, "inference", NEW, "f").splitlines()[2:] == [f"    image_digest: {NEW}", "    waf: {}"]


@pytest.mark.parametrize("text", ["config: {}\n", "config:\n  ml-platform:inference: {architecture: arm64}\n"])
def test_a_file_that_is_written_otherwise_is_left_alone_with_a_word(text):
    with pytest.raises(PlatformError, match=r"Pulumi.x.yaml: ml-platform:inference"):
        with_digest(text, "inference", NEW, "Pulumi.x.yaml")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere", "inference", NEW], "there is no environment nowhere"),
        (["dev", "mlflow", NEW], "allowed: inference, training"),
        (["dev", "inference", "latest"], "'latest' is not an image's digest"),
    ],
)
def test_what_is_not_known_is_refused(arguments, said):
    from cli.digest import digest

    with pytest.raises(PlatformError, match=said):
        digest(*arguments)
