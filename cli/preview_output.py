"""How a preview is shown: a tree for people, Markdown for a pull request, JSON for programs."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.tree import Tree

from cli.output import results

if TYPE_CHECKING:
    from embedded.monitor import Deployment, Resource
    from infra.guardrails.evaluate import Result

# What a reviewer asks of a resource, by the last part of its type; the rest is in the JSON.
SHOWN = {
    "ComputeEnvironment": ("type", "computeResources"),
    "Cluster": ("version", "engine", "engineVersion", "backupRetentionPeriod", "deletionProtection"),
    "FlowLog": ("trafficType", "logDestinationType"),
    "Function": ("packageType", "imageUri", "runtime", "memorySize", "timeout", "architectures"),
    "Instance": ("instanceType", "instanceClass", "engine", "allocatedStorage"),
    "Key": ("enableKeyRotation", "deletionWindowInDays"),
    "LogGroup": ("retentionInDays",),
    "NodeGroup": ("instanceTypes", "capacityType", "scalingConfig"),
    "Bucket": ("forceDestroy",),
    "Parameter": ("name", "type"),
    "Repository": ("imageTagMutability", "forceDelete"),
    "Route": ("routeKey", "authorizationType", "destinationCidrBlock"),
    "SecurityGroupIngressRule": ("cidrIpv4", "ipProtocol", "fromPort", "toPort"),
    "Stage": ("defaultRouteSettings",),
    "Subnet": ("cidrBlock", "availabilityZone"),
    "Vpc": ("cidrBlock",),
    "VpcEndpoint": ("serviceName", "vpcEndpointType"),
}


def facts(resource: "Resource") -> str:
    """The properties that matter, on one line: `cidrBlock=10.0.0.0/16 protect`."""
    names = SHOWN.get(resource.type.rpartition(":")[2], ())
    found = [f"{name}={_brief(value)}" for name in names if (value := resource.inputs.get(name)) is not None]
    return " ".join(found + ["protect"] * resource.protect)


def _brief(value: Any) -> str:
    from embedded.monitor import UNKNOWN

    match plain(value):
        case bool() as truth:
            return str(truth).lower()
        case list() as items:
            return ",".join(map(_brief, items))
        case Mapping() as fields:
            return "{" + " ".join(f"{name}={_brief(item)}" for name, item in fields.items()) + "}"
        case other:
            return str(other).replace(UNKNOWN, "(known after up)")


def show(deployment: "Deployment", totals: Mapping[str, int], result: "Result", cost: str) -> None:
    """Print the tree, the totals by type, the cost and what the rules say."""
    root = Tree(f"[bold]{deployment.stack.name}[/bold]")
    _grow(root, deployment, deployment.stack.urn)
    results.print(root)
    for type_, count in totals.items():
        results.print(f"{count:4} {type_}")
    for line in (cost, *policy_lines(result)):
        results.print(line, markup=False, soft_wrap=True)


def _grow(tree: Tree, deployment: "Deployment", urn: str) -> None:
    for resource in deployment.children(urn):
        line = f"{resource.name} [dim]{resource.type}[/dim] {escape(facts(resource))}".rstrip()
        _grow(tree.add(line), deployment, resource.urn)


def policy_lines(result: "Result") -> Iterator[str]:
    """What the rules say, a line each."""
    yield f"policies: {result.passed} of {result.rules} rules passed, {len(result.violations)} violations"
    for violation in result.violations:
        yield f"violation: {violation.rule}: {violation}"
    for waiver, violation in result.waived:
        yield f"waived until {waiver.until}: {waiver.rule}: {violation.resource}: {waiver.reason}"
    for waiver in result.unused:
        yield f"waiver matches nothing, remove it: {waiver.rule}: {waiver.resource} (until {waiver.until})"


def markdown(environment: str, deployment: "Deployment", totals: Mapping[str, int], result: "Result", cost: str) -> str:
    """A comment for a pull request: the verdict first, the long parts folded."""
    verdict = "❌" if result.violations else "✅"
    policies = [f"- {line}" for line in policy_lines(result)]
    counts = [f"| `{type_}` | {count} |" for type_, count in totals.items()]
    tree = list(_outline(deployment, deployment.stack.urn, ""))
    return "\n".join(
        [
            f"### {verdict} Preview of `{environment}`: {sum(totals.values())} resources",
            "",
            f"- {cost}",
            *policies,
            *(f"- note: {message}" for message in deployment.messages),
            "",
            *("<details><summary>Totals by type</summary>", "", "| type | count |", "|---|---:|", *counts),
            *("", "</details>", ""),
            *("<details><summary>Resources</summary>", "", "```text", *tree, "```", "", "</details>"),
        ]
    )


def _outline(deployment: "Deployment", urn: str, indent: str) -> Iterator[str]:
    for resource in deployment.children(urn):
        yield f"{indent}{resource.name} {resource.type} {facts(resource)}".rstrip()
        yield from _outline(deployment, resource.urn, indent + "  ")


def document(
    environment: str, deployment: "Deployment", totals: Mapping[str, int], result: "Result", idle_usd: float
) -> dict[str, Any]:
    """The preview with the keys that docs/cli.md promises."""
    excused: dict[Any, list[str]] = {waiver: [] for waiver in result.unused}
    for waiver, violation in result.waived:
        excused.setdefault(waiver, []).append(violation.urn)
    return {
        "environment": environment,
        "resources": [
            {
                "urn": urn,
                "type": resource.type,
                "name": resource.name,
                "parent": resource.parent or None,
                "protect": resource.protect,
                "properties": plain(resource.inputs),
            }
            for urn, resource in sorted(deployment.resources.items())
        ],
        "totals": dict(totals),
        "idle_usd_a_month": idle_usd,
        "messages": deployment.messages,
        "policies": {
            "rules": {"total": result.rules, "passed": result.passed},
            "violations": [vars(violation) for violation in result.violations],
            "waivers": [waiver.model_dump(mode="json") | {"excuses": urns} for waiver, urns in excused.items()],
        },
    }


def plain(value: Any, reveal: bool = False) -> Any:
    """Plain data from a resource's properties; a secret is `[secret]` unless it is revealed, for a rule to check."""
    from embedded.monitor import Secret

    if isinstance(value, Secret):
        return plain(value.value, reveal) if reveal else "[secret]"
    if isinstance(value, dict):
        return {name: plain(item, reveal) for name, item in value.items()}
    return [plain(item, reveal) for item in value] if isinstance(value, list) else value
