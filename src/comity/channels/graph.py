"""Who shares with whom: a circulant graph on a committed random order (Bell et al., CCS 2020), and its parameters."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from comity.core.errors import ConfigError

COMPLETE_BELOW = 30
PRIVACY, LIVENESS = 40.0, 30.0
MOST_MISSING = 8


@dataclass(frozen=True)
class Graph:
    """Each of `n` in a circle is tied to its nearest `degree`; complete where that is everybody.

    Attributes:
        n: how many there are.
        degree: neighbours of each, even, or n - 1.
        threshold: shares that give a secret back. Holders are the neighbours and the owner.

    Example:
        >>> Graph(6, 2, 2).neighbours(0), Graph(6, 2, 2).x(owner=0, holder=5), Graph(3, 2, 2).neighbours(1)
        ((1, 5), 3, (0, 2))
    """

    n: int
    degree: int
    threshold: int

    @property
    def complete(self) -> bool:
        """Is everybody everybody's neighbour?"""
        return self.degree >= self.n - 1

    def neighbours(self, i: int) -> tuple[int, ...]:
        """The neighbours of `i`: by position where the graph is complete, else i + 1, i - 1, i + 2, ..."""
        return _neighbours(self.n, self.degree, i)

    def holders(self, i: int) -> tuple[int, ...]:
        """Who holds shares of the secrets of `i`: itself, and its neighbours."""
        return (i, *self.neighbours(i))

    def x(self, owner: int, holder: int) -> int:
        """Where the polynomial of `owner` is evaluated for `holder`.

        Its position and 1 in a complete graph, else its place among the holders, from 1 on: where all answer, the
        weights of Lagrange are then the same for each.
        """
        if self.complete:
            return holder + 1
        step = (holder - owner) % self.n
        if step == 0:
            return 1
        return 2 * step if 2 * step <= self.degree else 2 * (self.n - step) + 1


