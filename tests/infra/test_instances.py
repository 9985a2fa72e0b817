"""The table of instance types is what EC2 and SageMaker say, as far as copies of it are at hand."""

import gzip
import importlib.resources
import json

import botocore.loaders
import pytest

from infra.instances import _KNOWN, INSTANCES, REGIONS, family, problem

DATA = importlib.resources.files("moto.ec2") / "resources"


def read(path):
    return json.loads(gzip.decompress((DATA / path).read_bytes()))


def test_sizes_are_those_of_ec2():
    described = read("instance_types.json.gz")
    for name, instance in INSTANCES.items():
        told = described[name]
        gpus = told.get("GpuInfo", {}).get("Gpus", [])
        assert instance.vcpus == told["VCpuInfo"]["DefaultVCpus"], name
        assert instance.memory_gib == told["MemoryInfo"]["SizeInMiB"] // 1024, name
        assert instance.gpus == sum(gpu["Count"] for gpu in gpus), name
        assert [instance.gpu] == [gpu["Name"] for gpu in gpus] or not gpus, name
        assert instance.local_gb == told.get("InstanceStorageInfo", {}).get("TotalSizeInGB", 0), name
        assert instance.architecture in told["ProcessorInfo"]["SupportedArchitectures"], name


def test_sagemaker_has_every_type():
    model = botocore.loaders.create_loader().load_service_model("sagemaker", "service-2")
    allowed = model["shapes"]["TrainingInstanceType"]["enum"]
    assert {f"ml.{name}" for name in INSTANCES} <= set(allowed)


@pytest.mark.parametrize("region", sorted(_KNOWN))
def test_families_are_where_ec2_offers_them(region):
    offered = {family(each["InstanceType"]) for each in read(f"instance_type_offerings/region/{region}.json.gz")}
    assert {name for name, regions in REGIONS.items() if region in regions} == offered & REGIONS.keys()


def test_a_region_that_is_not_known_is_given_the_benefit_of_the_doubt():
    assert problem("g5.xlarge", "cn-north-1") is None
    assert "unknown instance type" in problem("g5.tiny", "cn-north-1")
