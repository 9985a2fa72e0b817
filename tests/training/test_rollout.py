"""What is live: shares add up, a change by somebody else is never lost, and a rollback goes back to what was."""

import json

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import PlatformError
from contract.service import LiveVersion, LiveVersions, Rule
from training import registry, rollout

PARAMETER = "/test/models/digits"


def version(number: int, weight: int = 100, rule: Rule | None = None) -> LiveVersion:
    return LiveVersion(version=number, weight=weight, artifact=f"s3://b/{number}", sha256=f"{number:064}", rule=rule)


def live(*shares: tuple[int, int]) -> LiveVersions:
    return LiveVersions(versions=tuple(version(number, weight) for number, weight in shares))


def weights(of: LiveVersions) -> list[tuple[int, int]]:
    return [(each.version, each.weight) for each in of.versions]


def put(*shares: tuple[int, int]) -> rollout.State:
    return rollout.write(PARAMETER, live(*shares), rollout.read(PARAMETER))


def put_by_hand(value: str) -> None:
    boto3.client("ssm").put_parameter(Name=PARAMETER, Value=value, Type="String", Overwrite=True)


def go_back() -> list[tuple[int, int]]:
    """What `mlp rollback` leads to."""
    return weights(rollout.write(PARAMETER, rollout.before(PARAMETER), rollout.read(PARAMETER), undo=True).live)


BETA = Rule(cohort="beta")


@pytest.mark.parametrize(
    ("before", "number", "weight", "after"),
    [
        ([], 1, 100, [(1, 100)]),
        ([(1, 100)], 2, 10, [(1, 90), (2, 10)]),
        ([(1, 100)], 2, 0, [(1, 100), (2, 0)]),
        ([(1, 100)], 2, 100, [(2, 100)]),
        ([(1, 90), (2, 10)], 2, 50, [(1, 50), (2, 50)]),
        ([(1, 90), (2, 10)], 1, 20, [(1, 20), (2, 80)]),
        ([(1, 90), (2, 10)], 3, 10, [(1, 81), (2, 9), (3, 10)]),
        ([(1, 90), (2, 10)], 2, 0, [(1, 100), (2, 0)]),
        ([(1, 100), (2, 0)], 3, 10, [(1, 90), (2, 0), (3, 10)]),
        ([(1, 99), (2, 1)], 3, 90, [(1, 10), (3, 90)]),
        ([(1, 34), (2, 33), (3, 33)], 4, 1, [(1, 33), (2, 33), (3, 33), (4, 1)]),
    ],
)
def test_the_others_share_what_a_version_leaves(before, number, weight, after):
    assert weights(rollout.deployed(live(*before), version(number, weight))) == after


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.integers(0, 100))
def test_whatever_is_deployed_the_shares_add_up_and_keep_their_order(parts, weight):
    total = sum(parts)
    first = [part * 100 // total for part in parts]
    first[0] += 100 - sum(first)
    before = live(*((number, share) for number, share in enumerate(first, 1)))
    after = rollout.deployed(before, version(99, weight))  # which would raise if they did not add up to 100
    assert [number for number, _ in weights(after)][-1] == 99
    for number, share in weights(after)[:-1]:
        assert abs(share - first[number - 1] * (100 - weight) / 100) < 1


def test_a_version_with_a_rule_stays_when_its_share_is_gone():
    before = LiveVersions(versions=(version(1, 90), version(2, 10, BETA)))
    after = rollout.deployed(before, version(3, 100))
    assert weights(after) == [(2, 0), (3, 100)]
    assert after.versions[0].rule == BETA


@pytest.mark.parametrize(("before", "number"), [([], 1), ([(1, 100)], 1), ([(1, 100), (2, 0)], 1)])
def test_weights_that_cannot_add_up_are_refused(before, number):
    with pytest.raises(PlatformError, match=r"would be the only one that takes traffic, so .* only be 100, given: 40"):
        rollout.deployed(live(*before), version(number, 40))


def test_promote_leaves_one_without_its_rule():
    both = LiveVersions(versions=(version(1, 90), version(2, 10, BETA)))
    assert rollout.promoted(both, None) == live((2, 100))
    assert rollout.promoted(both, 1) == live((1, 100))


@pytest.mark.parametrize(
    ("shares", "number", "said"),
    [
        ([], None, "there is nothing to promote: none is live"),
        ([(1, 100)], None, "there is nothing to promote: version 1 100%"),
        ([(1, 80), (2, 10), (3, 10)], None, "say which one with --version: version 1 80%, version 2 10%, version 3 10"),
        ([(1, 90), (2, 10)], 7, "version 7 is not live: version 1 90%, version 2 10%; `mlp deploy` adds a version"),
    ],
)
def test_what_cannot_be_promoted_is_told(shares, number, said):
    with pytest.raises(PlatformError, match=said):
        rollout.promoted(live(*shares), number)


def test_a_rollback_goes_back_step_by_step(outputs):
    states = [live((1, 100)), live((1, 90), (2, 10)), live((2, 100))]
    for state in states:
        rollout.write(PARAMETER, state, rollout.read(PARAMETER))
    for expected in reversed(states[:-1]):
        assert go_back() == weights(expected)
    with pytest.raises(PlatformError, match=r"nothing to go back to: nothing else was live before \(version 1 100%\)"):
        rollout.before(PARAMETER)
    put((3, 100))
    assert rollout.before(PARAMETER) == states[0]


def test_a_version_that_is_deployed_again_was_not_rolled_back_to(outputs):
    for number in (1, 2, 4, 2):
        put((number, 100))
    assert [go_back() for _ in range(3)] == [[(4, 100)], [(2, 100)], [(1, 100)]]


def test_what_was_taken_back_at_once_is_not_gone_back_to(outputs):
    """As a deploy does that the service refuses, the first one as well as a later one."""
    for number in (1, 2):
        before = rollout.read(PARAMETER)
        rollout.write(PARAMETER, before.live, put((9, 100)), undo=True)
        put((number, 100))
    assert go_back() == [(1, 100)]
    with pytest.raises(PlatformError, match="nothing to go back to"):
        rollout.before(PARAMETER)


def test_changes_that_do_not_say_what_they_are_count_as_rollbacks_if_they_go_back_a_step(outputs):
    """By hand, or by the platform before it said so; SSM may keep the description of the revision before."""
    put((1, 100))
    for number in (2, 3, 2):
        put_by_hand(live((number, 100)).model_dump_json(exclude_none=True))
    assert rollout.before(PARAMETER) == live((1, 100))
    put((3, 100))
    put((2, 100))
    assert [go_back() for _ in range(3)] == [[(3, 100)], [(2, 100)], [(1, 100)]]
    put_by_hand(live((4, 100)).model_dump_json(exclude_none=True))
    assert go_back() == [(1, 100)]


def test_a_rollback_skips_what_nobody_can_want_back(outputs):
    with pytest.raises(PlatformError, match=r"nothing to go back to: nothing else was live before \(none is live\)"):
        rollout.before(PARAMETER)
    put((1, 100))
    with pytest.raises(PlatformError, match="nothing to go back to"):
        rollout.before(PARAMETER)  # before it nothing was live
    for text in ("not json", '{"versions": 3}'):
        put_by_hand(text)
    put_by_hand(live((2, 100)).model_dump_json(exclude_none=True))
    put((2, 100))  # the same again is no change
    assert rollout.before(PARAMETER) == live((1, 100))


def test_a_change_since_the_last_look_is_told_and_stands(outputs):
    seen = rollout.read(PARAMETER)
    put((1, 100))
    with pytest.raises(
        PlatformError, match=r"by somebody else meanwhile; nothing was changed here: it says version 1 100%;"
    ):
        rollout.write(PARAMETER, live((2, 100)), seen)
    assert rollout.read(PARAMETER).live == live((1, 100))


def test_a_change_at_the_same_moment_is_told_and_stands(outputs, monkeypatch):
    seen = put((1, 100))
    real = rollout.read

    def late(parameter: str) -> rollout.State:
        found = real(parameter)
        monkeypatch.setattr(rollout, "read", real)
        put((3, 100))  # theirs, between the look and the write
        return found

    monkeypatch.setattr(rollout, "read", late)
    with pytest.raises(PlatformError, match="at the same moment; theirs stands: it says version 3 100%; try again"):
        rollout.write(PARAMETER, live((2, 100)), seen)
    assert rollout.read(PARAMETER).live == live((3, 100))
    assert rollout.before(PARAMETER) == live((1, 100))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("{", "parameter /test/models/digits is not JSON"),
        (json.dumps({"versions": [version(1, 40).model_dump()]}), "must add up to 100"),
    ],
)
def test_a_parameter_that_holds_something_else_is_told(outputs, value, said):
    put_by_hand(value)
    with pytest.raises(PlatformError, match=said):
        rollout.read(PARAMETER)


