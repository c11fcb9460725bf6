"""What carries a Contribution: which round and phase it belongs to, from whom, and under which recipe."""

from dataclasses import dataclass
from typing import TypeAlias

from comity.core.contribution import Contribution
from comity.core.round import Round

VERSION = 1
Key: TypeAlias = tuple[str, int, int, str, str]


@dataclass(frozen=True, slots=True)
class Receipt:
    """Which of a site's contributions is the last that counts; whatever else it sent since was lost or refused.

    Attributes:
        number: the round it was for.
        attempt: the attempt of that round.
        accepted: folded into a closed round (True), or lost, refused or not closed (False).
    """

    number: int
    attempt: int
    accepted: bool


@dataclass(frozen=True, slots=True)
class Owed:
    """A question of an earlier turn whose answer still counts.

    Attributes:
        round: that turn, as the member knows it.
        recipe: the sha256 of the recipe, hex.
        down: bytes of the question.
        waited: simulated seconds since it was asked.
    """

    round: Round
    recipe: str
    down: int = 0
    waited: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Envelope:
    """A message on its way, up or down.

    Attributes:
        round: what everybody may know; `round.me` is the participant at the lower end, both ways.
        phase: "contribute", "score", or a phase of the channel.
        sender: who sent it, as the engine authenticated it.
        recipe: the sha256 of the recipe, hex.
        body: what is said.
        receipt: on the way down, which of the member's contributions is the last that counts.
        signature: Ed25519 over the other fields, or b"" where both sides are one process.
        version: of the wire format.
    """

    round: Round
    phase: str
    sender: str
    recipe: str
    body: Contribution
    receipt: Receipt | None = None
    signature: bytes = b""
    version: int = VERSION

    @property
    def key(self) -> Key:
        """What an answer is for: (run, round, attempt, phase and hub, participant). A site answers once per key."""
        return (self.round.run, self.round.number, self.round.attempt, f"{self.phase} {self.round.hub}", self.round.me)
