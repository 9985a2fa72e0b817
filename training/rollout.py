"""The live versions of a model: the one module that changes the SSM parameter that lists them.

SSM keeps the parameter's last hundred values with their descriptions, which is how a rollback knows what was live
before. It cannot write on a condition, so a write looks before and after: a change that somebody else made meanwhile is
never lost.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import boto3

from contract.errors import PlatformError
from contract.service import LiveVersion, LiveVersions, Rule
from contract.strict import parse

_CHANGE, _UNDO = "Live versions; replaces revision {}", "Live versions; undoes revision {}"
"""Descriptions of a revision. They name the one before it, as one that somebody writes by hand may inherit its own."""


@dataclass(frozen=True)
class State:
    """What is live, and which revision of the parameter said so."""

    live: LiveVersions
    revision: int


def read(parameter: str) -> State:
    """What the parameter says now.

    Raises:
        PlatformError: if there is no such parameter, or it holds something else.
    """
    ssm = boto3.client("ssm")
    try:
        found = ssm.get_parameter(Name=parameter)["Parameter"]
    except ssm.exceptions.ParameterNotFound:
        raise PlatformError(f"there is no parameter {parameter}; `mlp up` makes it") from None
    return State(_parse(found["Value"], parameter), found["Version"])


def write(parameter: str, live: LiveVersions, after: State, undo: bool = False) -> State:
    """Replace what is live.

    Args:
        parameter: name of the model's parameter.
        live: what is to be live.
        after: the state that this follows from; if there is another by now, nothing is changed.
        undo: whether this takes that state back, so that a later rollback does not go to it.

    Raises:
        PlatformError: if somebody has changed it since `after` was read; what they wrote stands.
    """
    now = read(parameter)
    if now.revision != after.revision:
        raise PlatformError(
            f"{parameter} was changed by somebody else meanwhile; nothing was changed here: it says "
            f"{shares(now.live)}; try again"
        )
    description = (_UNDO if undo else _CHANGE).format(after.revision)
    revision = _put(parameter, live.model_dump_json(exclude_none=True), description)
    if revision != after.revision + 1:  # theirs came between the look and the write: it is put back
        (theirs,) = (each for each in _history(parameter) if each["Version"] == revision - 1)
        _put(parameter, theirs["Value"], _UNDO.format(revision))
        raise PlatformError(
            f"{parameter} was changed by somebody else at the same moment; theirs stands: it says "
            f"{shares(_parse(theirs['Value'], parameter))}; try again"
        )
    return State(live, revision)


def deployed(live: LiveVersions, new: LiveVersion) -> LiveVersions:
    """The live versions with one more, or with another weight and rule for one of them.

    The others share what it leaves in the proportions that they had; a version that had a share and gets none is
    no longer live, unless it has a rule. One that is live keeps its place, as the service hands out the shares in
    order: so a version whose share grows keeps the users that it has.

    Raises:
        PlatformError: if the weights could not add up to 100.
    """
    others = [each for each in live.versions if each.version != new.version]
    left = 100 - new.weight
    if left and not any(each.weight for each in others):
        raise PlatformError(
            f"version {new.version} would be the only one that takes traffic, so that its weight can only be 100, "
            f"given: {new.weight}"
        )
    shares = dict(
        zip((each.version for each in others), _apportion([each.weight for each in others], left), strict=True)
    )
    kept = [
        new if each.version == new.version else each.model_copy(update={"weight": shares[each.version]})
        for each in live.versions
        if each.version == new.version or shares[each.version] or each.rule or not each.weight
    ]
    return LiveVersions(versions=tuple(kept if new in kept else [*kept, new]))


def promoted(live: LiveVersions, number: int | None) -> LiveVersions:
    """One of the live versions alone, without its rule: by default the one that came last.

    Raises:
        PlatformError: if it is not live, or it is not clear which one is meant.
    """
    known = {each.version: each for each in live.versions}
    listing = shares(live)
    if number is None:
        if len(known) < 2:
            raise PlatformError(f"there is nothing to promote: {listing}; `mlp deploy` adds a version")
        if len(known) > 2:
            raise PlatformError(f"say which one with --version: {listing}")
        number = live.versions[-1].version
    if number not in known:
        raise PlatformError(f"version {number} is not live: {listing}; `mlp deploy` adds a version")
    return LiveVersions(versions=(known[number].model_copy(update={"weight": 100, "rule": None}),))


def before(parameter: str) -> LiveVersions:
    """What was live before what is live now.

    Rolling back twice goes back twice: a change that undoes the last one is none of its own.

    Raises:
        PlatformError: if there was nothing live before.
    """
    states: list[LiveVersions] = []
    for each in _history(parameter):
        try:
            live = _parse(each["Value"], parameter)
        except PlatformError:  # somebody wrote it by hand, and nobody can want it back
            continue
        if _undoes(each, back=states[-2:-1] == [live]) and states[-1:] != [live]:
            del states[-1:]
        if live.versions and states[-1:] != [live]:
            states.append(live)
    now = read(parameter).live
    earlier = states[-2:-1] if states[-1:] == [now] else states[-1:]
    if not earlier:
        raise PlatformError(f"there is nothing to go back to: nothing else was live before ({shares(now)})")
    return earlier[0]


def rule_of(text: str) -> Rule:
    """A rule as it is written on the command line: `cohort=beta`, or `header:x-country=se,no`.

    Raises:
        PlatformError: saying what is allowed.
    """
    name, _, value = text.partition("=")
    values = tuple(each for each in value.split(",") if each)
    try:
        if values and name == "cohort" and len(values) == 1:
            return Rule(cohort=value)
        if values and name.startswith("header:"):
            return Rule(header=name.removeprefix("header:").lower(), values=values)
    except ValueError:  # the header's name is none
        pass
    raise PlatformError(
        f"--rule {text!r} is not valid; allowed are cohort=<name>, and header:<name>=<value>[,<value>...] with "
        "a header's name of letters, digits and hyphens"
    )


def shares(live: LiveVersions) -> str:
    """The live versions in words."""
    return ", ".join(f"version {each.version} {each.weight}%{_rule(each)}" for each in live.versions) or "none is live"


def _rule(live: LiveVersion) -> str:
    if not live.rule:
        return ""
    if live.rule.cohort:
        return f" and cohort {live.rule.cohort}"
    return f" and header {live.rule.header}: {', '.join(live.rule.values)}"


def _apportion(weights: list[int], total: int) -> list[int]:
    """Whole numbers that add up to `total`, in these proportions, by the largest remainders."""
    whole = sum(weights)
    if not whole:
        return [0] * len(weights)
    exact = [Fraction(weight * total, whole) for weight in weights]
    result = [int(each) for each in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: result[i] - exact[i])
    for i in by_remainder[: total - sum(result)]:
        result[i] += 1
    return result


def _undoes(written: dict[str, Any], back: bool) -> bool:
    """Whether a revision took back the one before it.

    One that does not say so, as somebody wrote it by hand, or before descriptions said it, is taken for it if it led
    `back` to the state before the last one.
    """
    description, previous = written.get("Description"), written["Version"] - 1
    return description == _UNDO.format(previous) or (back and description != _CHANGE.format(previous))


def _put(parameter: str, value: str, description: str) -> int:
    written = boto3.client("ssm").put_parameter(
        Name=parameter, Value=value, Description=description, Type="String", Overwrite=True
    )
    revision: int = written["Version"]
    return revision


def _history(parameter: str) -> Iterable[dict[str, Any]]:
    """The parameter's values, the oldest first."""
    pages = boto3.client("ssm").get_paginator("get_parameter_history").paginate(Name=parameter)
    return sorted((each for page in pages for each in page["Parameters"]), key=lambda each: int(each["Version"]))


def _parse(value: str, parameter: str) -> LiveVersions:
    try:
        document = json.loads(value)
    except ValueError as error:
        raise PlatformError(f"parameter {parameter} is not JSON: {error}") from None
    return parse(LiveVersions, document, f"parameter {parameter}")
