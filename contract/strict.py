"""Pydantic models for files that people write: unknown keys are errors, and an error says what is allowed."""

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from contract.errors import PlatformError

Model = TypeVar("Model", bound="Strict")


class Strict(BaseModel):
    """A frozen model that refuses unknown keys and names the known ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, value: Any) -> Any:
        if isinstance(value, dict):
            for key in value.keys() - cls.model_fields.keys():
                close = difflib.get_close_matches(str(key), cls.model_fields, n=1)
                hint = f"did you mean {close[0]!r}? " if close else ""
                message = "unknown key {key}; {hint}allowed: {allowed}"
                allowed = ", ".join(sorted(cls.model_fields))
                raise PydanticCustomError("unknown_key", message, {"key": repr(key), "hint": hint, "allowed": allowed})
        return value


def parse(model: type[Model], value: Any, source: Path | str, under: str = "") -> Model:
    """Validate `value` as `model`.

    Args:
        model: the class to build.
        value: plain data, as read from YAML or JSON.
        source: the file that the user has to change when something is wrong.
        under: the key in `source` under which `value` stands, or, ending in a colon, the namespace of its keys.

    Raises:
        PlatformError: naming the file, the key, what was given and what is allowed, for each mistake.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        mistakes = "\n".join(f"  {_explain(detail, value, under)}" for detail in error.errors())
        raise PlatformError(f"{source} is not valid:\n{mistakes}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds one mapping.

    Raises:
        PlatformError: if the file is missing, is not YAML, or holds something other than a mapping.
    """
    try:
        value = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise PlatformError(f"{path} does not exist") from None
    except yaml.YAMLError as error:
        raise PlatformError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(value, dict):
        raise PlatformError(f"{path} must hold a mapping of keys to values, but it holds {type(value).__name__}")
    return value


def _explain(detail: ErrorDetails, value: Any, under: str) -> str:
    inner = ".".join(_path(detail, value))
    if under.endswith(":"):
        key = f"{under}{inner}" if inner else ""
    else:
        key = ".".join(part for part in (under, inner) if part)
    at = f"{key}: " if key else ""
    if detail["type"] in ("unknown_key", "secret"):  # which say what they have to; a secret is not to be repeated
        return at + detail["msg"]
    if detail["type"] == "missing":
        return f"{key}: this key is missing"
    message = detail["msg"].removeprefix("Value error, ")
    if isinstance(detail["input"], dict):
        return at + message  # of a whole section: the message says what does not fit in it
    return f"{at}{message[0].lower()}{message[1:]}, but it is {detail['input']!r}"


def _path(detail: ErrorDetails, value: Any) -> Iterator[str]:
    """The keys that lead to what is wrong, without the names of union members, which pydantic puts among them."""
    *outer, last = detail["loc"] or ("",)
    for part in outer:
        if isinstance(value, dict) and part not in value:
            continue
        yield str(part)
        value = _item(value, part)
    missing = detail["type"] == "missing" or not isinstance(value, dict) or last in value
    if last != "" and missing:
        yield str(last)


def _item(value: Any, part: int | str) -> Any:
    try:
        return value[part]
    except (KeyError, IndexError, TypeError):
        return None
