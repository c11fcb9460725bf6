"""What a guarantee is worth: epsilon of what was spent, and the noise that a guarantee takes."""

import math
from dataclasses import dataclass
from typing import Any

from comity.core.checks import number, refusal, whole, word
from comity.core.errors import ConfigError
from comity.core.parts import Spend
from comity.privacy.accountants import ADD_REMOVE, REPLACE, Bound, credited, delta_of, epsilon_of
from comity.privacy.releases import MECHANISMS, UNITS, Purse, Totals, listed

ACCOUNTANTS = ("pld", "rdp")
CALIBRATED = tuple(m for m in MECHANISMS if m != "response")
TOLERANCE = 2e-4
"""Relative, of the noise that `calibrate` finds."""
_CHANGED = {ADD_REMOVE: "{} added or removed", REPLACE: "{} replaced by another"}
_NAMES = {"pld": "PLD", "rdp": "RDP", "pure": "basic composition"}


@dataclass(frozen=True)
class Privacy:
    """A guarantee of (epsilon, delta)-differential privacy; as text it is one sentence.

    Attributes:
        epsilon: nats; infinite where something was released without noise.
        delta: in [0, 1).
        unit: what is protected: one "example", "participant" or "party".
        adjacency: "add-remove" or "replace-one": what a neighbour of the data is.
        accountant: whose figure it is: "pld", "rdp", or "pure" (epsilons added up, at delta 0).
        sampling: which sampling was credited, and which was not.
        who: of a party's own budget its name; "" where it is everybody's.
    """

    epsilon: float
    delta: float
    unit: str
    adjacency: str = ADD_REMOVE
    accountant: str = "pld"
    sampling: str = "no sampling"
    who: str = ""

    def __str__(self) -> str:
        whose = f"one {self.unit}"
        if self.who:
            whose = f"{whose} of {self.who}" if self.unit == "example" else f"the {self.unit} {self.who}"
        changed = _CHANGED[self.adjacency].format(whose)
        if math.isinf(self.epsilon):
            return f"no guarantee at δ = {self.delta:g} for {changed}: something was released with too little noise"
        told = f"{_NAMES[self.accountant]}; {self.sampling}"
        return f"ε ≤ {_upwards(self.epsilon)} at δ = {self.delta:g} for {changed} ({told})"

    def __float__(self) -> float:
        return self.epsilon


def epsilon(
    noise: float, *, rounds: int, delta: float, sampling: Any = None, unit: str = "participant", accountant: str = "pld"
) -> Privacy:
    """What so many rounds of the Gaussian mechanism guarantee where one unit is added or removed.

    For another mechanism, several of them, a sample of fixed size or another adjacency see `spent`.

    Args:
        noise: the noise multiplier: standard deviation over clip, > 0.
        rounds: releases, >= 1.
        delta: in (0, 1); well below one over the number of units.
        sampling: how units are drawn for each round: `co.poisson(0.1)` or its rate in (0, 1]; None for no sampling.
        unit: what is drawn and clipped: "example", "participant" or "party".
        accountant: "pld" (numerical composition of privacy loss distributions; the better of that and RDP), or "rdp".

    Raises:
        ConfigError: a setting is impossible, or dp-accounting is missing.

    Example:
        >>> import comity as co
        >>> print(co.epsilon(4.0, rounds=10_000, delta=1e-5, sampling=0.01, unit="example"))
        ε ≤ 0.947 at δ = 1e-05 for one example added or removed (PLD; Poisson sampling at rate 0.01 credited)
    """
    noise = number("noise", "epsilon", noise, "(0, inf)", hint="Without noise there is no guarantee.")
    count = whole("rounds", "epsilon", rounds, 1)
    number("delta", "epsilon", delta, "(0, 1)")
    word("unit", "epsilon", unit, UNITS)
    kind, rate = _drawn("epsilon", sampling)
    (found,) = spent([Spend("gaussian", noise, rate, count, unit, kind)], delta, accountant=accountant)
    return found


