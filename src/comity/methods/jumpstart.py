"""Jumpstart: a few train first, the others begin with what they learnt (FedLTN: Mugunthan et al., ECCV 2022).

participant  nothing: it is asked later, and begins with what the hub then shares
hub          asks only those who go first for so many rounds, afterwards as another selection says
never leaves nothing new; the names of those who go first are in the recipe as a hash
bytes        those who come later send and receive nothing before; what they are given first is counted as all else is
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from comity.core.checks import part, refusal, shown, whole
from comity.core.errors import ConfigError
from comity.core.parts import Past, Roster, Secret, Select
from comity.core.round import Round

HUB = "hub"
_SELECT, _USE = ("()", "expected()"), "co.sample(3)"


@dataclass(frozen=True)
class Jumpstart:
    """Asks some participants alone for the first rounds."""

    first: tuple[str, ...]
    rounds: int
    _: KW_ONLY
    among: Select | None = None
    then: Select | None = None

    def __call__(self, roster: Roster, round: Round, past: Past, secret: Secret) -> Mapping[str, Sequence[str]]:
        """Who is asked in this round.

        Raises:
            ConfigError: who is to go first is no participant.
        """
        if round.number >= self.rounds:
            return _asked(self.then, roster, round, past, secret)
        if lost := [name for name in self.first if name not in roster]:
            raise ConfigError(f"The 'first' of jumpstart must be participants. Got {shown(lost[0])}. Use their names.")
        return _asked(self.among, self.first, round, past, secret)

    def expected(self, roster: int) -> float:
        """As the later rounds have it."""
        return float(roster) if self.then is None else self.then.expected(roster)

    @property
    def quorum(self) -> float:
        """What either selection needs of a cohort."""
        return max(float(getattr(s, "quorum", 0.0)) for s in (self.among, self.then))

    def fingerprint(self) -> dict[str, Any]:
        """What the recipe says: of names their number and a hash."""
        names = hashlib.sha256("\n".join(self.first).encode()).hexdigest()
        settings = {"rounds": self.rounds, "among": self.among, "then": self.then}
        return {"first": {"names": len(self.first), "sha256": names}, **settings}


def jumpstart(
    first: Sequence[str], rounds: int, *, among: Select | None = None, then: Select | None = None
) -> Jumpstart:
    """Let some participants train first; the others begin with what these have learnt, and take fewer rounds.

    For `Tickets` the others begin with a lean ticket. It should not be final when they join, or what they would have
    kept is gone: with Tickets(begin=...) no weight is pruned before, with a larger `by` some are pruned after. FedLTN
    takes those with most resources first, and their final ticket.

    Divided by the public expectation, Mean(public=True), the first rounds make smaller steps: it is that of the later
    ones.

    Args:
        first: names of those who train first, in any order.
        rounds: how many rounds they train alone, >= 1.
        among: which of them are asked in a round; None for all.
        then: who is asked afterwards; None for everybody.

    Raises:
        ConfigError: no names, one of them twice, rounds below 1, or a selection that cannot select, or has peers.

    Example:
        >>> import numpy as np, comity as co
        >>> X, y = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
        >>> model = co.MLP(inputs=4, classes=2, hidden=(50,), rate=0.5)
        >>> sites = {name: co.SharedTicketTrainer(model, (X, y)) for name in ("a", "b", "c", "d")}
        >>> select = co.jumpstart(("a", "b"), 2, then=co.sample(3))
        >>> run = co.Collaboration(co.Tickets(model, 4, begin=0.5, by=1), sites, select=select, evaluate=False).run(4)
        >>> [len(entry.facts["asked"].split()) for entry in run.ledger if entry.kind == "round"]
        [2, 2, 3, 3]
    """
    names = () if isinstance(first, str | bytes) or not isinstance(first, Sequence) else tuple(first)
    if not names or not all(isinstance(n, str) and n for n in names) or len(set(names)) < len(names):
        raise refusal("first", "jumpstart", "a list of names, each once", first, 'Use ["a", "b"], for one.')
    for name, select in (("among", among), ("then", then)):
        if select is None:
            continue
        part(name, "jumpstart", select, _SELECT, _USE)
        if getattr(select, "peers", False):
            raise refusal(name, "jumpstart", "a selection with one hub", select, f"Use {_USE}.")
    return Jumpstart(tuple(sorted(names)), whole("rounds", "jumpstart", rounds, 1), among=among, then=then)


def _asked(
    select: Select | None, roster: Roster, round: Round, past: Past, secret: Secret
) -> Mapping[str, Sequence[str]]:
    return {HUB: [roster[i] for i in range(len(roster))]} if select is None else select(roster, round, past, secret)
