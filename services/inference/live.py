"""What each model serves now, and which version a request gets."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from contract.service import LiveVersion
from services.inference.artifacts import Version

Headers = Mapping[bytes, bytes]


class Rule(NamedTuple):
    """Requests with one of these values in a header go to this version."""

    header: bytes
    values: frozenset[bytes]
    version: Version


def rule_of(live: LiveVersion, version: Version, cohort_header: str) -> Rule | None:
    """The rule of a live version, if it has one."""
    if not live.rule:
        return None
    header, values = live.rule.header or cohort_header, live.rule.values or (live.rule.cohort or "",)
    return Rule(header.encode(), frozenset(value.encode() for value in values), version)


class Model:
    """One model: its loaded versions, their rules and their shares of the traffic.

    The follower's thread replaces the attributes as wholes and never changes them in place, so a request reads a
    consistent picture without a lock, and keeps the version that it has begun with.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.versions: dict[str, Version] = {}
        self.shares: tuple[tuple[Version, int], ...] = ()
        self.rules: tuple[Rule, ...] = ()
        self.sole: Version | None = None
        """The version that all requests get, if it is always the same."""
        self.is_slow = False
        """Whether one of its versions takes so long that it would hold up the event loop."""
        self.problems: dict[str, str] = {"start": "its live versions have not been read yet"}

    @property
    def is_ready(self) -> bool:
        """Whether a version takes traffic."""
        return bool(self.shares)

    @property
    def why(self) -> str:
        """What is wrong, in words."""
        return "; ".join(self.problems.values())

    def choose(self, key: str, headers: Headers | None = None) -> Version:
        """The version for a request: the first whose rule matches, or else one by its share.

        The same key gets the same version for as long as the shares stay as they are. With shares s1, s2, ... in the
        order of their parameter, the first 4 bytes of the SHA-256 of `<model>/<key>`, as a big-endian fraction of
        2**32, times the sum of the shares, say on whose stretch the request falls. The model's name is in the hash so
        that experiments on two models are independent.

        Args:
            key: the id of the user, or else of the request.
            headers: those that rules look at.

        Raises:
            LookupError: if nothing is live.
        """
        if headers:
            for rule in self.rules:
                if headers.get(rule.header) in rule.values:
                    return rule.version
        shares = self.shares
        if len(shares) > 1:
            digest = hashlib.sha256(f"{self.name}/{key}".encode(errors="surrogatepass")).digest()
            point = int.from_bytes(digest[:4], "big") / 2**32 * sum(share for _, share in shares)
            for version, share in shares:
                point -= share
                if point < 0:
                    return version
        return shares[-1][0]

    def serve(
        self, versions: dict[str, Version], shares: tuple[tuple[Version, int], ...], rules: tuple[Rule, ...] = ()
    ) -> None:
        """Serve these versions from the next request on."""
        self.is_slow = any(version.is_slow for version in versions.values())
        self.sole = shares[0][0] if len(shares) == 1 and not rules else None
        self.versions, self.shares, self.rules = versions, shares, rules


class Catalogue(dict[str, Model]):
    """The models of this service by name."""

    def __init__(self, models: Iterable[Model]) -> None:
        super().__init__({model.name: model for model in models})
        self.rule_headers: frozenset[bytes] = frozenset()
        """The headers that rules look at."""

    @property
    def is_ready(self) -> bool:
        """Whether every model has a version that takes traffic."""
        return all(model.is_ready for model in self.values())

    def note_rules(self) -> None:
        """Look up which headers count, after a model's rules have changed."""
        self.rule_headers = frozenset(rule.header for model in self.values() for rule in model.rules)
