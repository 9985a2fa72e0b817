"""Rules for what can be reached: security groups, subnets, machines, load balancers, APIs."""

from collections.abc import Iterator
from typing import Any

from infra.guardrails.rule import Resource, Stack, rule, stack_rule, unknown

GROUP = "aws:ec2/securityGroup:SecurityGroup"
INGRESS = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
GROUP_RULE = "aws:ec2/securityGroupRule:SecurityGroupRule"
BALANCERS = ("aws:lb/loadBalancer:LoadBalancer", "aws:alb/loadBalancer:LoadBalancer")
LISTENERS = ("aws:lb/listener:Listener", "aws:alb/listener:Listener")
INSTANCE, TEMPLATE = "aws:ec2/instance:Instance", "aws:ec2/launchTemplate:LaunchTemplate"
STAGE, REST_STAGE = "aws:apigatewayv2/stage:Stage", "aws:apigateway/stage:Stage"
ANYWHERE = ("0.0.0.0/0", "::/0")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _open(rule: dict[str, Any]) -> bool:
    ranges = [rule.get(key) for key in ("cidrIpv4", "cidrIpv6", "cidrBlocks", "ipv6CidrBlocks")]
    return any(item in ANYWHERE for value in ranges for item in _list(value))


@stack_rule("ingress-not-open", "Name the CIDR or the security group; only a load balancer's 80 and 443 may be open.")
def _(stack: Stack) -> Iterator[tuple[Resource, str]]:
    balancers = stack.of_type(*BALANCERS)
    public = {urn for balancer in balancers for urn in balancer.references.get("securityGroups", ())}
    for resource in stack.of_type(GROUP, INGRESS, GROUP_RULE):
        if resource.type == GROUP:
            rules, groups = resource.items("ingress"), {resource.urn}
        else:
            ingress = resource.type == INGRESS or resource.get("type") == "ingress"
            rules = [dict(resource.properties)] if ingress else []
            groups = set(resource.references.get("securityGroupId", ()))
        for found in rules:
            ports = {found.get("fromPort"), found.get("toPort")}
            web = (len(ports) == 1 and ports <= {80, 443}) or any(map(unknown, ports))
            if _open(found) and not (web and groups & public):
                yield resource, f"port {found.get('fromPort', 'any')} is open to the world"


@rule(
    "default-security-group-empty",
    "Leave ingress and egress of the default security group out.",
    "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup",
)
def _(group: Resource, _tier: str) -> Iterator[str]:
    if group.items("ingress") or group.items("egress"):
        yield "what forgets its security group can be reached"


@rule("subnet-no-public-ip", "Leave mapPublicIpOnLaunch false.", "aws:ec2/subnet:Subnet")
def _(subnet: Resource, _tier: str) -> Iterator[str]:
    if not subnet.is_("mapPublicIpOnLaunch", False, None):
        yield "everything launched in it gets a public address"


@rule("imdsv2-required", "Set metadataOptions.httpTokens to required.", INSTANCE, TEMPLATE)
def _(machine: Resource, _tier: str) -> Iterator[str]:
    if not machine.is_("metadataOptions.httpTokens", "required"):
        yield "a forged request could read the role's credentials"


@rule("volume-encrypted", "Set encrypted to true on each volume.", "aws:ebs/volume:Volume", INSTANCE, TEMPLATE)
def _(machine: Resource, _tier: str) -> Iterator[str]:
    if machine.type == TEMPLATE:
        volumes = [m["ebs"] for m in machine.items("blockDeviceMappings") if isinstance(m, dict) and m.get("ebs")]
    elif machine.type == INSTANCE:
        volumes = [machine.get("rootBlockDevice") or {}, *machine.items("ebsBlockDevices")]
    else:
        volumes = [dict(machine.properties)]
    for volume in volumes:
        encrypted = None if unknown(volume) else volume.get("encrypted")
        # A launch template takes its booleans as text.
        if not unknown(volume) and not unknown(encrypted) and encrypted not in (True, "true"):
            yield "a volume is not encrypted"


@rule("listener-https", "Use HTTPS or TLS; HTTP may only redirect.", *LISTENERS)
def _(listener: Resource, _tier: str) -> Iterator[str]:
    redirects = listener.is_("defaultActions.0.type", "redirect")
    if listener.get("protocol") in (None, "HTTP", "TCP", "UDP", "TCP_UDP") and not redirects:
        yield "it answers without TLS"


@rule("balancer-access-logs", "Set accessLogs.enabled to true, with a bucket.", *BALANCERS)
def _(balancer: Resource, _tier: str) -> Iterator[str]:
    if not balancer.is_("accessLogs.enabled", True):
        yield "nobody would know who called"


@rule("balancer-kept-in-prod", "In prod set enableDeletionProtection to true.", *BALANCERS)
def _(balancer: Resource, tier: str) -> Iterator[str]:
    if tier == "prod" and not balancer.is_("enableDeletionProtection", True):
        yield "deletion protection is off"


@rule("api-authenticated", "Set an authorizationType (AWS_IAM, JWT, CUSTOM).", "aws:apigatewayv2/route:Route")
def _(route: Resource, _tier: str) -> Iterator[str]:
    if not route.is_("authorizationType", "AWS_IAM", "JWT", "CUSTOM"):
        yield f"anybody can call {route.get('routeKey')}"


@rule("api-method-authenticated", "Set authorization to AWS_IAM, CUSTOM or a pool.", "aws:apigateway/method:Method")
def _(method: Resource, _tier: str) -> Iterator[str]:
    # A browser's preflight carries no credentials.
    if (
        method.is_("authorization", "NONE")
        and not unknown(method.get("authorization"))
        and (method.get("httpMethod") != "OPTIONS")
    ):
        yield "anybody can call it"


@rule("api-access-logs", "Set accessLogSettings.destinationArn to a log group.", STAGE, REST_STAGE)
def _(stage: Resource, _tier: str) -> Iterator[str]:
    if not stage.has("accessLogSettings.destinationArn"):
        yield "nobody would know who called"


@rule("api-throttled", "Set throttlingRateLimit and throttlingBurstLimit in defaultRouteSettings.", STAGE)
def _(stage: Resource, _tier: str) -> Iterator[str]:
    for limit in ("throttlingRateLimit", "throttlingBurstLimit"):
        if not stage.has(f"defaultRouteSettings.{limit}"):
            yield f"{limit} is not set"
