"""The loop: select, ask once, open, decode, check, fold, lower, update, close.

It knows the protocols and no part by name. It does no I/O: what happened is reported to a listener,
and the ledger listens.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from comity.core.contribution import Contribution, Metrics
from comity.core.errors import ContributionError, TooFewParticipants
from comity.core.parts import Past, Secret, Select
from comity.core.round import Round
from comity.core.rules import Parts
from comity.core.spec import Leaf, Spec, check
from comity.core.tree import frozen
from comity.loop.asking import Asking
from comity.loop.attempt import Attempt, homes_of
from comity.loop.fold import Fold
from comity.loop.hub import Event, Heard, HubState, add_metrics

SCORE = Spec(Leaf(), kind="score")


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

    def start(self) -> dict[str, HubState]:
        """The state of each hub before the first round."""
        return {hub: self._first(hub) for hub in self._members(self.base)}

    def _first(self, hub: str) -> HubState:
        method = self.parts.method.init(replace(self.base, hub=hub))
        inits = tuple({} if t.decodes == "each" else t.init() for t in self.parts.transforms)
        return HubState(method, self.parts.combiner.init(), inits)

    def _members(self, turn: Round) -> Mapping[str, Sequence[str]]:
        return self.parts.select(self.roster, turn, self.past, self.secret)

    def round(self, states: Mapping[str, HubState], number: int) -> dict[str, HubState]:
        """Close round `number`, trying it again as often as the parts allow.

        Raises:
            TooFewParticipants: no attempt reached the quorum. The states are as before; it can be resumed.
        """
        heard: Mapping[str, Heard] = {}
        for attempt in range(self.parts.retries + 1):
            turn = replace(self.base, number=number, attempt=attempt)
            members = self._members(turn)
            known = {**states, **{hub: self._first(hub) for hub in members if hub not in states}}
            closed, heard, after = Attempt(self.asking, self.secret, turn, members).run(known)
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
            heard[hub] = self._scored(hub, told, states, turn)
            add_metrics(total, heard[hub].metrics)
        self.listen(Event("score", turn, True, heard))
        return total

    def _scored(self, hub: str, homes: Mapping[str, str], states: Mapping[str, HubState], turn: Round) -> Heard:
        """What one hub hears of members, each of whom is told what its home shares."""
        cohort = list(homes)
        heard = Heard(hub, cohort, turn=(turn.number, turn.attempt))
        where = replace(turn, hub=hub, asked=len(cohort))
        place = {who: i for i, who in enumerate(cohort)}
        fold = Fold(len(cohort))

        def body(to: str) -> Contribution:
            state = states.get(homes[to]) or next(iter(states.values()))
            shared = self.parts.method.share(state.method, to, replace(where, hub=homes[to]))
            return replace(shared, kind="score", value=frozen(shared.value))

        for answer in self.asking.ask(where, cohort, heard, "score", body):
            if not self.asking.admitted(answer, heard, "score"):
                continue
            try:
                check(answer.body, SCORE)
            except ContributionError as error:
                heard.refused.append((answer.sender, f"{answer.sender}: {error}"))
                continue
            heard.accepted.add(answer.sender)
            fold.add(place[answer.sender], Contribution("score", {}, metrics=answer.body.metrics))
        total = fold.total()
        heard.metrics = total.metrics if total else {}
        return heard


def _too_few(number: int, heard: Mapping[str, Heard], parts: Parts) -> str:
    for h in heard.values():
        if h.failed:
            return f"Round {number + 1} could not be combined. {h.failed} Nothing is lost: run the same again."
        need = parts.needed(len(h.asked))
        if len(h.accepted) < need:
            why = "; ".join(f"{who}: {reason}" for who, reason in [*h.refused, *h.dropped][:5])
            silent = [w for w in h.asked if w not in h.answered and w not in {d for d, _ in h.dropped}]
            absent = f" No answer from {', '.join(silent[:5])}." if silent else ""
            got = f"{len(h.accepted)} of {len(h.asked)} contributions were accepted"
            return (
                f"Round {number + 1} needs {need}; {got}. {why}{absent} "
                "Nothing is lost: run the same again when they are back, or lower the quorum."
            )
    return f"Round {number + 1} did not close."
