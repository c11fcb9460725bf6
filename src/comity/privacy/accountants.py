"""From releases to epsilon or delta, with dp-accounting: privacy loss distributions (PLD), and Rényi divergences (RDP).

`noise` of a release is over the sensitivity where one unit is added or removed. Two things are not left to the library,
whose accountants mean different things by it where one unit is replaced by another:

- Replacing doubles the sensitivity: the noise counts half.
- So does a sample of fixed size: whoever comes in takes the place of another. A unit more or less then changes a sum
  by twice the clip, with probability `rate` (Zhu, Dong and Wang, AISTATS 2022, Theorem 11).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, TypeAlias

import numpy as np

from comity.core.contribution import Array
from comity.core.errors import ConfigError
from comity.privacy.bounds import subsampled
from comity.privacy.releases import Release, Totals

ADD_REMOVE, REPLACE = "add-remove", "replace-one"
INTERVAL = 1e-4
"""Of the grid of privacy losses, in nats: dp-accounting's usual."""
MOST = 64.0
"""Above this epsilon only the RDP bound is taken: such a guarantee says little, and the grid would be huge."""
FEW = 10.0
"""Noise above which fractional Rényi orders are left out: the series of dp-accounting does not always converge."""
PURE = ("laplace", "response")
RINGED = ("skellam", "discrete-gaussian")
Counted: TypeAlias = tuple[tuple[Release, int], ...]


@dataclass(frozen=True)
class Bound:
    """An answer: epsilon or delta, and the accountant whose it is: "pld", "rdp" or "pure"."""

    value: float
    accountant: str


def epsilon_of(totals: Totals, delta: float, adjacency: str, accountant: str) -> Bound:
    """The smallest epsilon that can be shown at this delta; by "pld" the better of PLD and RDP."""
    return _answer(tuple(sorted(totals.items())), delta, adjacency, accountant, False)


def delta_of(totals: Totals, epsilon: float, adjacency: str, accountant: str) -> Bound:
    """The smallest delta that can be shown at this epsilon."""
    return _answer(tuple(sorted(totals.items())), epsilon, adjacency, accountant, True)


def credited(release: Release, adjacency: str, accountant: str) -> bool:
    """Does this accountant make the guarantee better for the sampling of this release?"""
    if release.sampling == "none" or release.mechanism in ("response", "tree"):
        return False
    if adjacency == ADD_REMOVE:
        return True
    return release.mechanism == "gaussian" and (release.sampling, accountant) in (("poisson", "pld"), ("fixed", "rdp"))


@lru_cache(maxsize=1024)
def _answer(totals: Counted, given: float, adjacency: str, accountant: str, asked: bool) -> Bound:
    """Delta at a given epsilon where `asked` is true, else epsilon at a given delta."""
    totals = tuple((r, n) for r, n in totals if n and not (r.mechanism == "response" and r.noise == 0))
    if any(r.noise == 0 for r, _ in totals):
        return Bound(1.0 if asked else math.inf, accountant)
    if not asked and given == 0:
        return Bound(_pure(totals, adjacency), "pure")
    lib = library()
    curve = sum((_rdp(r, n, adjacency) for r, n in totals), np.zeros(len(_orders())))
    find = lib.rdp.compute_delta if asked else lib.rdp.compute_epsilon
    loose = Bound(float(find(_orders(), curve, given)[0]), "rdp")
    size = _size(totals, adjacency)
    if accountant == "rdp" or size > MOST or not totals or any(r.mechanism in RINGED for r, _ in totals):
        return loose
    loss = _composed(totals, adjacency, _interval(totals, size))
    tight = loss.get_delta_for_epsilon(given) if asked else loss.get_epsilon_for_delta(given)
    return min(Bound(float(tight), "pld"), loose, key=lambda b: b.value)


def _size(totals: Counted, adjacency: str) -> float:
    """Roughly the epsilon that PLD would find: how large its grid would be."""
    seen = ((r, n, *_seen(r, adjacency, credited(r, adjacency, "pld"))) for r, n in totals)
    alike = [(Release(r.mechanism, noise, rate, "poisson" if rate < 1 else "none"), n) for r, n, noise, rate in seen]
    curve = sum((_rdp(r, n, ADD_REMOVE) for r, n in alike), np.zeros(len(_orders())))
    return float(library().rdp.compute_epsilon(_orders(), curve, 1e-5)[0])


def _pure(totals: Counted, adjacency: str) -> float:
    """Epsilon at delta 0, by adding them up."""
    total = 0.0
    for release, count in totals:
        if release.mechanism not in PURE:
            return math.inf
        noise, rate = _seen(release, adjacency, credited(release, adjacency, "pure"))
        own = noise if release.mechanism == "response" else 1 / noise
        total += count * (own if rate == 1 else math.log1p(rate * math.expm1(own)))
    return total


def _seen(release: Release, adjacency: str, credit: bool) -> tuple[float, float]:
    """The noise over the sensitivity that counts, and the rate that is credited."""
    halved = release.mechanism != "response" and (adjacency == REPLACE or release.sampling == "fixed")
    return release.noise / (2 if halved else 1), release.rate if credit else 1.0


@lru_cache(maxsize=1024)
def _rdp(release: Release, count: int, adjacency: str) -> Array:
    """Rényi divergences of so many releases at each of the orders."""
    if release.mechanism == "tree":
        noise, _ = _seen(release, adjacency, False)
        return _height(count) * _orders() / (2 * noise**2)
    return count * _one(release, adjacency)


