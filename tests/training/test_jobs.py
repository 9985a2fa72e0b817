"""Requests for training jobs: each is one that its backend takes, and a job that does not fit is never sent."""

import json
import re
import sys

import boto3
import botocore.loaders
import botocore.model
import botocore.validate
import jsonschema
import pytest

from contract.errors import PlatformError
from contract.outputs import Outputs
from contract.training import Compute
from embedded.aws import EmulatedAws
from embedded.project import read_config, run_environment
from embedded.state import State
from tests.conftest import REGION
from tests.kubernetes import check
from training import jobs
from training.fitting import BACKENDS, Job

DIGEST = "sha256:" + "a" * 64
INSTANCE = {"vcpus": 4, "memory_gib": 16, "gpus": 0, "local_gb": 0}
LIMITS = {
    "instance_types": {
        "m7i.2xlarge": INSTANCE | {"vcpus": 8, "memory_gib": 32},
        "m7i.xlarge": INSTANCE,
        "g5.xlarge": INSTANCE | {"gpus": 1, "local_gb": 250},
        "g5.12xlarge": INSTANCE | {"vcpus": 48, "memory_gib": 192, "gpus": 4, "local_gb": 3800},
    },
    "spot": True,
    "max_hours": 24,
    "volume_gb": 100,
    "team_gpus": {"default": 8, "vision": 0},
}
QUEUES = {kind: f"acme-dev-training-{kind}" for kind in ("cpu", "cpu-spot", "gpu", "gpu-spot")}
DEFINITION = "arn:aws:batch:eu-west-1:123456789012:job-definition/acme-dev-training"
OUTPUTS = {
    "environment": "dev",
    "region": REGION,
    "buckets": {name: f"acme-dev-{name}" for name in ("raw", "curated", "artifacts", "queries", "logs")},
    "key_arn": "arn:aws:kms:eu-west-1:123456789012:key/1",
    "training_role": "arn:aws:iam::123456789012:role/acme-dev-training",
    "images": {},
    "models": {},
    "service": {},
    "training": {
        "backend": "sagemaker",
        "name": "acme-dev",
        "image": f"123456789012.dkr.ecr.eu-west-1.amazonaws.com/acme-dev/training@{DIGEST}",
        "work": "s3://acme-dev-artifacts/_work",
        "subnets": ["subnet-1", "subnet-2"],
        "security_group": "sg-1",
        "sagemaker": LIMITS,
        "batch": LIMITS
        | {
            "max_vcpus": 96,
            "queues": QUEUES,
            "job_definitions": {"instance": f"{DEFINITION}:1", "nodes": f"{DEFINITION}-nodes:1"},
        },
        "eks": LIMITS
        | {
            "cluster": "acme-dev",
            "teams": {
                "default": {
                    "namespace": "team-default",
                    "queue": "default",
                    "service_account": "training",
                    "pools": {"cpu": 64, "a10g": 8},
                }
            },
            "pools": {
                "cpu": {"types": {"m7i.2xlarge": 0, "m7i.xlarge": 0}},
                "a10g": {"types": {"g5.xlarge": 0, "g5.12xlarge": 1}},
            },
            "priorities": ["high", "low"],
        },
    },
}


def outputs(**changes):
    return Outputs.model_validate(OUTPUTS | {"training": OUTPUTS["training"] | changes})


def job(array=None, priority=None, **compute):
    known = outputs()
    needs = Compute(**compute)
    return Job(jobs.job_name(known.training, "digits", "train"), "digits", "train", needs, array, priority)


def request(backend, array=None, **compute):
    return jobs.request(job(array, **compute), outputs(), backend)


def assert_valid(service, operation, parameters):
    """Hold parameters against the service's own model: members, types, lengths, patterns and allowed values."""
    model = botocore.loaders.create_loader().load_service_model(service, "service-2")
    shape = botocore.model.ServiceModel(model).operation_model(operation).input_shape
    report = botocore.validate.ParamValidator().validate(parameters, shape)
    assert not report.has_errors(), report.generate_report()
    _assert_texts(shape, parameters, operation)


