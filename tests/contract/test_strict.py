"""Files that people write: a mistake is named with its file, its key and what is allowed."""

import pytest

from contract.errors import PlatformError
from contract.strict import Strict, parse, read_yaml


class Inner(Strict):
    size: int = 1


class Outer(Strict):
    name: str
    inner: Inner = Inner()
    many: dict[str, Inner] = {}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"name": "a", "iner": {}}, "  unknown key 'iner'; did you mean 'inner'? allowed: inner, many, name"),
        ({"name": "a", "inner": {"seize": 1}}, "  inner: unknown key 'seize'; did you mean 'size'? allowed: size"),
        ({"name": "a", "many": {"x": {"y": 1}}}, "  many.x: unknown key 'y'; allowed: size"),
        ({}, "  name: this key is missing"),
        ({"name": "a", "inner": {"size": "big"}}, "  inner.size: input should be a valid integer"),
        ([], "input should be a valid dictionary"),
    ],
)
def test_mistakes_are_named(value, said):
    with pytest.raises(PlatformError) as caught:
        parse(Outer, value, "model.yaml")
    assert str(caught.value).startswith("model.yaml is not valid:\n")
    assert said in str(caught.value)


def test_all_mistakes_are_told_at_once_and_below_the_given_key():
    with pytest.raises(PlatformError) as caught:
        parse(Outer, {"inner": {"size": "big"}}, "Pulumi.dev.yaml", under="shop:network")
    assert "shop:network.name: this key is missing" in str(caught.value)
    assert "shop:network.inner.size: " in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"), [("a: [", "not valid YAML"), ("- a", "must hold a mapping"), (None, "does not exist")]
)
def test_a_file_that_is_no_mapping_is_named(tmp_path, text, said):
    file = tmp_path / "model.yaml"
    if text:
        file.write_text(text)
    with pytest.raises(PlatformError, match=rf"model.yaml .*{said}"):
        read_yaml(file)
