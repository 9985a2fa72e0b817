"""Rules for Step Functions: a definition is one that AWS takes, and its runs are logged.

The structure is checked by the Amazon States Language's specification (https://states-language.net).
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from infra.guardrails.rule import UNKNOWN, Resource, rule

MACHINE = "aws:sfn/stateMachine:StateMachine"
TERMINAL, CHOICE = ("Succeed", "Fail"), "Choice"
TYPES = ("Task", "Pass", "Wait", "Parallel", "Map", CHOICE, *TERMINAL)
NEEDS = {"Task": "Resource", "Parallel": "Branches", CHOICE: "Choices"}


@rule("state-machine-valid", "Mend the definition; https://states-language.net tells what is allowed.", MACHINE)
def _(machine: Resource, _tier: str) -> Iterator[str]:
    definition = machine.get("definition")
    if definition == UNKNOWN:
        return
    try:
        parsed = json.loads(str(definition))
    except ValueError as error:
        yield f"the definition is not JSON: {error}"
        return
    yield from mistakes(parsed, "")


@rule("state-machine-logged", "Set loggingConfiguration.level to ERROR or ALL, with a log group.", MACHINE)
def _(machine: Resource, _tier: str) -> Iterator[str]:
    if not machine.is_("loggingConfiguration.level", "ERROR", "ALL", "FATAL"):
        yield "its runs leave no log"


def mistakes(machine: Any, path: str) -> Iterator[str]:
    """What is wrong with a state machine, or with a branch or iterator within one.

    Args:
        machine: the definition as plain data.
        path: where it stands, to begin each message with.
    """
    states = machine.get("States") if isinstance(machine, Mapping) else None
    if not isinstance(states, Mapping) or not states:
        yield f"{path or 'the definition'} has no States"
        return
    if machine.get("StartAt") not in states:
        yield f"{path}StartAt names {machine.get('StartAt')!r}, which is none of the states {', '.join(states)}"
    reached = {machine.get("StartAt")}
    for name, state in states.items():
        where = f"{path}{name}"
        if not isinstance(state, Mapping) or state.get("Type") not in TYPES:
            yield f"{where}: Type must be one of {', '.join(TYPES)}"
            continue
        targets = list(_targets(state))
        reached.update(targets)
        for target in targets:
            if target not in states:
                yield f"{where} goes to {target!r}, which is none of the states"
        yield from _of_state(state, where)
        for label, part in _parts(state):
            yield from mistakes(part, f"{where}.{label}.")
    for name in states.keys() - reached:
        yield f"{path}{name} is never reached"


def _of_state(state: Mapping[str, Any], where: str) -> Iterator[str]:
    kind = state["Type"]
    ways = [key for key in ("Next", "End") if key in state]
    if kind in TERMINAL or kind == CHOICE:
        if ways:
            yield f"{where}: a {kind} state takes no {ways[0]}"
    elif len(ways) != 1:
        yield f"{where}: give it Next or End, and not both"
    if kind in NEEDS and not state.get(NEEDS[kind]):
        yield f"{where}: a {kind} state needs {NEEDS[kind]}"
    if kind == "Map" and not (state.get("ItemProcessor") or state.get("Iterator")):
        yield f"{where}: a Map state needs ItemProcessor"
    if kind == "Wait" and len([key for key in state if key in _WAITS]) != 1:
        yield f"{where}: a Wait state needs one of {', '.join(_WAITS)}"
    for retrier in state.get("Retry", []) + state.get("Catch", []):
        if not retrier.get("ErrorEquals"):
            yield f"{where}: each Retry and Catch needs ErrorEquals"


_WAITS = ("Seconds", "SecondsPath", "Timestamp", "TimestampPath")


def _targets(state: Mapping[str, Any]) -> Iterator[Any]:
    for each in (state, *state.get("Choices", []), *state.get("Catch", [])):
        if "Next" in each:
            yield each["Next"]
    if "Default" in state:
        yield state["Default"]


def _parts(state: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for index, branch in enumerate(state.get("Branches", [])):
        yield f"Branches[{index}]", branch
    for key in ("ItemProcessor", "Iterator"):
        if key in state:
            yield key, state[key]
