"""`mlp promote`: give a live version all of the traffic."""

from typing import Annotated

import typer

from cli.output import AsJson
from cli.rollout import Environment, Model, NoWait, change
from contract.outputs import ModelOutputs
from contract.service import LiveVersions


def promote(
    model: Model,
    version: Annotated[
        int | None, typer.Option(min=1, help="One of the live versions; of two, the one that came last by default.")
    ] = None,
    environment: Environment = "local",
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Give a version that is live already all of the traffic, and take the others off."""
    from training import registry, rollout

    def decide(outputs: ModelOutputs, live: LiveVersions) -> LiveVersions:
        chosen = rollout.promoted(live, version)
        for each in chosen.versions:
            registry.as_live(registry.find(outputs.package_group, each.version), each.weight)
        return chosen

    change("Promote", model, environment, not no_wait, as_json, decide)
