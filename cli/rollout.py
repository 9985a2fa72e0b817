"""What `mlp deploy`, `mlp promote` and `mlp rollback` share: change what is live, and wait for the service."""

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from cli.handover import environment_outputs
from cli.output import Step, show, step
from contract.errors import PlatformError
from contract.manifest import load_manifest
from contract.outputs import ModelOutputs, Outputs
from contract.service import LiveVersions
from embedded.local import INFERENCE, Local

WAIT_S, POLL_S, SAY_S = 90, 0.5, 5
TOKEN = "MLP_TOKEN"
"""The variable with the token that an endpoint in the cloud wants."""

Model = Annotated[str, typer.Argument(help="Name of the model.")]
Environment = Annotated[
    str, typer.Option("--env", help="local, or an environment that has a Pulumi.<name>.yaml and is up.")
]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not wait for the service to load it.")]


@dataclass(frozen=True)
class Endpoint:
    """Where the service tells of a model: its metadata as the Open Inference Protocol has them, and what is amiss."""

    url: str

    def ask(self) -> dict[str, Any]:
        """Versions, shares and problems.

        Raises:
            PlatformError: if it does not answer, or with something else, or wants a token.
        """
        token = os.environ.get(TOKEN)
        request = urllib.request.Request(self.url, headers={"Authorization": f"Bearer {token}"} if token else {})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                document: dict[str, Any] = json.load(answer)
                return document
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            if error.code == 503:  # nothing is live yet, and it says why
                return {"versions": [], "shares": {}, "problems": [text]}
            hint = f"; set {TOKEN}, or use --no-wait" if error.code in (401, 403) else ""
            raise PlatformError(f"{self.url} answered {error.code}: {text[:200]}{hint}") from None
        except (OSError, http.client.HTTPException) as error:
            raise PlatformError(f"the service at {self.url} cannot be reached: {error}; see `mlp status`") from None
        except ValueError as error:
            raise PlatformError(f"{self.url} did not answer with JSON: {error}") from None


def endpoint(model: str, environment: str, outputs: Outputs) -> Endpoint:
    """Where the service of an environment tells of a model.

    Raises:
        PlatformError: if the laptop's service is not running.
    """
    if environment != "local":
        return Endpoint(outputs.of_model(model).endpoint)
    service = Local.of_this_checkout().processes.get(INFERENCE)
    if not service or service.state != "running":
        raise PlatformError("the inference service is not running; run `mlp up`")
    return Endpoint(f"{service.url}/v2/models/{model}")


def change(
    title: str,
    model: str,
    environment: str,
    wait: bool,
    as_json: bool,
    decide: Callable[[ModelOutputs, LiveVersions], LiveVersions],
    undo: bool = False,
) -> None:
    """Change what is live of a model and wait until the service has loaded it; if it refuses, put back what was.

    Whoever interrupts the waiting, or ends the service, is told that the change stays, and how to take it back.

    Args:
        title: of the step.
        model: its name.
        environment: where.
        wait: whether to wait.
        as_json: how to print the outcome.
        decide: what is to be live, after what is now.
        undo: whether that takes back the last change.

    Raises:
        PlatformError: if it cannot be live, somebody else changes it at the same time, the service refuses it, or it is
            not known whether the service has loaded it.
    """
    load_manifest(model)
    outputs = environment_outputs(environment, f"mlp {title.lower()} {model} --env {environment}")
    of_model = outputs.of_model(model)
    from training import rollout  # boto3: after what can be refused without it

    service = endpoint(model, environment, outputs) if wait else None
    known = service.ask()["problems"] if service else []
    with step(f"{title} {model}") as this:
        before = rollout.read(of_model.live_parameter)
        live = decide(of_model, before.live)
        if live == before.live:
            this.done(f"nothing to change: {rollout.shares(live)}")
        else:
            back = f"`mlp rollback {model} --env {environment}` takes it back"
            if undo:  # another one would go further back
                back = f"before it was {rollout.shares(before.live)}, which `mlp deploy` brings back"
            with _telling(of_model.live_parameter, live, back):
                after = rollout.write(of_model.live_parameter, live, before, undo)
                patience = outputs.service_settings.refresh_seconds + 1
                refused = _follow(service, live, known, patience, this) if service else ""
                if refused:
                    rollout.write(of_model.live_parameter, before.live, after, undo=True)
                    raise PlatformError(f"the service refuses it, so that all is as it was before: {refused}")
            this.done(rollout.shares(live) + ("" if service else "; not waited for"))
    versions = [{"version": each.version, "weight": each.weight} for each in live.versions]
    facts = {"model": model, "environment": environment, "live": rollout.shares(live)}
    show(facts, as_json, facts | {"live": versions, "changed": live != before.live})


@contextmanager
def _telling(parameter: str, live: LiveVersions, back: str) -> Iterator[None]:
    """If what is done here is interrupted or fails, say what the parameter says by then: what was asked for, or not."""
    from training import rollout

    try:
        yield
    except (KeyboardInterrupt, PlatformError) as error:
        now = rollout.read(parameter).live
        why = str(error) or "interrupted"
        if now == live:
            raise PlatformError(f"{why}; {parameter} says {rollout.shares(now)}; {back}") from None
        if isinstance(error, PlatformError):
            raise
        raise PlatformError(f"{why}; nothing was changed: {parameter} says {rollout.shares(now)}") from None


def _follow(service: Endpoint, live: LiveVersions, known: list[str], patience: float, this: Step) -> str:
    """Wait until the service serves these versions; return why it refuses one, if it does.

    A problem that it had `known` before counts once it had the time to look again, which takes `patience` seconds.
    """
    wanted = {str(each.version): each.weight for each in live.versions}
    start = time.monotonic()
    said = float(-SAY_S)
    while (waited := time.monotonic() - start) < WAIT_S:
        told = service.ask()
        shares = {number: share for number, share in told["shares"].items() if share}
        if shares == {number: weight for number, weight in wanted.items() if weight} and wanted.keys() == {
            *told["versions"]
        }:
            return ""
        for problem in told["problems"]:
            is_ours = any(problem.startswith(f"version {number} (") for number in wanted)
            if is_ours and (problem not in known or waited > patience):
                return str(problem)
        if waited - said >= SAY_S:
            said = waited
            this.update(f"waiting for the service to load version {', '.join(wanted)} ({waited:.0f} s)")
        time.sleep(POLL_S if waited < 5 else 4 * POLL_S)
    raise PlatformError(f"{service.url} does not serve it after {WAIT_S} s, and gives no reason")
