"""AWS's regions as data, so that a preview looks nothing up: partitions, names that hang on them, and zones.

As of November 2026, from AWS's lists of regions, zones and endpoint services. Which zones an account may use can be
fewer; `mlp doctor` asks the account.
"""

import functools
from typing import Any

import botocore.loaders
import pulumi

ZONES = {
    "ap-northeast-1": "acd",
    "ap-northeast-2": "abcd",
    "ca-central-1": "abd",
    "cn-north-1": "abd",
    "us-east-1": "abcdef",
    "us-west-1": "abc",
    "us-west-2": "abcd",
}
"""Regions whose zones are not a, b and c."""

PARTITIONS = ("aws", "aws-cn", "aws-us-gov")
"""Those that the platform knows its way around: AWS's public one, China and GovCloud."""

CHINESE_ENDPOINTS = {"ecr.api", "ecr.dkr", "sagemaker.api", "sagemaker.runtime", "sts"}
"""Interface endpoints that China's regions have under a name of their own."""

MANAGED_MLFLOW = {
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-south-1",
    "ap-southeast-1",
    "ap-southeast-2",
    "ca-central-1",
    "eu-central-1",
    "eu-north-1",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "sa-east-1",
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
}
"""Regions in which SageMaker offers MLflow."""


def zones(region: str) -> str:
    """Letters of a region's zones."""
    return ZONES.get(region, "abc")


def is_region(region: str) -> bool:
    """Whether the installed botocore knows the region, and it is in a partition that the platform knows."""
    return region in _partitions()


def offering(service: str) -> frozenset[str]:
    """The regions that offer a service, which is named as its endpoints are (`aps`, `grafana`)."""
    return frozenset(
        region
        for region, each in _partitions().items()
        if region in each["services"].get(service, {}).get("endpoints", {})
    )


def partition(region: str) -> str:
    """The partition of a region, which the ARNs within it begin with: `aws`, `aws-cn` or `aws-us-gov`."""
    return str(_partitions()[region]["partition"])


def domain(region: str) -> str:
    """What the names of AWS's hosts end with: `amazonaws.com`, or China's `amazonaws.com.cn`."""
    return str(_partitions()[region]["dnsSuffix"])


def host(service: str, region: str) -> str:
    """A service's host in a region, such as `s3.eu-west-1.amazonaws.com`.

    KMS has it in `kms:ViaService`, and a few services (CloudWatch Logs) are principals by it.
    """
    return f"{service}.{region}.{domain(region)}"


def arn(
    service: str, region: str, account_id: pulumi.Input[str], resource: pulumi.Input[str], *, everywhere: bool = False
) -> pulumi.Output[str]:
    """The ARN of a resource that the program does not hold itself.

    Args:
        service: as ARNs have it.
        region: the environment's region, which tells the partition.
        account_id: the account, or an empty string where ARNs have none (S3).
        resource: what follows the account.
        everywhere: whether the service's ARNs name no region (IAM, S3).
    """
    return pulumi.Output.concat(
        f"arn:{partition(region)}:{service}:{'' if everywhere else region}:", account_id, ":", resource
    )


def endpoint_service(service: str, region: str) -> str:
    """Name of the VPC endpoint service of an AWS service."""
    chinese = partition(region) == "aws-cn" and service in CHINESE_ENDPOINTS
    return f"{'cn.' if chinese else ''}com.amazonaws.{region}.{service}"


@functools.cache
def _partitions() -> dict[str, Any]:
    """Every region with its partition, as botocore's data have it."""
    # The data itself rather than a session, which would read the user's profile.
    partitions = botocore.loaders.create_loader().load_data("endpoints")["partitions"]
    return {region: each for each in partitions if each["partition"] in PARTITIONS for region in each["regions"]}
