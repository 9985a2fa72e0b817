"""What a rule is: a name, what to do instead, and a check over plain data that tolerates unknown values."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""Stands in a preview for a value that only an up would know: a rule gives it the benefit of the doubt."""


@dataclass(frozen=True)
class Resource:
    """One resource of a stack, with the names of its properties as Pulumi's engine has them (camelCase)."""

    type: str
    name: str
    urn: str
    properties: Mapping[str, Any]
    protect: bool = False
    references: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By property, the URNs of what it refers to: during a preview the only trace of a reference."""

    def get(self, path: str) -> Any:
        """The value at a dotted path (`rules.0.encryption`), None if there is none, UNKNOWN from an unknown on."""
        value: Any = self.properties
        for part in path.split("."):
            if unknown(value):
                return UNKNOWN
            if isinstance(value, list):
                value = value[int(part)] if part.isdigit() and int(part) < len(value) else None
            else:
                value = value.get(part) if isinstance(value, Mapping) else None
        return value

    def items(self, path: str) -> list[Any]:
        """The known items of a list, empty if it is absent or unknown; a single value counts as a list of one."""
        value = self.get(path)
        if value is None or unknown(value):
            return []
        return [item for item in (value if isinstance(value, list) else [value]) if not unknown(item)]

    def is_(self, path: str, *allowed: Any) -> bool:
        """Whether a value is one of those allowed, or unknown."""
        value = self.get(path)
        return unknown(value) or value in allowed

    def refers_to(self, property: str, other: "Resource") -> bool:
        """Whether a property holds an output of another resource."""
        return other.urn in self.references.get(property, ())

    def has(self, path: str) -> bool:
        """Whether a value is set (neither absent nor empty), or unknown."""
        return bool(self.get(path))


@dataclass(frozen=True)
class Stack:
    """All resources of an environment."""

    tier: str
    resources: tuple[Resource, ...]

    @property
    def production(self) -> bool:
        """Whether what holds state must be protected."""
        return self.tier == "prod"

    def of_type(self, *types: str) -> list[Resource]:
        """The resources of these types."""
        return [resource for resource in self.resources if resource.type in types]


Check = Callable[[Resource, str], Iterable[str]]
StackCheck = Callable[[Stack], Iterable[tuple[Resource, str]]]


@dataclass(frozen=True)
class Rule:
    """A mandatory rule.

    `check` looks at one resource of the named types (all, if none is named) and the tier (dev, staging or prod);
    `stack_check` looks across resources. Each yields what is wrong; the description says what to do instead.
    """

    name: str
    description: str
    types: tuple[str, ...] = ()
    check: Check | None = None
    stack_check: StackCheck | None = None


RULES: list[Rule] = []


def rule(name: str, description: str, *types: str) -> Callable[[Check], Check]:
    """Declare a rule about single resources."""

    def add(check: Check) -> Check:
        RULES.append(Rule(name, description, types, check=check))
        return check

    return add


def stack_rule(name: str, description: str) -> Callable[[StackCheck], StackCheck]:
    """Declare a rule that looks across resources."""

    def add(check: StackCheck) -> StackCheck:
        RULES.append(Rule(name, description, stack_check=check))
        return check

    return add


def unknown(value: Any) -> bool:
    """Whether a value is, or is a text that holds, something that only an up would know."""
    return isinstance(value, str) and UNKNOWN in value
