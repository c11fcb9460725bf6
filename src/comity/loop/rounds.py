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
        expected = self.parts.select.expected(len(self.roster))
        self.base = replace(base, roster=len(self.roster), expected=expected)
        self.scoring = Scoring(asking)

    def start(self) -> dict[str, HubState]:
        """The state of each hub before the first round."""
        return {hub: self._first(hub) for hub in self._members(self.base)}

    def _first(self, hub: str) -> HubState:
        method = self.parts.method.init(replace(self.base, hub=hub))
        inits = tuple({} if t.decodes == "each" else t.init() for t in self.parts.transforms)
        return HubState(method, self.parts.combiner.init(), inits)

    def _members(self, turn: Round) -> Mapping[str, Sequence[str]]:
        return self.parts.select(self.roster, turn, self.past, self.secret)

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
            self.listen(Event("begin", turn, False, {hub: Heard(hub, asked) for hub, asked in members.items()}))
            known = {**states, **{hub: self._first(hub) for hub in members if hub not in states}}
            closed, heard, after = Attempt(self.asking, self.secret, turn, members, idle).run(known)
            self.asking.settle(turn, heard, closed)
            self.listen(Event("round", turn, closed, heard))
            if closed:
                return after
        raise TooFewParticipants(_too_few(number, heard, self.parts))

    def score(self, states: Mapping[str, HubState], number: int, select: Select) -> Metrics:
        """Ask for scores of what is shared now, of each member those of what its home shares.

        They add, so each metric is a (sum, count).
        """
        turn = replace(self.base, number=number)
        homes = homes_of(self._members(turn)) if len(states) > 1 else {}
        heard = {}
        total: dict[str, tuple[float, float]] = {}
        for hub, cohort in select(self.roster, turn, self.past, self.secret).items():
            told = {who: homes.get(who, hub) for who in cohort}
            heard[hub] = self.scoring.of(hub, told, states, turn)
            add_metrics(total, heard[hub].metrics)
        self.listen(Event("score", turn, True, heard))
        return total


def _too_few(number: int, heard: Mapping[str, Heard], parts: Parts) -> str:
    for h in heard.values():
        if h.failed:
            return f"Round {number + 1} could not be combined. {h.failed} Nothing is lost: run the same again."
        need = parts.needed(len(h.asked))
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
