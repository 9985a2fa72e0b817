"""Waivers: exceptions from a rule, for a resource, with a reason and an end; data in the environment's file."""

from collections.abc import Sequence
from datetime import date
from typing import Any

from pydantic import Field

from contract.errors import PlatformError
from contract.strict import Strict, parse

KEY = "ml-platform:waivers"


class Waiver(Strict):
    """One exception from one rule."""

    rule: str = Field(description="name of the rule, as docs/guardrails.md lists it")
    resource: str = Field(description="name or URN of the resource that may break it")
    reason: str = Field(min_length=20, description="why; it is shown in each preview")
    until: date = Field(description="the last day on which it holds")

    def covers(self, rule: str, name: str, urn: str) -> bool:
        """Whether it excuses a violation of the rule by the resource."""
        return self.rule == rule and self.resource in (name, urn)


def read_waivers(value: Any, file: str, today: date, rules: Sequence[str]) -> tuple[Waiver, ...]:
    """Validate the waivers of an environment.

    Args:
        value: plain data under the key `ml-platform:waivers`; None if there is none.
        file: where it stands.
        today: a waiver that ended before is refused.
        rules: names of the rules that there are.

    Raises:
        PlatformError: for a malformed or expired waiver, or one from a rule that does not exist.
    """
    given = value or []
    if not isinstance(given, list):
        raise PlatformError(f"{file} is not valid:\n  {KEY}: must be a list of waivers, but it is {given!r}")
    waivers = tuple(parse(Waiver, one, file, under=f"{KEY}.{index}") for index, one in enumerate(given))
    mistakes = []
    for index, waiver in enumerate(waivers):
        at = f"  {KEY}.{index}"
        if waiver.rule not in rules:
            mistakes.append(f"{at}.rule: there is no rule {waiver.rule!r}; allowed: {', '.join(sorted(rules))}")
        if waiver.until < today:
            mistakes.append(
                f"{at}.until: the waiver from {waiver.rule} for {waiver.resource} expired on {waiver.until}; mend the "
                "resource and remove the waiver, or agree on a later date"
            )
    if mistakes:
        raise PlatformError("\n".join([f"{file} is not valid:", *mistakes]))
    return waivers
