"""Peers without a hub that learns: each carries its own hub, and sends what it gives to those who hear it.

It knows neither HTTP nor ciphers: a `Mail` brings bytes from one peer to another and keeps them until they were used.
A peer asks nobody but itself. What it hears of the others is what they sent of their own accord for the same round,
made from the models that lie with them: as in one process, where each peer is told what its own hub shares.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol

from comity.core.contribution import Contribution
from comity.core.envelope import Envelope
from comity.core.errors import ConfigError, WireError
from comity.core.parts import Engine, Roster, Select, Until
from comity.core.round import Round
from comity.core.wire import decode, encode

LOOK = 25.0
"""Seconds of one wait for mail."""


class Mail(Protocol):
    """Brings bytes from peer to peer. What was sent is kept until the receiver has gone on by two rounds."""

    def send(self, to: str, number: int, data: bytes) -> None:
        """Send something for a round; what was sent first for it stays."""
        ...

    def there(self, senders: Sequence[str], number: int, seconds: float) -> Sequence[str]:
        """Whose mail for a round is there: as soon as there is any of these, or nobody's after so many seconds."""
        ...

    def fetch(self, sender: str, number: int) -> bytes:
        """What somebody sent for a round, which is there.

        Raises:
            WireError: it was not made by that peer for this one.
        """
        ...


class _Nobody:
    """Neighbours are known without looking back, and without a secret."""

    rounds = 0

    def metric(self, name: str) -> Sequence[float]:
        return ()


@dataclass(frozen=True)
class Peers:
    """The engine of one peer.

    Attributes:
        me: its name.
        names: of all peers, in an order that all agree on.
        mail: between them.
        hears: the selection of the collaboration: who hears whom.
    """

    me: str
    names: tuple[str, ...]
    mail: Mail = field(repr=False)
    hears: Select
    each_round: ClassVar[bool] = True

    @property
    def choice(self) -> Mapping[str, Any]:
        """How the work is done: a fact for the ledger."""
        return {"executor": "peers", "workers": len(self.names), "reason": "asked for", "engine": "peers"}

    def connect(self, roster: Roster, answer: Callable[[Envelope], Envelope]) -> Engine:
        """The engine over this peer's own participant.

        Raises:
            ConfigError: the collaboration has other participants than this peer.
        """
        if list(roster[:]) != [self.me]:
            raise ConfigError(f"A peer must bring itself alone. Got {len(roster)} participants. Give '{self.me}'.")
        engine: Engine = _Carried(self, answer)
        return engine

    def hearers(self, turn: Round) -> list[str]:
        """Who hears this peer in a round, itself left out."""
        members = self.hears(self.names, turn, _Nobody(), None)  # type: ignore[arg-type]
        return [hub for hub, heard in members.items() if self.me in heard and hub != self.me]


@dataclass(frozen=True)
class _Carried:
    peers: Peers
    answer: Callable[[Envelope], Envelope]

    @property
    def hubs(self) -> Sequence[str]:
        """The hubs whose rounds are run here."""
        return (self.peers.me,)

    def roster(self) -> Roster:
        return self.peers.names

    def ask(self, cohort: Sequence[str], message: Callable[[str], Envelope], until: Until) -> Iterator[Envelope]:
        """One's own answer, and the mail of the others in the cohort; scores are one's own alone."""
        if self.peers.me not in cohort:
            return
        own = self.answer(message(self.peers.me))
        if own.phase == "contribute":
            for to in self.peers.hearers(own.round):
                self.peers.mail.send(to, own.round.number, encode(own.body))
        yield own
        if own.phase == "contribute":
            yield from self._heard([name for name in cohort if name != self.peers.me], own, until)

    def _heard(self, missing: list[str], own: Envelope, until: Until) -> Iterator[Envelope]:
        ends = None if until.seconds is None else time.monotonic() + until.seconds
        while missing:
            left = LOOK if ends is None else min(LOOK, ends - time.monotonic())
            if left <= 0:
                return
            for name in self.peers.mail.there(missing, own.round.number, left):
                missing.remove(name)
                yield self._opened(name, own)

    def _opened(self, name: str, own: Envelope) -> Envelope:
        """Mail as an answer to this peer's own hub."""
        try:
            body = _to(self.peers.me, name, self.peers.mail.fetch(name, own.round.number))
        except WireError as error:
            body = Contribution("error", {"reason": f"Its mail cannot be used. {error}"})
        return replace(own, round=own.round.to(name), sender=name, body=body)


def _to(me: str, sender: str, data: bytes) -> Contribution:
    """What a peer sealed for its own hub, as sealed for mine."""
    body: Any = decode(data)
    if not isinstance(body, Contribution) or body.kind not in ("sealed", "error"):
        raise WireError("It must be what a peer contributes. It is something else.")
    if body.kind == "error":
        return body
    value: Any = body.value
    if not isinstance(value, Mapping) or list(value) != [sender]:
        raise WireError("It must be one contribution. It is not.")
    return replace(body, value={me: value[sender]})
