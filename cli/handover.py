"""Hands an environment over to the real `pulumi up`, through Pulumi's Automation API."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import typer

from contract.errors import PlatformError
from contract.outputs import Outputs
from contract.paths import ROOT
from contract.strict import parse
from embedded.local import Local
from embedded.project import check_environment, read_config


def pulumi_up(environment: str, ask: bool) -> None:
    """Run `pulumi up -s <environment>`, its output on this terminal.

    Args:
        environment: name of the stack.
        ask: show Pulumi's preview first, and go on only if the user says so.

    Raises:
        PlatformError: saying in one line what to install or set where something is missing.
    """
    check_environment(environment)
    config = read_config(environment)
    command = f"mlp up {environment}"
    require_pulumi(command, f"then run `pulumi login` and try again (`mlp preview {environment}` works without it)")
    require_credentials(command, config["aws:region"])
    run_up(environment, ROOT, ask, {}, policy_packs=[str(ROOT / "infra" / "guardrails")])


def require_pulumi(command: str, then: str) -> None:
    """Raise PlatformError, saying what to do then, unless the Pulumi CLI is installed."""
    if not shutil.which("pulumi"):
        raise PlatformError(
            f"`{command}` needs the Pulumi CLI, which is not installed: see pulumi.com/docs/install, {then}"
        )


def require_credentials(command: str, region: str) -> str:
    """Return the number of the account that the credentials belong to.

    Raises:
        PlatformError: if there are none, or they do not work.
    """
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        session = boto3.Session(region_name=region)
        if session.get_credentials() is None:
            raise PlatformError(
                f"`{command}` needs AWS credentials, and there are none: run `aws sso login`, or set "
                "AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        return str(session.client("sts").get_caller_identity()["Account"])
    except (BotoCoreError, ClientError) as error:
        raise PlatformError(f"`{command}` needs AWS credentials that work: {error}") from None


def run_up(stack: str, folder: Path, ask: bool, variables: dict[str, str], policy_packs: Sequence[str] = ()) -> None:
    """Run `pulumi up` of the program in a folder.

    Args:
        stack: its name.
        folder: where the project is.
        ask: show the preview first, and go on only if the user says so.
        variables: go into Pulumi's environment.
        policy_packs: folders of the policy packs that may stop it.

    Raises:
        PlatformError: with what Pulumi says, if it fails.
    """
    from pulumi import automation

    try:
        selected = automation.create_or_select_stack(
            stack_name=stack,
            work_dir=str(folder),
            opts=automation.LocalWorkspaceOptions(env_vars=variables),
        )
        if ask:
            selected.preview(on_output=_echo, policy_packs=list(policy_packs))
            typer.confirm(f"Make these changes to {stack}?", abort=True)
        selected.up(on_output=_echo, policy_packs=list(policy_packs))
    except automation.CommandError as error:
        raise PlatformError(f"pulumi up -s {stack} failed:\n{error}") from None


def stack_outputs(environment: str, command: str) -> Outputs:
    """The outputs of an environment that is up, from Pulumi's state.

    Raises:
        PlatformError: if the Pulumi CLI is not there, or knows no such stack.
    """
    require_pulumi(command, "then run `pulumi login` and try again")
    from pulumi import automation

    try:
        found = automation.LocalWorkspace(work_dir=str(ROOT)).stack_outputs(environment)
    except automation.CommandError as error:
        raise PlatformError(f"`{command}` cannot read the outputs of {environment}: {error}") from None
    if not found:
        raise PlatformError(f"{environment} is not up; run `mlp up {environment}`")
    return parse(Outputs, {name: output.value for name, output in found.items()}, f"the outputs of {environment}")


def environment_outputs(environment: str, command: str) -> Outputs:
    """The outputs of an environment that is up, with this process's AWS clients pointed at it.

    Raises:
        PlatformError: if it is not up, or there are no credentials for it.
    """
    if environment == "local":
        platform = Local.of_this_checkout()
        platform.use_aws()
        return platform.outputs()
    check_environment(environment)
    outputs = stack_outputs(environment, command)
    require_credentials(command, outputs.region)
    os.environ["AWS_DEFAULT_REGION"] = outputs.region
    return outputs


def _echo(text: str) -> None:
    print(text, end="", flush=True)
