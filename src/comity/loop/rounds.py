"""The loop: select, ask once, open, decode, check, fold, lower, update, close.

It knows the protocols and no part by name. It does no I/O: what happened is reported to a listener,
and the ledger listens.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from comity.core.contribution import Metrics
from comity.core.errors import TooFewParticipants
from comity.core.parts import Past, Secret, Select
from comity.core.round import Round
from comity.core.rules import Parts
from comity.loop.asking import Asking
from comity.loop.attempt import Attempt, homes_of
from comity.loop.filling import filled
from comity.loop.hub import Event, Heard, HubState, add_metrics
from comity.loop.late import Owing
from comity.loop.scoring import Scoring


class Rounds:
    """Runs the rounds of one collaboration."""

    def __init__(
        self, asking: Asking, base: Round, *, secret: Secret, past: Past, listen: Callable[[Event], None]
    ) -> None:
        """Put the loop together.

        Args:
            asking: parts and engine.
            base: the run and its seed.
            secret: the hub's own.
            past: read-only view of the ledger.
            listen: is told every event.
        """
        self.asking, self.parts, self.secret = asking, asking.parts, secret
        self.past, self.listen = past, listen
        self.roster = asking.engine.roster()
        self.hubs: Sequence[str] | None = getattr(asking.engine, "hubs", None)  # those that are here; None: all
        expected = self.parts.select.expected(len(self.roster))
        self.base = replace(base, roster=len(self.roster), expected=expected)
        self.scoring = Scoring(asking)
        patient = getattr(asking.engine, "patient", False)
        self.owing = Owing(self.parts, self.base, asking.recipe, patient=patient)
        self._took = getattr(asking.engine, "took", None)

    def start(self) -> dict[str, HubState]:
        """The state of each hub before the first round."""
        return {hub: self._first(hub) for hub in self._members(self.base)}

    def _first(self, hub: str) -> HubState:
        method = self.parts.method.init(replace(self.base, hub=hub))
        inits = tuple({} if t.decodes == "each" else t.init() for t in self.parts.transforms)
        return HubState(method, self.parts.combiner.init(), inits)

    def _members(self, turn: Round) -> Mapping[str, Sequence[str]]:
        members = self.parts.select(self.roster, turn, self.past, self.secret)
        return members if self.hubs is None else {hub: members[hub] for hub in self.hubs}

    def round(self, states: Mapping[str, HubState], number: int, tried: int = 0) -> dict[str, HubState]:
        """Close round `number`, trying it again as often as the parts allow.

        Args:
            states: by hub.
            number: of the round.
            tried: attempts at it before: one that was left is not gone back to, as its keys and noise served already.

        Raises:
            TooFewParticipants: no attempt reached the quorum. The states are as before; it can be resumed.
        """
        heard: Mapping[str, Heard] = {}
        for attempt in range(tried, tried + self.parts.retries + 1):
            turn = replace(self.base, number=number, attempt=attempt)
            members, idle = filled(self._members(turn), self.parts, self.roster, turn, self.secret)
            one = Attempt(self.asking, self.secret, turn, members, idle, self.owing.due(number))
            self.listen(Event("begin", turn, False, {hub: Heard(hub, asked) for hub, asked in one.members.items()}))
            known = {**states, **{hub: self._first(hub) for hub in members if hub not in states}}
            closed, heard, after = one.run(known)
            self._timed(heard)
            self.settle(turn, heard, closed)
            self.listen(Event("round", turn, closed, heard))
            if closed:
                return after
        raise TooFewParticipants(_too_few(number, heard, self.parts))

    def settle(self, turn: Round, heard: Mapping[str, Heard], closed: bool) -> None:
        """An attempt is over, now or before the run was taken up again: who is told what, and who owes an answer."""
        self.asking.settle(turn, heard, closed)
        for h in heard.values():
            self.owing.note(turn, h, closed)

    def _timed(self, heard: Mapping[str, Heard]) -> None:
        """Note the simulated time that passed, at the first hub."""
        first = next(iter(heard.values()), None)
        if self._took is not None and first is not None:
            first.seconds = self._took()

    def score(self, states: Mapping[str, HubState], number: int, select: Select) -> Metrics:
        """Ask for scores of what is shared now, of each member those of what its home shares.

        They add, so each metric is a (sum, count). Whoever still owes an answer is asked for nothing else.
        """
        turn = replace(self.base, number=number)
        homes = homes_of(self._members(turn)) if len(states) > 1 else {}
        heard = {}
        busy = self.owing.due(number) or {}
        total: dict[str, tuple[float, float]] = {}
        for hub, cohort in select(self.roster, turn, self.past, self.secret).items():
            told = {who: homes.get(who, hub) for who in cohort if who not in busy}
            heard[hub] = self.scoring.of(hub, told, states, turn)
            add_metrics(total, heard[hub].metrics)
        self._timed(heard)
        self.owing.passed(sum(h.seconds or 0.0 for h in heard.values()))
        self.listen(Event("score", turn, True, heard))
        return total


def _too_few(number: int, heard: Mapping[str, Heard], parts: Parts) -> str:
    for h in heard.values():
        if h.failed:
            return f"Round {number + 1} could not be combined. {h.failed} Nothing is lost: run the same again."
        need = parts.needed(h.size)
        if len(h.accepted) < need:
            why = "; ".join(_said(who, reason) for who, reason in [*h.refused, *h.dropped][:5])
            silent = [w for w in h.asked if w not in h.answered and w not in {d for d, _ in h.dropped}]
            absent = f" No answer from {', '.join(silent[:5])}." if silent else ""
            got = f"{len(h.accepted)} of {len(h.asked)} contributions were accepted"
            return (
                f"Round {number + 1} needs {need}; {got}. {why}{'.' if why else ''}{absent} "
                "Nothing is lost: run the same again when they are back, or lower the quorum."
            )
    return f"Round {number + 1} did not close."


def _said(who: str, reason: str) -> str:
    """A reason with a name before it, once."""
    return (reason if reason.startswith(who) else f"{who}: {reason}").rstrip(".")
