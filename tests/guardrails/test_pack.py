"""The pack as the real CLI runs it: a process that is told the stack, and asked over gRPC."""

import os
import subprocess
import sys

import grpc
import pytest
from google.protobuf import empty_pb2, struct_pb2
from pulumi.runtime.proto import analyzer_pb2 as proto
from pulumi.runtime.proto import analyzer_pb2_grpc

from contract.paths import ROOT
from contract.strict import read_yaml
from infra.guardrails.rule import UNKNOWN
from infra.guardrails.rules import NAMES

PACK = ROOT / "infra" / "guardrails"


@pytest.fixture(scope="module")
def analyzer():
    """Start the pack as Pulumi's launcher for Python policy packs does."""
    told = {"PULUMI_PROJECT": "ml-platform", "PULUMI_STACK": "prod", "PULUMI_DRY_RUN": "true"}
    command = [sys.executable, "-u", "-m", "pulumi.policy", "127.0.0.1:1", "."]
    with subprocess.Popen(command, cwd=PACK, env=os.environ | told, stdout=subprocess.PIPE) as process:
        port = int(process.stdout.readline())
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield analyzer_pb2_grpc.AnalyzerStub(channel)
        process.kill()


def urn(type_):
    return f"urn:pulumi:prod::ml-platform::{type_}::it"


def test_it_has_every_rule_and_all_are_mandatory(analyzer):
    info = analyzer.GetAnalyzerInfo(empty_pb2.Empty())
    assert sorted(policy.name for policy in info.policies) == sorted(NAMES)
    assert {policy.enforcementLevel for policy in info.policies} == {proto.MANDATORY}


def test_it_checks_a_resource_with_unknown_values(analyzer):
    properties = struct_pb2.Struct()
    properties.update({"kmsKeyId": UNKNOWN, "tags": {"Project": "mlp", "Environment": "prod", "ManagedBy": "pulumi"}})
    type_ = "aws:cloudwatch/logGroup:LogGroup"
    request = proto.AnalyzeRequest(type=type_, urn=urn(type_), name="it", properties=properties)
    assert [found.policyName for found in analyzer.Analyze(request).diagnostics] == ["logs-expire"]


def test_it_knows_the_stack(analyzer):
    type_ = "aws:sagemaker/modelPackageGroup:ModelPackageGroup"
    request = proto.AnalyzeRequest(type=type_, urn=urn(type_), name="it", properties=struct_pb2.Struct())
    assert "stateful-protected-in-prod" in [found.policyName for found in analyzer.Analyze(request).diagnostics]


def test_it_checks_across_resources(analyzer):
    bucket, block = "aws:s3/bucket:Bucket", "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
    resources = [
        proto.AnalyzerResource(type=bucket, urn=urn(bucket), name="it"),
        proto.AnalyzerResource(
            type=block,
            urn=urn(block),
            name="it",
            propertyDependencies={"bucket": proto.AnalyzerPropertyDependencies(urns=[urn(bucket)])},
        ),
    ]
    found = analyzer.AnalyzeStack(proto.AnalyzeStackRequest(resources=resources)).diagnostics
    assert {one.policyName for one in found} == {"bucket-encrypted", "bucket-tls-only", "bucket-versioned"}
    assert {one.urn for one in found} == {urn(bucket)}


def test_its_virtual_environment_is_the_projects():
    options = read_yaml(PACK / "PulumiPolicy.yaml")["runtime"]["options"]
    assert (PACK / options["virtualenv"]).resolve() == ROOT / read_yaml(ROOT / "Pulumi.yaml")["runtime"]["options"][
        "virtualenv"
    ]
