"""`mlp doctor`: what would stop an up of an environment, found out before it."""

import json
import re
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from cli.output import AsJson, results, step
from contract.errors import PlatformError
from contract.manifest import model_names
from embedded.project import read_config

State = Literal["ok", "warn", "fail"]
MARKS = {"ok": "[green]ok[/green]", "warn": "[yellow]warn[/yellow]", "fail": "[red]fail[/red]"}
HOME_REGIONS = {"aws": "us-east-1", "aws-cn": "cn-north-1", "aws-us-gov": "us-gov-west-1"}
"""Per partition, a region that every account has: what is asked there works before the environment's region does."""
GPU_QUOTAS = {"L-DB2E81BA": ("g", "vt"), "L-417A185B": ("p",)}
"""Code of an EC2 quota to the families of instance types whose vCPUs, running on demand, count towards it."""


@dataclass(frozen=True)
class Check:
    """What came of one check, and what to do about it."""

    check: str
    state: State
    detail: str
    remedy: str = ""


@dataclass
class Account:
    """An environment's configuration, beside the account and region that it is to be made in."""

    environment: str
    config: dict[str, str]
    instance_types: list[str]

    @property
    def region(self) -> str:
        """The environment's region."""
        return self.config["aws:region"]

    def settings(self, section: str) -> dict[str, Any]:
        """A section of the environment's file."""
        values: dict[str, Any] = json.loads(self.config.get(f"ml-platform:{section}") or "{}")
        return values

    @property
    def prefix(self) -> str:
        """What the names of everything begin with."""
        return self.config["ml-platform:prefix"]

    @cached_property
    def session(self) -> Any:
        """The user's credentials, in the environment's region."""
        import boto3  # here, and botocore below: no other command should wait for them

        return boto3.Session(region_name=self.region)

    def client(self, service: str, region: str | None = None) -> Any:
        """A client of a service."""
        return self.session.client(service, region_name=region or self.region)

    @property
    def home(self) -> str:
        """A region of the partition that every account has."""
        return HOME_REGIONS.get(self.session.get_partition_for_region(self.region), "us-east-1")

    @property
    def made(self) -> list[dict[str, Any]]:
        """Filters for what an earlier up of this environment has made: it is there already, and needs no quota."""
        tags = {"Project": self.prefix, "Environment": self.environment}
        return [{"Name": f"tag:{name}", "Values": [value]} for name, value in tags.items()]


