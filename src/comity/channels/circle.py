"""What both sides of secure aggregation work out alike: the settings as one hash, the order, who is tied to whom."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from comity.channels.graph import Graph, Odds, cut, ordered, plan, whole
from comity.channels.identity import KEY, PROTOCOL, sha256
from comity.channels.records import bitmap, pack, rows
from comity.core.errors import ChannelError, TooFewParticipants
from comity.core.rng import digest
from comity.core.round import Round


@dataclass(frozen=True)
class Roster:
    """Who made keys known, and what each committed to: the list that everybody must be shown alike.

    Attributes:
        names: sorted.
        commits: the sha256 of each one's nonce.
    """

    names: tuple[str, ...]
    commits: tuple[bytes, ...]

    @classmethod
    def read(cls, names: Sequence[str], commits: bytes) -> "Roster":
        """From a message.

        Raises:
            ChannelError: not sorted, somebody twice, or another number of commitments.
        """
        given = tuple(names), tuple(rows(commits, KEY))
        if list(given[0]) != sorted(set(given[0])) or len(given[0]) != len(given[1]):
            raise ChannelError("A roster must name each member once, in order, with what it committed to.")
        return cls(*given)

    @property
    def sha256(self) -> bytes:
        """What stands for it."""
        return sha256(pack(self.names) + b"".join(self.commits))


@dataclass(frozen=True)
class Circle:
    """Those whose contributions are added.

    Attributes:
        names: by position.
        graph: who holds shares of whose secrets.
        need: survivors without whom it is not opened.
        bond: 32 bytes that stand for run, round, attempt, hub, settings, roster, order and group: every key, share and
            signature is tied to it.
    """

    names: tuple[str, ...]
    graph: Graph
    need: int
    bond: bytes

    def near(self, i: int) -> tuple[str, ...]:
        """The names of the neighbours of `i`."""
        return tuple(self.names[j] for j in self.graph.neighbours(i))


@dataclass(frozen=True)
class Terms:
    """The settings of SecAgg. See there."""

    threshold: float
    groups: int | None
    minimum: int
    degree: int | None
    odds: Odds
    identities: Mapping[str, bytes] | None

    def context(self, round: Round) -> bytes:
        """32 bytes that stand for run, round, attempt, hub and settings."""
        settings = self.threshold, self.groups, self.minimum, self.degree
        odds = self.odds.corrupt, self.odds.dropout, self.odds.malicious
        turn = round.run, round.number, round.attempt, round.hub, round.asked
        return digest(PROTOCOL, "context", *turn, *settings, *odds)

    def least(self, asked: int) -> int:
        """Contributions without which nothing is opened; of groups, each has its own number."""
        return self.minimum if self.groups is not None else self._share(asked)

    def _share(self, asked: int) -> int:
        return max(self.minimum, math.ceil(self.threshold * asked - 1e-9))

    def orders(self, n: int) -> bool:
        """Does the order decide anything? Where all are tied to all it does not, and no nonces are asked for."""
        return (self.groups is not None and n >= 2 * self.groups) or not self._graph(n, n).complete

    def circles(self, roster: Roster, nonces: Mapping[str, bytes], round: Round) -> list[Circle]:
        """The members by circle.

        Args:
            roster: who made keys known.
            nonces: of whom revealed one; of all, without a nonce, where the order decides nothing.
            round: the round.

        Raises:
            ChannelError: a nonce that was not committed to, or more of them missing than an order may lack.
            TooFewParticipants: a circle that is too small.
        """
        context, n = self.context(round), len(roster.names)
        if self.orders(n):
            self._check(roster, nonces)
        who = bitmap([i for i, name in enumerate(roster.names) if name in nonces], n)
        said = b"".join(nonces[name] for name in roster.names if name in nonces)
        beacon = sha256(context + roster.sha256 + who + said)
        order = ordered([name for name in roster.names if name in nonces], beacon)
        return [self._circle(i, names, beacon, round.asked) for i, names in enumerate(cut(order, self.groups))]

    def _check(self, roster: Roster, nonces: Mapping[str, bytes]) -> None:
        for name, commit in zip(roster.names, roster.commits, strict=True):
            if name in nonces and sha256(nonces[name]) != commit:
                raise ChannelError(f"The nonce of {name} must be what it committed to. Got another.")
        missing, most = len(roster.names) - len(nonces), self.odds.missing(len(roster.names))
        if missing > most:
            raise ChannelError(
                f"At most {most} nonces may be missing, so that a hub cannot choose the order. Got {missing}. "
                "The next attempt begins with fresh keys."
            )

    def _circle(self, i: int, names: tuple[str, ...], beacon: bytes, asked: int) -> Circle:
        n = len(names)
        of = n if self.groups is not None else max(asked, n)
        graph = self._graph(n, of)
        need = max(self._share(of), graph.threshold * graph.complete)
        if n < need:
            raise TooFewParticipants(
                f"At least {need} participants must be in one sum. Got {n}. "
                "Ask more of them, or lower the 'threshold' or 'minimum' of SecAgg if everybody agrees."
            )
        return Circle(names, graph, need, digest(PROTOCOL, "circle", beacon.hex(), i))

    def _graph(self, n: int, asked: int) -> Graph:
        graph = plan(n, self.threshold, self.odds, self.degree)
        return Graph(n, graph.degree, whole(asked, self.threshold, self.odds)) if graph.complete else graph
