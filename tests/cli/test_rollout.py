"""What the rollout commands refuse, how they wait for the service, which answers over real HTTP, and how they end."""

import http.server
import json
import os
import signal
import threading

import boto3
import pytest
from typer.testing import CliRunner

from cli import rollout
from cli.main import app
from cli.output import step
from cli.rollout import TOKEN, Endpoint, _follow
from contract.errors import PlatformError
from contract.service import LiveVersion, LiveVersions
from tests.training.environment import environment_of
from training import registry
from training import rollout as parameter

INTERRUPTED = 0
"""A status with which the service answers only after a Ctrl-C."""


def told(shares: dict[str, float], *problems: str) -> tuple[int, str]:
    return 200, json.dumps({"versions": list(shares), "shares": shares, "problems": problems})


@pytest.fixture
def service():
    """A service that gives these answers in turn, the last one for ever; `seen` has the tokens that came."""

    class Handler(http.server.BaseHTTPRequestHandler):
        answers: list = []
        seen: list = []

        def do_GET(self):
            self.seen.append(self.headers["authorization"])
            status, text = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if status == INTERRUPTED:
                os.kill(os.getpid(), signal.SIGINT)
                status = 200
            self.send_response(status)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Handler.endpoint = Endpoint(f"http://127.0.0.1:{server.server_port}/v2/models/digits")
    yield Handler
    server.shutdown()
    server.server_close()


@pytest.fixture
def follow(service, monkeypatch):
    """Waits for version 1 with 90% and 2 with 10%; gives why the service refuses."""
    monkeypatch.setattr(rollout, "POLL_S", 0.01)
    wanted = LiveVersions(
        versions=tuple(
            LiveVersion(version=number, weight=weight, artifact=f"s3://b/{number}", sha256="0" * 64)
            for number, weight in ((1, 90), (2, 10))
        )
    )

    def run(*answers: tuple[int, str], known=(), patience=60.0) -> str:
        service.answers[:] = answers
        with step("Deploy") as this:
            return _follow(service.endpoint, wanted, list(known), patience, this)

    return run


OLD, NEW = told({"1": 100}), told({"1": 90, "2": 10})
REFUSED = "version 2 (s3://b/2) is refused: its checksum is off"


def test_it_waits_until_the_service_serves_what_was_asked_for(follow, service):
    assert follow(OLD, OLD, NEW) == ""
    assert len(service.answers) == 1


def test_another_share_or_version_is_not_what_was_asked_for(follow, monkeypatch):
    monkeypatch.setattr(rollout, "WAIT_S", 0.2)
    for answer in (told({"1": 80, "2": 20}), told({"1": 90, "2": 10, "3": 0})):
        with pytest.raises(PlatformError, match=r"does not serve it after 0.2 s, and gives no reason"):
            follow(answer)


def test_a_refusal_is_passed_on(follow):
    assert follow(OLD, told({"1": 100}, REFUSED)) == REFUSED


def test_what_was_amiss_before_counts_only_if_it_stays(follow):
    amiss = told({"1": 100}, REFUSED)
    assert follow(amiss, amiss, NEW, known=[REFUSED]) == ""
    assert follow(amiss, known=[REFUSED], patience=0.05) == REFUSED


def test_what_is_amiss_with_another_version_is_not_ours(follow):
    other = "version 9 (s3://b/9) is refused: gone"
    assert follow(told({"1": 100}, other), told({"1": 90, "2": 10}, other)) == ""


def test_nothing_live_yet_is_no_error(follow):
    assert follow((503, "model 'digits' is not ready"), NEW) == ""


@pytest.mark.parametrize(("status", "hint"), [(401, True), (403, True), (404, False), (500, False)])
def test_an_endpoint_that_refuses_is_told_with_what_to_do(service, status, hint):
    service.answers[:] = [(status, "no")]
    with pytest.raises(PlatformError, match=f"answered {status}: no") as caught:
        service.endpoint.ask()
    assert ("set MLP_TOKEN, or use --no-wait" in str(caught.value)) == hint


def test_a_token_is_sent(service, monkeypatch):
    service.answers[:] = [NEW]
    monkeypatch.setenv(TOKEN, "t0ken")
    service.endpoint.ask()
    assert service.seen[-1] == "Bearer t0ken"


def test_a_service_that_cannot_be_reached_is_told():
    with pytest.raises(PlatformError, match=r"cannot be reached: .*; see `mlp status`"):
        Endpoint("http://127.0.0.1:1/v2/models/digits").ask()


def test_something_else_that_answers_is_told(service):
    service.answers[:] = [(200, "<html>")]
    with pytest.raises(PlatformError, match="models/digits did not answer with JSON: "):
        service.endpoint.ask()


