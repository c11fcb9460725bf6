"""What carries one run at a hub: it waits for agreements, lays questions out, and hears what an operator wishes."""

import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Protocol, TypeVar

from comity.core.contribution import Contribution
from comity.core.envelope import Envelope, Owed
from comity.core.errors import ComityError, ConfigError, LedgerError, WireError
from comity.core.parts import Spend
from comity.core.round import Round
from comity.core.wire import Data, encode
from comity.engines.network import LOOK, Declared, Turn
from comity.ledger.blobs import StoreAway
from comity.ledger.mailbox import Question
from comity.service import packets
from comity.service.database import Away
from comity.service.hub import Hub
from comity.service.runs import STOPS, Offering, RunRow, State

Given = TypeVar("Given")
_NOTHING = (None, b"", packets.Ref("", 0, ""))


class Halted(ComityError):
    """The hub is ending, and the run goes on another time; or it was stopped before it began, or within a round."""


class House(Protocol):
    """Where a hub lives: `Station`."""

    @property
    def hub(self) -> Hub:
        """What it serves."""
        ...

    @property
    def ending(self) -> bool:
        """Is it to end after the round that is open?"""
        ...

    @property
    def approved(self) -> Sequence[str]:
        """Who may take part, sorted."""
        ...

    def check(self) -> None:
        """Does it serve?"""
        ...

    def let_go(self, run: str, names: Sequence[str]) -> None:
        """A run is over: these are to know it."""
        ...


@dataclass(frozen=True)
class Work:
    """What is carried.

    Attributes:
        title: what people call it.
        about: what else parties are told, JSON.
        folder: where its ledger lies.
        parties: who is invited; None for all that are approved.
        minimum: how many must have agreed before it begins; None for all that are invited, 0 for none: then all take
            part at once.
        kept: does an error make the run "failed"? Otherwise it goes on when it is carried again.
    """

    title: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)
    folder: str = ""
    parties: tuple[str, ...] | None = None
    minimum: int | None = None
    kept: bool = True


def surely(house: House, do: Callable[..., Given], *given: Any) -> Given:
    """Do it, however long the database, or the store of large bodies, is away.

    Raises:
        ConfigError: the hub does not serve any more.
    """
    said = False
    while True:
        try:
            return do(*given)
        except (Away, StoreAway) as away:
            if not said:
                sys.stderr.write(f"hub: {away} It is waited for.\n")
            said = True
            house.check()
            time.sleep(LOOK)


