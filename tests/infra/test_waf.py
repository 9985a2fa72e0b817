"""The firewall: before all that is served on ECS, by the client's own address, with a log that holds no token."""

import json

import pytest

from cli.preview import check
from contract.errors import PlatformError
from infra.pricing import Load, Resource, monthly, read_prices
from infra.waf import CLIENT_HEADER
from tests.infra.conftest import PROD, only, statements
from tests.infra.test_runtimes import ECS, INFERENCE, NAT

WAF = INFERENCE | {"waf": {"requests_per_client": 500}}
ACL = "aws:wafv2/webAcl:WebAcl"


@pytest.fixture
def firewall(build):
    return build(serving=ECS, network=NAT, inference=WAF)


def rules(deployment):
    return {rule["name"]: rule for rule in only(deployment, ACL, "inference").inputs["rules"]}


def test_it_stands_before_the_load_balancer_and_in_the_environments_region(firewall):
    assert only(firewall, ACL, "inference").inputs["scope"] == "REGIONAL"
    association = only(firewall, "aws:wafv2/webAclAssociation:WebAclAssociation", "inference").inputs
    balancer = firewall.of_type("aws:lb/loadBalancer:LoadBalancer")[0]
    assert balancer.inputs["internal"] is True
    assert association["resourceArn"].endswith(balancer.name)


def test_it_has_awss_rules_and_leaves_the_size_of_bodies_to_the_service(firewall):
    found = rules(firewall)
    assert sorted(rule["priority"] for rule in found.values()) == [0, 1, 2]
    common = found["AWSManagedRulesCommonRuleSet"]["statement"]["managedRuleGroupStatement"]
    assert common["vendorName"] == "AWS"
    assert [(each["name"], list(each["actionToUse"])) for each in common["ruleActionOverrides"]] == [
        ("SizeRestrictions_BODY", ["count"])
    ]
    assert "AWSManagedRulesKnownBadInputsRuleSet" in found


def test_a_client_is_known_by_the_address_that_the_api_saw_whatever_it_says_itself(firewall):
    limit = rules(firewall)["client-limit"]
    by = limit["statement"]["rateBasedStatement"]
    assert (by["limit"], by["aggregateKeyType"]) == (500, "FORWARDED_IP")
    assert by["forwardedIpConfig"] == {"headerName": CLIENT_HEADER, "fallbackBehavior": "MATCH"}
    assert limit["action"]["block"]["customResponse"]["responseCode"] == 429
    integration = only(firewall, "aws:apigatewayv2/integration:Integration", "inference-digits").inputs
    assert integration["requestParameters"] == {f"overwrite:header.{CLIENT_HEADER}": "$context.identity.sourceIp"}


def test_its_log_is_encrypted_forgets_and_holds_no_token(firewall):
    group = only(firewall, "aws:cloudwatch/logGroup:LogGroup", "waf").inputs
    assert group["name"] == "aws-waf-logs-acme-test-inference"
    assert group["retentionInDays"] == 14
    assert group["kmsKeyId"]
    log = only(firewall, "aws:wafv2/webAclLoggingConfiguration:WebAclLoggingConfiguration", "inference").inputs
    redacted = {field["singleHeader"]["name"] for field in log["redactedFields"]}
    assert {"authorization", "cookie"} <= redacted
    acl = only(firewall, ACL, "inference").inputs
    shown = [acl["visibilityConfig"], *(rule["visibilityConfig"] for rule in acl["rules"])]
    assert not any(each["sampledRequestsEnabled"] for each in shown)
    key = only(firewall, "aws:kms/keyPolicy:KeyPolicy", "lake").inputs["policy"]
    (of_logs,) = [each for each in statements(key) if each.get("Sid") == "LogGroups"]
    assert any(
        ":log-group:aws-waf-logs-acme-test-" in arn
        for arn in json.loads(json.dumps(of_logs))["Condition"]["ArnLike"]["kms:EncryptionContext:aws:logs:arn"]
    )


def test_without_the_setting_there_is_none(build):
    assert build(serving=ECS, network=NAT, inference=INFERENCE).of_type(ACL) == []


def test_it_keeps_the_rules_in_production_and_previews_with_nothing_known(foresee, preview):
    assert check("prod", foresee(serving=ECS, **PROD | {"inference": WAF})).violations == ()
    assert preview(serving=ECS, network=NAT, inference=WAF).outputs


@pytest.mark.parametrize(
    ("serving", "inference", "said"),
    [
        (
            {"runtime": "lambda"},
            WAF,
            "runtime is lambda, but Pulumi.test.yaml: ml-platform:inference.waf stands before",
        ),
        (ECS, {"waf": {}}, "waf needs the section balancer"),
        (ECS, INFERENCE | {"waf": {"requests_per_client": 9}}, "ml-platform:inference.waf.requests_per_client"),
    ],
)
def test_a_firewall_that_would_guard_nothing_is_refused(preview, serving, inference, said):
    with pytest.raises(PlatformError) as error:
        preview(serving=serving, network=NAT, inference=inference)
    assert said in str(error.value)


def test_it_costs_what_its_rules_and_the_requests_do(firewall):
    acl = only(firewall, ACL, "inference")
    prices = read_prices().prices
    ((cost,), unpriced) = monthly([Resource(acl.type, acl.name, "inference", acl.inputs)], Load(10**7), prices)
    assert not unpriced
    assert cost.idle == prices["waf_acl_month"] + 3 * prices["waf_rule_month"]
    assert cost.loaded == pytest.approx(cost.idle + 10 * prices["waf_request_million"])
