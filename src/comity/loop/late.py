"""Answers that come after their round closed: who still owes one, and what it is worth when it comes.

A change that was made from the state of round t and is added in round t + τ is multiplied by s(τ) = (1 + τ)^-a, the
polynomial of FedAsync (Xie, Koyejo and Gupta, OPT 2020, arXiv:1903.03934, section 5.2), and divided by the weights of
all as if it were new, as in FedBuff (Nguyen et al., AISTATS 2022, Algorithm 1): a round in which all are late takes a
smaller step. A round that closes as soon as its quorum K is there is FedBuff with a buffer of K.
"""

from dataclasses import replace

from comity.core.contribution import Contribution
from comity.core.envelope import Owed
from comity.core.round import Round
from comity.core.rules import Parts
from comity.core.tree import tree_map
from comity.loop.hub import Heard


class Owing:
    """Who still owes an answer. All of it follows from what the ledger holds, so that a run can go on after a kill."""

    def __init__(self, parts: Parts, base: Round, recipe: str, *, patient: bool) -> None:
        """Args: the parts; what every turn has in common; the recipe; does the engine keep questions open?"""
        self.most = parts.late if patient else 0
        self._base, self._recipe = base, recipe
        self._open: dict[str, Owed] = {}

    def due(self, number: int) -> dict[str, Owed] | None:
        """Whose answers still count in this round; None where nobody may be late. Of older ones no more is known."""
        if not self.most:
            return None
        self._open = {who: o for who, o in self._open.items() if number - o.round.number <= self.most}
        return dict(self._open)

    def note(self, turn: Round, heard: Heard, closed: bool) -> None:
        """An attempt is over: those who were silent owe an answer, and those whose late answer was taken do no more."""
        if not self.most:
            return
        self.passed(heard.seconds)
        gone = {who for who, _ in (*heard.refused, *heard.dropped)}
        anew = replace(self._base, number=turn.number, attempt=turn.attempt, hub=heard.hub)
        anew = replace(anew, asked=len(heard.asked) - len(heard.owed or {}))
        for who in heard.asked:
            if heard.late(who) is not None:
                if who in gone or (closed and who in heard.accepted):
                    self._open.pop(who, None)
            elif who not in gone and who not in heard.accepted:
                self._open.pop(who, None)  # in the order in which they were asked, however much is recalled at once
                self._open[who] = Owed(anew.to(who), self._recipe, heard.down.get(who, 0), heard.seconds or 0.0)

    def passed(self, seconds: float | None) -> None:
        """So much simulated time went by."""
        if seconds:
            self._open = {who: replace(o, waited=o.waited + seconds) for who, o in self._open.items()}


def aged(c: Contribution, rounds: int, exponent: float) -> Contribution:
    """A lifted change that is so many rounds late: its value times (1 + rounds)^-exponent, its weight as it was.

    Example:
        >>> import numpy as np
        >>> float(aged(Contribution("delta", {"w": np.float32(4.0)}), 3, 0.5).value["w"])
        2.0
    """
    if rounds <= 0 or not exponent:
        return c
    scale = (1.0 + rounds) ** -exponent
    return replace(c, value=tree_map(lambda x: x * scale, c.value))
