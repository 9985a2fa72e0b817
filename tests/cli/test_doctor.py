"""`mlp doctor` asks AWS, and whatever AWS answers is a check with a remedy, never a crash."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError

from cli.doctor import Account, examine
from embedded.project import read_config
from tests.conftest import REGION

MLP = Path(sys.executable).with_name("mlp")
DIGEST = "sha256:" + "a" * 64


@pytest.fixture(autouse=True)
def _no_retries(monkeypatch, request):
    if "emulated_aws" in request.fixturenames:
        request.getfixturevalue("emulated_aws")  # clears the variables first
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # moto answers 500 to what it does not know


def account(instance_types=(), **changes):
    config = read_config("dev") | {name.replace("_", ":", 1): value for name, value in changes.items()}
    return Account("dev", config, list(instance_types))


def section(name, **changes):
    return {f"ml-platform:{name}": json.dumps(json.loads(read_config("dev")[f"ml-platform:{name}"]) | changes)}


def found(account):
    return {check.check: check for check in examine(account)}


@pytest.fixture
def quotas(monkeypatch):
    """Service quotas as the test wants them: moto knows few."""
    values = {}
    client = Account.client

    class Quotas:
        exceptions = boto3.client("service-quotas", region_name=REGION).exceptions

        def get_service_quota(self, ServiceCode, QuotaCode):  # noqa: N803
            return {"Quota": {"Value": values[QuotaCode]}}

        def get_paginator(self, operation):
            assert operation == "list_service_quotas"
            return self

        def paginate(self, ServiceCode):  # noqa: N803
            names = {name: value for name, value in values.items() if " " in name}
            yield {"Quotas": [{"QuotaName": n, "QuotaCode": "L-1", "Value": v} for n, v in names.items()]}

    def patched(self, service, region=None):
        return Quotas() if service == "service-quotas" else client(self, service, region)

    monkeypatch.setattr(Account, "client", patched)
    return values


def test_against_the_emulated_aws_nothing_crashes(emulated_aws):
    checks = found(account(["g5.xlarge", "ml.g5.xlarge", "m7g.large"]))
    assert checks["credentials"].state == "ok"
    assert checks["region"].state == "ok"
    assert checks["zones"].detail == "eu-west-1a, eu-west-1b"
    assert checks["image"].state == "warn"
    assert {"quota: VPCs", "quota: g5.xlarge", "quota: ml.g5.xlarge", "quota: m7g.large"} <= checks.keys()
    assert all(check.remedy for check in checks.values() if check.state == "fail")


def test_every_call_may_be_denied(emulated_aws, monkeypatch):
    client = Account.client

    class Denied:
        def __init__(self, real):
            self.real, self.exceptions = real, real.exceptions

        def __getattr__(self, operation):
            def refuse(*_, **__):
                raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, operation)

            return refuse

    def denied(self, service, region=None):
        real = client(self, service, region)
        return real if service == "sts" else Denied(real)

    monkeypatch.setattr(Account, "client", denied)
    nat = section("network", nat="single") | section("inference", image_digest=DIGEST)
    checks = examine(dataclasses.replace(account(["g5.xlarge", "ml.g5.xlarge"]), config=account().config | nat))
    asked = [check for check in checks if check.check not in ("pulumi", "credentials")]
    assert len(asked) == 8
    for check in asked:
        assert check.state == "warn"
        assert "AccessDenied" in check.detail
        assert check.remedy


def test_another_account_than_the_files_is_refused(emulated_aws):
    checks = found(account(aws_allowedAccountIds='["999999999999"]'))
    assert checks["account"].state == "fail"
    assert "999999999999" in checks["account"].detail
    assert found(account(aws_allowedAccountIds='["123456789012"]'))["account"].state == "ok"


def test_a_region_that_is_not_is_named_with_those_that_are(emulated_aws):
    checks = found(account(aws_region="eu-west-9"))
    assert checks["region"].state == "fail"
    assert "eu-west-1" in checks["region"].remedy
    assert "zones" not in checks


def test_a_zone_that_the_account_lacks_is_named_with_those_it_has(emulated_aws):
    checks = found(dataclasses.replace(account(), config=account().config | section("network", zones=["a", "f"])))
    assert checks["zones"].state == "fail"
    assert "no zone f in eu-west-1" in checks["zones"].detail
    assert "a, b, c" in checks["zones"].remedy


def test_a_full_quota_fails_unless_the_environment_is_there_already(emulated_aws, quotas):
    quotas["L-F678F1CE"] = 1  # the default VPC fills it
    check = found(account())["quota: VPCs"]
    assert check.state == "fail"
    assert "--quota-code L-F678F1CE --desired-value 2" in check.remedy
    ec2 = boto3.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    ec2.create_tags(Resources=[vpc], Tags=[{"Key": "Project", "Value": "mlp"}, {"Key": "Environment", "Value": "dev"}])
    quotas["L-F678F1CE"] = 2
    assert found(account())["quota: VPCs"].state == "ok"


def test_addresses_are_counted_by_nat_gateways(emulated_aws, quotas):
    quotas |= {"L-F678F1CE": 5, "L-0263D0A3": 2}
    three = section("network", nat="per-zone", zones=["a", "b", "c"])
    check = found(dataclasses.replace(account(), config=account().config | three))["quota: Elastic IPs"]
    assert (check.state, check.detail) == ("fail", "3 more wanted, 0 used of 2")
    assert "quota: Elastic IPs" not in found(account())  # dev has no NAT gateway


@pytest.mark.parametrize(("value", "state"), [(0, "fail"), (4, "ok")])
def test_gpu_instances_need_a_quota_of_vcpus(emulated_aws, quotas, value, state):
    quotas |= {"L-F678F1CE": 5, "L-DB2E81BA": value}
    check = found(account(["g4dn.xlarge"]))["quota: g4dn.xlarge"]
    assert check.state == state, check
    assert check.detail == f"4 more wanted, 0 used of {value} vCPUs"


def test_training_instances_have_a_quota_by_name(emulated_aws, quotas):
    quotas |= {"L-F678F1CE": 5, "ml.g5.xlarge for training job usage": 0, "ml.g5.xlarge for endpoint usage": 9}
    check = found(account(["ml.g5.xlarge"]))["quota: ml.g5.xlarge"]
    assert check.state == "fail"
    assert "--service-code sagemaker --quota-code L-1 --desired-value 1" in check.remedy


@pytest.fixture
def image(emulated_aws, monkeypatch, tmp_path):
    """Push an image's manifest; its configuration lies in a file, as moto has no layers."""
    ecr = boto3.client("ecr")
    ecr.create_repository(repositoryName="mlp-dev/inference")

    def push(manifest, architecture="arm64"):
        (tmp_path / "config").write_text(json.dumps({"architecture": architecture}))
        client = Account.client

        def patched(self, service, region=None):
            made = client(self, service, region)
            if service == "ecr":
                url = (tmp_path / "config").as_uri()
                monkeypatch.setattr(made, "get_download_url_for_layer", lambda **_: {"downloadUrl": url}, raising=False)
            return made

        monkeypatch.setattr(Account, "client", patched)
        put = ecr.put_image(repositoryName="mlp-dev/inference", imageManifest=json.dumps(manifest), imageTag="t")
        digest = section("inference", image_digest=put["image"]["imageId"]["imageDigest"])
        return found(dataclasses.replace(account(), config=account().config | digest))["image"]

    return push