class Desk:
    """The post of one run."""

    def __init__(self, house: House, work: Work) -> None:
        """Nothing is offered yet."""
        self._house, self._work, self._hub = house, work, house.hub
        self._run, self._hash = "", ""
        self._names: list[str] = []
        self._seen = 0
        self._asked = self._settled = self._owing = False
        self._end: State | None = None
        self._last: tuple[Contribution | None, bytes, packets.Ref] = _NOTHING

    def kept(self, folder: str) -> None:
        """Here lies the ledger, where nothing else was said."""
        if not self._work.folder:
            self._work = replace(self._work, folder=folder)

    def begin(self, base: Round, recipe: Mapping[str, Any]) -> Sequence[str]:
        """Offer the run, wait for those who agree to it, and pin who takes part."""
        self._run, self._hash = base.run, str(recipe["hash"])
        row = self._offered(dict(recipe))
        while not row.roster:
            if ready := self._ready(row):
                self._names = list(self._surely(self._hub.runs.start, self._run, ready))
                return self._names
            self._stopped(row)
            self.wait(LOOK)
            row = self._offered(dict(recipe)) if self._invited() != row.invited else self._row()
        self._names = list(row.roster)
        return self._names

    def _invited(self) -> tuple[str, ...]:
        work = self._work
        here = self._surely(lambda: self._house.approved)
        return tuple(n for n in here if work.parties is None or n in work.parties)

    def _offered(self, recipe: dict[str, Any]) -> RunRow:
        work, invited = self._work, self._invited()
        if not invited and work.minimum == 0:
            raise ConfigError("A run needs parties. Got none that is approved. Invite some, and approve them.")
        minimum = max(1, len(invited) if not work.minimum else work.minimum)
        offering = Offering(recipe, invited, work.title, dict(work.about), work.folder, minimum)
        return self._surely(lambda: self._hub.runs.offer(self._run, offering))

    def _ready(self, row: RunRow) -> list[str]:
        """Who takes part, once they are enough."""
        if self._work.minimum == 0:
            return list(row.invited)
        said = self._surely(self._hub.runs.agreements, self._run)
        agreed = [name for name in row.invited if said.get(name, {}).get("recipe") == self._hash]
        return agreed if row.wish == "go" and len(agreed) >= row.minimum else []

    def _stopped(self, row: RunRow) -> None:
        if row.wish in STOPS:
            self._become("stopped", "stopped before it began")
        if row.wish in STOPS or self._house.ending:
            raise Halted("A run must be wanted until it begins. It was stopped. Offer it again.")

    def people(self) -> Mapping[str, Declared]:
        """What they said that they spend: those who do agreed before the run was pinned."""
        said = self._surely(self._hub.runs.agreements, self._run)
        spends = {name: said.get(name, {}).get("spends") or () for name in self._names}
        if not any(spends.values()):
            return {}
        return {name: Declared(tuple(Spend(**each) for each in some)) for name, some in spends.items()}

    def wanted(self) -> bool:
        """Does nobody wish it to stop? While it is paused, wait.

        Raises:
            Halted: the hub is ending.
        """
        self._settled, self._hub.inside, row = self._asked, False, self._row()
        while True:
            if self._house.ending:
                raise Halted("The hub is ending. The run goes on when it is carried again.")
            if row.wish in STOPS:
                self._end = "stopped"
                return False
            if row.wish == "go":
                if row.state != "running":
                    self._become("running")
                self._hub.inside = True
                return True
            if row.state != "paused":
                self._become("paused")
            self.wait(LOOK)
            row = self._row()

    def put(self, turn: Turn, asked: Sequence[Envelope], owed: Mapping[str, Owed] | None) -> None:
        """Lay out the bodies, each once; sign the headers; one transaction."""
        questions: list[Question] = []
        small: dict[str, bytes] = {}
        large: dict[str, bytes] = {}
        for message in asked:
            body, ref = self._laid(message.body)
            (small if ref.size <= packets.INLINE else large)[ref.sha] = body
            head = packets.header_of(message, ref, self._hub.identity)
            questions.append(Question(message.round.me, ref.sha, head))
        self._last = _NOTHING
        for sha, body in large.items():
            self._surely(self._hub.blobs.give, sha, body)
        self._owing |= owed is not None
        known = owed is not None or not self._owing  # else questions that are not named here may be open
        settled, self._asked = self._settled and known, True
        keep = {(o.round.number, o.round.attempt, who) for who, o in (owed or {}).items()}
        offer = self._hub.box.offer
        gone = self._surely(lambda: offer(turn, questions, small, settled=settled, keep=keep))
        self._settled &= not settled
        self._hub.blobs.forget(gone)

    def _laid(self, body: Contribution) -> tuple[bytes, packets.Ref]:
        """The bytes of a body: of one that many are told, once."""
        known, data, ref = self._last
        if known is not body:
            data = encode(body)
            ref = packets.Ref(sha256(data).hexdigest(), len(data), "")
            self._last = (body, data, ref)
        return data, ref

    def replies(self, turn: Turn, after: int) -> Sequence[tuple[int, Envelope]]:
        """What was committed."""
        with self._hub.came:
            self._seen = self._hub.news
        return [(n, self._opened(data)) for n, data in self._surely(self._hub.box.replies, turn, after)]

    def late(self, owed: Mapping[str, Owed]) -> Sequence[Envelope]:
        """What was committed to earlier questions."""
        self._owing = True
        kept = self._surely(self._hub.box.late, self._run)
        which = [(o.round.number, o.round.attempt, who) for who, o in owed.items()]
        return [self._opened(kept[key]) for key in which if key in kept]

    def _opened(self, data: bytes) -> Envelope:
        """An answer whole; where its body is none, the member failed."""
        packet = packets.read(data)
        body: Data | None = packet.body
        if body is None:
            body = self._surely(self._hub.blobs.sent, packet.said.sender, packet.ref.sha)
        if body is None:
            raise LedgerError("An answer that was taken must have its body. It is missing. Restore it from a copy.")
        try:
            return packets.opened(packet.said, body)
        except WireError as error:
            return replace(packet.said, body=Contribution("error", {"reason": f"It sent no contribution. {error}"}))

    def shut(self, turn: Turn) -> None:
        """Take no more answers."""
        self._surely(self._hub.box.shut, turn)

    def gone(self) -> Collection[str]:
        """Who was suspended or removed."""
        here = frozenset(self._surely(lambda: self._house.approved))
        return [name for name in self._names if name not in here]

    def wait(self, seconds: float) -> None:
        """Until something new was committed.

        Raises:
            Halted: an operator wishes the run to stop now. The round that is open does not count; it is asked anew, and
                what was answered is known, when the run is carried again.
        """
        with self._hub.came:
            self._hub.came.wait_for(lambda: self._hub.news != self._seen, seconds)
            self._seen = self._hub.news
        self._house.check()
        if self._hub.inside and self._row().wish == "stop now":
            self._end = "stopped"
            self._become("stopped", "Within a round, which does not count. The model and the ledger stay.")
            raise Halted("An operator stopped the run within a round. Nothing else is lost: carry it again to go on.")

    def heard(self) -> float:
        """When bytes last arrived."""
        return self._hub.heard

    def over(self) -> None:
        """Whatever was asked is saved; everybody who asks is told."""
        self._hub.blobs.forget(self._surely(self._hub.box.forget, self._run))
        self._end = self._end or "over"
        self._become(self._end)

    def close(self) -> None:
        """Let go; an error that ends the run is said to those who wait."""
        error, self._hub.inside = sys.exception(), False
        failed = isinstance(error, Exception) and not isinstance(error, Halted)
        if failed and self._run and self._work.kept and self._end is None:
            self._become("failed", str(error)[:500])
        self._house.let_go(self._run, self._names if self._end else ())

    def _row(self) -> RunRow:
        """As it was when a run was last announced to have changed."""
        row = self._surely(self._hub.read, self._run)
        assert row is not None
        return row

    def _become(self, state: State, why: str = "") -> None:
        self._surely(self._hub.runs.become, self._run, state, why)

    def _surely(self, do: Callable[..., Given], *given: Any) -> Given:
        return surely(self._house, do, *given)
