"""Many members' probabilities to one: their average, their log-linear pool, their product without their priors.

Each takes what a `Predictor` answers, {"proba": (rows, classes), "seen": (classes,)} and perhaps "counts": (classes,),
and gives the same names with "label": (rows,) int64 beside them; -1 where nobody said anything. Each is a sum.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from comity.combine.mean import mean_of, weighted
from comity.core.calibration import FLOOR, log_floored, softmax
from comity.core.checks import flag, number, shown
from comity.core.contribution import Array, Contribution, View
from comity.core.errors import ContributionError
from comity.core.round import Round


@dataclass(frozen=True)
class Average:
    """The mean of the members' probabilities (the linear opinion pool), with its labels.

    "proba" is what `Mean` gives, its rows normalised. With `counts` each class is averaged over those who know it,
    by how many examples of it they had: Σ n_k(y)·p_k(y|x) / Σ n_k(y), normalised. Under label skew that is much
    better than the plain mean, as a member's probability for a class that it hardly saw says little.

    Attributes:
        counts: weigh class by class; every member must send its counts (`Predictor(counts=...)`).

    Raises:
        ConfigError: counts that are neither True nor False.

    Example:
        >>> import numpy as np, comity as co
        >>> p, seen = np.array([[0.5, 0.5]]), np.ones(2)
        >>> said = [co.Contribution("prediction", {"proba": p, "seen": seen}, w) for w in (1.0, 3.0)]
        >>> total = {"proba": np.array([[0.5 + 3 * 0.9, 0.5 + 3 * 0.1]]), "seen": 4 * seen}
        >>> got = co.Average().lower(co.Contribution("prediction", total, 4.0), None, co.Round(run="", seed=0))
        >>> got[0].value["proba"], got[0].value["label"]
        (array([[0.8, 0.2]]), array([0]))
    """

    counts: bool = False
    needs: ClassVar[View] = "sum"
    denominator: ClassVar[Literal["weight"]] = "weight"

    def __post_init__(self) -> None:
        flag("counts", "Average", self.counts)

    def init(self) -> None:
        """No state."""

    def lift(self, c: Contribution) -> Contribution:
        """A contribution to (w·p, w)."""
        value = _said(c, counts=self.counts)
        if self.counts:
            c = replace(c, weight=_spread(value, c.weight, value["counts"]))
        return weighted(c)

    def lower(self, gathered: Contribution, state: None, round: Round) -> tuple[Contribution, None]:
        """The sum to the mean, and its labels."""
        mean: Any = mean_of(gathered)
        total = np.asarray(mean.value["proba"]).sum(axis=1, keepdims=True)
        return _labelled(mean, mean.value["proba"] / np.where(total > 0, total, 1.0)), state


@dataclass(frozen=True)
class LogPool:
    """The log-linear pool: p(y|x) ∝ Π p_k(y|x)^(w_k / Σw) (the logarithmic opinion pool; Genest and Zidek, 1986).

    For two classes it is the mean of the log-odds. It is sharper than the average, and the better rule for members
    that saw the same sort of rows. A class is pooled over those who have seen it, so that nobody's ignorance is a
    veto (departure). Under label skew use `ProductPool`.

    Attributes:
        floor: the least probability that is believed, in (0, 1).

    Raises:
        ConfigError: a floor outside (0, 1).

    Example:
        >>> import numpy as np, comity as co
        >>> pool, seen = co.LogPool(), np.ones(2)
        >>> said = [np.array([[0.9, 0.1]]), np.array([[0.5, 0.5]])]
        >>> a, b = (pool.lift(co.Contribution("prediction", {"proba": p, "seen": seen})) for p in said)
        >>> both = {name: a.value[name] + b.value[name] for name in a.value}
        >>> weight = {name: a.weight[name] + b.weight[name] for name in a.weight}
        >>> pool.lower(co.Contribution("prediction", both, weight), None, co.Round(run="", seed=0))[0].value["proba"]
        array([[0.75, 0.25]])
    """

    floor: float = FLOOR
    needs: ClassVar[View] = "sum"
    denominator: ClassVar[Literal["weight"]] = "weight"

    def __post_init__(self) -> None:
        number("floor", "LogPool", self.floor, "(0, 1)")

    def init(self) -> None:
        """No state."""

    def lift(self, c: Contribution) -> Contribution:
        """A contribution to (w·log p, w), class by class."""
        value = _said(c)
        logs = log_floored(value["proba"], self.floor).astype(value["proba"].dtype)
        weight = _spread(value, c.weight, value["seen"])
        return weighted(replace(c, value={**value, "proba": logs}, weight=weight))

    def lower(self, gathered: Contribution, state: None, round: Round) -> tuple[Contribution, None]:
        """The summed logarithms to probabilities; a class that nobody has seen has 0."""
        mean: Any = mean_of(gathered)
        weight: Any = gathered.weight["proba"] if isinstance(gathered.weight, Mapping) else gathered.weight
        known = np.broadcast_to(np.asarray(weight, float) > 0, mean.value["proba"].shape)
        return _labelled(mean, _normal(mean.value["proba"], known)), state


@dataclass(frozen=True)
class ProductPool:
    """The product of what the members see in x beyond their own class shares, times the prior of all of them.

    log p(y|x) = log p(y) + strength·Σ_k n_k(y) / (n_k(y) + shrink)·clip(log p_k(y|x) - log p_k(y), ±cap) + const.
    It is the product rule of Kittler et al. (PAMI 1998, eq. 7) with each member's own prior taken out, as members
    with skewed labels want it. Departures: a class counts the less the fewer examples of it a member had; what one
    member may say is capped; and `strength` makes up for members that are not independent. Shares are smoothed by
    half an example. Members should be calibrated (`Predictor(calibrate=...)`) and must send their counts.

    Attributes:
        strength: > 0.
        shrink: examples at which a member counts half, >= 0.
        cap: nats, > 0.

    Raises:
        ConfigError: a setting out of range.

    Example:
        >>> import numpy as np, comity as co
        >>> pool = co.ProductPool()
        >>> value = {"proba": np.array([[0.5, 0.5]]), "seen": np.ones(2), "counts": np.array([90.0, 10.0])}
        >>> pool.lift(co.Contribution("prediction", value)).value["proba"].round(2)
        array([[-0.55,  1.05]])
    """

    strength: float = 0.5
    shrink: float = 5.0
    cap: float = 4.0
    needs: ClassVar[View] = "sum"
    denominator: ClassVar[Literal["answered"]] = "answered"

    def __post_init__(self) -> None:
        number("strength", "ProductPool", self.strength, "(0, inf)")
        number("shrink", "ProductPool", self.shrink, "[0, inf)")
        number("cap", "ProductPool", self.cap, "(0, inf)")

    def init(self) -> None:
        """No state."""

    def lift(self, c: Contribution) -> Contribution:
        """A contribution to its evidence, w·n / (n + shrink)·clip(log p - log share), and its counts."""
        value = _said(c, counts=True)
        n = np.asarray(value["counts"], float)
        beyond = log_floored(value["proba"]) - np.log(_shares(n))
        trust = np.divide(n, n + self.shrink, out=np.zeros_like(n), where=n > 0)
        evidence: Any = trust * np.clip(beyond, -self.cap, self.cap)
        weight = c.weight["proba"] if isinstance(c.weight, Mapping) else c.weight
        dtype = value["proba"].dtype
        return replace(c, value={**value, "proba": (evidence * np.asarray(weight)).astype(dtype)})

    def lower(self, gathered: Contribution, state: None, round: Round) -> tuple[Contribution, None]:
        """The summed evidence and counts to probabilities."""
        value: Any = gathered.value
        evidence, n = np.asarray(value["proba"], float), np.asarray(value["counts"], float)
        known = np.broadcast_to(n > 0, evidence.shape)
        return _labelled(gathered, _normal(np.log(_shares(n)) + self.strength * evidence, known)), state


def _said(c: Contribution, *, counts: bool = False) -> dict[str, Any]:
    """What a member said, looked at before it is weighed."""
    value: Mapping[str, Any] = c.value if isinstance(c.value, Mapping) else {}
    p: Any
    seen: Any
    n: Any
    p, seen, n = value.get("proba"), value.get("seen"), value.get("counts")
    if not _is_numbers(p, 2) or not _is_numbers(seen, 1) or p.shape[1:] != seen.shape:
        must = "{'proba': (rows, classes), 'seen': (classes,)}"
        raise ContributionError(f"A prediction must be {must}. Got {_shown(c.value)}. Use a Predictor.")
    if "counts" in value and (not _is_numbers(n, 1) or n.shape != seen.shape or not (n >= 0).all()):
        raise ContributionError("The counts of a prediction must be (classes,) numbers >= 0. Got other ones.")
    if counts and n is None:
        raise ContributionError("A prediction must hold class counts. Got none. Use Predictor(counts=...).")
    if p.size and not (p.min() >= 0 and p.max() <= 1 + 1e-5):
        raise ContributionError(f"Probabilities must lie from 0 to 1. Got {p.min():g} to {p.max():g}.")
    return dict(value)


def _shown(value: Any) -> str:
    if not isinstance(value, Mapping) or not value:
        return shown(value)
    return ", ".join(f"'{name}' {shown(x)}" for name, x in list(value.items())[:3])


def _is_numbers(x: Any, dims: int) -> bool:
    return isinstance(x, np.ndarray) and x.ndim == dims and x.dtype.kind in "fiu"


def _spread(value: Mapping[str, Any], weight: Any, by_class: Array) -> dict[str, Any]:
    """A weight for each name, that of "proba" times one for each class."""
    each = weight if isinstance(weight, Mapping) else dict.fromkeys(value, weight)
    return {**each, "proba": np.asarray(each["proba"], float) * np.asarray(by_class, float)}


def _shares(n: Array) -> Array:
    """Class shares smoothed by half an example."""
    return np.asarray((n + 0.5) / (n.sum() + 0.5 * len(n)))


def _normal(z: Array, known: Array) -> Array:
    """Softmax over the classes that are known; zeros where none is."""
    any_known = known.any(axis=1, keepdims=True)
    return np.where(any_known, softmax(np.where(known, z, np.where(any_known, -np.inf, 0.0))), 0.0)


def _labelled(c: Contribution, proba: Array) -> Contribution:
    value: Any = c.value
    label = np.where(proba.max(axis=1, initial=0) > 0, proba.argmax(axis=1), -1)
    return replace(c, value={**value, "proba": proba, "label": label})