def test_no_parameter_is_told(emulated_aws):
    with pytest.raises(PlatformError, match="there is no parameter /test/models/digits; `mlp up` makes it"):
        rollout.read(PARAMETER)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("cohort=beta", Rule(cohort="beta")),
        ("header:X-Country=se,no", Rule(header="x-country", values=("se", "no"))),
    ],
)
def test_a_rule_is_read(text, rule):
    assert rollout.rule_of(text) == rule


@pytest.mark.parametrize("text", ["", "beta", "cohort=", "cohort=a,b", "header:=x", "header:x y=1", "header:x-user="])
def test_a_wrong_rule_is_told_with_what_is_allowed(text):
    with pytest.raises(PlatformError, match=r"is not valid; allowed are cohort=<name>, and header:<name>=<value>"):
        rollout.rule_of(text)


def test_the_words_for_what_is_live():
    rules = version(2, 10, BETA), version(3, 0, Rule(header="x-country", values=("se",)))
    told = rollout.shares(LiveVersions(versions=(version(1, 90), *rules)))
    assert told == "version 1 90%, version 2 10% and cohort beta, version 3 0% and header x-country: se"
    assert rollout.shares(LiveVersions()) == "none is live"


def test_only_an_approved_version_with_its_artifact_can_be_live(outputs):
    names = outputs.models["digits"]
    uri = f"s3://{outputs.buckets.artifacts}/digits/x/model.tar.gz"
    arn = boto3.client("sagemaker").create_model_package(
        ModelPackageGroupName=names.package_group,
        ModelApprovalStatus=registry.PENDING,
        InferenceSpecification={"Containers": [{"Image": "image", "ModelDataUrl": uri}]},
        CustomerMetadataProperties={"sha256": "0" * 64},
    )["ModelPackageArn"]
    with pytest.raises(PlatformError, match="version 1 is not approved, but PendingManualApproval; `mlp models appr"):
        registry.as_live(registry.describe(arn), 10)
    with pytest.raises(PlatformError, match="version 1 is not approved, but Rejected"):
        registry.as_live(registry.reject(registry.describe(arn)), 10)
    approved = registry.approve(registry.describe(arn))
    with pytest.raises(PlatformError, match=r"its artifact s3://.*model.tar.gz is not there \(404\)"):
        registry.as_live(approved, 10)
    boto3.client("s3").put_object(Bucket=outputs.buckets.artifacts, Key="digits/x/model.tar.gz", Body=b"")
    expected = LiveVersion(version=1, weight=10, artifact=uri, sha256="0" * 64, rule=BETA)
    assert registry.as_live(approved, 10, BETA) == expected