@pytest.fixture
def mlp(emulated_aws, outputs_document, service, monkeypatch):
    """Runs a command for digits in an environment that has approved versions 1 to 4, of which the first is live."""
    names = outputs_document.models["digits"].model_copy(update={"endpoint": service.endpoint.url})
    outputs = outputs_document.model_copy(update={"models": outputs_document.models | {"digits": names}})
    environment_of(outputs)
    monkeypatch.setattr(rollout, "environment_outputs", lambda *_: outputs)
    monkeypatch.setattr(rollout, "POLL_S", 0.01)
    boto3.client("s3").put_object(Bucket=outputs.buckets.artifacts, Key="model.tar.gz", Body=b"")
    uri = f"s3://{outputs.buckets.artifacts}/model.tar.gz"
    for _ in range(4):
        boto3.client("sagemaker").create_model_package(
            ModelPackageGroupName=names.package_group,
            ModelApprovalStatus=registry.APPROVED,
            InferenceSpecification={"Containers": [{"Image": "image", "ModelDataUrl": uri}]},
            CustomerMetadataProperties={"sha256": "0" * 64},
        )

    def run(command, *arguments, answers=()):
        service.answers[:] = answers or [told({})]
        waiting = () if answers else ("--no-wait",)
        arguments = (command, "digits", *(str(each) for each in arguments), "--env", "test", *waiting)
        CliRunner().invoke(app, arguments, catch_exceptions=False)
        return parameter.shares(parameter.read(names.live_parameter).live)

    run.reject = lambda number: registry.reject(registry.find(names.package_group, number))
    assert run("deploy", "--version", 1) == "version 1 100%"
    return run


def test_a_version_that_was_rejected_since_is_not_promoted(mlp):
    mlp("deploy", "--version", 3, "--weight", 0, "--rule", "header:X-Country=se,no")
    mlp.reject(3)
    with pytest.raises(PlatformError, match="version 3 is not approved, but Rejected; `mlp models approve`"):
        mlp("promote", "--version", 3)
    assert mlp("promote", "--version", 1) == "version 1 100%"


def test_an_empty_rule_is_an_error_and_drops_none(mlp):
    before = mlp("deploy", "--version", 2, "--weight", 10, "--rule", "cohort=beta")
    with pytest.raises(PlatformError, match="--rule '' is not valid; allowed are cohort=<name>"):
        mlp("deploy", "--version", 2, "--weight", 10, "--rule", "")
    assert mlp("deploy", "--version", 2, "--weight", 10, "--rule", "cohort=beta") == before


def test_a_rollback_goes_to_what_was_live_before_also_if_that_was_deployed_twice(mlp):
    for number in (2, 4, 2):
        mlp("deploy", "--version", number)
    assert [mlp("rollback") for _ in range(3)] == ["version 4 100%", "version 2 100%", "version 1 100%"]


BEFORE = told({"1": 100})


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ([BEFORE, (INTERRUPTED, BEFORE[1])], "interrupted"),
        ([BEFORE, (500, "no")], "http://.*/v2/models/digits answered 500: no"),
        ([BEFORE, (200, "")], "http://.*/v2/models/digits did not answer with JSON: .*"),
    ],
)
def test_a_change_that_was_not_waited_for_to_the_end_stays_and_says_so(mlp, answers, why):
    said = f"^{why}; /test/models/digits says version 1 90%, version 2 10%; `mlp rollback digits --env test` takes it b"
    with pytest.raises(PlatformError, match=said):
        mlp("deploy", "--version", 2, "--weight", 10, answers=answers)
    with pytest.raises(PlatformError, match=r"says version 1 100%; before it was version 1 90%, version 2 10%, which "):
        mlp("rollback", answers=[NEW, *answers[1:]])


def test_what_was_interrupted_before_it_changed_anything_says_so(mlp, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(PlatformError, match=r"^interrupted$"):
        mlp("deploy", "--version", 2, answers=[(INTERRUPTED, BEFORE[1])])
    with monkeypatch.context() as patch:
        patch.setattr(parameter, "write", interrupt)
        with pytest.raises(PlatformError, match="interrupted; nothing was changed: /test/models/digits says version 1"):
            mlp("deploy", "--version", 2)


def test_a_version_that_the_service_refuses_is_taken_back_and_not_rolled_back_to(mlp):
    with pytest.raises(PlatformError, match="the service refuses it, so that all is as it was before: version 2"):
        mlp("deploy", "--version", 2, "--weight", 10, answers=[BEFORE, told({"1": 100}, REFUSED)])
    mlp("deploy", "--version", 3)
    assert mlp("rollback") == "version 1 100%"
