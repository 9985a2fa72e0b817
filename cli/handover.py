"""Hands an environment over to the real `pulumi up`, through Pulumi's Automation API."""

import shutil

import typer

from contract.errors import PlatformError
from contract.paths import ROOT
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
    if not shutil.which("pulumi"):
        raise PlatformError(
            f"`mlp up {environment}` needs the Pulumi CLI, which is not installed: see pulumi.com/docs/install, "
            f"then run `pulumi login` and try again (`mlp preview {environment}` works without it)"
        )
    _check_credentials(environment, config["aws:region"])
    from pulumi import automation

    try:
        stack = automation.create_or_select_stack(stack_name=environment, work_dir=str(ROOT))
        if ask:
            stack.preview(on_output=_echo)
            typer.confirm(f"Make these changes to {environment}?", abort=True)
        stack.up(on_output=_echo)
    except automation.CommandError as error:
        raise PlatformError(f"pulumi up -s {environment} failed:\n{error}") from None


def _echo(text: str) -> None:
    print(text, end="", flush=True)


def _check_credentials(environment: str, region: str) -> None:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        session = boto3.Session(region_name=region)
        if session.get_credentials() is None:
            raise PlatformError(
                f"`mlp up {environment}` needs AWS credentials, and there are none: run `aws sso login`, or set "
                "AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        session.client("sts").get_caller_identity()
    except (BotoCoreError, ClientError) as error:
        raise PlatformError(f"`mlp up {environment}` needs AWS credentials that work: {error}") from None
