"""How a cohort is cut into runs of blocks for several workers, and what is known of the time that members take."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import prod
from typing import Any

from comity.core.together import Task
from comity.core.tree import leaves

BLOCKS = 64
"""The most blocks that a cohort is cut into, as in the fold."""
PUSHED, TAIL = 0.8, 4
"""The share of the work that is handed out at once; into how many lots for each worker the rest is cut."""
GRAIN, SMALL = 0.002, 0.02
"""Seconds: a lot that is worth a message, and a cohort that is not worth a tail."""
WAITING = 2**28
"""Bytes of block sums that may wait for their turn."""
REMEMBERED = 2**17


@dataclass(frozen=True, slots=True)
class Lot:
    """A run of neighbouring blocks, both ends included."""

    first: int
    last: int


class Costs:
    """Seconds that each member's work took, as far as it is known."""

    def __init__(self) -> None:
        """Nothing is known."""
        self._of: dict[str, float] = {}
        self.mean: float | None = None

    def of(self, names: Iterable[str]) -> list[float]:
        """Seconds for each: what it took, else the mean; 1.0 for all where nothing is known."""
        usual = 1.0 if self.mean is None else self.mean
        return [self._of.get(name, usual) for name in names]

    def learn(self, names: Sequence[str], seconds: float) -> None:
        """Their work took so long in all: each is moved half-way to its share."""
        if not names or seconds <= 0:
            return
        each = seconds / len(names)
        self.mean = each if self.mean is None else (self.mean + each) / 2
        guesses = self.of(names)
        ratio = seconds / sum(guesses)
        if len(self._of) > REMEMBERED:
            self._of.clear()
        for name, guess in zip(names, guesses, strict=True):
            self._of[name] = guess * (1 + ratio) / 2 if name in self._of else guess * ratio


def block_size(asked: int) -> int:
    """Members of a block."""
    return max(1, -(-asked // BLOCKS))


def by_block(costs: Sequence[float]) -> list[float]:
    """What each block of a cohort costs."""
    size = block_size(len(costs))
    return [sum(costs[i : i + size]) for i in range(0, len(costs), size)]


def cut(costs: Sequence[float], workers: int, *, room: int, seconds: bool = False) -> list[Lot]:
    """Runs of blocks, in the order in which they are handed out.

    The first begins at block 0. Most of the work is one run for each worker; the rest, in smaller lots, is for
    whoever is free, the longest first. Where fewer than all block sums but those of the first run may wait for their
    turn, every block is a lot, in order.

    Args:
        costs: of each block.
        workers: how many share the work, >= 1.
        room: how many block sums may wait for their turn.
        seconds: are the costs measured? Then what takes no time is not cut further.

    Example:
        >>> cut([1.0] * 10, 2, room=99)
        [Lot(first=0, last=3), Lot(first=4, last=7), Lot(first=8, last=8), Lot(first=9, last=9)]
    """
    n, total = len(costs), sum(costs)
    sums = list(accumulate(costs))
    share = PUSHED if workers > 1 and not (seconds and total < SMALL) else 1.0
    ends = [_until(sums, total * share * i / workers) for i in range(1, workers + 1)]
    if workers > 1 and n - max(1, ends[0]) > room:
        return [Lot(i, i) for i in range(n)]
    runs = _runs([0, *ends])
    grain = max(total * (1 - share) / (TAIL * workers), GRAIN if seconds else 0.0)
    bounds, held = [ends[-1]], 0.0
    for i in range(ends[-1], n):
        held += costs[i]
        if held >= grain * (1 - 1e-9) or i == n - 1:
            bounds.append(i + 1)
            held = 0.0
    tail = sorted(_runs(bounds), key=lambda lot: -sum(costs[lot.first : lot.last + 1]))
    return [*runs, *tail]


def _until(sums: Sequence[float], cost: float) -> int:
    """How many blocks come nearest to this cost."""
    i = bisect_left(sums, cost * (1 - 1e-9))
    if i >= len(sums):
        return len(sums)
    before = sums[i - 1] if i else 0.0
    return i + 1 if sums[i] - cost <= cost - before else i


def _runs(bounds: Sequence[int]) -> list[Lot]:
    return [Lot(a, b - 1) for a, b in pairwise(bounds) if b > a]


def room_for(task: Task) -> int:
    """How many block sums of this task may wait for their turn: those of small models all, of large ones a few."""
    asked = sum(getattr(x, "size", 0) for _, x in leaves(task.question.body.value))
    told = sum(_numbers(leaf) for _, leaf in leaves(task.spec.value))
    return WAITING // (8 * max(asked, told, 1))


def _numbers(leaf: Any) -> int:
    shape = getattr(leaf, "shape", None)
    return prod(shape) if shape is not None and None not in shape else 0
