"""Add contributions in cohort order, whatever the order in which they come."""

import math
from typing import Any

import numpy as np

from comity.core.contribution import Contribution
from comity.core.errors import ContributionError
from comity.core.tree import is_branch, leaves, tree_map

BLOCKS = 64


class Fold:
    """The sum of a cohort's lifted contributions in float64 (integers in int64).

    The cohort is cut into at most 64 blocks of consecutive positions. Within a block contributions are
    added in cohort order, and block sums in block order, so that the result depends neither on the order
    of arrival nor on who added which block. Memory is the running sum, the open blocks, and whatever
    arrived before its turn.
    """

    def __init__(self, asked: int) -> None:
        """Args: asked: the size of the cohort."""
        self.asked = asked
        self.size = max(1, math.ceil(asked / BLOCKS))
        self._open: dict[int, _Block] = {}
        self._done: dict[int, Contribution | None] = {}
        self._joined = 0
        self._total: Contribution | None = None
        self._shapes: Any = None

    def add(self, position: int, c: Contribution | None) -> None:
        """Take the contribution at a position of the cohort, or None when there will be none.

        Raises:
            ContributionError: its leaves differ from those taken before; the sum is unchanged.
        """
        if c is not None:
            self._same_shape(c)
        number = position // self.size
        end = min((number + 1) * self.size, self.asked)
        block = self._open.setdefault(number, _Block(number * self.size, end))
        block.take(position, c)
        if block.at == end:
            self._done[number] = self._open.pop(number).total
            self._join()

    def total(self) -> Contribution | None:
        """The sum over all; what has not come is absent. None when nothing came."""
        for number in range(self._joined, math.ceil(self.asked / self.size)):
            if number not in self._done:
                block = self._open.pop(number, None)
                self._done[number] = block.close() if block else None
        self._join()
        return self._total

    def _join(self) -> None:
        while self._joined in self._done:
            block = self._done.pop(self._joined)
            self._joined += 1
            if block is not None:
                self._total = block if self._total is None else _plus(self._total, block)

    def _same_shape(self, c: Contribution) -> None:
        shapes = _looks(c.value), _looks(c.weight)
        if shapes == self._shapes:
            return
        for path, x in leaves({"value": c.value, "weight": c.weight}):
            if _looks(x)[1] not in "fiub":
                raise ContributionError(f"{'.'.join(path)} does not add: only numbers do. Use combine=Collect().")
        if self._shapes is not None:
            raise ContributionError("Its names, shapes or weights do not add to what others sent.")
        self._shapes = shapes


class _Block:
    """Consecutive positions of the cohort: a running sum, and what came before its turn."""

    def __init__(self, start: int, end: int) -> None:
        self.at, self.end = start, end
        self.total: Contribution | None = None
        self._early: dict[int, Contribution | None] = {}

    def take(self, position: int, c: Contribution | None) -> None:
        self._early[position] = c
        while self.at in self._early:
            self._sum(self._early.pop(self.at))
            self.at += 1

    def close(self) -> Contribution | None:
        for position in sorted(self._early):
            self._sum(self._early.pop(position))
        return self.total

    def _sum(self, c: Contribution | None) -> None:
        if c is not None:
            self.total = _wide(c) if self.total is None else _plus(self.total, c)


def _wide(c: Contribution) -> Contribution:
    """A sum of one: copies that later contributions are added into."""
    metrics = {k: (float(s), float(n)) for k, (s, n) in c.metrics.items()}
    return Contribution(c.kind, tree_map(_widened, c.value), tree_map(_widened_weight, c.weight), metrics)


def _looks(x: Any) -> Any:
    """(shape, kind of number) of a leaf; of a branch, those of all that it holds."""
    if is_branch(x):
        return {k: _looks(v) for k, v in x.items()}
    a = x if isinstance(x, np.ndarray) else np.asarray(x)
    return a.shape, a.dtype.kind


def _widened(x: Any) -> Any:
    a = np.asarray(x)
    return np.array(a, np.float64 if a.dtype.kind == "f" else np.int64)


def _widened_weight(w: Any) -> Any:
    return np.array(w, np.float64) if np.ndim(w) else float(w)


def _plus(total: Contribution, c: Contribution) -> Contribution:
    """Add into `total`, whose arrays are its own."""
    tree_map(_into, total.value, c.value)
    weight = tree_map(lambda a, b: a + b, total.weight, c.weight)
    metrics = dict(total.metrics)
    for name, (s, n) in c.metrics.items():
        before = metrics.get(name, (0.0, 0.0))
        metrics[name] = (before[0] + s, before[1] + n)
    return Contribution(total.kind, total.value, weight, metrics)


def _into(a: Any, b: Any) -> None:
    np.add(a, b, out=a, casting="unsafe")
