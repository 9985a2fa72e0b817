"""Runs the rules over the resources of a stack, in this process; what they need is plain data."""

from collections.abc import Sequence
from dataclasses import dataclass

from infra.guardrails.rule import Resource, Rule, Stack
from infra.guardrails.rules import ALL
from infra.guardrails.waivers import Waiver


@dataclass(frozen=True)
class Violation:
    """A rule that a resource breaks."""

    rule: str
    resource: str
    type: str
    urn: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.resource} ({self.type}): {self.problem}. {self.remedy}"


@dataclass(frozen=True)
class Result:
    """What came of all rules."""

    rules: int
    passed: int
    violations: tuple[Violation, ...]
    waived: tuple[tuple[Waiver, Violation], ...]
    unused: tuple[Waiver, ...]
    """Waivers that match nothing: what they excused is mended, or their resource is misspelt."""


def evaluate(stack: Stack, waivers: Sequence[Waiver] = ()) -> Result:
    """Check all rules; a violation that a waiver excuses is told apart."""
    found = [violation for rule in ALL for violation in violations(rule, stack)]
    excused = {v: next((w for w in waivers if w.covers(v.rule, v.resource, v.urn)), None) for v in found}
    broken = tuple(violation for violation, waiver in excused.items() if waiver is None)
    waived = tuple((waiver, violation) for violation, waiver in excused.items() if waiver)
    used = {waiver for waiver, _ in waived}
    return Result(
        rules=len(ALL),
        passed=len(ALL) - len({violation.rule for violation in broken}),
        violations=broken,
        waived=waived,
        unused=tuple(waiver for waiver in waivers if waiver not in used),
    )


def violations(rule: Rule, stack: Stack) -> list[Violation]:
    """What breaks one rule."""
    found: list[tuple[Resource, str]] = []
    if rule.stack_check:
        found += rule.stack_check(stack)
    if rule.check:
        for resource in stack.of_type(*rule.types) if rule.types else stack.resources:
            found += ((resource, problem) for problem in rule.check(resource, stack.tier))
    return [Violation(rule.name, r.name, r.type, r.urn, problem, rule.description) for r, problem in found]