def spent(
    spends: Any,
    delta: float | None = None,
    *,
    epsilon: float | None = None,
    accountant: str = "pld",
    adjacency: str | None = None,
) -> tuple[Privacy, ...]:
    """What all these releases together guarantee, in whatever order they came.

    Different units are never added; against a party's own budget counts what was spent of everybody's and of its own.
    A sample of fixed size is credited under "add-remove" with the noise halved (whoever comes in takes another's place:
    Zhu, Dong and Wang 2022, Theorem 11), under "replace-one" by RDP only (Wang et al. 2019); Poisson sampling
    under "replace-one" by PLD only; the sentence says what was not credited. What was drawn from a public seed is
    not sampled at all.

    Mechanisms: "gaussian"; "laplace" (scale over L1 sensitivity); "response", randomised response whose noise is its
    epsilon, always under "replace-one"; "tree", binary tree aggregation (Kairouz et al. 2021, "Practical and private
    (deep) learning"), whose count is the steps and whose noise is that of a node over the most that one unit
    adds to all the steps together; "skellam" and "discrete-gaussian", whose noise is what `skellam_noise` and
    `discrete_gaussian_noise` of `comity.privacy.bounds` give: by RDP only.

    Args:
        spends: `co.Spend`, or facts of a ledger with the same names.
        delta: in [0, 1): gives epsilon at this delta. At 0 the epsilons of "laplace" and "response" are added up.
        epsilon: >= 0: gives delta at this epsilon instead.
        accountant: "pld" (the better of PLD and RDP) or "rdp".
        adjacency: "add-remove" or "replace-one"; by default the former where all mechanisms have it.

    Returns:
        A guarantee for each unit, and for each party that spent of its own; () where nothing was spent.

    Raises:
        ConfigError: a spend or a setting is impossible, or dp-accounting is missing.

    Example:
        >>> import comity as co
        >>> rounds = co.Spend("gaussian", 1.0, 0.01, 1000, "example", "poisson")
        >>> for privacy in co.spent([rounds, co.Spend("response", 1.5)], 1e-5):
        ...     print(privacy)
        ε ≤ 1.829 at δ = 1e-05 for one example added or removed (PLD; Poisson sampling at rate 0.01 credited)
        ε ≤ 1.5 at δ = 1e-05 for one participant replaced by another (PLD; no sampling)
    """
    word("accountant", "spent", accountant, ACCOUNTANTS)
    if adjacency is not None:
        word("adjacency", "spent", adjacency, (ADD_REMOVE, REPLACE))
    if (delta is None) == (epsilon is None):
        raise ConfigError(f"One of delta and epsilon must be given. Got {'neither' if delta is None else 'both'}.")
    if delta is not None:
        number("delta", "spent", delta, "[0, 1)")
    else:
        number("epsilon", "spent", epsilon, "[0, inf)")
    out, purse = [], Purse(listed(spends))
    for unit, who in purse.whose():
        totals = purse.of((unit, who))
        near = neighbours(totals, adjacency)
        if delta is not None:
            bound = epsilon_of(totals, delta, near, accountant)
            pair = bound.value, delta
        else:
            bound = delta_of(totals, epsilon or 0.0, near, accountant)
            pair = float(epsilon or 0.0), bound.value
        out.append(Privacy(*pair, unit, near, bound.accountant, _sampled(totals, near, bound), who))
    return tuple(out)


