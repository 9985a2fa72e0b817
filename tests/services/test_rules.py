"""Which version a request gets: by rule, by user, by request."""

import pytest
from pydantic import ValidationError

from contract.service import LiveVersions, Rule
from tests.services.conftest import Linear, request
from tests.services.test_live import Served


@pytest.fixture
def served(cloud):
    """Version 1 has 60 percent, 2 has 40, and 3 and 4 have rules."""
    one, two, three, four = (
        cloud.live(number, Linear(number).archive(), weight) for number, weight in ((1, 60), (2, 40), (3, 0), (4, 0))
    )
    three = three.model_copy(update={"rule": Rule(header="x-country", values=("nl", "be"))})
    four = four.model_copy(update={"rule": Rule(cohort="beta")})
    cloud.publish(one, two, three, four)
    served = Served(cloud.environment)
    served.refresh()
    return served


def version(served, headers=None, **more):
    answer = served.client.post("/v2/models/digits/infer", json=request([1, 2, 3, 4], **more), headers=headers)
    return answer.json()["model_version"]


def test_a_header_decides_before_the_weights(served):
    assert {version(served, {"X-Country": country}) for country in ("nl", "be") for _ in range(5)} == {"3"}
    assert version(served, {"X-Country": "de"}) in "12"


def test_a_cohort_decides_before_the_weights(served):
    assert {version(served, {"X-Cohort": "beta"}) for _ in range(5)} == {"4"}
    assert version(served, {"X-Cohort": "alpha"}) in "12"


def test_the_first_rule_that_matches_counts(served):
    assert version(served, {"X-Cohort": "beta", "X-Country": "nl"}) == "3"


def test_a_user_stays_with_a_version_whatever_the_request_is_called(served):
    model = served.app.catalogue["digits"]
    chosen = {user: {version(served, {"X-User-Id": user}, id=str(i)) for i in range(5)} for user in map(str, range(40))}
    assert all(len(versions) == 1 for versions in chosen.values())
    assert {user: versions.pop() for user, versions in chosen.items()} == {
        user: model.choose(user).number for user in map(str, range(40))
    }


def test_the_invocations_route_assigns_in_the_same_way(served):
    model = served.app.catalogue["digits"]
    for headers, expected in (
        ({"X-Country": "nl"}, "3"),
        ({"X-User-Id": "ann"}, model.choose("ann").number),
        ({"X-Amzn-SageMaker-Inference-Id": "i7"}, model.choose("i7").number),
    ):
        answer = served.client.post("/invocations", json=[[1, 2, 3, 4]], headers=headers)
        assert f"version={expected};" in answer.headers["x-amzn-sagemaker-custom-attributes"]


def test_a_change_of_rules_needs_no_restart_and_loads_nothing(served, cloud):
    before = dict(served.app.follower._loaded)
    live = LiveVersions.model_validate_json(cloud.ssm.get_parameter(Name="/mlp/live/digits")["Parameter"]["Value"])
    cloud.publish(*(of.model_copy(update={"rule": None}) for of in live.versions))
    served.refresh()
    assert version(served, {"X-Cohort": "beta"}) in "12"
    assert served.app.follower._loaded == before


def test_the_header_names_can_be_chosen(cloud):
    live = cloud.live(1, Linear(1).archive()), cloud.live(2, Linear(2).archive(), 0)
    cloud.publish(live[0], live[1].model_copy(update={"rule": Rule(cohort="beta")}))
    served = Served(cloud.environment | {"MLP_COHORT_HEADER": "x-group", "MLP_USER_HEADER": "x-account"})
    served.refresh()
    assert version(served, {"X-Group": "beta"}) == "2"
    assert version(served, {"X-Cohort": "beta"}) == "1"


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"header": "x"},
        {"values": ["a"]},
        {"cohort": "a", "header": "x", "values": ["b"]},
        {"header": "X-Upper", "values": ["a"]},
        {"header": "x", "values": ["a"], "surprise": 1},
    ],
)
def test_half_a_rule_is_refused(rule):
    with pytest.raises(ValidationError):
        Rule.model_validate(rule)
