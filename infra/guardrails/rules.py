"""All rules, in the order of their files."""

from infra.guardrails import compute, identity, kubernetes, network, observability, storage, workflows  # noqa: F401  importing a file declares its rules
from infra.guardrails.rule import RULES

ALL = tuple(sorted(RULES, key=lambda rule: rule.name))
NAMES = tuple(rule.name for rule in ALL)
