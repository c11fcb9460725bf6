"""What was spent, checked and counted: equal releases of each unit and party together."""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from comity.core.checks import number, refusal, whole, word
from comity.core.parts import Spend

MECHANISMS = ("gaussian", "laplace", "response", "tree", "skellam", "discrete-gaussian")
UNITS = ("example", "participant", "party")
SAMPLINGS = ("poisson", "fixed", "none")
_FIELDS = ("mechanism", "noise", "rate", "count", "unit", "sampling", "who")


class Release(NamedTuple):
    """A kind of release: of a spend, what epsilon depends on.

    Attributes:
        mechanism: as in `core.parts.Spend`, like the others.
        noise: its noise, >= 0.
        rate: the sampling rate; 1.0 where there was none.
        sampling: "poisson", "fixed" or "none".
    """

    mechanism: str
    noise: float
    rate: float = 1.0
    sampling: str = "none"


Totals: TypeAlias = Mapping[Release, int]
Whose: TypeAlias = tuple[str, str]
"""A unit of privacy, and whose budget it is."""


class Purse:
    """Releases counted for each unit, everybody's and each party's own."""

    def __init__(self, spends: Iterable[Any] = ()) -> None:
        """Count these spends: `core.parts.Spend`, or facts with the same names."""
        self._counts: dict[Whose, dict[Release, int]] = {}
        self.add(spends)

    def add(self, spends: Iterable[Any]) -> None:
        """Count more of them.

        Raises:
            ConfigError: one is no spend.
        """
        for spend in spends:
            release, count, unit, names = _checked(*_fields(spend))
            for who in names if count else ():
                mine = self._counts.setdefault((unit, who), {})
                mine[release] = mine.get(release, 0) + count

    def __len__(self) -> int:
        return len(self._counts)

    def whose(self, other: "Purse | None" = None) -> list[Whose]:
        """Each unit and party in this purse, or in the other, sorted."""
        return sorted({*self._counts, *(other._counts if other is not None else ())})

    def of(self, whose: Whose) -> Totals:
        """All that counts against one party, or "" for everybody."""
        unit, who = whose
        total: dict[Release, int] = {}
        for name in {"", who}:
            _add(total, self._counts.get((unit, name), {}))
        return total


def together(a: Totals, b: Totals, times: int = 1) -> Totals:
    """`a`, and `b` so many times."""
    total = dict(a)
    _add(total, b, times)
    return total


def covers(a: Totals, b: Totals) -> bool:
    """Is everything in `b` in `a`, at least as often?"""
    return all(a.get(release, 0) >= count for release, count in b.items())


def _add(total: dict[Release, int], more: Totals, times: int = 1) -> None:
    for release, count in more.items():
        total[release] = total.get(release, 0) + count * times


def listed(spends: Any) -> Sequence[Any]:
    """The spends in a list of them, or the one that was given.

    Raises:
        ConfigError: neither.
    """
    if isinstance(spends, Spend | Mapping):
        return [spends]
    if isinstance(spends, str | bytes) or not isinstance(spends, Iterable):
        raise refusal("spends", "", "Spends, or the facts of a ledger's", spends)
    return list(spends)


def _fields(spend: Any) -> tuple[Any, ...]:
    if isinstance(spend, Spend):
        return tuple(getattr(spend, name) for name in _FIELDS)
    if not isinstance(spend, Mapping) or "mechanism" not in spend or "noise" not in spend:
        raise refusal("spends", "", "Spends, or facts with a mechanism and its noise", spend)
    usual = Spend("", 0.0)
    values = [spend.get(name, getattr(usual, name)) for name in _FIELDS]
    return tuple(v.item() if hasattr(v, "item") else v for v in values)


def _checked(*fields: Any) -> tuple[Release, int, str, tuple[str, ...]]:
    try:
        return _known(*fields)
    except TypeError:  # something in it cannot be looked up: the checks say what
        return _known.__wrapped__(*fields)


@lru_cache(maxsize=4096, typed=True)
def _known(*fields: Any) -> tuple[Release, int, str, tuple[str, ...]]:
    mechanism, noise, rate, count, unit, sampling, who = fields
    word("mechanism", "a spend", mechanism, MECHANISMS)
    noise = float(number("noise", "a spend", noise, "[0, inf)"))
    rate = float(number("rate", "a spend", rate, "(0, 1]"))
    count = whole("count", "a spend", count)
    word("unit", "a spend", unit, UNITS)
    word("sampling", "a spend", sampling, SAMPLINGS)
    if not isinstance(who, str):
        raise refusal("who", "a spend", 'a name, or "" for everybody', who)
    sampled = sampling != "none" and not math.isclose(rate, 1.0)
    release = Release(mechanism, noise, rate, sampling) if sampled else Release(mechanism, noise)
    return release, count, unit, tuple(who.split("\n"))