def calibrate(
    epsilon: float,
    delta: float,
    *,
    rounds: int,
    sampling: Any = None,
    mechanism: str = "gaussian",
    accountant: str = "pld",
) -> float:
    """The smallest noise that keeps so many rounds within (epsilon, delta), where one unit is added or removed.

    Args:
        epsilon: > 0.
        delta: in (0, 1).
        rounds: releases, >= 1; of "tree" its steps.
        sampling: as of `epsilon`.
        mechanism: any but "response", whose epsilon is its noise.
        accountant: "pld" or "rdp".

    Returns:
        A noise at which epsilon holds, at most 0.02 % above the smallest.

    Raises:
        ConfigError: a setting is impossible, no noise is enough, or dp-accounting is missing.

    Example:
        >>> import comity as co
        >>> noise = co.calibrate(2.0, 1e-5, rounds=100)
        >>> round(noise, 2), co.epsilon(noise, rounds=100, delta=1e-5).epsilon <= 2.0
        (19.94, True)
    """
    number("epsilon", "calibrate", epsilon, "(0, inf)")
    number("delta", "calibrate", delta, "(0, 1)")
    count = whole("rounds", "calibrate", rounds, 1)
    word("mechanism", "calibrate", mechanism, CALIBRATED)
    kind, rate = _drawn("calibrate", sampling)

    def excess(noise: float) -> float:
        """Logarithm of what this noise gives over what is wanted."""
        (found,) = spent([Spend(mechanism, noise, rate, count, sampling=kind)], delta, accountant=accountant)
        return math.log(max(found.epsilon, 1e-300) / epsilon)

    return _least(excess)


def neighbours(totals: Totals, adjacency: str | None = None) -> str:
    """The adjacency for these releases.

    Raises:
        ConfigError: "add-remove" where somebody answers at random: that he answered is seen.
    """
    local = any(release.mechanism == "response" for release in totals)
    if local and adjacency == ADD_REMOVE:
        raise ConfigError(
            'The \'adjacency\' of randomised response must be "replace-one": who answered is seen. Got "add-remove".'
        )
    return REPLACE if local else adjacency or ADD_REMOVE


def _least(excess: Any) -> float:
    """The smallest noise without excess: bracketed, then by the secant through the bracket's ends."""
    high, over = 1.0, excess(1.0)
    low, under = high, over
    while over > 0:
        low, under, high = high, over, high * 2
        over = excess(high)
        if high > 1e7:
            raise ConfigError("Some noise must be enough. Got none below 1e7. Use a larger delta or epsilon.")
    while under <= 0:
        high, over, low = low, under, low / 2
        under = excess(low)
        if low < 1e-4:
            return high
    turn = 0
    while high / low > 1 + TOLERANCE:
        share = under / (under - over) if under < math.inf and turn % 3 < 2 else 0.5
        middle = low * (high / low) ** share
        for guess in (middle * (1 + TOLERANCE / 3), middle * (1 - TOLERANCE / 3)):
            if low < guess < high:
                found = excess(guess)
                low, under, high, over = (guess, found, high, over) if found > 0 else (low, under, guess, found)
        turn += 1
    return high


def _drawn(of: str, sampling: Any) -> tuple[str, float]:
    """The kind of sampling and its rate."""
    if sampling is None:
        return "none", 1.0
    if hasattr(sampling, "sampling") and hasattr(sampling, "rate"):
        return str(sampling.sampling), float(number("rate", of, sampling.rate, "(0, 1]"))
    if callable(sampling) or isinstance(sampling, str):
        must = "co.poisson(0.1), a rate in (0, 1], or None"
        raise refusal("sampling", of, must, sampling, "Only what is drawn from the hub's secret is credited.")
    return "poisson", float(number("sampling", of, sampling, "(0, 1]"))


def _sampled(totals: Totals, adjacency: str, bound: Bound) -> str:
    """Which sampling was credited."""
    names = {"poisson": "Poisson sampling", "fixed": "fixed-size sampling"}
    said = {
        f"{names[r.sampling]} at rate {r.rate:g} {'' if credited(r, adjacency, bound.accountant) else 'not '}credited"
        for r in sorted(totals)
        if r.sampling != "none"
    }
    return ", ".join(sorted(said)) or "no sampling"


def _upwards(value: float) -> str:
    """Four digits, never below the value.

    Example:
        >>> _upwards(0.94699931), _upwards(8.0), _upwards(12.34501), _upwards(0.0)
        ('0.947', '8', '12.35', '0')
    """
    if value == 0:
        return "0"
    unit = 10.0 ** (math.floor(math.log10(value)) - 3)
    return f"{math.ceil(value / unit - 1e-9) * unit:.4g}"
