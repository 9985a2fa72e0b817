"""The emulated AWS is brought to what a program wants: create, update, replace, delete, and never lose data."""

import json
from collections import Counter
from dataclasses import replace

import boto3
import pulumi
import pulumi_aws as aws
import pytest

from embedded.aws import EmulatedAws
from embedded.monitor import ProgramError, run
from embedded.state import State
from tests.conftest import REGION


class Platform:
    """A stack in the emulated AWS whose program can be changed between ups."""

    def __init__(self, process, folder):
        self.process, self.path = process, folder / "state.json"

    def up(self, program) -> Counter:
        state = State.load(self.path, self.process.identity)
        self.provider = EmulatedAws(self.process.url, REGION, state)
        self.deployment = run(program, project="shop", stack="local", config={}, provider=self.provider)
        self.provider.finish(self.deployment.resources)
        return Counter(step.action for step in self.provider.steps)

    @property
    def held(self) -> dict:
        return {
            held.urn.rpartition("::")[2]: held
            for held in State.load(self.path, self.process.identity).resources.values()
        }


@pytest.fixture
def platform(emulated_aws, tmp_path):
    return Platform(emulated_aws, tmp_path)


def bucket(name="lake", **arguments):
    return lambda: pulumi.export("bucket", aws.s3.Bucket(name, **arguments).bucket)


def test_a_second_up_changes_nothing(platform):
    def program():
        vpc = aws.ec2.Vpc("vpc", cidr_block="10.0.0.0/16", enable_dns_hostnames=True, tags={"team": "a"})
        subnet = aws.ec2.Subnet("subnet", vpc_id=vpc.id, cidr_block="10.0.1.0/24")
        pulumi.export("subnet", subnet.id)

    assert platform.up(program) == {"create": 2}
    first = platform.deployment.outputs
    assert platform.up(program) == {"same": 2}
    assert platform.deployment.outputs == first
    (vpc,) = boto3.client("ec2").describe_vpcs(Filters=[{"Name": "tag:team", "Values": ["a"]}])["Vpcs"]
    assert vpc["CidrBlock"] == "10.0.0.0/16"


def test_a_change_that_a_row_knows_is_made_in_place(platform):
    platform.up(lambda: aws.ssm.Parameter("p", name="/a", type="String", value="one"))
    assert platform.up(lambda: aws.ssm.Parameter("p", name="/a", type="String", value="two")) == {"update": 1}
    assert boto3.client("ssm").get_parameter(Name="/a")["Parameter"]["Value"] == "two"


def test_another_change_replaces_and_dependents_follow(platform):
    def program(cidr):
        def build():
            vpc = aws.ec2.Vpc("vpc", cidr_block=cidr)
            aws.ec2.InternetGateway("gateway", vpc_id=vpc.id)

        return build

    platform.up(program("10.0.0.0/16"))
    assert platform.up(program("10.1.0.0/16")) == {"replace": 2, "delete": 2}
    blocks = {vpc["CidrBlock"] for vpc in boto3.client("ec2").describe_vpcs()["Vpcs"]}
    assert "10.1.0.0/16" in blocks
    assert "10.0.0.0/16" not in blocks


def test_what_the_program_drops_is_deleted(platform):
    platform.up(bucket())
    assert platform.up(lambda: None) == {"delete": 1}
    assert boto3.client("s3").list_buckets()["Buckets"] == []
    assert platform.held == {}


def test_a_bucket_with_objects_is_kept_whatever_the_program_says(platform):
    platform.up(bucket(force_destroy=True))
    name = platform.deployment.outputs["bucket"]
    boto3.client("s3").put_object(Bucket=name, Key="data", Body=b"precious")
    assert platform.up(lambda: None) == {"keep": 1}
    assert boto3.client("s3").get_object(Bucket=name, Key="data")["Body"].read() == b"precious"
    boto3.client("s3").delete_object(Bucket=name, Key="data")
    assert platform.up(lambda: None) == {"delete": 1}


def test_a_replaced_bucket_leaves_its_objects_in_the_old_one(platform):
    platform.up(bucket())
    old = platform.deployment.outputs["bucket"]
    boto3.client("s3").put_object(Bucket=old, Key="data", Body=b"precious")
    assert platform.up(bucket(object_lock_enabled=True)) == {"replace": 1, "keep": 1}
    assert platform.deployment.outputs["bucket"] != old
    assert boto3.client("s3").get_object(Bucket=old, Key="data")["Body"].read() == b"precious"


def test_tags_of_a_bucket_change_in_place(platform):
    platform.up(bucket(tags={"team": "a"}))
    name = platform.deployment.outputs["bucket"]
    assert platform.up(bucket(tags={"team": "b"})) == {"update": 1}
    assert platform.deployment.outputs["bucket"] == name
    assert boto3.client("s3").get_bucket_tagging(Bucket=name)["TagSet"] == [{"Key": "team", "Value": "b"}]


