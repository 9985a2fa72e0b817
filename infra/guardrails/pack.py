"""The rules as policies of the library `pulumi-policy`, which the real CLI runs."""

from collections.abc import Mapping, Sequence
from typing import Any

from pulumi_policy import (
    EnforcementLevel,
    Policy,
    PolicyResource,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    StackValidationArgs,
    StackValidationPolicy,
)
from pulumi_policy.proxy import UnknownValueError

from infra.guardrails.evaluate import violations
from infra.guardrails.rule import UNKNOWN, Resource, Rule, Stack
from infra.guardrails.rules import ALL
from infra.guardrails.waivers import Waiver


def policies(tier: str, waivers: Sequence[Waiver]) -> list[Policy]:
    """A mandatory policy a rule; violations that a waiver excuses are not reported."""
    return [_policy(rule, tier, waivers) for rule in ALL]


def _policy(rule: Rule, tier: str, waivers: Sequence[Waiver]) -> Policy:
    def report(stack: Stack, reporter: ReportViolation) -> None:
        for violation in violations(rule, stack):
            if not any(waiver.covers(rule.name, violation.resource, violation.urn) for waiver in waivers):
                # Pulumi prints the description, which is the remedy, before the message.
                reporter(f"{violation.resource} ({violation.type}): {violation.problem}.", violation.urn)

    def validate(args: ResourceValidationArgs, reporter: ReportViolation) -> None:
        report(Stack(tier, (_resource(args),)), reporter)

    def validate_stack(args: StackValidationArgs, reporter: ReportViolation) -> None:
        report(Stack(tier, tuple(map(_resource, args.resources))), reporter)

    if rule.stack_check:
        return StackValidationPolicy(rule.name, rule.description, validate_stack, EnforcementLevel.MANDATORY)
    return ResourceValidationPolicy(rule.name, rule.description, validate, EnforcementLevel.MANDATORY)


def _resource(args: ResourceValidationArgs | PolicyResource) -> Resource:
    references = getattr(args, "property_dependencies", {})  # a single resource's policy does not get them
    return Resource(
        type=args.resource_type,
        name=args.name,
        urn=args.urn,
        properties=_plain(args.props),
        protect=args.opts.protect,
        references={name: frozenset(other.urn for other in others) for name, others in references.items()},
    )


def _plain(value: Any) -> Any:
    """Plain data from the library's proxies, which raise an error when an unknown value is touched."""
    if isinstance(value, Mapping):
        return {key: _item(value, key) for key in value}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_item(value, index) for index in range(len(value))]
    return value


def _item(value: Any, key: Any) -> Any:
    try:
        return _plain(value[key])
    except UnknownValueError:
        return UNKNOWN
