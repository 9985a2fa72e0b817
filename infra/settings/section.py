"""What the sections of an environment's settings have in common."""

from collections.abc import Iterator
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, StringConstraints

from contract.strict import Strict

Tier = Literal["dev", "staging", "prod"]
Days = Annotated[int, Field(ge=1, le=3650)]
Email = Annotated[str, StringConstraints(pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$")]
Digest = Annotated[str, StringConstraints(pattern="^sha256:[0-9a-f]{64}$")]
"""Of a container image."""
LogRetention = Literal[
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653
]


class Place(NamedTuple):
    """What an environment is, as far as its sections depend on it."""

    tier: Tier
    region: str


class Section(Strict):
    """One object of an environment's file."""

    def mistakes(self, _place: Place, /) -> Iterator[str]:
        """What this section may not hold in such a place, each beginning with the key within the section."""
        yield from ()