@lru_cache(maxsize=2**15)
def _neighbours(n: int, degree: int, i: int) -> tuple[int, ...]:
    if degree >= n - 1:
        return (*range(i), *range(i + 1, n))
    return tuple((i + s) % n for d in range(1, degree // 2 + 1) for s in (d, -d))


@dataclass(frozen=True)
class Odds:
    """What a graph must withstand.

    Attributes:
        corrupt: the share of participants who work together with the hub.
        dropout: the share that drops out.
        malicious: may the hub leave the protocol?
    """

    corrupt: float = 0.1
    dropout: float = 0.1
    malicious: bool = True

    def liars(self, n: int) -> int:
        """How many work together with the hub, at least one."""
        return max(1, math.ceil(self.corrupt * n))

    def missing(self, n: int) -> int:
        """How many may keep their nonces to themselves once all are committed to.

        A lying hub can try every choice of them until it likes the order: their number is what it can grind, and is
        charged to the graph.
        """
        most = max(1, math.ceil(self.dropout * n))
        return min(most, MOST_MISSING) if self.malicious else most


def plan(n: int, share: float, odds: Odds, degree: int | None = None) -> Graph:
    """The graph of a cohort.

    Args:
        n: how many are in it.
        share: the share that must answer.
        odds: what it must withstand.
        degree: neighbours of each; None for as few as are enough, everybody below 30 participants.

    Raises:
        ConfigError: with `degree` neighbours the odds do not hold.
    """
    if degree is None and n >= COMPLETE_BELOW:
        found = parameters(n, odds)
        if found is not None:
            return Graph(n, *found)
    if degree is None or degree >= n - 1:
        return Graph(n, n - 1, whole(n, share, odds))
    t = _least_threshold(n, degree, odds)
    if t is None:
        need = parameters(n, odds)
        use = f"degree={need[0]}" if need else "degree=None for the complete graph"
        raise ConfigError(
            f"The 'degree' of SecAgg must be enough for {n} participants, corrupt={odds.corrupt} and "
            f"dropout={odds.dropout}. Got {degree}. Use {use}."
        )
    return Graph(n, degree, t)


def whole(n: int, share: float, odds: Odds) -> int:
    """The threshold of a complete graph of `n`.

    Two different lists of survivors would need t shares of both kinds, of n + liars there are: 2t > n + liars
    (Bonawitz et al., CCS 2017, section 6.2). Where the hub keeps to the protocol, more than the liars are enough.
    """
    liars = odds.liars(n)
    least = (n + liars) // 2 + 1 if odds.malicious else liars + 1
    return min(n, max(least, math.ceil(share * n - 1e-9)))


@lru_cache(maxsize=1024)
def parameters(n: int, odds: Odds) -> tuple[int, int] | None:
    """The least even degree and its threshold; None where only the complete graph will do.

    Privacy fails with a probability of at most 2^-40 for all participants together and whatever choice of missing
    nonces a lying hub tries (a union bound), liveness with 2^-30. See `_least_threshold`.
    """
    for degree in range(4, n - 1, 2):
        t = _least_threshold(n, degree, odds)
        if t is not None:
            return degree, t
    return None


@lru_cache(maxsize=4096)
def _least_threshold(n: int, k: int, odds: Odds) -> int | None:
    """The least threshold at which privacy holds for `k` neighbours, where it is also live.

    With c of the k neighbours corrupt, a malicious hub has both secrets of one participant where 2t <= k + 1 + c, as
    each honest holder gives one kind only; it can cut the honest survivors in two, by whom it calls dropped, where the
    last before the cut is recovered from k/2 + 1 holders on its own side and the c' corrupt among the k/2 beyond it:
    t <= k/2 + 1 + c'. Where the hub is honest but curious t <= c must not be, and no k/2 in a row corrupt or gone.
    The bounds are ours, of hypergeometric tails, and differ from the paper's, whose graph is another for a lying hub.
    """
    liars, gone = odds.liars(n), math.ceil(odds.dropout * n)
    near, half = tails(n - 1, liars, k), tails(n - 1, liars, k // 2)
    slack = 2.0 ** -(PRIVACY + _ground(n, odds)) / n
    if not odds.malicious and tails(n - 1, min(liars + gone, n - 1), k // 2)[k // 2] > slack:
        return None
    lost = tails(n - 1, min(gone, n - 1), k)
    for t in range(2, k + 1):
        both, apart = _tail(near, 2 * t - k - 1), 2 * _tail(half, t - k // 2 - 1)
        bad = max(both, apart) if odds.malicious else _tail(near, t)
        if bad <= slack:
            return t if n * _tail(lost, k - t + 1) <= 2.0**-LIVENESS else None
    return None


def _ground(n: int, odds: Odds) -> float:
    """Bits that a lying hub can grind: the choices of missing nonces."""
    return math.log2(sum(math.comb(n, i) for i in range(odds.missing(n) + 1))) if odds.malicious else 0.0


def _tail(tails: Sequence[float], x: int) -> float:
    return 1.0 if x <= 0 else tails[x] if x < len(tails) else 0.0


@lru_cache(maxsize=1024)
def tails(n: int, marked: int, drawn: int) -> tuple[float, ...]:
    """P(at least x of the drawn are marked) for x = 0..drawn: the hypergeometric distribution, by logarithms."""
    out, total = [0.0] * (drawn + 1), 0.0
    for x in range(min(drawn, marked), -1, -1):
        if drawn - x <= n - marked:
            total += math.exp(_choose(marked, x) + _choose(n - marked, drawn - x) - _choose(n, drawn))
        out[x] = min(total, 1.0)
    return tuple(out)


def _choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def ordered(names: Sequence[str], beacon: bytes) -> tuple[str, ...]:
    """The names in the order of sha256(beacon, name): nobody can choose it who does not choose the beacon."""
    return tuple(sorted(names, key=lambda name: (hashlib.sha256(beacon + name.encode()).digest(), name)))


def cut(order: Sequence[str], size: int | None) -> list[tuple[str, ...]]:
    """The order in groups of `size` to 2 size - 1, whose sizes differ by one at most; in one where `size` is None."""
    count = 1 if size is None else max(1, len(order) // size)
    ends = [len(order) * i // count for i in range(count + 1)]
    return [tuple(order[a:b]) for a, b in pairwise(ends)]
