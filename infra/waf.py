"""WAF: a web application firewall before the load balancer, through which every request to a model on ECS comes.

AWS takes no firewall before an HTTP API. It takes one before a regional REST API, CloudFront or a load balancer:

- A REST API knows no JWT authorizer for an issuer of the company's own, costs three times as much a request, and cannot
  reach the internal load balancer without a second, network one.
- CloudFront's firewall stands in us-east-1, outside the environment's region, and AWS's own name of the API leads
  around it, unless every service checks a shared secret.
- The load balancer is in the environment's region, and nothing leads around it: its security group lets in the API's
  link alone. So that is where it stands.
"""

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.foundation import Foundation
from infra.settings.inference import WafSettings
from infra.storage import FIREWALLS

CLIENT_HEADER = "x-client-ip"
"""In which the API tells the address of the client: what the load balancer itself sees is the API's link."""
MANAGED = {
    # It would refuse every body of more than 8 KB, which a batch of rows soon has: the service has limits of its own.
    "AWSManagedRulesCommonRuleSet": ["SizeRestrictions_BODY"],
    "AWSManagedRulesKnownBadInputsRuleSet": [],
}
"""AWS's groups of rules, each with those of its rules that only count. Its list of addresses in bad repute is not among
them: it looks at the address that the balancer sees, which is the link's for every client."""
WINDOW_S = 300


@dataclass
class WafArgs:
    """What stands behind the firewall, and what it lets through."""

    settings: WafSettings
    balancer_arn: pulumi.Input[str]


class Waf(pulumi.ComponentResource):
    """A web ACL of AWS's managed rules and a limit for each client, with an encrypted log of what it refuses."""

    def __init__(
        self, name: str, args: WafArgs, foundation: Foundation, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ml-platform:infra:Waf", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        called = foundation.naming("inference")
        acl = aws.wafv2.WebAcl(
            called,
            name=called,
            description="Before the load balancer of the models",
            scope="REGIONAL",
            default_action={"allow": {}},
            rules=[
                *(_managed(group, counted, at) for at, (group, counted) in enumerate(MANAGED.items())),
                _limit(args.settings.requests_per_client, len(MANAGED)),
            ],
            visibility_config=_visible(called),
            opts=child,
        )
        aws.wafv2.WebAclAssociation(called, resource_arn=args.balancer_arn, web_acl_arn=acl.arn, opts=child)
        # AWS lets itself write there when the logging is switched on.
        log_group = aws.cloudwatch.LogGroup(
            foundation.naming("waf"),
            name=f"{FIREWALLS}{called}",
            retention_in_days=foundation.log_retention_days,
            kms_key_id=foundation.storage.key_arn,
            opts=child,
        )
        aws.wafv2.WebAclLoggingConfiguration(
            called,
            resource_arn=acl.arn,
            log_destination_configs=[log_group.arn],
            # A log must not hold what opens the API.
            redacted_fields=[{"single_header": {"name": name}} for name in ("authorization", "cookie")],
            logging_filter={
                "default_behavior": "DROP",
                "filters": [
                    {
                        "behavior": "KEEP",
                        "requirement": "MEETS_ANY",
                        "conditions": [{"action_condition": {"action": each}} for each in ("BLOCK", "COUNT")],
                    }
                ],
            },
            opts=child,
        )
        self.register_outputs({"web_acl": acl.arn})


def _managed(group: str, counted: list[str], priority: int) -> aws.wafv2.WebAclRuleArgsDict:
    return {
        "name": group,
        "priority": priority,
        "override_action": {"none": {}},
        "statement": {
            "managed_rule_group_statement": {
                "vendor_name": "AWS",
                "name": group,
                "rule_action_overrides": [{"name": rule, "action_to_use": {"count": {}}} for rule in counted],
            }
        },
        "visibility_config": _visible(group),
    }


def _limit(requests: int, priority: int) -> aws.wafv2.WebAclRuleArgsDict:
    return {
        "name": "client-limit",
        "priority": priority,
        "action": {"block": {"custom_response": {"response_code": 429}}},
        "statement": {
            "rate_based_statement": {
                "limit": requests,
                "evaluation_window_sec": WINDOW_S,
                "aggregate_key_type": "FORWARDED_IP",
                # What does not say for whom it comes did not come through the API: all of it shares one limit.
                "forwarded_ip_config": {"header_name": CLIENT_HEADER, "fallback_behavior": "MATCH"},
            }
        },
        "visibility_config": _visible("client-limit"),
    }


def _visible(name: str) -> aws.wafv2.WebAclVisibilityConfigArgsDict:
    """Counted in CloudWatch; no samples of requests are kept, as they hold what the log leaves out."""
    return {"metric_name": name, "cloudwatch_metrics_enabled": True, "sampled_requests_enabled": False}
