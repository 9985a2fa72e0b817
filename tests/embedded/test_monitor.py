"""The resource monitor does what Pulumi's does: URNs, secrets, transforms, unknowns, outputs, errors."""

import threading

import pulumi
import pulumi_aws as aws
import pytest

from contract.errors import PlatformError
from embedded.monitor import UNKNOWN, Deployment, ProgramError, Resource, Secret, run


class Component(pulumi.ComponentResource):
    def __init__(self, name, opts=None):
        super().__init__("test:index:Component", name, None, opts)
        self.bucket = aws.s3.Bucket(f"{name}-bucket", opts=pulumi.ResourceOptions(parent=self))
        self.register_outputs({"bucket": self.bucket.bucket})


class Provider:
    """Answers every resource with an id and an ARN, and remembers what it was asked for."""

    def __init__(self):
        self.seen: dict[str, Resource] = {}
        self.lock = threading.Lock()

    def apply(self, resource):
        with self.lock:
            self.seen[resource.name] = resource
        return f"{resource.name}-id", {**resource.inputs, "arn": f"arn:{resource.name}"}


def preview(program) -> Deployment:
    return run(program, project="shop", stack="dev", config={"shop:greeting": "hello"})


def up(program) -> tuple[Deployment, Provider]:
    provider = Provider()
    return run(program, project="shop", stack="dev", config={}, provider=provider), provider


def test_urns_hold_the_whole_chain_of_parents():
    class Outer(pulumi.ComponentResource):
        def __init__(self, name):
            super().__init__("test:index:Outer", name)
            Component("inner", pulumi.ResourceOptions(parent=self))

    deployment = preview(lambda: Outer("outer"))
    assert set(deployment.resources) == {
        "urn:pulumi:dev::shop::pulumi:pulumi:Stack::shop-dev",
        "urn:pulumi:dev::shop::test:index:Outer::outer",
        "urn:pulumi:dev::shop::test:index:Outer$test:index:Component::inner",
        "urn:pulumi:dev::shop::test:index:Outer$test:index:Component$aws:s3/bucket:Bucket::inner-bucket",
    }
    (bucket,) = deployment.of_type("aws:s3/bucket:Bucket")
    assert bucket.parent == "urn:pulumi:dev::shop::test:index:Outer$test:index:Component::inner"
    assert deployment.children(bucket.parent) == [bucket]


def test_a_duplicate_urn_is_refused_with_both_lines():
    def program():
        aws.s3.Bucket("twice")
        aws.s3.Bucket("twice")

    with pytest.raises(
        ProgramError, match=r"two resources have the URN .*::twice: .*test_monitor.py:\d+.*test_monitor"
    ):
        preview(program)


def test_secrets_stay_marked_through_inputs_and_outputs():
    def program():
        parameter = aws.ssm.Parameter("p", type="SecureString", value=pulumi.Output.secret("hush"))
        pulumi.export("value", parameter.value)
        pulumi.export("nested", {"deep": [pulumi.Output.secret(1)]})

    deployment, provider = up(program)
    assert provider.seen["p"].inputs["value"] == Secret("hush")
    assert deployment.outputs["value"] == Secret("hush")
    assert "hush" not in repr(deployment)


def test_additional_secret_outputs_are_marked():
    def program():
        options = pulumi.ResourceOptions(additional_secret_outputs=["arn"])
        pulumi.export("arn", aws.s3.Bucket("b", opts=options).arn)

    assert up(program)[0].outputs == {"arn": Secret("arn:b")}


def test_a_preview_knows_inputs_and_nothing_else():
    def program():
        bucket = aws.s3.Bucket("b", bucket="given")
        pulumi.export("bucket", bucket.bucket)
        pulumi.export("arn", bucket.arn)
        pulumi.export("length", bucket.arn.apply(len))

    assert preview(program).outputs == {"bucket": "given", "arn": UNKNOWN, "length": UNKNOWN}


def test_an_up_resolves_outputs_and_records_dependencies():
    def program():
        key = aws.kms.Key("key")
        aws.kms.Alias("alias", target_key_id=key.arn, opts=pulumi.ResourceOptions(depends_on=[aws.s3.Bucket("b")]))

    deployment, provider = up(program)
    alias = provider.seen["alias"]
    key, bucket = deployment.of_type("aws:kms/key:Key")[0], deployment.of_type("aws:s3/bucket:Bucket")[0]
    assert alias.inputs["targetKeyId"] == "arn:key"
    assert alias.dependencies == {key.urn, bucket.urn}
    assert alias.property_dependencies["targetKeyId"] == {key.urn}


