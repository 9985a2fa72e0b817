"""What a preview can tell of a resource before it is there: the form of its ARN.

Policy documents are made of ARNs. With nothing known of them a document is unknown as a whole, and no rule could look
into it; with their form known, only account and identity are left open.
"""

import re
from collections.abc import Callable
from typing import Any

from embedded.monitor import UNKNOWN, Resource
from infra.regions import partition

_EVERYWHERE = {"iam", "route53", "cloudfront", "budgets"}
"""Services whose ARNs name no region."""


def arns(region: str) -> Callable[[Resource], dict[str, Any]]:
    """A function that foresees the outputs of an AWS resource: its ARN, with the unknown parts marked as unknown."""

    def foresee(resource: Resource) -> dict[str, Any]:
        if not (match := re.fullmatch(r"aws:([a-z0-9]+)/(\w+):\w+", resource.type)):
            return {}
        service, kind = match.groups()
        if kind == "bucket":
            return {"arn": f"arn:{partition(region)}:s3:::{UNKNOWN}"}
        place = f"{'' if service in _EVERYWHERE else region}:{UNKNOWN}"
        kind = re.sub("(?=[A-Z])", "-", kind).lower()
        return {"arn": f"arn:{partition(region)}:{service}:{place}:{kind}/{UNKNOWN}"}

    return foresee
