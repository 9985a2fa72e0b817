"""`mlp preview`: what an environment consists of, without an account."""

import json
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.tree import Tree

from cli.output import AsJson, progress, results, step

if TYPE_CHECKING:
    from embedded.monitor import Deployment


def preview(
    environment: Annotated[str, typer.Argument(help="An environment that has a Pulumi.<name>.yaml.")] = "local",
    as_json: AsJson = False,
) -> None:
    """Show the resources that `pulumi up` would make, without an account, the Pulumi CLI or the network."""
    with step(f"Preview {environment}") as this:
        from embedded.project import run_environment

        deployment = run_environment(environment)
        this.done(f"{sum(r.custom for r in deployment.resources.values())} resources")
    totals = Counter(resource.type for resource in deployment.resources.values() if resource.custom)
    if as_json:
        print(json.dumps(_document(environment, deployment, totals), indent=2))
        return
    root = Tree(f"[bold]{deployment.stack.name}[/bold]")
    _grow(root, deployment, deployment.stack.urn)
    results.print(root)
    for type_, count in sorted(totals.items()):
        results.print(f"{count:4} {type_}")
    for message in deployment.messages:
        progress.print(f"[yellow]note:[/yellow] {message}")


def _grow(tree: Tree, deployment: "Deployment", urn: str) -> None:
    for resource in deployment.children(urn):
        _grow(tree.add(f"{resource.name} [dim]{resource.type}[/dim]"), deployment, resource.urn)


def _document(environment: str, deployment: "Deployment", totals: Counter[str]) -> dict[str, Any]:
    from embedded.monitor import Secret

    def plain(value: Any) -> Any:
        if isinstance(value, Secret):
            return "[secret]"
        if isinstance(value, dict):
            return {name: plain(item) for name, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list) else value

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
        "totals": dict(sorted(totals.items())),
        "messages": deployment.messages,
    }