def test_a_stack_transform_changes_properties_and_options():
    def transform(args):
        if args.type_ != "aws:s3/bucket:Bucket":
            return None
        options = pulumi.ResourceOptions.merge(args.opts, pulumi.ResourceOptions(protect=True, ignore_changes=["tags"]))
        return pulumi.ResourceTransformResult({**args.props, "tags": {"team": "a"}}, options)

    def program():
        pulumi.runtime.register_resource_transform(transform)
        Component("c")
        aws.kms.Key("key")

    deployment = preview(program)
    (bucket,) = deployment.of_type("aws:s3/bucket:Bucket")
    assert bucket.inputs["tags"] == {"team": "a"}
    assert bucket.protect
    assert bucket.ignore_changes == ("tags",)
    assert not deployment.of_type("aws:kms/key:Key")[0].protect


def test_transforms_run_from_the_resource_to_its_parents():
    def adding(word):
        def transform(args):
            tags = args.props.get("tags", {})
            return pulumi.ResourceTransformResult({**args.props, "tags": {**tags, word: str(len(tags))}}, args.opts)

        return transform

    class Parent(pulumi.ComponentResource):
        def __init__(self):
            super().__init__("test:index:P", "p", None, pulumi.ResourceOptions(transforms=[adding("parent")]))
            aws.s3.Bucket("b", opts=pulumi.ResourceOptions(parent=self, transforms=[adding("own")]))

    (bucket,) = preview(Parent).of_type("aws:s3/bucket:Bucket")
    assert bucket.inputs["tags"] == {"own": "0", "parent": "1"}


def test_a_failing_apply_names_the_resource_and_the_lines():
    def program():
        broken = pulumi.Output.from_input("x").apply(lambda _: 1 // 0)
        aws.ssm.Parameter("broken", type="String", value=broken)

    with pytest.raises(ProgramError) as caught:
        preview(program)
    message = str(caught.value)
    assert "aws:ssm/parameter:Parameter 'broken' (created at tests/embedded/test_monitor.py:" in message
    assert "ZeroDivisionError" in message
    assert "raised at tests/embedded/test_monitor.py:" in message


def test_a_failing_apply_in_an_output_names_the_stack():
    def program():
        pulumi.export("x", pulumi.Output.from_input("x").apply(lambda _: 1 // 0))

    with pytest.raises(ProgramError, match="the outputs of 'shop-dev': ZeroDivisionError"):
        preview(program)


def test_a_failing_provider_names_the_resource_and_stops_its_dependents():
    class Failing(Provider):
        def apply(self, resource):
            if resource.name == "bad":
                raise RuntimeError("no such region")
            return super().apply(resource)

    def program():
        bad = aws.s3.Bucket("bad")
        aws.s3.BucketPolicy("dependent", bucket=bad.id, policy="{}")

    provider = Failing()
    with pytest.raises(ProgramError, match=r"aws:s3/bucket:Bucket 'bad' \(created at tests/.*\): no such region"):
        run(program, project="shop", stack="dev", config={}, provider=provider)
    assert "dependent" not in provider.seen


def test_an_exception_in_the_program_itself_names_its_line():
    def program():
        aws.s3.Bucket("b")
        raise ValueError("wrong")

    with pytest.raises(ProgramError, match=r"the program: ValueError: wrong \(raised at tests/embedded/test_monitor"):
        preview(program)


def test_a_platform_error_comes_through_as_it_is():
    def program():
        raise PlatformError("Pulumi.dev.yaml is not valid")

    with pytest.raises(PlatformError, match=r"^Pulumi.dev.yaml is not valid$"):
        preview(program)


def test_a_look_up_is_refused():
    with pytest.raises(ProgramError, match="looks up aws:index/getCallerIdentity"):
        preview(lambda: aws.get_caller_identity())


def test_configuration_reaches_the_program():
    deployment = preview(lambda: pulumi.export("said", pulumi.Config("shop").require("greeting")))
    assert deployment.outputs == {"said": "hello"}


def test_messages_of_the_program_are_kept():
    assert preview(lambda: pulumi.log.warn("mind the gap")).messages == ["mind the gap"]


def test_runs_do_not_see_each_other():
    first, second = preview(lambda: aws.s3.Bucket("a")), preview(lambda: aws.s3.Bucket("a"))
    assert first.resources.keys() == second.resources.keys()
    assert preview(lambda: None).resources.keys() == {"urn:pulumi:dev::shop::pulumi:pulumi:Stack::shop-dev"}
