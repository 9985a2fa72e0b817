"""Any region: names that hang on the partition follow the region."""

import json

import pytest

from contract.errors import PlatformError
from infra.regions import endpoint_service, host, is_region, offering, partition, zones
from tests.infra.conftest import CLUSTER, EVERYTHING_ON, MLFLOW_ON_ECS

ABROAD = {"cn-north-1": ("aws-cn", ["a", "b", "d"]), "us-gov-west-1": ("aws-us-gov", ["a", "b", "c"])}


def test_the_partition_follows_from_the_region():
    assert {region: partition(region) for region in ("eu-west-1", "cn-northwest-1", "us-gov-east-1")} == {
        "eu-west-1": "aws",
        "cn-northwest-1": "aws-cn",
        "us-gov-east-1": "aws-us-gov",
    }
    assert not is_region("eu-isoe-west-1")
    assert not is_region("eu-west-9")
    assert zones("cn-north-1") == "abd"


def test_hosts_and_endpoint_services_are_named_as_the_partition_has_them():
    assert host("s3", "cn-north-1") == "s3.cn-north-1.amazonaws.com.cn"
    assert host("s3", "us-gov-west-1") == "s3.us-gov-west-1.amazonaws.com"
    assert endpoint_service("ecr.api", "cn-north-1") == "cn.com.amazonaws.cn-north-1.ecr.api"
    assert endpoint_service("kms", "cn-north-1") == "com.amazonaws.cn-north-1.kms"
    assert endpoint_service("ecr.api", "us-gov-west-1") == "com.amazonaws.us-gov-west-1.ecr.api"


@pytest.mark.parametrize("region", ABROAD)
def test_no_arn_and_no_host_of_another_partition_is_left(foresee, region):
    """With everything on: a name of AWS's public partition would be refused there."""
    expected, letters = ABROAD[region]
    mlflow = json.loads(json.dumps(MLFLOW_ON_ECS).replace("arn:aws:acm:eu-west-1", f"arn:{expected}:acm:{region}"))
    cluster = json.loads(json.dumps(CLUSTER).replace("arn:aws:", f"arn:{expected}:"))
    abroad = EVERYTHING_ON | {
        "network": EVERYTHING_ON["network"] | {"zones": letters},
        "data": mlflow,
        "cluster": cluster,
    }
    if region not in offering("aps"):
        abroad |= {"observability": {}}
    seen = False
    for resource in foresee("prod", region=region, **abroad).resources.values():
        text = json.dumps(resource.inputs, default=str)
        assert "arn:aws:" not in text, resource
        seen |= f"arn:{expected}:" in text
        if expected == "aws-cn":
            assert f"{region}.amazonaws.com" not in text.replace(".amazonaws.com.cn", ""), resource
    assert seen


def test_managed_mlflow_is_refused_where_there_is_none(foresee):
    with pytest.raises(PlatformError, match="SageMaker has no managed MLflow in us-gov-west-1"):
        foresee(region="us-gov-west-1", data={"mlflow": {}})
