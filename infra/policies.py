"""IAM policy documents, built from statements."""

from collections.abc import Mapping, Sequence
from typing import Any

import pulumi

PODS = "pods.eks.amazonaws.com"
"""The service that takes a role on for a pod (EKS Pod Identity)."""

Strings = pulumi.Input[str] | Sequence[pulumi.Input[str]]


def allow(
    actions: Sequence[str],
    resources: Strings,
    condition: Mapping[str, Any] | None = None,
    principal: Mapping[str, Any] | None = None,
    sid: str | None = None,
) -> dict[str, Any]:
    """A statement that allows actions on resources."""
    return _statement("Allow", actions, resources, condition, principal, sid)


def deny(
    actions: Sequence[str], resources: Strings, condition: Mapping[str, Any], principal: Any, sid: str | None = None
) -> dict[str, Any]:
    """A statement that forbids actions whatever else allows them."""
    return _statement("Deny", actions, resources, condition, principal, sid)


def document(*statements: dict[str, Any]) -> pulumi.Output[str]:
    """A policy document as JSON."""
    return pulumi.Output.json_dumps({"Version": "2012-10-17", "Statement": list(statements)})


def trust(service: str, account_id: pulumi.Input[str] | None = None) -> pulumi.Output[str]:
    """The trust policy of a role that an AWS service takes on.

    Args:
        service: the service's principal.
        account_id: the account for which it acts, where the service says so (not all do: Lambda does not); it keeps
            others from having the service use the role on their behalf.
    """
    actions: Any = "sts:AssumeRole"
    if service == PODS:
        actions = ["sts:AssumeRole", "sts:TagSession"]  # a session's tags say which cluster and pod it is of
    statement: dict[str, Any] = {"Effect": "Allow", "Principal": {"Service": service}, "Action": actions}
    if account_id is not None:
        statement["Condition"] = {"StringEquals": {"aws:SourceAccount": account_id}}
    return document(statement)


def _statement(
    effect: str,
    actions: Sequence[str],
    resources: Strings,
    condition: Mapping[str, Any] | None,
    principal: Any,
    sid: str | None,
) -> dict[str, Any]:
    statement: dict[str, Any] = {"Effect": effect, "Action": list(actions), "Resource": resources}
    optional = {"Sid": sid, "Principal": principal, "Condition": condition}
    return statement | {name: value for name, value in optional.items() if value is not None}
