"""What a run has spent of its privacy budget, computed beside the pages: a figure may take a second."""

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from comity.core.errors import ComityError
from comity.privacy.accounting import spent

DELTA, KEPT = 1e-5, 64
ADDED = ("gaussian", "laplace", "skellam", "discrete-gaussian")
"""Mechanisms whose releases are simply more of the same."""


@dataclass(frozen=True, slots=True)
class Cap:
    """The most that may be spent; infinite for no end."""

    epsilon: float
    delta: float
    accountant: str


@dataclass(frozen=True, slots=True)
class Budget:
    """Spent of a budget.

    Attributes:
        cap: the most.
        private: is there any mechanism?
        epsilon: spent; None while it is computed.
        unit: what is protected.
        rounds: up to which round it was computed.
        ends: the last round that fits; None where that is not known.
        why: where there is no figure, why.
    """

    cap: Cap
    private: bool
    epsilon: float | None = None
    unit: str = ""
    rounds: int = 0
    ends: int | None = None
    why: str = ""

    @property
    def share(self) -> float:
        """Of the cap, in percent; 0 where there is none."""
        if self.epsilon is None or math.isinf(self.cap.epsilon):
            return 0.0
        return round(min(100.0, 100 * self.epsilon / self.cap.epsilon), 1)


class Budgets:
    """Figures of several runs, each computed once for each number of spends, one at a time, in a thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done: dict[str, tuple[int, Budget]] = {}
        self._busy = False

    def of(self, run: str, recipe: Mapping[str, Any], spends: Sequence[Any], rounds: int, total: int) -> Budget:
        """What is known now; what is newer is computed meanwhile.

        Args:
            run: of which.
            recipe: holds the cap.
            spends: facts of the ledger.
            rounds: closed ones.
            total: rounds that are planned; 0 where that is not known.
        """
        cap = cap_of(recipe)
        if not spends:
            return Budget(cap, math.isfinite(cap.epsilon), 0.0 if math.isfinite(cap.epsilon) else None)
        with self._lock:
            count, known = self._done.get(run, (0, Budget(cap, True)))
            if count != len(spends) and not self._busy:
                self._busy = True
                work = (run, cap, tuple(spends), rounds, total)
                threading.Thread(target=self._work, args=work, name="comity budget", daemon=True).start()
        return known

    def _work(self, run: str, cap: Cap, spends: Sequence[Any], rounds: int, total: int) -> None:
        try:
            found = compute(cap, spends, rounds, total)
        except (ComityError, ImportError, ValueError, ArithmeticError) as error:
            found = Budget(cap, True, rounds=rounds, why=str(error) or type(error).__name__)
        with self._lock:
            self._done.pop(run, None)
            self._done[run] = len(spends), found
            while len(self._done) > KEPT:
                del self._done[next(iter(self._done))]
            self._busy = False


def cap_of(recipe: Mapping[str, Any]) -> Cap:
    """The cap in a recipe: its `stop`, where that is a Budget.

    Example:
        >>> cap_of({"parts": {"stop": {"class": "comity.privacy.budget.Budget", "epsilon": 8, "delta": 1e-5}}})
        Cap(epsilon=8.0, delta=1e-05, accountant='pld')
        >>> cap_of({}).epsilon
        inf
    """
    parts = recipe.get("parts")
    stop = parts.get("stop") if isinstance(parts, Mapping) else None
    if not isinstance(stop, Mapping) or not str(stop.get("class", "")).endswith(".Budget"):
        return Cap(math.inf, DELTA, "pld")
    return Cap(
        float(stop.get("epsilon", math.inf)), float(stop.get("delta", DELTA)), str(stop.get("accountant", "pld"))
    )


def compute(cap: Cap, spends: Sequence[Any], rounds: int, total: int) -> Budget:
    """The largest of the guarantees, and the last round that fits.

    Raises:
        ConfigError: a spend is unknown here, or dp-accounting is missing.
    """
    worst = max(spent(spends, cap.delta, accountant=cap.accountant), key=lambda found: found.epsilon)
    ends = None
    if math.isfinite(cap.epsilon) and rounds and worst.epsilon <= cap.epsilon:
        ends = _last_round(cap, spends, rounds, total)
    return Budget(cap, True, worst.epsilon, worst.unit, rounds, ends)


def _last_round(cap: Cap, spends: Sequence[Any], rounds: int, total: int) -> int | None:
    """By bisection, if every round to come spends what the last one did; None where that cannot be said."""
    newest = max(int(s.get("round", -1)) for s in spends)
    each = [s for s in spends if int(s.get("round", -1)) == newest]
    if newest < 0 or any(s["mechanism"] not in ADDED for s in each):
        return None

    def fits(more: int) -> bool:
        ahead = [{**s, "count": int(s.get("count", 1)) * more} for s in each] if more else []
        return max(p.epsilon for p in spent([*spends, *ahead], cap.delta, accountant="rdp")) <= cap.epsilon

    low, high = 0, max(total - newest - 1, 1) if total else 4096
    if not fits(low) or fits(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return newest + 1 + low