def _assert_texts(shape, value, path):
    """What botocore leaves to the service."""
    if shape.type_name == "structure":
        for name, item in value.items():
            _assert_texts(shape.members[name], item, f"{path}.{name}")
    elif shape.type_name == "list":
        for item in value:
            _assert_texts(shape.member, item, path)
    elif shape.type_name == "map":
        for item in value.values():
            _assert_texts(shape.value, item, path)
    elif shape.type_name == "string":
        assert not shape.enum or value in shape.enum, f"{path}: {value}"
        assert len(value) <= shape.metadata.get("max", len(value)), f"{path}: {value}"
        pattern = shape.metadata.get("pattern", ".*")
        for java, python in ((r"\p{L}", r"\w"), (r"\p{N}", r"\d"), (r"\p{Z}", " ")):
            pattern = pattern.replace(java, python)
        assert re.fullmatch(pattern, value, re.S), f"{path}: {value}"


NEEDS = [{}, {"gpus": 1}, {"gpus": 4, "instances": 2, "hours": 24}, {"spot": False}, {"instances": 3, "vcpus": 4}]


@pytest.mark.parametrize("compute", NEEDS)
def test_sagemaker_takes_the_request(compute):
    assert_valid("sagemaker", "CreateTrainingJob", request("sagemaker", **compute))


@pytest.mark.parametrize("compute", NEEDS)
def test_batch_takes_the_request(compute):
    assert_valid("batch", "SubmitJob", request("batch", **compute))


def test_the_validation_finds_what_is_wrong():
    asked = request("sagemaker")
    for wrong in (
        asked | {"TrainingJobName": "under_score"},
        asked | {"RoleArn": "role"},
        asked | {"ResourceConfig": {"InstanceType": "ml.g5.tiny"}},
        asked | {"Environment": {"MLP_OUTPUTS": "x" * 513}},
    ):
        with pytest.raises(AssertionError):
            assert_valid("sagemaker", "CreateTrainingJob", wrong)


@pytest.mark.parametrize("compute", NEEDS)
def test_kubernetes_takes_the_manifest(compute):
    check(request("eks", **compute))


def test_the_schema_finds_a_misspelt_field():
    manifest = request("eks")
    pod = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    pod["serviceAcountName"] = pod.pop("serviceAccountName")
    with pytest.raises(jsonschema.ValidationError, match="serviceAcountName"):
        check(manifest)