def test_ignored_changes_stay_what_others_made_them(platform):
    def program(value):
        options = pulumi.ResourceOptions(ignore_changes=["value"])
        return lambda: aws.ssm.Parameter("p", name="/live", type="String", value=value, opts=options)

    platform.up(program("initial"))
    boto3.client("ssm").put_parameter(Name="/live", Value="deployed", Type="String", Overwrite=True)
    assert platform.up(program("another initial")) == {"same": 1}
    assert boto3.client("ssm").get_parameter(Name="/live")["Parameter"]["Value"] == "deployed"


def test_a_type_without_a_row_is_recorded_and_said_to_be(platform):
    def program():
        aws.gamelift.Alias("a", routing_strategy={"type": "TERMINAL", "message": "none"})

    platform.up(program)
    assert platform.held["a"].recorded_only
    assert platform.up(program) == {"same": 1}


def test_a_nat_gateway_can_move_to_another_subnet_with_its_address(platform):
    def program(cidr):
        def build():
            vpc = aws.ec2.Vpc("vpc", cidr_block="10.0.0.0/16")
            subnet = aws.ec2.Subnet("subnet", vpc_id=vpc.id, cidr_block=cidr)
            address = aws.ec2.Eip("address", domain="vpc")
            aws.ec2.NatGateway("nat", subnet_id=subnet.id, allocation_id=address.id)

        return build

    platform.up(program("10.0.1.0/24"))
    assert platform.up(program("10.0.2.0/24"))["replace"] == 2


def test_secrets_reach_aws_but_not_the_state_file(platform):
    def program():
        aws.ssm.Parameter("p", name="/s", type="SecureString", value=pulumi.Output.secret("hush-hush"))

    platform.up(program)
    assert boto3.client("ssm").get_parameter(Name="/s", WithDecryption=True)["Parameter"]["Value"] == "hush-hush"
    assert "hush-hush" not in platform.path.read_text()
    assert platform.path.with_name("key").stat().st_mode & 0o777 == 0o600
    assert platform.up(program) == {"same": 1}


def test_a_failed_up_keeps_what_it_made_and_the_next_one_goes_on(platform):
    def program(vpc_id):
        def build():
            made = aws.ec2.Vpc("made", cidr_block="10.0.0.0/16")
            aws.ec2.Subnet("subnet", vpc_id=vpc_id or made.id, cidr_block="10.0.1.0/24")

        return build

    with pytest.raises(ProgramError, match=r"Subnet 'subnet' .*vpc-0bad.* does not exist"):
        platform.up(program("vpc-0bad"))
    assert platform.up(program(None)) == {"same": 1, "create": 1}


def test_what_a_killed_run_left_behind_is_taken_over(platform):
    boto3.client("iam").create_role(RoleName="left", AssumeRolePolicyDocument="{}")
    document = json.dumps({"Version": "2012-10-17", "Statement": []})
    assert platform.up(lambda: aws.iam.Role("r", name="left", assume_role_policy=document)) == {"create": 1}


def test_an_emulator_that_died_took_its_resources_along(platform):
    platform.up(bucket())
    state = State.load(platform.path, "another process")
    assert state.resources == {}
    platform.process = replace(platform.process, started=0.0)
    assert platform.up(bucket()) == {"create": 1}


def test_a_lambda_function_is_built_from_text_and_updated_in_place(platform):
    def program(memory):
        def build():
            role = aws.iam.Role("role", assume_role_policy=json.dumps({"Version": "2012-10-17", "Statement": []}))
            code = pulumi.AssetArchive({"index.py": pulumi.StringAsset("def handler(event, context): ...")})
            aws.lambda_.Function(
                "f",
                name="f",
                role=role.arn,
                runtime="python3.13",
                handler="index.handler",
                code=code,
                memory_size=memory,
            )

        return build

    platform.up(program(512))
    assert platform.up(program(1024)) == {"same": 1, "update": 1}
    assert boto3.client("lambda").get_function(FunctionName="f")["Configuration"]["MemorySize"] == 1024


def test_a_rename_with_an_alias_changes_nothing(platform):
    class Moved(pulumi.ComponentResource):
        def __init__(self):
            super().__init__("test:index:Moved", "moved")
            former = pulumi.Alias(name="lake", parent=pulumi.ROOT_STACK_RESOURCE)
            options = pulumi.ResourceOptions(parent=self, aliases=[former])
            pulumi.export("bucket", aws.s3.Bucket("renamed", opts=options).bucket)

    platform.up(bucket())
    name = platform.deployment.outputs["bucket"]
    assert platform.up(Moved) == {"same": 1}
    assert platform.deployment.outputs["bucket"] == name
    assert set(platform.held) == {"renamed"}
    assert platform.up(Moved) == {"same": 1}
