"""A budget of privacy that ends a run before the round that would pass it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

from comity.core.checks import number, refusal, word
from comity.core.errors import ConfigError
from comity.core.parts import Past, Spend
from comity.privacy.accountants import epsilon_of
from comity.privacy.accounting import ACCOUNTANTS, neighbours
from comity.privacy.releases import Purse, Totals, covers, together

KEPT = 64
FARTHEST = 2**20


@dataclass(frozen=True)
class Budget:
    """Ends a run before the round that would pass (epsilon, delta): `stop=co.Budget(8.0, 1e-5)`.

    It reads what was spent from the ledger, and what the next round would spend from the parts. Each unit of privacy,
    and each party that spends of its own, has this much; the first whose budget would be passed ends the run.

    Args:
        epsilon: the most, > 0; infinite for no end.
        delta: in [0, 1); well below one over the number of units. 0 is for Laplace noise and randomised response.
        accountant: "pld" (the better of PLD and RDP) or "rdp".

    Raises:
        ConfigError: a setting is impossible. When called: nothing adds noise, or dp-accounting is missing.

    Example:
        >>> import comity as co
        >>> budget, ledger = co.Budget(epsilon=1.0, delta=1e-5), co.Ledger()
        >>> release = co.Spend("gaussian", 10.0)
        >>> while not budget(ledger, [release]):
        ...     _ = ledger.append("spend", {"mechanism": "gaussian", "noise": 10.0}, time=0.0)
        >>> len(ledger), co.epsilon(10.0, rounds=len(ledger), delta=1e-5).epsilon <= 1.0
        (7, True)
    """

    epsilon: float
    delta: float
    accountant: str = "pld"

    def __post_init__(self) -> None:
        number("epsilon", "Budget", self.epsilon, "(0, inf]", hint="Use a larger one, or no stop.")
        number("delta", "Budget", self.delta, "[0, 1)", hint="Use delta=1e-5, for one.")
        word("accountant", "Budget", self.accountant, ACCOUNTANTS)

    def __call__(self, past: Past, ahead: Sequence[Spend]) -> bool:
        """Would the next round pass it?

        Args:
            past: the ledger.
            ahead: what the next round would spend.

        Raises:
            ConfigError: a finite budget where nothing adds noise, or dp-accounting is missing.
        """
        spent, next_ = _read(past), Purse(ahead)
        if self.epsilon == float("inf"):
            return False
        if not len(next_):
            if not len(spent):
                raise ConfigError(
                    "A finite budget wants something that adds noise. Got no spend in these parts. "
                    "Add transforms=[co.Gaussian(clip=1.0, noise=1.1)], or leave the budget out."
                )
            return False
        known = _known(self.epsilon, self.delta, self.accountant)
        pairs = [(spent.of(whose), next_.of(whose)) for whose in spent.whose(next_)]
        distinct = {frozenset(together(p, a).items()): (p, a) for p, a in pairs}
        return any(known.passes(p, a) for p, a in distinct.values())


class Known:
    """What was found to be within a budget, and what beyond: more is never within where less was beyond."""

    def __init__(self, epsilon: float, delta: float, accountant: str) -> None:
        """Args: those of the budget."""
        self._most, self._delta, self._accountant = epsilon, delta, accountant
        self._within: list[Totals] = []
        self._beyond: list[Totals] = []

    def passes(self, past: Totals, ahead: Totals) -> bool:
        """Is `past` with `ahead` beyond the budget?

        Where it is not known, so many further rounds like `ahead` are looked at as well, in doubling steps.

        Raises:
            ConfigError: something ahead has no noise.
        """
        if bare := next((r for r in ahead if r.noise == 0 and r.mechanism != "response"), None):
            raise ConfigError(
                f"A finite budget wants noise > 0. Got a spend of '{bare.mechanism}' with noise 0. "
                "Use co.calibrate to find the noise, or leave the budget out."
            )
        total = together(past, ahead)
        if any(covers(w, total) for w in self._within):
            return False
        if any(covers(total, b) for b in self._beyond):
            return True
        if not self._fits(total):
            self._beyond = [*self._beyond[-KEPT:], total]
            return True
        times = 1
        while times < FARTHEST and self._fits(together(past, ahead, 2 * times)):
            times *= 2
        self._within = [*self._within[-KEPT:], together(past, ahead, times)]
        if times < FARTHEST:
            self._beyond = [*self._beyond[-KEPT:], together(past, ahead, 2 * times)]
        return False

    def _fits(self, total: Totals) -> bool:
        """RDP is asked first: it is quick, and what it shows is shown."""
        near = neighbours(total)
        asked = dict.fromkeys(("rdp", self._accountant))
        return any(epsilon_of(total, self._delta, near, a).value <= self._most for a in asked)


@lru_cache(maxsize=64)
def _known(epsilon: float, delta: float, accountant: str) -> Known:
    return Known(epsilon, delta, accountant)


_READ: "WeakKeyDictionary[Any, tuple[int, Purse]]" = WeakKeyDictionary()
"""Of each ledger how far it was read, and what was in it: it only grows."""


def _read(past: Any) -> Purse:
    """All spends in a ledger."""
    since: Any = getattr(past, "since", None)
    kind: Any = type(past)
    if since is None and not isinstance(past, Iterable):
        raise refusal("past", "Budget", "a ledger", past)
    if since is None or not kind.__weakrefoffset__ or kind.__eq__ is not object.__eq__:
        return Purse(e.facts for e in past if e.kind == "spend")
    position, purse = _READ.get(past, (0, Purse()))
    new = since(position)
    purse.add(e.facts for e in new if e.kind == "spend")
    _READ[past] = position + len(new), purse
    return purse
