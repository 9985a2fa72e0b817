"""Runs the `local` environment's program against the emulated AWS."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from contract.outputs import Outputs
from contract.strict import parse
from embedded.aws import EmulatedAws, Step
from embedded.local import Local
from embedded.processes import Process
from embedded.project import read_config, run_environment
from embedded.state import State

ENVIRONMENT = "local"


@dataclass(frozen=True)
class Provisioned:
    """What an up of the infrastructure came to."""

    outputs: Outputs
    steps: Counter[str]
    notes: list[str]
    """What the user should know: what is recorded only, what was kept, what the program warned of."""

    @property
    def summary(self) -> str:
        """One line: what was done to how many resources."""
        changed = {action: count for action, count in self.steps.items() if action != "same"}
        if not changed:
            return f"{self.steps.total()} resources, nothing to change"
        return ", ".join(f"{count} {_PAST[action]}" for action, count in changed.items())


_PAST = {"create": "created", "update": "updated", "replace": "replaced", "delete": "deleted", "keep": "kept"}


def provision(platform: Local, aws: Process, on_step: Callable[[Step], None]) -> Provisioned:
    """Bring the emulated AWS to what the program wants.

    Raises:
        PlatformError: when the configuration is not valid, the program fails or AWS refuses a call.
    """
    region = read_config(ENVIRONMENT)["aws:region"]
    platform.use_aws(region)
    state = State.load(platform.folder / "state.json", aws.identity)
    provider = EmulatedAws(aws.url, region, state, on_step)
    deployment = run_environment(ENVIRONMENT, provider)
    provider.finish(deployment.resources)
    outputs = parse(Outputs, deployment.outputs, "the stack's outputs")
    platform.save_outputs(outputs)
    return Provisioned(outputs, Counter(step.action for step in provider.steps), _notes(provider, deployment.messages))


def _notes(provider: EmulatedAws, messages: list[str]) -> list[str]:
    held = provider.state.resources.values()
    recorded = Counter(resource.type for resource in held if resource.recorded_only)
    partly = sorted({f"{resource.type} {', '.join(resource.not_sent)}" for resource in held if resource.not_sent})
    return [
        *(
            f"recorded only, the emulated AWS has no backend for it: {count} of {type_}"
            for type_, count in recorded.items()
        ),
        *(f"not emulated: {what}" for what in partly),
        *(f"kept: {step.note}" for step in provider.steps if step.action == "keep"),
        *messages,
    ]