MANIFEST = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
    "config": {
        "digest": "sha256:" + "b" * 64,
        "size": 1,
        "mediaType": "application/vnd.docker.container.image.v1+json",
    },
    "layers": [],
}


@pytest.mark.parametrize(("architecture", "state"), [("arm64", "ok"), ("amd64", "fail")])
def test_an_images_architecture_is_the_functions(image, architecture, state):
    check = image(MANIFEST, architecture)
    assert check.state == state, check
    assert state == "ok" or "--platform linux/arm64" in check.remedy


def test_an_image_of_several_architectures_is_refused(image):
    entry = {"digest": "sha256:" + "c" * 64, "size": 1, "platform": {"architecture": "arm64", "os": "linux"}}
    media_type = "application/vnd.oci.image.index.v1+json"
    check = image({"schemaVersion": 2, "mediaType": media_type, "manifests": [entry]})
    assert check.state in ("fail", "warn"), check


def test_an_image_that_is_not_there_is_named(emulated_aws):
    digest = section("inference", image_digest=DIGEST)
    check = found(dataclasses.replace(account(), config=account().config | digest))["image"]
    assert (check.state, check.detail) == ("fail", "there is no repository mlp-dev/inference")
    boto3.client("ecr").create_repository(repositoryName="mlp-dev/inference")
    check = found(dataclasses.replace(account(), config=account().config | digest))["image"]
    assert (check.state, check.detail) == ("fail", f"mlp-dev/inference holds no image {DIGEST}")


