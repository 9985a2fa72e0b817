"""Reads IAM policy documents."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from infra.guardrails.rule import Resource, unknown


def statements(resource: Resource, path: str = "policy") -> Iterator[Mapping[str, Any]]:
    """The statements of the document at `path`; none if it is not known yet."""
    document = resource.get(path)
    if isinstance(document, str):
        try:
            document = json.loads(document)
        except ValueError:
            return  # unknown, or not JSON, which AWS refuses
    found = document.get("Statement", []) if isinstance(document, Mapping) else []
    yield from (s for s in (found if isinstance(found, list) else [found]) if isinstance(s, Mapping))


def allows(resource: Resource, path: str = "policy") -> list[Mapping[str, Any]]:
    """The statements that allow something."""
    return [statement for statement in statements(resource, path) if statement.get("Effect") == "Allow"]


def texts(value: Any) -> list[str]:
    """The strings of an element that may be one string or a list of them."""
    return [str(item) for item in (value if isinstance(value, list) else [value]) if item is not None]


def anyone(statement: Mapping[str, Any]) -> bool:
    """Whether the statement's principal is everybody."""
    principal = statement.get("Principal")
    values = principal.values() if isinstance(principal, Mapping) else [principal]
    return any("*" in texts(value) for value in values)


def wildcard(action: str) -> bool:
    """Whether an action stands for a whole service, or for all of them."""
    return not unknown(action) and (action == "*" or action.endswith(":*"))
