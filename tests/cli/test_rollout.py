"""How a change of what is live waits for the service, which answers over real HTTP, and for how long."""

import http.server
import json
import threading

import pytest

from cli import rollout
from cli.output import step
from cli.rollout import TOKEN, Endpoint, _follow
from contract.errors import PlatformError
from contract.service import LiveVersion, LiveVersions


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
        with pytest.raises(
            PlatformError, match=r"does not serve it after 0.2 s, and gives no reason; .*`mlp rollback`"
        ):
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
