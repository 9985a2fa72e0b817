"""Holds Kubernetes objects against the schemas of their API versions, as strictly as `kubectl create` does.

The schemas are data in `infra/schemas/kubernetes`, where `sources.py` says what they are from. What a schema says in
the Common Expression Language (`x-kubernetes-validations`) is not looked at: only an API server can.
"""

import copy
import functools
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
from jsonschema.validators import extend

FOLDER = Path(__file__).parent / "infra" / "schemas" / "kubernetes"


FREE = {("grafana", "grafana.ini")}
"""What a chart hands on as it is, though its default is not empty: here sections of Grafana's own configuration."""


@functools.cache
def published(file: str) -> dict[str, Any]:
    """One of the files: `objects`, `definitions` or `charts`."""
    return json.loads((FOLDER / f"{file}.json").read_text())


def check(thing: Mapping[str, Any]) -> None:
    """Hold an object against the schema of its kind and API version.

    Raises:
        jsonschema.ValidationError: for a field that is missing, unknown or not as it must be.
        KeyError: if there is no schema for it.
    """
    _validator(thing["apiVersion"], thing["kind"]).validate(thing)


def check_values(chart: str, values: Mapping[str, Any]) -> None:
    """Hold the values of a Helm release against the chart's defaults, since no chart here has a schema of its values.

    A key must be one that the chart knows, of the kind that it has; below what is empty by default all is allowed.

    Raises:
        AssertionError: naming what the chart does not have.
    """
    mistakes = list(_strangers(values, published("charts")[chart]["values"], chart))
    assert not mistakes, mistakes


def _strangers(values: Mapping[str, Any], defaults: Mapping[str, Any], path: str) -> Iterator[str]:
    for key, value in values.items():
        if key not in defaults:
            yield f"{path} has no {key}; there are {', '.join(defaults)}"
            continue
        default = {} if (path, key) in FREE else defaults[key]
        if isinstance(default, Mapping) and default:
            if isinstance(value, Mapping):
                yield from _strangers(value, default, f"{path}.{key}")
            else:
                yield f"{path}.{key} is an object, but {value!r} was given"
        elif isinstance(default, bool | list) and type(value) is not type(default):
            yield f"{path}.{key} is a {type(default).__name__}, but {value!r} was given"


@functools.cache
def _validator(api: str, kind: str) -> Any:
    objects = published("objects")["schemas"]
    if f"{api}/{kind}" in objects:
        schema = objects[f"{api}/{kind}"]
    else:
        group, _, version = api.rpartition("/")
        definition = published("definitions")[kind]
        if definition["group"] != group:
            raise KeyError(f"{api} {kind}: the definition is of {definition['group']}")
        schema = copy.deepcopy(definition["schemas"][version])
        schema["properties"]["metadata"] = objects["v1/Namespace"]["properties"]["metadata"]
    return STRICT(_strict(schema))


def _strict(schema: Any) -> Any:
    """A schema in which a field that it does not have is a mistake, with Kubernetes' own way to say two types."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: _strict(item) for name, item in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        found.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        found["type"] = ["integer", "string"]
    return found


def _lists(_: Any, kind: str, value: Any, schema: Mapping[str, Any]) -> Iterator[jsonschema.ValidationError]:
    """What an API server refuses twice in a list: the same item of a set, the same keys of a map."""
    if not isinstance(value, list) or kind not in ("set", "map"):
        return
    keys = schema.get("x-kubernetes-list-map-keys", [])
    seen = Counter(
        json.dumps([item.get(key) for key in keys] if kind == "map" else item, sort_keys=True) for item in value
    )
    for item, count in seen.items():
        if count > 1:
            yield jsonschema.ValidationError(f"{item} stands there {count} times")


STRICT = extend(jsonschema.Draft202012Validator, {"x-kubernetes-list-type": _lists})