def test_without_credentials_nothing_else_is_asked(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    checks = found(account())
    assert checks.keys() == {"pulumi", "credentials"}
    assert "aws sso login" in checks["credentials"].remedy


def run(*arguments, path, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    command = [MLP, "doctor", *arguments]
    return subprocess.run(
        command, env=clean | {"PATH": path} | environment, capture_output=True, text=True, check=False
    )


def test_the_exit_status_and_the_json_are_for_programs(emulated_aws, tmp_path):
    aws = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    done = run("dev", "--json", path=str(tmp_path), **aws)
    assert done.returncode == 1, done.stderr
    checks = json.loads(done.stdout)
    assert all(check.keys() == {"check", "state", "detail", "remedy"} for check in checks)
    assert [check["check"] for check in checks if check["state"] == "fail"] == ["pulumi"]
    (tmp_path / "pulumi").write_text("")
    (tmp_path / "pulumi").chmod(0o755)
    done = run("dev", path=str(tmp_path), **aws)
    assert done.returncode == 0, done.stdout
    assert "eu-west-1a" in done.stdout


def test_the_laptop_needs_no_doctor(tmp_path):
    done = run("local", path=str(tmp_path))
    assert done.returncode == 1
    assert "local needs no account" in done.stderr


def with_cluster(admins, **changes):
    cluster = {"admins": admins, "pools": {}, "teams": {}}
    return account(**{"ml-platform:cluster": json.dumps(cluster)} | changes)


@pytest.fixture
def role(monkeypatch):
    """The caller has taken on the role `deployer`."""
    client = Account.client

    class Sts:
        exceptions = boto3.client("sts", region_name=REGION).exceptions

        def get_caller_identity(self):
            return {"Account": "123456789012", "Arn": "arn:aws:sts::123456789012:assumed-role/deployer/me"}

    monkeypatch.setattr(
        Account,
        "client",
        lambda self, service, region=None: Sts() if service == "sts" else client(self, service, region),
    )


def test_a_cluster_locks_out_who_is_not_among_its_admins(emulated_aws, role):
    assert found(with_cluster(["arn:aws:iam::123456789012:role/ci/deployer"]))["cluster: admin"].state == "ok"
    check = found(with_cluster(["somebody"]))["cluster: admin"]
    assert check.state == "fail"
    assert "assumed-role/deployer/me has no rights in the cluster: its admins are somebody" in check.detail
    assert "add yours to ml-platform:cluster.admins in Pulumi.dev.yaml" in check.remedy


def test_a_cluster_that_cannot_be_reached_from_here_is_told_of(emulated_aws, role, monkeypatch):
    assert "is not there yet" in found(with_cluster(["deployer"]))["cluster: API"].detail
    eks = boto3.client("eks")
    arn = "arn:aws:iam::123456789012:role/eks"
    eks.create_cluster(name="mlp-dev-training", roleArn=arn, resourcesVpcConfig={})

    def refuse(address, _):
        assert address[1] == 443
        raise TimeoutError("timed out")

    monkeypatch.setattr("socket.create_connection", refuse)
    check = found(with_cluster(["deployer"]))["cluster: API"]
    assert check.state == "fail"
    assert "cannot be reached from here: timed out" in check.detail
    assert "public_access_cidrs" in check.remedy


def test_without_a_cluster_there_are_no_checks_of_one(emulated_aws):
    assert not [name for name in found(account()) if name.startswith("cluster")]
