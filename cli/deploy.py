"""`mlp deploy`: give a version of a model a share of the traffic."""

from typing import Annotated

import typer

from cli.output import AsJson
from cli.rollout import Environment, Model, NoWait, change
from contract.outputs import ModelOutputs
from contract.service import LiveVersions


def deploy(
    model: Model,
    version: Annotated[int, typer.Option(min=1, help="Number of an approved version.")],
    weight: Annotated[int, typer.Option(min=0, max=100, help="Its share of the traffic, in percent.")] = 100,
    rule: Annotated[
        str | None,
        typer.Option(help="Requests that it gets besides: cohort=<name>, or header:<name>=<value>[,<value>...]."),
    ] = None,
    environment: Environment = "local",
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Give a version a share of the traffic; the others share the rest as before.

    The service loads it without a restart, and this waits until it has. If the service refuses it, all is put back.
    With weight 0 it is loaded, and gets what its rule says and what asks for it by number.
    """
    from training import registry, rollout

    matches = None if rule is None else rollout.rule_of(rule)

    def decide(outputs: ModelOutputs, live: LiveVersions) -> LiveVersions:
        found = registry.find(outputs.package_group, version)
        return rollout.deployed(live, registry.as_live(found, weight, matches))

    change("Deploy", model, environment, not no_wait, as_json, decide)
