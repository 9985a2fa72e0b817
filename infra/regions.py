"""The availability zones of the regions, as data: a preview looks nothing up.

Letters as of November 2026, from AWS's list of regions and zones. Which letters an account may use can be fewer;
`mlp doctor` asks the account.
"""

import botocore.loaders

USUAL = "abc"
ZONES = {
    "ap-northeast-1": "acd",
    "ap-northeast-2": "abcd",
    "ca-central-1": "abd",
    "us-east-1": "abcdef",
    "us-west-1": "abc",
    "us-west-2": "abcd",
}
"""Regions whose zones are not a, b and c."""


def zones(region: str) -> str:
    """Letters of a region's zones."""
    return ZONES.get(region, USUAL)


def is_region(region: str) -> bool:
    """Whether the installed botocore knows the region; those of China and of GovCloud have ARNs of their own."""
    # The data itself rather than a session, which would read the user's profile.
    partitions = botocore.loaders.create_loader().load_data("endpoints")["partitions"]
    return any(region in partition["regions"] for partition in partitions if partition["partition"] == "aws")