def test_sagemaker_trains_in_the_vpc_encrypted_and_on_spot():
    asked = request("sagemaker", hours=2)
    assert asked["VpcConfig"] == {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1", "subnet-2"]}
    assert asked["EnableInterContainerTrafficEncryption"] is True
    assert asked["EnableManagedSpotTraining"] is True
    assert asked["CheckpointConfig"] == {
        "S3Uri": "s3://acme-dev-artifacts/_work/digits",
        "LocalPath": "/opt/ml/checkpoints",
    }
    assert asked["StoppingCondition"] == {"MaxRuntimeInSeconds": 7200, "MaxWaitTimeInSeconds": 14 * 3600}
    assert asked["OutputDataConfig"]["KmsKeyId"] == OUTPUTS["key_arn"]
    # What comes out must not be fetched again with the checkpoints.
    assert not asked["OutputDataConfig"]["S3OutputPath"].startswith(asked["CheckpointConfig"]["S3Uri"])
    assert asked["ResourceConfig"] == {
        "InstanceType": "ml.m7i.xlarge",
        "InstanceCount": 1,
        "VolumeSizeInGB": 100,
        "VolumeKmsKeyId": OUTPUTS["key_arn"],
    }


def test_sagemaker_gets_no_key_for_disks_that_encrypt_themselves():
    assert request("sagemaker", gpus=1)["ResourceConfig"] == {"InstanceType": "ml.g5.xlarge", "InstanceCount": 1}


def test_a_job_that_may_not_be_interrupted_runs_on_demand():
    asked = request("sagemaker", spot=False)
    assert asked["EnableManagedSpotTraining"] is False
    assert "MaxWaitTimeInSeconds" not in asked["StoppingCondition"]
    assert request("batch", spot=False)["jobQueue"] == QUEUES["cpu"]
    assert request("batch", spot=True)["jobQueue"] == QUEUES["cpu-spot"]
    assert request("batch", gpus=1)["jobQueue"] == QUEUES["gpu-spot"]


def test_several_instances_are_a_multi_node_job_of_batch_never_on_spot():
    asked = request("batch", gpus=4, instances=2)
    assert asked["jobQueue"] == QUEUES["gpu"]
    assert asked["jobDefinition"].endswith("-nodes:1")
    nodes = asked["nodeOverrides"]
    assert nodes["numNodes"] == 2
    (overrides,) = nodes["nodePropertyOverrides"]
    assert overrides["targetNodes"] == "0:1"
    assert {"type": "GPU", "value": "4"} in overrides["containerOverrides"]["resourceRequirements"]
    assert "containerOverrides" not in asked  # Batch refuses both


def test_a_fan_out_is_an_array_job_of_batch():
    assert request("batch", array=200)["arrayProperties"] == {"size": 200}
    assert "arrayProperties" not in request("batch")
    assert_valid("batch", "SubmitJob", request("batch", array=200))


def test_the_team_shares_the_queue():
    assert request("batch", team="vision")["shareIdentifier"] == "vision"
    assert request("eks")["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "default"


def test_kubernetes_starts_all_pods_or_none_and_they_find_one_another():
    manifest = request("eks", gpus=4, instances=2)
    (worker,) = manifest["spec"]["replicatedJobs"]
    pods = worker["template"]["spec"]
    assert (pods["parallelism"], pods["completions"], pods["completionMode"]) == (2, 2, "Indexed")
    (container,) = pods["template"]["spec"]["containers"]
    environment = {each["name"]: each["value"] for each in container["env"]}
    name = manifest["metadata"]["name"]
    assert environment["MLP_MASTER"] == f"{name}-worker-0-0.{name}"
    assert environment["MLP_NODES"] == "2"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "4"
    assert len(f"{name}-worker-0-0-abcde") <= 63


def pod_of(manifest):
    return manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]


def test_a_job_that_may_not_be_interrupted_stays_off_spot_nodes_of_kubernetes():
    terms = pod_of(request("eks", spot=False))["affinity"]["nodeAffinity"]
    ((term,),) = [
        each["matchExpressions"]
        for each in terms["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    ]
    assert term == {"key": "karpenter.sh/capacity-type", "operator": "NotIn", "values": ["spot"]}
    assert "affinity" not in pod_of(request("eks"))
    pools = {"cpu": {"types": {"m7i.xlarge": 0}, "spot_only": True}, "a10g": {"types": {}}}
    eks = OUTPUTS["training"]["eks"] | {"pools": pools}
    with pytest.raises(PlatformError, match=r"4 GiB for it, not on spot; .* cpu \(64\), a10g \(8\)"):
        jobs.request(job(spot=False), outputs(eks=eks), "eks")


def test_a_job_goes_to_the_pool_with_the_smallest_nodes_on_which_there_is_room_for_it():
    assert pod_of(request("eks"))["nodeSelector"] == {"ml-platform/pool": "cpu"}
    assert pod_of(request("eks", gpus=1))["nodeSelector"] == {"ml-platform/pool": "a10g"}
    # A node keeps some for itself: four vCPUs are no more than three on Kubernetes.
    assert "nodeSelector" in pod_of(request("eks", vcpus=7, memory_gib=28))
    with pytest.raises(PlatformError, match="no instance type has 0 GPUs, 8 vCPUs and 4 GiB"):
        request("eks", vcpus=8)
    with pytest.raises(PlatformError, match="no pool of the team 'default' has 17 nodes with 0 GPUs, 4 vCPUs"):
        request("eks", instances=17, vcpus=4)


def test_a_priority_is_one_of_the_environments():
    labels = jobs.request(job(priority="high"), outputs(), "eks")["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/priority-class"] == "high"
    assert "kueue.x-k8s.io/priority-class" not in request("eks")["metadata"]["labels"]
    for backend, allowed in (("eks", "high, low"), ("batch", "none")):
        with pytest.raises(
            PlatformError, match=f"--priority: there is no 'urgent' on {backend}; allowed are {allowed}"
        ):
            jobs.request(job(priority="urgent"), outputs(), backend)


def test_every_backend_runs_the_same_step_of_the_same_image():
    sagemaker, batch, eks = (request(backend) for backend in BACKENDS)
    (container,) = eks["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"]
    assert sagemaker["AlgorithmSpecification"]["ContainerArguments"] == ["train", "digits"]
    assert batch["containerOverrides"]["command"] == container["args"] == ["train", "digits"]
    assert sagemaker["AlgorithmSpecification"]["TrainingImage"] == container["image"]


def test_names_differ_and_are_short():
    training = outputs(name="a-very-long-prefix-for-a-company-staging").training
    names = {jobs.job_name(training, "classification", "optimise") for _ in range(20)}
    assert len(names) == 20
    assert all(len(name) <= jobs.LONGEST_NAME and "--" not in name for name in names)


@pytest.mark.parametrize(
    ("backend", "array", "compute", "said"),
    [
        ("sagemaker", None, {"gpus": 4, "instances": 3}, "12 GPUs, but the team 'default' may use 8 in a job"),
        ("sagemaker", None, {"gpus": 1, "team": "vision"}, "1 GPUs, but the team 'vision' may use 0 in a job"),
        ("sagemaker", None, {"gpus": 8}, "compute: no instance type has 8 GPUs, 2 vCPUs and 4 GiB for it; allowed are"),
        ("sagemaker", None, {"gpus": 8}, "g5.12xlarge (4 GPUs, 48 vCPUs, 192 GiB)"),
        ("sagemaker", None, {"hours": 25}, "compute.hours: 25 is above the limit; allowed are up to 24"),
        ("sagemaker", None, {"team": "audio"}, "compute.team: 'audio' has no quota; allowed are default, vision"),
        ("sagemaker", None, {"memory_gib": 64}, "no instance type has 0 GPUs, 2 vCPUs and 64 GiB"),
        ("batch", None, {"memory_gib": 32}, "no instance type has 0 GPUs, 2 vCPUs and 32 GiB"),
        ("batch", None, {"vcpus": 8, "instances": 13}, "13 of m7i.2xlarge are 104 vCPUs, but a queue has 96"),
        ("sagemaker", 5, {}, "--array: sagemaker has no array jobs; allowed on batch only"),
        ("batch", 5, {"instances": 2}, "--array: an array's jobs run on one instance each"),
    ],
)
def test_a_job_that_does_not_fit_says_so(backend, array, compute, said):
    with pytest.raises(PlatformError) as caught:
        request(backend, array, **compute)
    text = str(caught.value)
    assert text.startswith(f"the job of digits does not fit on {backend} in dev:\n")
    assert said in text
    assert "training/models/digits/model.yaml" in text
    assert f"ml-platform:training.{backend} in Pulumi.dev.yaml" in text


def test_all_that_does_not_fit_is_told_at_once():
    with pytest.raises(PlatformError) as caught:
        request("sagemaker", gpus=8, instances=8, hours=100)
    assert len(str(caught.value).splitlines()) == 5


def test_a_backend_that_is_off_and_an_image_that_is_missing_are_named():
    with pytest.raises(
        PlatformError, match="the backend 'eks' is not on in dev; on are sagemaker, batch; switch it on"
    ):
        jobs.request(job(), outputs(eks=None), "eks")
    with pytest.raises(PlatformError, match=r"dev has no training image: .*\.image_digest in Pulumi\.dev\.yaml"):
        jobs.request(job(), outputs(image=None), "sagemaker")


@pytest.fixture
def environment(emulated_aws, tmp_path, monkeypatch):
    """The shipped laptop environment, with an image, really created in the emulated AWS."""
    state = State.load(tmp_path / "state.json", emulated_aws.identity)
    monkeypatch.setattr("embedded.project.read_config", _with_image)
    provider = EmulatedAws(emulated_aws.url, REGION, state)
    found = Outputs.model_validate(run_environment("local", provider).outputs)
    return found


def _with_image(environment):
    config = read_config(environment)
    training = json.loads(config["ml-platform:training"]) | {"image_digest": DIGEST}
    return config | {"ml-platform:training": json.dumps(training)}


def test_the_emulated_aws_takes_a_job_that_fits_and_never_sees_another(environment):
    """One test, since it takes seconds to create an environment."""
    s3, sagemaker, batch = (boto3.client(service) for service in ("s3", "sagemaker", "batch"))
    artifacts = environment.buckets.artifacts
    with pytest.raises(PlatformError, match="does not fit on sagemaker in local"):
        jobs.submit(Job("too-large", "digits", "train", Compute(gpus=8)), environment, "sagemaker")
    assert sagemaker.list_training_jobs()["TrainingJobSummaries"] == []
    assert not s3.list_objects_v2(Bucket=artifacts).get("Contents")

    fits = Job(jobs.job_name(environment.training, "digits", "train"), "digits", "train", Compute())
    arn = jobs.submit(fits, environment, "sagemaker")
    found = sagemaker.describe_training_job(TrainingJobName=fits.name)
    assert found["TrainingJobArn"] == arn
    assert found["EnableManagedSpotTraining"] is True
    assert found["VpcConfig"]["Subnets"] == list(environment.training.subnets)
    assert found["AlgorithmSpecification"]["TrainingImage"] == environment.training.image
    told = s3.get_object(Bucket=artifacts, Key="_work/digits/outputs.json")["Body"].read()
    assert Outputs.model_validate_json(told) == environment

    asked = jobs.request(fits, environment, "batch")  # moto would run it, in Docker
    (queue,) = batch.describe_job_queues(jobQueues=[asked["jobQueue"]])["jobQueues"]
    assert queue["state"] == "ENABLED"
    (definition,) = batch.describe_job_definitions(jobDefinitions=[asked["jobDefinition"]])["jobDefinitions"]
    assert definition["containerProperties"]["image"] == environment.training.image


@pytest.fixture
def kubectl(tmp_path, monkeypatch):
    """kubectl cannot be had here: what stands in for it keeps what it is given."""
    script = tmp_path / "kubectl"
    script.write_text(
        f"#!{sys.executable}\nimport sys, pathlib\n"
        "kubeconfig = sys.argv[2].removeprefix('--kubeconfig=')\n"
        f"pathlib.Path({str(tmp_path / 'way_in')!r}).write_text(pathlib.Path(kubeconfig).read_text())\n"
        f"pathlib.Path({str(tmp_path / 'given')!r}).write_text(sys.stdin.read())\n"
        "print('jobset/' + ' '.join([sys.argv[1], *sys.argv[3:]]))\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "given"


def test_a_job_on_kubernetes_is_handed_to_kubectl(emulated_aws, kubectl):
    boto3.client("s3").create_bucket(
        Bucket="acme-dev-artifacts", CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    cluster = boto3.client("eks").create_cluster(
        name="acme-dev", roleArn="arn:aws:iam::123456789012:role/eks", resourcesVpcConfig={}
    )["cluster"]
    assert jobs.submit(job(), outputs(), "eks") == "jobset/create --output=name --filename=-"
    assert json.loads(kubectl.read_text())["kind"] == "JobSet"
    # Into the environment's cluster, whatever kubectl's own context is.
    way_in = json.loads(kubectl.with_name("way_in").read_text())
    assert way_in["clusters"][0]["cluster"]["server"] == cluster["endpoint"]
    assert way_in["users"][0]["user"]["exec"]["args"][2:] == ["--cluster-name", "acme-dev", "--region", REGION]


def test_without_kubectl_it_says_so(emulated_aws, monkeypatch, tmp_path):
    boto3.client("s3").create_bucket(
        Bucket="acme-dev-artifacts", CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PlatformError, match="created by kubectl, which is not installed"):
        jobs.submit(job(), outputs(), "eks")
