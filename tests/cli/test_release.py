"""`mlp release`: its requests are ones that AWS takes, and a shift that was undone is an error."""

import json
from contextlib import ExitStack

import boto3
import pytest
from botocore.stub import ANY, Stubber

from cli.output import step
from cli.release import shift
from contract.errors import PlatformError

NAME = "acme-dev-inference-digits"


@pytest.fixture
def clients():
    """Clients that answer as told, and check each request against AWS's service model."""
    keys = {"region_name": "eu-west-1", "aws_access_key_id": "x", "aws_secret_access_key": "x"}
    with ExitStack() as stack:
        made = [boto3.client(service, **keys) for service in ("lambda", "codedeploy")]
        yield [(client, stack.enter_context(Stubber(client))) for client in made]


def run(clients, live, versions, statuses=()):
    (functions, of_lambda), (deployments, of_codedeploy) = clients
    of_lambda.add_response("get_alias", {"FunctionVersion": live}, {"FunctionName": NAME, "Name": "live"})
    found = [{"Version": version} for version in versions]
    of_lambda.add_response("list_versions_by_function", {"Versions": found}, {"FunctionName": NAME})
    if statuses:
        asked = {"applicationName": NAME, "deploymentGroupName": NAME, "revision": ANY}
        of_codedeploy.add_response("create_deployment", {"deploymentId": "d-1"}, asked)
    for status in statuses:
        info = {"status": status, "errorInformation": {"message": "alarm acme-dev-digits-errors went off"}}
        of_codedeploy.add_response("get_deployment", {"deploymentInfo": info}, {"deploymentId": "d-1"})
    slept = []
    with step("Release") as this:
        said = shift(NAME, functions, deployments, this, slept.append)
    of_lambda.assert_no_pending_responses()
    of_codedeploy.assert_no_pending_responses()
    return said, slept


def test_the_newest_version_gets_the_traffic_by_and_by(clients):
    said, slept = run(clients, "9", ["$LATEST", "8", "9", "10"], ["Created", "InProgress", "Succeeded"])
    assert said == "version 10 of the function has all of the traffic, after 9"
    assert len(slept) == 2


def test_nothing_is_deployed_when_the_newest_version_is_live(clients):
    said, _ = run(clients, "10", ["$LATEST", "9", "10"])
    assert said == "version 10 of the function has all of the traffic"


def test_a_shift_that_an_alarm_undid_is_an_error(clients):
    with pytest.raises(PlatformError, match="from version 1 to 2 ended as Stopped: alarm acme-dev-digits-errors"):
        run(clients, "1", ["$LATEST", "1", "2"], ["InProgress", "Stopped"])


def test_without_a_function_it_says_what_to_do(clients):
    (functions, of_lambda), (deployments, _) = clients
    of_lambda.add_client_error("get_alias", "ResourceNotFoundException")
    with pytest.raises(PlatformError, match="run `mlp up` first"), step("Release") as this:
        shift(NAME, functions, deployments, this, lambda _: None)


def test_the_revision_names_function_alias_and_versions(clients, monkeypatch):
    (_, _), (deployments, _) = clients
    sent = {}
    monkeypatch.setattr(
        deployments, "create_deployment", lambda **request: sent.update(request) or {"deploymentId": "d-1"}
    )
    run_once = clients[1][1]
    run_once.add_response("get_deployment", {"deploymentInfo": {"status": "Succeeded"}}, {"deploymentId": "d-1"})
    (functions, of_lambda), _ = clients
    of_lambda.add_response("get_alias", {"FunctionVersion": "1"})
    of_lambda.add_response("list_versions_by_function", {"Versions": [{"Version": "2"}]})
    with step("Release") as this:
        shift(NAME, functions, deployments, this, lambda _: None)
    (resource,) = json.loads(sent["revision"]["appSpecContent"]["content"])["Resources"]
    assert resource["function"]["Properties"] == {
        "Name": NAME,
        "Alias": "live",
        "CurrentVersion": "1",
        "TargetVersion": "2",
    }
