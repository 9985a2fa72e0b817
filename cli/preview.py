"""`mlp preview`: what an environment consists of, and whether it keeps the rules, without an account."""

import gc
import json
from collections import Counter
from datetime import date
from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import AsJson, progress, step

if TYPE_CHECKING:
    from embedded.monitor import Deployment
    from infra.guardrails.evaluate import Result


def preview(
    environment: Annotated[str, typer.Argument(help="An environment that has a Pulumi.<name>.yaml.")] = "local",
    as_json: AsJson = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown for a pull request.")] = False,
) -> None:
    """Show the resources that `pulumi up` would make, and the rules they break, without an account or the network.

    The exit status is 1 if a rule is broken.
    """
    if as_json and as_markdown:
        raise typer.BadParameter("choose one of --json and --markdown")
    with step(f"Preview {environment}") as this:
        deployment = _run(environment)
        result = check(environment, deployment)
        this.done(f"{sum(r.custom for r in deployment.resources.values())} resources")
    from cli import preview_output
    from cli.cost import idle, line

    totals = dict(
        sorted(Counter(resource.type for resource in deployment.resources.values() if resource.custom).items())
    )
    usd, unpriced = idle(deployment)
    cost = line(usd, unpriced)
    if as_json:
        print(json.dumps(preview_output.document(environment, deployment, totals, result, usd), indent=2))
    elif as_markdown:
        print(preview_output.markdown(environment, deployment, totals, result, cost))
    else:
        preview_output.show(deployment, totals, result, cost)
        for message in deployment.messages:
            progress.print(f"[yellow]note:[/yellow] {message}")
    if result.violations:
        raise typer.Exit(1)


def _run(environment: str) -> "Deployment":
    # Importing pulumi_aws makes very many objects that stay; looking for garbage among them is a third of the time.
    gc.disable()
    try:
        from embedded.project import run_environment

        return run_environment(environment)
    finally:
        gc.freeze()
        gc.enable()


def check(environment: str, deployment: "Deployment") -> "Result":
    """Check a deployment against the rules, less the waivers of the environment's file.

    Raises:
        PlatformError: for an invalid or expired waiver.
    """
    from cli.preview_output import plain
    from embedded.project import read_config
    from infra.guardrails.evaluate import evaluate
    from infra.guardrails.rule import Resource, Stack
    from infra.guardrails.rules import NAMES
    from infra.guardrails.waivers import KEY, read_waivers

    config = read_config(environment)
    given = json.loads(config.get(KEY) or "[]")
    waivers = read_waivers(given, f"Pulumi.{environment}.yaml", date.today(), NAMES)
    resources = tuple(
        Resource(r.type, r.name, urn, plain(r.inputs, reveal=True), r.protect, r.property_dependencies)
        for urn, r in sorted(deployment.resources.items())
        if r.custom
    )
    return evaluate(Stack(config["ml-platform:tier"], resources), waivers)
