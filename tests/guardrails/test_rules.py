"""Each rule is broken by its bad example, kept by its good one, and bears values that only an up would know."""

import importlib
import json
import re
from types import SimpleNamespace

import pytest
from pulumi_policy import StackValidationPolicy
from pulumi_policy.proxy import unknown_checking_proxy

from cli.preview import check
from contract.paths import ROOT
from embedded.project import environments, run_environment
from infra.guardrails.evaluate import violations
from infra.guardrails.pack import policies
from infra.guardrails.rule import UNKNOWN, Resource, Stack
from infra.guardrails.rules import ALL, NAMES
from tests.guardrails.table import BUCKET, TABLE, a

RULES = {rule.name: rule for rule in ALL}


def broken(name, resources, environment="prod"):
    return violations(RULES[name], Stack(environment, tuple(resources)))


def test_every_rule_has_a_row():
    assert sorted(TABLE) == sorted(NAMES)
    assert len(set(NAMES)) == len(NAMES) >= 25


@pytest.mark.parametrize("name", TABLE)
def test_a_bad_resource_breaks_the_rule_and_a_good_one_keeps_it(name):
    bad, good = TABLE[name]
    assert broken(name, good) == []
    found = broken(name, bad)
    assert found
    for violation in found:
        assert "it (" in str(violation)  # the resource
        assert RULES[name].description in str(violation)  # the remedy


@pytest.mark.parametrize("name", [name for name in TABLE if name.endswith("-in-prod")])
def test_what_only_prod_must_have_dev_may_lack(name):
    assert broken(name, TABLE[name][0], environment="dev") == []


def _unknowns(value):
    """The value with each of its parts, one at a time and as a whole, unknown."""
    yield UNKNOWN
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in parts:
        for changed in _unknowns(item):
            copy = value.copy()
            copy[key] = changed
            yield copy


@pytest.mark.parametrize("name", TABLE)
def test_an_unknown_value_never_breaks_a_good_resource(name):
    good = TABLE[name][1]
    for resource in good:
        for properties in _unknowns(dict(resource.properties)):
            if properties == UNKNOWN:
                continue
            changed = Resource(
                resource.type, resource.name, resource.urn, properties, resource.protect, resource.references
            )
            assert broken(name, [changed if r is resource else r for r in good]) == [], properties


@pytest.mark.parametrize("name", TABLE)
def test_the_pack_of_the_real_cli_says_the_same(name):
    """The library hands out proxies that raise on unknown values; the policies must see through them."""
    (policy,) = [p for p in policies("prod", ()) if p.name == name]
    bad, good = TABLE[name]
    assert _reported(policy, bad)
    assert not _reported(policy, good)


def _reported(policy, resources):
    reported = []
    given = {resource.urn: _as_pulumi(resource) for resource in resources}
    for resource in resources:
        given[resource.urn].property_dependencies = {
            key: [given[urn] for urn in urns if urn in given] for key, urns in resource.references.items()
        }
    all_at_once = isinstance(policy, StackValidationPolicy)
    for args in [SimpleNamespace(resources=list(given.values()))] if all_at_once else given.values():
        policy.validate(args, lambda message, urn: reported.append((message, urn)))
    return reported


def _as_pulumi(resource):
    return SimpleNamespace(
        resource_type=resource.type,
        name=resource.name,
        urn=resource.urn,
        props=unknown_checking_proxy({**resource.properties, "unknown": UNKNOWN}),
        opts=SimpleNamespace(protect=resource.protect),
    )


@pytest.mark.parametrize("rule", ALL, ids=NAMES)
def test_a_rule_names_types_that_exist(rule):
    used = {*rule.types, *(r.type for resources in TABLE[rule.name] for r in resources)}
    for type_ in sorted(t for t in used if t.startswith("aws:")):
        module, cls = re.fullmatch(r"aws:([a-z0-9]+)/\w+:(\w+)", type_).groups()
        module = {"lambda": "lambda_"}.get(module, module)
        path = importlib.util.find_spec(f"pulumi_aws.{module}").submodule_search_locations[0]
        files = ROOT.joinpath(path).glob(f"{re.sub(r'(?<=[a-z0-9])(?=[A-Z])', '_', cls).lower()}.py")
        assert any(f"'{type_}'" in file.read_text() for file in files), type_


@pytest.mark.parametrize("environment", environments())
def test_no_environment_breaks_a_rule(environment):
    assert check(environment, run_environment(environment)).violations == ()


class Invented:
    """Makes up ids and ARNs, so that the policy documents can be read."""

    def apply(self, resource):
        arn = f"arn:aws:test:eu-west-1:123456789012:{resource.name}"
        return resource.name, dict.fromkeys(("arn", "invokeArn", "executionArn"), arn) | {
            "bucket": resource.name,
            "keyId": resource.name,
            "repositoryUrl": "repo",
            "apiEndpoint": "https://api",
            "endpoint": "endpoint",
            "prometheusEndpoint": "https://metrics/",
        } | resource.inputs


@pytest.mark.parametrize("environment", environments())
def test_no_environment_breaks_a_rule_once_its_documents_are_known(environment):
    assert check(environment, run_environment(environment, Invented())).violations == ()


def test_web_ports_may_be_open_only_on_a_load_balancer():
    resources = TABLE["ingress-not-open"][1]
    assert broken("ingress-not-open", [r for r in resources if "loadBalancer" not in r.type])


def test_a_gpu_is_found_behind_a_launch_template():
    template = a("aws:ec2/launchTemplate:LaunchTemplate", "gpu", instanceType="p4d.24xlarge")
    group = a("aws:autoscaling/group:Group", references={"launchTemplate": [template]}, minSize=1)
    assert broken("gpu-scales-to-zero", [template, group])


def test_a_bucket_is_known_by_its_name_too():
    bucket = a(BUCKET.type, bucket="lake")
    block = a("aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock", bucket="lake")
    assert broken("bucket-public-access-block", [bucket, block]) == []


def test_the_documentation_lists_the_rules():
    text = (ROOT / "docs" / "guardrails.md").read_text()
    rows = "\n".join(f"| `{rule.name}` | {rule.description} |" for rule in ALL)
    assert rows in text, f"put this into docs/guardrails.md:\n{rows}"
    assert json.dumps(len(ALL)) in text
