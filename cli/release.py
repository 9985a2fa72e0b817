"""`mlp release`: hand the traffic of an environment's functions to the newest image, by way of a canary."""

import json
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.handover import require_credentials
from cli.output import step
from contract.errors import PlatformError

if TYPE_CHECKING:
    from cli.output import Step

ALIAS = "live"
"""As infra/runtimes/lambda_.py calls it."""
POLL_SECONDS = 5
OVER = {"Succeeded", "Failed", "Stopped"}


def release(
    environment: Annotated[str, typer.Argument(help="An environment that has a Pulumi.<name>.yaml.")],
) -> None:
    """Shift the traffic of each Lambda function to the version that the last `mlp up` published.

    A share of it first, as the model's manifest says; CodeDeploy shifts back when an alarm goes off. ECS and SageMaker
    do so of their own accord during the up. The exit status is 1 if a function was shifted back.
    """
    import boto3  # no other command should wait for it

    from contract.manifest import load_manifest, model_names
    from embedded.project import read_config

    config = read_config(environment)
    require_credentials(f"mlp release {environment}", config["aws:region"])
    session = boto3.Session(region_name=config["aws:region"])
    for model in model_names():
        if load_manifest(model).serving.runtime == "lambda":
            name = f"{config['ml-platform:prefix']}-{environment}-inference-{model}"
            with step(f"Release {model}") as this:
                this.done(shift(name, session.client("lambda"), session.client("codedeploy"), this, time.sleep))


def shift(name: str, functions: Any, deployments: Any, this: "Step", sleep: Callable[[float], None]) -> str:
    """Shift a function's alias to its newest version, unless it is there.

    Args:
        name: of the function, and of its CodeDeploy application and deployment group.
        functions: a client of Lambda.
        deployments: a client of CodeDeploy.
        this: where progress is shown.
        sleep: waits between two looks at the deployment.

    Returns:
        What came of it, in words.

    Raises:
        PlatformError: if the function is not there, or the deployment failed or was undone.
    """
    try:
        live = functions.get_alias(FunctionName=name, Name=ALIAS)["FunctionVersion"]
    except functions.exceptions.ResourceNotFoundException:
        raise PlatformError(f"there is no function {name} with an alias {ALIAS!r}; run `mlp up` first") from None
    newest = str(max(_versions(functions, name)))
    if live == newest:
        return f"version {live} of the function has all of the traffic"
    id_ = deployments.create_deployment(
        applicationName=name, deploymentGroupName=name, revision=_revision(name, live, newest)
    )["deploymentId"]
    while True:
        info = deployments.get_deployment(deploymentId=id_)["deploymentInfo"]
        if info["status"] in OVER:
            break
        this.update(f"from version {live} to {newest}: {info['status']}")
        sleep(POLL_SECONDS)
    if info["status"] != "Succeeded":
        why = info.get("errorInformation", {}).get("message", "no reason was given")
        raise PlatformError(f"{name}: the shift from version {live} to {newest} ended as {info['status']}: {why}")
    return f"version {newest} of the function has all of the traffic, after {live}"


def _versions(functions: Any, name: str) -> Iterator[int]:
    for page in functions.get_paginator("list_versions_by_function").paginate(FunctionName=name):
        yield from (int(each["Version"]) for each in page["Versions"] if each["Version"] != "$LATEST")


def _revision(name: str, live: str, newest: str) -> dict[str, Any]:
    """What to deploy: https://docs.aws.amazon.com/codedeploy/latest/userguide/reference-appspec-file-structure.html."""
    function = {
        "Type": "AWS::Lambda::Function",
        "Properties": {"Name": name, "Alias": ALIAS, "CurrentVersion": live, "TargetVersion": newest},
    }
    content = {"version": 0.0, "Resources": [{"function": function}]}
    return {"revisionType": "AppSpecContent", "appSpecContent": {"content": json.dumps(content)}}
