"""What everybody may know about a turn of the loop, and the public randomness that comes with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from comity.core.contribution import Array
from comity.core.rng import Rng, keyed, keyed_order, keyed_orders, keyed_seed


@dataclass(frozen=True, slots=True)
class Round:
    """A round as everybody may know it.

    Attributes:
        run: the run's public identity, a hex string.
        seed: the run's public seed.
        number: rounds that closed before this one; it advances only when the round closes.
        attempt: how often this round was begun before.
        hub: the hub that asks.
        me: the participant's own name; "" at the hub.
        roster: how many participants there are.
        asked: how many were asked in this round (the cohort).
        expected: the public denominator, q·N.
        answered: contributions accepted; None until the hub has counted them, and always None at a site.
    """

    run: str
    seed: int
    number: int = 0
    attempt: int = 0
    hub: str = "hub"
    me: str = ""
    roster: int = 0
    asked: int = 0
    expected: float = 0.0
    answered: int | None = None

    def to(self, me: str) -> "Round":
        """The same turn as the participant `me` knows it."""
        return Round(
            self.run, self.seed, self.number, self.attempt, self.hub, me, self.roster, self.asked, self.expected,
            self.answered,
        )  # fmt: skip

    def rng(self, *purpose: str) -> Rng:
        """Public randomness, the same for all: initial values, rotations, shared masks, public sampling."""
        return keyed(self.seed, self.number, "", *purpose)

    def mine(self, *purpose: str) -> Rng:
        """Public randomness keyed by `me` as well: dropout, stochastic rounding."""
        return keyed(self.seed, self.number, self.me, *purpose)

    def mine_seed(self, *purpose: str) -> int:
        """A number in [0, 2**63), public and keyed as `mine` is: to seed the generator of another library."""
        return keyed_seed(self.seed, self.number, self.me, *purpose)

    def order(self, n: int, *purpose: str) -> Array:
        """A shuffle of n samples that depends on (seed, round, me, purpose, sample) only.

        Returns:
            (n,) int64, a permutation of 0..n-1: the same in every executor, chunking and engine.
        """
        return keyed_order(n, self.seed, self.number, self.me, *purpose)


class Turns(Sequence[Round]):
    """One round as several participants know it: each is made when it is asked for.

    Attributes:
        turn: the round.
        names: the participants.
    """

    def __init__(self, turn: Round, names: Sequence[str]) -> None:
        """Args: the round and the names."""
        self.turn, self.names = turn, names

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, i: int, /) -> Round: ...
    @overload
    def __getitem__(self, i: slice, /) -> "Turns": ...
    def __getitem__(self, i: int | slice, /) -> "Round | Turns":
        """The round as the participant at this position knows it."""
        return Turns(self.turn, self.names[i]) if isinstance(i, slice) else self.turn.to(self.names[i])

    def orders(self, sizes: Sequence[int], *purpose: str) -> Array:
        """For each participant what its `Round.order` gives, in one go.

        Args:
            sizes: how many samples each has, >= 0.
            purpose: as in `Round.order`.

        Returns:
            (participants, the largest size) int64: row i begins with a permutation of 0..sizes[i]-1; what follows it
            is unused.
        """
        before = (self.turn.seed, self.turn.number)
        return keyed_orders(sizes, self.names, before=before, after=purpose)
