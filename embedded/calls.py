"""Turns a Pulumi resource's properties into the parameters of an AWS operation, by the names in botocore's own model.

A property such as `cidrBlock` is the member `CidrBlock` of the operation's input; nested values follow the same rule.
So most resource types need no code of their own.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape

from embedded.monitor import Secret


def fit(shape: StructureShape, properties: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """Arrange properties as an operation's input shape wants them.

    Args:
        shape: input shape of the operation.
        properties: property names, as Pulumi or AWS spell them, with plain values.

    Returns:
        The parameters, and the names of the properties that found no place in them.
    """
    parameters: dict[str, Any] = {}
    homeless: set[str] = set()
    members = {_normal(name): name for name in shape.members}
    for name, value in properties.items():
        if value is None or value == []:
            continue
        if member := _find(members, name):
            parameters[member] = _fit_value(shape.members[member], value)
        elif path := _path_to(shape, name):
            _set(shape, parameters, path, value)
        else:
            homeless.add(name)
    return parameters, homeless


def _normal(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def _find(members: Mapping[str, str], name: str) -> str | None:
    """The member a property means: the same name but for case, or its singular or plural."""
    normal = _normal(name)
    singular = re.sub("ies$", "y", normal) if normal.endswith("ies") else normal.removesuffix("s")
    for spelling in (normal, singular, f"{normal}s", f"{singular}ies", f"{normal}list"):
        if spelling in members:
            return members[spelling]
    return None


def _path_to(shape: StructureShape, name: str, depth: int = 2) -> list[str] | None:
    """The way to a member inside the input's structures, where Pulumi flattens what AWS nests."""
    for outer, inner in shape.members.items():
        if isinstance(inner, StructureShape):
            if member := _find({_normal(m): m for m in inner.members}, name):
                return [outer, member]
            if depth > 1 and (rest := _path_to(inner, name, depth - 1)):
                return [outer, *rest]
    return None


def _set(shape: StructureShape, parameters: dict[str, Any], path: list[str], value: Any) -> None:
    for member in path[:-1]:
        parameters = parameters.setdefault(member, {})
        shape = shape.members[member]
    parameters[path[-1]] = _fit_value(shape.members[path[-1]], value)


def _fit_value(shape: Shape, value: Any) -> Any:
    if isinstance(value, Secret):
        value = value.value
    match shape:
        case StructureShape():
            if isinstance(value, list) and len(value) == 1:
                value = value[0]
            if not isinstance(value, Mapping) and len(shape.members) == 1:
                value = dict.fromkeys(shape.members, value)  # AWS wraps some plain values, as in {"Value": True}
            return fit(shape, value)[0] if isinstance(value, Mapping) else value
        case ListShape():
            if _is_tag(shape.member) and isinstance(value, Mapping):
                key, content = shape.member.members
                return [{key: name, content: str(text)} for name, text in sorted(value.items())]
            if set(getattr(shape.member, "members", ())) >= {"ResourceType", "Tags"}:
                return value
            return [_fit_value(shape.member, item) for item in (value if isinstance(value, list) else [value])]
        case MapShape():
            return {str(name): _fit_value(shape.value, item) for name, item in value.items()}
    match shape.type_name:
        case "string":
            return json.dumps(value) if isinstance(value, Mapping | list) else str(value)
        case "integer" | "long":
            return int(value)
        case "float" | "double":
            return float(value)
        case "boolean":
            return value if isinstance(value, bool) else str(value).lower() == "true"
        case _:
            return value


def _is_tag(shape: Shape) -> bool:
    names = list(getattr(shape, "members", ()))
    return len(names) == 2 and _normal(names[0]) in ("key", "tagkey") and _normal(names[1]) in ("value", "tagvalue")


def camel_case(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Spell the members of an answer as Pulumi spells properties: `VpcId` as `vpcId`."""
    return {
        re.sub("^[A-Z]+(?=[A-Z][a-z]|$|[0-9])|^[A-Z]", lambda m: m[0].lower(), name): v for name, v in answer.items()
    }
