"""What would stop an up of an environment with a Kubernetes cluster: its way in, and who may take it."""

import re
import shutil
import socket
from collections.abc import Iterator
from urllib.parse import urlparse

from cli.doctor import Account, Check

PATIENCE_S = 3.0
"""How long the cluster's API has to take a connection."""


def of_cluster(account: Account) -> Iterator[Check]:
    """The AWS CLI is there, who runs the up is one of the administrators, and the API can be reached from here."""
    settings = account.settings("cluster")
    if not settings:
        return
    path = shutil.which("aws")
    if path:
        yield Check("cluster: AWS CLI", "ok", path)
    else:
        remedy = "see docs.aws.amazon.com/cli; Pulumi asks it for a token at each up"
        yield Check("cluster: AWS CLI", "fail", "the AWS CLI is not installed", remedy)
    yield _admin(account, [str(role) for role in settings.get("admins", [])])
    yield from _reached(account)


def _admin(account: Account, admins: list[str]) -> Check:
    """Who makes a cluster has no rights in it for that: all that comes after it would be refused."""
    arn = account.client("sts", account.home).get_caller_identity()["Arn"]
    role = re.fullmatch(r"arn:[\w-]+:sts::\d+:assumed-role/([^/]+)/.*", arn)
    if role and role[1] in [admin.rpartition("/")[2] for admin in admins]:
        return Check("cluster: admin", "ok", role[1])
    return Check(
        "cluster: admin",
        "fail",
        f"{arn} has no rights in the cluster: its admins are {', '.join(admins)}",
        f"take on one of these roles, or add yours to ml-platform:cluster.admins in Pulumi.{account.environment}.yaml",
    )


def _reached(account: Account) -> Iterator[Check]:
    eks, name = account.client("eks"), f"{account.prefix}-{account.environment}-training"
    try:
        endpoint = str(eks.describe_cluster(name=name)["cluster"]["endpoint"])
    except eks.exceptions.ResourceNotFoundException:
        yield Check("cluster: API", "ok", f"{name} is not there yet; the up must run where it can be reached")
        return
    try:
        with socket.create_connection((urlparse(endpoint).hostname or "", 443), PATIENCE_S):
            yield Check("cluster: API", "ok", endpoint)
    except OSError as error:
        yield Check(
            "cluster: API",
            "fail",
            f"{endpoint} cannot be reached from here: {error}",
            "run the up in the network, or by a VPN; or open the API to where you are with "
            f"ml-platform:cluster.public_access_cidrs in Pulumi.{account.environment}.yaml",
        )