@lru_cache(maxsize=256)
def _one(release: Release, adjacency: str) -> Array:
    credit, orders = credited(release, adjacency, "rdp"), _orders()
    noise, rate = _seen(release, adjacency, credit)
    if release.mechanism == "gaussian":
        return orders / (2 * noise**2) if rate == 1 else _gaussian(noise, rate, wor=adjacency == REPLACE)
    wholes = np.arange(2.0, orders.max() + 1)
    if release.mechanism == "response":
        return _told(_response(release.noise), orders, "REPLACE_ONE")
    if release.mechanism == "laplace":
        event = library().dp.LaplaceDpEvent(noise)
        own, at = _told(event, orders), _told(event, wholes) if rate < 1 else wholes
    else:  # that of Skellam is a bound for whole orders
        holds = (orders % 1 == 0) | (release.mechanism == "discrete-gaussian")
        own, at = np.where(holds, orders / (2 * noise**2), np.inf), wholes / (2 * noise**2)
    return own if rate == 1 else subsampled(np.concatenate([[0.0, 0.0], at]), rate, orders)


def _gaussian(noise: float, rate: float, *, wor: bool) -> Array:
    """Of a sampled Gaussian. Where one unit is replaced, a sample of fixed size (Wang, Balle, Kasiviswanathan 2019)."""
    dp, orders = library().dp, _orders()
    good = orders >= 2 if noise <= FEW else (orders >= 2) & (orders % 1 == 0)
    event = dp.GaussianDpEvent(noise)
    many = 10**9
    drawn = dp.SampledWithoutReplacementDpEvent(many, math.ceil(rate * many), event)
    out = np.full(len(orders), np.inf)
    out[good] = _told(drawn if wor else dp.PoissonSampledDpEvent(rate, event), orders[good], *["REPLACE_ONE"] * wor)
    return out


def _told(event: Any, orders: Array, relation: str = "ADD_OR_REMOVE_ONE") -> Array:
    """What dp-accounting says of an event at these orders."""
    dp = library().dp
    found = dp.rdp.RdpAccountant(orders, getattr(dp.NeighboringRelation, relation)).compose(event)
    return np.asarray(found.rdp)


def _response(epsilon: float) -> Any:
    """Randomised response among two answers, which is the worst that has this epsilon."""
    return library().dp.RandomizedResponseDpEvent(2 / (1 + math.exp(min(epsilon, 700.0))), 2)


def _height(steps: int) -> int:
    """Nodes of a binary tree over so many steps that one step is in."""
    return math.ceil(math.log2(steps + 1))


def _composed(totals: Counted, adjacency: str, interval: float) -> Any:
    """The privacy loss distribution of all of them; Gaussians without sampling are one Gaussian."""
    flat, losses = 0.0, []
    for release, count in totals:
        credit = credited(release, adjacency, "pld")
        noise, rate = _seen(release, adjacency, credit)
        if release.mechanism in ("gaussian", "tree") and rate == 1:
            flat += (_height(count) if release.mechanism == "tree" else count) / noise**2
        else:
            replaced = adjacency == REPLACE and release.mechanism == "gaussian"
            shown = Release(release.mechanism, release.noise if replaced else noise, rate)
            losses.append(_loss(shown, interval, replaced).self_compose(count))
    if flat:
        losses.append(_loss(Release("gaussian", 1 / math.sqrt(flat)), interval, False))
    return _product(losses)


def _product(losses: Iterable[Any]) -> Any:
    first, *more = losses
    for loss in more:
        first = first.compose(loss)
    return first


@lru_cache(maxsize=16)
def _loss(release: Release, interval: float, replaced: bool) -> Any:
    """The privacy loss distribution of one release."""
    lib = library()
    grid = {"value_discretization_interval": interval}
    if release.mechanism == "response":
        return lib.pld.from_privacy_parameters(lib.common.DifferentialPrivacyParameters(release.noise, 0.0), **grid)
    if release.mechanism == "laplace":
        return lib.pld.from_laplace_mechanism(release.noise, sampling_prob=release.rate, **grid)
    relations = lib.dp.NeighboringRelation
    relation = relations.REPLACE_ONE if replaced else relations.ADD_OR_REMOVE_ONE
    return lib.pld.from_gaussian_mechanism(
        release.noise, sampling_prob=release.rate, neighboring_relation=relation, **grid
    )


def _interval(totals: Counted, epsilon: float) -> float:
    """The usual interval, or a finer one where each release loses so little that it would round much of it up."""
    least = min(r.noise if r.mechanism == "response" else r.rate / r.noise for r, _ in totals) / 5
    wanted = max(least, epsilon * 1e-5, 1e-7)
    return min(INTERVAL, 10.0 ** math.floor(math.log10(wanted)))


@cache
def _orders() -> Array:
    return np.asarray(library().dp.rdp.RdpAccountant().orders)


@dataclass(frozen=True)
class Library:
    """What of dp-accounting is used."""

    dp: Any
    rdp: Any
    pld: Any
    common: Any


@cache
def library() -> Library:
    """dp-accounting, loaded when the first figure is asked for: it takes a second.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import dp_accounting
        from dp_accounting.pld import common, privacy_loss_distribution
        from dp_accounting.rdp import rdp_privacy_accountant
    except ImportError:
        raise ConfigError(
            "dp-accounting must be installed to compute epsilon. It is missing. Run: pip install comity[privacy]."
        ) from None
    return Library(dp_accounting, rdp_privacy_accountant, privacy_loss_distribution, common)
