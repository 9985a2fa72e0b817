"""`mlp rollback`: go back to what was live before."""

from cli.output import AsJson
from cli.rollout import Environment, Model, NoWait, change
from contract.outputs import ModelOutputs
from contract.service import LiveVersions


def rollback(
    model: Model, environment: Environment = "local", no_wait: NoWait = False, as_json: AsJson = False
) -> None:
    """Go back to the versions and weights before the last change; twice goes back twice.

    A version that was rejected since, or whose artifact is gone, is not brought back.
    """
    from training import registry, rollout

    def decide(outputs: ModelOutputs, _: LiveVersions) -> LiveVersions:
        earlier = rollout.before(outputs.live_parameter)
        for each in earlier.versions:
            registry.as_live(registry.find(outputs.package_group, each.version), each.weight)
        return earlier

    change("Rollback", model, environment, not no_wait, as_json, decide, undo=True)
