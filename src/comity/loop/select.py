"""Who is asked in a round, and when scores are taken: frozen dataclasses behind plain verbs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from comity.core.checks import is_number, number, part, shown, whole
from comity.core.contribution import Array
from comity.core.errors import ConfigError
from comity.core.parts import Past, Roster, Secret, Select
from comity.core.round import Round

HUB = "hub"
MOST_SCORED = 1000
SELECTS = ("()", "expected()")
"""What a selection must have."""


@dataclass(frozen=True)
class Everyone:
    """All participants, every round."""

    def __call__(self, roster: Roster, round: Round, past: Past, secret: Secret) -> Mapping[str, Sequence[str]]:
        """One hub hears all."""
        return {HUB: [roster[i] for i in range(len(roster))]}

    def expected(self, roster: int) -> float:
        """N."""
        return float(roster)


@dataclass(frozen=True)
class Sample:
    """A fixed number of participants without replacement, drawn from public randomness."""

    count: int | None = None
    fraction: float | None = None

    def size(self, roster: int) -> int:
        """How many are drawn from a roster of this length."""
        wanted = self.count if self.count is not None else round(roster * (self.fraction or 0.0))
        return min(max(1, wanted), roster)

    def __call__(self, roster: Roster, round: Round, past: Past, secret: Secret) -> Mapping[str, Sequence[str]]:
        """One hub hears the sample, in the order of the roster."""
        rng = round.rng("select", str(round.attempt))
        drawn = rng.choice(len(roster), self.size(len(roster)), replace=False, shuffle=False)
        return {HUB: _names(roster, drawn)}

    def expected(self, roster: int) -> float:
        """The size of the sample."""
        return float(self.size(roster))


@dataclass(frozen=True)
class Poisson:
    """Each participant with the same chance, independently, drawn from the hub's secret."""

    rate: float
    fills: ClassVar[bool] = True
    sampling: ClassVar[str] = "poisson"

    def __call__(self, roster: Roster, round: Round, past: Past, secret: Secret) -> Mapping[str, Sequence[str]]:
        """One hub hears those drawn; there may be none."""
        rng = secret.rng("select", str(round.number), str(round.attempt))
        drawn = rng.choice(len(roster), rng.binomial(len(roster), self.rate), replace=False, shuffle=False)
        return {HUB: _names(roster, drawn)}

    def expected(self, roster: int) -> float:
        """q·N."""
        return self.rate * roster


@dataclass(frozen=True)
class Every:
    """Scores after every so many rounds, asked of those whom `select` draws."""

    rounds: int
    select: Select | None = None

    def due(self, closed: int) -> bool:
        """Is it time, after so many closed rounds?"""
        return self.rounds > 0 and closed % self.rounds == 0

    def chosen(self, roster: int) -> Select:
        """Who is scored: everyone, or a sample of 1,000 where there are more."""
        return self.select or (Everyone() if roster <= MOST_SCORED else Sample(count=MOST_SCORED))


def everyone() -> Everyone:
    """Ask all participants in every round.

    Example:
        >>> import comity as co
        >>> co.everyone().expected(10)
        10.0
    """
    return Everyone()


def sample(size: float) -> Sample:
    """Ask a fixed-size random sample in every round, drawn from the run's public seed.

    Args:
        size: a fraction in (0, 1) as a float, or a number of participants as an int >= 1; 1.0 is everyone.

    Raises:
        ConfigError: the size is neither.

    Example:
        >>> import comity as co
        >>> co.sample(0.1).size(200), co.sample(3).size(200)
        (20, 3)
    """
    plain = float(size) if is_number(size, whole=False) else size
    if isinstance(plain, float) and 0 < plain <= 1:
        return Sample(fraction=plain)
    if is_number(size, whole=True) and size >= 1:
        return Sample(count=int(size))
    raise ConfigError(f"The 'size' of sample must be a fraction in (0, 1] or an int >= 1. Got {shown(size)}.")


def poisson(rate: float) -> Poisson:
    """Ask each participant with the same probability, independently of all others (Poisson sampling).

    The draw comes from the hub's secret randomness, so that its amplification of privacy may be credited.

    Args:
        rate: q in (0, 1].

    Raises:
        ConfigError: the rate lies outside.

    Example:
        >>> import comity as co
        >>> co.poisson(0.1).expected(200)
        20.0
    """
    return Poisson(float(number("rate", "poisson", rate, "(0, 1]")))


def every(rounds: int, select: Select | None = None) -> Every:
    """Take scores after every `rounds` rounds (and at the end).

    Args:
        rounds: how many rounds lie between, >= 1.
        select: whose scores; by default everyone's, or those of 1,000 where there are more.

    Raises:
        ConfigError: `rounds` is not an int >= 1, or `select` cannot select.

    Example:
        >>> import comity as co
        >>> [r for r in range(1, 11) if co.every(5).due(r)]
        [5, 10]
    """
    closed = whole("rounds", "every", rounds, 1, hint="Use evaluate=False for none.")
    if select is not None:
        part("select", "every", select, SELECTS, "co.sample(0.1)")
    return Every(closed, select)


def _names(roster: Roster, drawn: Array) -> list[str]:
    return [roster[int(i)] for i in sorted(drawn)]
