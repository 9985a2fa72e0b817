"""Who gets which version: docs/rollout.md works it out by hand, and the service does the same."""

from collections import Counter

import pytest

from services.inference.live import Model
from tests.documents import blocks


class Numbered:
    """All that a version needs to be chosen."""

    is_slow = False

    def __init__(self, number: str) -> None:
        self.number = number


@pytest.fixture(scope="module")
def version_of():
    """The function in the document."""
    (code,) = blocks("rollout.md", "python")
    namespace: dict = {}
    exec(code, namespace)
    return namespace["version_of"]


def model_with(shares: dict[str, int], name="digits") -> Model:
    model = Model(name)
    versions = {number: Numbered(number) for number in shares}
    model.serve(versions, tuple((versions[number], share) for number, share in shares.items() if share))
    return model


@pytest.mark.parametrize(
    "shares", [{"1": 100}, {"1": 90, "2": 10}, {"2": 10, "1": 90}, {"3": 33, "1": 33, "2": 34}, {"1": 1, "7": 99}]
)
def test_the_document_tells_every_users_version(version_of, shares):
    model = model_with(shares)
    users = [f"user {number}" for number in range(2000)] + ["", "ÅÄÖ", "x" * 500]
    chosen = [model.choose(user).number for user in users]
    assert chosen == [version_of("digits", user, shares) for user in users]
    for number, share in shares.items():
        assert Counter(chosen)[number] / len(users) == pytest.approx(share / 100, abs=0.04)


def test_a_share_that_grows_keeps_its_users():
    users = [f"user {number}" for number in range(2000)]
    before: set[str] = set()
    for share in (1, 10, 50, 99):
        model = model_with({"1": 100 - share, "2": share})
        now = {user for user in users if model.choose(user).number == "2"}
        assert before < now
        before = now


def test_experiments_on_two_models_are_independent():
    users = [f"user {number}" for number in range(4000)]
    one, other = (model_with({"1": 50, "2": 50}, name) for name in ("digits", "diabetes"))
    pairs = Counter((one.choose(user).number, other.choose(user).number) for user in users)
    assert all(abs(count - 1000) < 120 for count in pairs.values())
    assert len(pairs) == 4