def doctor(
    environment: Annotated[str, typer.Argument(help="An environment that has a Pulumi.<name>.yaml.")],
    instance_type: Annotated[
        list[str] | None,
        typer.Option(help="An instance type to be used, such as g5.xlarge or ml.g5.xlarge; may be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check before an up what would stop it: tools, credentials, region, zones, quotas and the image.

    Nothing is changed. The exit status is 1 if a check fails; what could not be checked is a warning.
    """
    if environment == "local":
        raise PlatformError("local needs no account: run `mlp up`, and `mlp status` to see how it is")
    with step(f"Doctor {environment}") as this:
        checks = examine(Account(environment, read_config(environment), instance_type or []))
        failed = sum(check.state == "fail" for check in checks)
        this.done(f"{len(checks)} checks, {failed} failed")
    if as_json:
        print(json.dumps([asdict(check) for check in checks], indent=2))
    else:
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for check in checks:
            remedy = f"\n[dim]→ {check.remedy}[/dim]" if check.remedy else ""
            table.add_row(MARKS[check.state], f"[bold]{check.check}[/bold]", check.detail + remedy)
        results.print(table)
    if failed:
        raise typer.Exit(1)


def examine(account: Account) -> list[Check]:
    """Make every check; one that is refused or not supported is a warning, and without credentials few are made."""
    from cli.doctor_cluster import of_cluster  # which needs Check and Account from here

    found = [_pulumi()]
    found += _tried("credentials", _credentials, account)
    if any(check.state == "fail" for check in found if check.check == "credentials"):
        return found
    found += _tried("region", _region, account)
    if any(check.state == "fail" for check in found if check.check == "region"):
        return found
    checks = {
        "zones": _zones,
        "quota: VPCs": _vpcs,
        "quota: Elastic IPs": _addresses,
        "quota: Lambda concurrency": _lambda_concurrency,
        "quota: instances": _instances,
        "image": _image,
        "cluster": of_cluster,
    }
    for name, check in checks.items():
        found += _tried(name, check, account)
    return found


def _tried(name: str, check: Callable[[Account], Iterator[Check]], account: Account) -> list[Check]:
    """Make a check; what it found before AWS refused a call still counts."""
    from botocore.exceptions import BotoCoreError, ClientError

    found: list[Check] = []
    try:
        for result in check(account):
            found.append(result)  # one by one: those before an error are kept
    except ClientError as error:
        code, action = error.response["Error"]["Code"], error.operation_name
        denied = re.search("Denied|Unauthorized|NotAuthorized", code)
        remedy = f"give your role the right to {action}" if denied else "try again; if it stays, look in AWS's console"
        found.append(Check(name, "warn", f"could not be checked: {code} from {action}", remedy))
    except (BotoCoreError, NotImplementedError, OSError) as error:
        found.append(Check(name, "warn", f"could not be checked: {error}"))
    return found


def _pulumi() -> Check:
    path = shutil.which("pulumi")
    if path:
        return Check("pulumi", "ok", path)
    return Check("pulumi", "fail", "the Pulumi CLI is not installed", "see pulumi.com/docs/install")


def _credentials(account: Account) -> Iterator[Check]:
    from botocore.exceptions import BotoCoreError, ClientError

    remedy = "run `aws sso login`, or set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    try:
        if account.session.get_credentials() is None:
            yield Check("credentials", "fail", "there are no AWS credentials", remedy)
            return
        identity = account.client("sts", account.home).get_caller_identity()
    except (BotoCoreError, ClientError) as error:
        yield Check("credentials", "fail", f"they do not work: {error}", remedy)
        return
    yield Check("credentials", "ok", identity["Arn"])
    allowed = account.config.get("aws:allowedAccountIds")
    if allowed and identity["Account"] not in json.loads(allowed):
        file = f"aws:allowedAccountIds in Pulumi.{account.environment}.yaml"
        yield Check(
            "account",
            "fail",
            f"the credentials are of account {identity['Account']}, but {file} is {allowed}",
            "use that account's profile, or change the file",
        )
    elif allowed:
        yield Check("account", "ok", identity["Account"])


def _region(account: Account) -> Iterator[Check]:
    file = f"aws:region in Pulumi.{account.environment}.yaml"
    regions = account.client("ec2", account.home).describe_regions(AllRegions=True)["Regions"]
    status = {region["RegionName"]: region["OptInStatus"] for region in regions}
    if account.region not in status:
        known = ", ".join(sorted(status))
        yield Check("region", "fail", f"AWS has no region {account.region!r}", f"set {file} to one of {known}")
    elif status[account.region] == "not-opted-in":
        yield Check(
            "region",
            "fail",
            f"the account has not enabled {account.region}",
            f"`aws account enable-region --region-name {account.region}` (it takes minutes), or change {file}",
        )
    else:
        yield Check("region", "ok", account.region)


def _zones(account: Account) -> Iterator[Check]:
    network = account.settings("network")
    if network.get("existing"):
        return
    zones = account.client("ec2").describe_availability_zones()["AvailabilityZones"]
    usable = {zone["ZoneName"].removeprefix(account.region) for zone in zones if zone["State"] == "available"}
    wanted = network.get("zones", ["a", "b"])
    if missing := [letter for letter in wanted if letter not in usable]:
        yield Check(
            "zones",
            "fail",
            f"the account has no zone {', '.join(missing)} in {account.region}",
            f"in Pulumi.{account.environment}.yaml take network.zones from {', '.join(sorted(usable))}",
        )
    else:
        yield Check("zones", "ok", ", ".join(account.region + letter for letter in wanted))


def _vpcs(account: Account) -> Iterator[Check]:
    if account.settings("network").get("existing"):
        return
    ec2 = account.client("ec2")
    there = len(ec2.describe_vpcs(Filters=account.made)["Vpcs"])
    used = len(ec2.describe_vpcs()["Vpcs"])
    yield _room(account, "quota: VPCs", "vpc", "L-F678F1CE", used, max(0, 1 - there))


def _addresses(account: Account) -> Iterator[Check]:
    network = account.settings("network")
    gateways = {"none": 0, "single": 1, "per-zone": len(network.get("zones", ["a", "b"]))}[network.get("nat", "none")]
    if network.get("existing") or not gateways:
        return
    ec2 = account.client("ec2")
    there = len(ec2.describe_addresses(Filters=account.made)["Addresses"])
    used = len(ec2.describe_addresses()["Addresses"])
    yield _room(account, "quota: Elastic IPs", "ec2", "L-0263D0A3", used, max(0, gateways - there))


def _lambda_concurrency(account: Account) -> Iterator[Check]:
    """One inference function a model; AWS keeps 100 of the concurrency for functions that reserve none."""
    limits = account.client("lambda").get_account_settings()["AccountLimit"]
    free, wanted = limits["UnreservedConcurrentExecutions"], 10 * len(model_names())
    if free < wanted:
        yield Check(
            "quota: Lambda concurrency",
            "warn",
            f"{free} executions at a time are left for {len(model_names())} models: requests may be throttled",
            _increase("lambda", "L-B99A9384", 1000),
        )
    else:
        yield Check("quota: Lambda concurrency", "ok", f"{free} executions at a time")


def _instances(account: Account) -> Iterator[Check]:
    for name in account.instance_types:
        check = _training_quota if name.startswith("ml.") else _ec2_quota
        yield from _tried(f"quota: {name}", partial(check, name), account)


def _ec2_quota(name: str, account: Account) -> Iterator[Check]:
    code = next((c for c, families in GPU_QUOTAS.items() if re.match(rf"({'|'.join(families)})\d", name)), None)
    if not code:
        yield Check(f"quota: {name}", "warn", "it is of no GPU family that is known here (g, vt, p)")
        return
    ec2 = account.client("ec2")
    zones = ec2.describe_instance_type_offerings(
        LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": [name]}]
    )["InstanceTypeOfferings"]
    letters = {offering["Location"].removeprefix(account.region) for offering in zones}
    wanted = set(account.settings("network").get("zones", ["a", "b"]))
    if not letters & wanted:
        yield Check(
            f"zones: {name}",
            "fail",
            f"{account.region} offers it in {', '.join(sorted(letters)) or 'no zone'}, none of the environment's",
            f"take another instance type, or one of these network.zones in Pulumi.{account.environment}.yaml",
        )
        return
    (described,) = ec2.describe_instance_types(InstanceTypes=[name])["InstanceTypes"]
    filters = [
        {"Name": "instance-state-name", "Values": ["pending", "running"]},
        {"Name": "instance-type", "Values": [f"{family}*" for family in GPU_QUOTAS[code]]},
    ]
    running = [
        instance["CpuOptions"]["CoreCount"] * instance["CpuOptions"]["ThreadsPerCore"]
        for page in ec2.get_paginator("describe_instances").paginate(Filters=filters)
        for reservation in page["Reservations"]
        for instance in reservation["Instances"]
    ]
    yield _room(account, f"quota: {name}", "ec2", code, sum(running), described["VCpuInfo"]["DefaultVCpus"], "vCPUs")


def _training_quota(name: str, account: Account) -> Iterator[Check]:
    """SageMaker counts instances, and has a quota for each type and use, which is found by its name."""
    wanted = f"{name} for training job usage"
    pages = account.client("service-quotas").get_paginator("list_service_quotas").paginate(ServiceCode="sagemaker")
    for quota in (quota for page in pages for quota in page["Quotas"]):
        if quota["QuotaName"] == wanted:
            yield _judged(f"quota: {name}", "sagemaker", quota["QuotaCode"], quota["Value"], 0, 1, "training instances")
            return
    yield Check(f"quota: {name}", "warn", f"SageMaker has no quota named {wanted!r} in {account.region}")


def _room(account: Account, check: str, service: str, code: str, used: int, wanted: int, unit: str = "") -> Check:
    """Whether a quota has room for what is wanted on top of what is used."""
    quotas = account.client("service-quotas")
    try:
        value = quotas.get_service_quota(ServiceCode=service, QuotaCode=code)["Quota"]["Value"]
    except quotas.exceptions.NoSuchResourceException:  # never raised: the account has the default
        value = quotas.get_aws_default_service_quota(ServiceCode=service, QuotaCode=code)["Quota"]["Value"]
    return _judged(check, service, code, value, used, wanted, unit)


def _judged(check: str, service: str, code: str, value: float, used: int, wanted: int, unit: str) -> Check:
    detail = " ".join(f"{wanted} more wanted, {used} used of {value:g} {unit}".split())
    if used + wanted <= value:
        return Check(check, "ok", detail)
    return Check(check, "fail", detail, _increase(service, code, used + wanted))


def _increase(service: str, code: str, value: int) -> str:
    return (
        f"`aws service-quotas request-service-quota-increase --service-code {service} --quota-code {code} "
        f"--desired-value {value}` (AWS answers in hours to days)"
    )


def _image(account: Account) -> Iterator[Check]:
    inference = account.settings("inference")
    digest = inference.get("image_digest")
    if not digest:
        yield Check("image", "warn", "inference.image_digest is not set: the endpoint answers 503 until it is")
        return
    repository = f"{account.prefix}-{account.environment}/inference"
    ecr = account.client("ecr")
    wanted = {"repositoryName": repository, "imageIds": [{"imageDigest": digest}]}
    push = f"push the image to {repository}, or correct inference.image_digest in Pulumi.{account.environment}.yaml"
    try:
        images = ecr.batch_get_image(**wanted)["images"]
    except ecr.exceptions.RepositoryNotFoundException:
        yield Check("image", "fail", f"there is no repository {repository}", push)
        return
    if not images:
        yield Check("image", "fail", f"{repository} holds no image {digest}", push)
        return
    manifest = json.loads(images[0]["imageManifest"])
    if "manifests" in manifest:
        yield Check(
            "image",
            "fail",
            "it is an index of several architectures, which Lambda does not take",
            f"build it with `docker buildx build --platform linux/{_docker(inference)} --provenance=false`",
        )
        return
    layer = {"repositoryName": repository, "layerDigest": manifest["config"]["digest"]}
    with urllib.request.urlopen(ecr.get_download_url_for_layer(**layer)["downloadUrl"], timeout=10) as answer:
        architecture = json.load(answer)["architecture"]
    if architecture != _docker(inference):
        yield Check(
            "image",
            "fail",
            f"it is built for {architecture}, but inference.architecture is {inference.get('architecture')}",
            f"build it with `--platform linux/{_docker(inference)}`, or change inference.architecture",
        )
    else:
        yield Check("image", "ok", f"{repository}, {architecture}")


def _docker(inference: dict[str, Any]) -> str:
    """What Docker calls the architecture that Lambda calls x86_64."""
    return {"x86_64": "amd64"}.get(inference.get("architecture", ""), "arm64")
