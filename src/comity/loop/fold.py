"""Add contributions in cohort order, whatever the order in which they come."""

import math
from collections.abc import Iterator
from dataclasses import replace
from operator import add
from typing import Any

import numpy as np

from comity.core.contribution import Array, Contribution
from comity.core.errors import ContributionError
from comity.core.together import Stack
from comity.core.tree import is_branch, leaves, ravel, tree_map

BLOCKS, HELD = 64, 2**18
"""The most blocks of a cohort, and the most numbers that are widened at once."""


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
        self.blocks = math.ceil(asked / self.size)
        self._open: dict[int, _Block] = {}
        self._done: dict[int, _Sum | Contribution | None] = {}
        self._joined = 0
        self._total: _Sum | None = None
        self._shapes: Any = None

    def add(self, position: int, c: Contribution | None) -> None:
        """Take the contribution at a position of the cohort, or None when there will be none.

        Raises:
            ContributionError: its leaves differ from those taken before; the sum is unchanged.
        """
        if c is not None:
            c = c if type(c.weight) is float else replace(c, weight=tree_map(_float_weight, c.weight))
            self._same_shape(c)
        number = position // self.size
        block = self._opened(number)
        block.take(position, c)
        self._closed(number, block)

    def add_many(self, position: int, stack: Stack) -> None:
        """As `add` for each of a stack, the first at `position`; those before it in its block have been added.

        Raises:
            ContributionError: as `add`.
        """
        self._same_shape(stack.one(0))
        while len(stack):
            number, inside = divmod(position, self.size)
            whole = len(stack) // self.size * self.size
            if inside == 0 and number == self._joined and whole:
                self._add_to_total(stack.part(0, whole))
                n = whole
            else:
                block = self._opened(number)
                n = min(block.end - position, len(stack))
                block.take_many(stack.part(0, n))
                self._closed(number, block)
            position, stack = position + n, stack.part(n, len(stack))

    def _add_to_total(self, stack: Stack) -> None:
        """Whole blocks, whose turn it is."""
        n = self.size
        self._joined += len(stack) // n
        if self._total is None:
            begin = len(stack) if n == 1 else n
            self._total, stack = _Sum(stack.one(0), stack.part(0, begin)), stack.part(begin, len(stack))
        step = n * max(1, HELD // (n * stack.rows.shape[1]))
        for i in range(0, len(stack), step):
            self._total.add_blocks(stack.part(i, i + step), n)
        self._join()

    def take(self, first: int, last: int, c: Contribution | None) -> None:
        """Take the sum of the blocks `first` to `last`, added elsewhere; None when nothing came of them.

        Args:
            first: the number of the first block.
            last: of the last; another than `first` only where that is 0.
            c: their sum, in wide numbers.

        Raises:
            ContributionError: as `add`.
        """
        assert first == last or (first == 0 and self._joined == 0 and self._total is None)
        if c is not None:
            self._same_shape(c)
        self._done[last] = c
        if first < last:
            self._joined = last
        self._join()

    def finished(self) -> Iterator[tuple[int, Contribution | None]]:
        """The sums of the blocks that are complete and were not given before, by number; they leave the fold."""
        for number in sorted(self._done):
            block = self._done.pop(number)
            yield number, block.all() if isinstance(block, _Sum) else block

    def _opened(self, number: int) -> "_Block":
        start = number * self.size
        end = min(start + self.size, self.asked)
        return self._open.get(number) or self._open.setdefault(number, _Block(start, end))

    def _closed(self, number: int, block: "_Block") -> None:
        if block.at == block.end:
            self._done[number] = self._open.pop(number).sum
            self._join()

    def total(self) -> Contribution | None:
        """The sum over all; what has not come is absent. None when nothing came."""
        for number in range(self._joined, self.blocks):
            if number not in self._done:
                block = self._open.pop(number, None)
                self._done[number] = block.close() if block else None
        self._join()
        return self._total.all() if self._total is not None else None

    def _join(self) -> None:
        while self._joined in self._done:
            block = self._done.pop(self._joined)
            self._joined += 1
            if block is not None and self._total is not None:
                self._total.add(block)
            elif block is not None:
                self._total = _summed(block)

    def _same_shape(self, c: Contribution) -> None:
        if self._shapes is not None and _fits(c.value, self._shapes[0]) and _fits(c.weight, self._shapes[1]):
            return
        for path, x in leaves({"value": c.value, "weight": c.weight}):
            if _looks(x)[1] not in "fiub":
                raise ContributionError(f"{'.'.join(path)} does not add: only numbers do. Use combine=Collect().")
        if self._shapes is not None:
            raise ContributionError("Its names, shapes or weights do not add to what others sent.")
        self._shapes = _looks(c.value), _looks(c.weight)


class _Block:
    """Consecutive positions of the cohort: a running sum, and what came before its turn."""

    def __init__(self, start: int, end: int) -> None:
        self.at, self.end = start, end
        self.sum: _Sum | Contribution | None = None
        self._early: dict[int, Contribution | None] = {}

    def take(self, position: int, c: Contribution | None) -> None:
        if position == self.at:
            self._add(c)
            self.at += 1
        else:
            self._early[position] = c
        while self.at in self._early:
            self._add(self._early.pop(self.at))
            self.at += 1

    def take_many(self, stack: Stack) -> None:
        """Those that are next."""
        assert not self._early
        self.at += len(stack)
        if self.sum is not None:
            self.sum = _summed(self.sum)
            self.sum.add_many(stack)
        elif len(stack) == 1:
            self.sum = stack.one(0)
        else:
            self.sum = _Sum(stack.one(0), stack)

    def close(self) -> "_Sum | Contribution | None":
        for position in sorted(self._early):
            self._add(self._early.pop(position))
        return self.sum

    def _add(self, c: Contribution | None) -> None:
        if c is None:
            return
        if self.sum is None:
            self.sum = c
        else:
            self.sum = _summed(self.sum)
            self.sum.add(c)


class _Sum:
    """A running sum in wide numbers, whose arrays are its own."""

    def __init__(self, c: Contribution, rest: Stack | None = None) -> None:
        """Begin with one contribution, or with all of a stack, of which it is the first."""
        self.kind = c.kind
        self.weight: Any = tree_map(_widened_weight, c.weight)
        self.metrics = {k: (float(s), float(n)) for k, (s, n) in c.metrics.items()}
        self._flat: Array | None = None
        if rest is None:
            self.value = tree_map(_widened, c.value)
        else:
            self._flat = _added(rest.rows)
            self.value = rest.layout.tree(self._flat)
            self._count(rest.part(1, len(rest)))

    def add(self, c: "Contribution | _Sum") -> None:
        tree_map(_into, self.value, c.value)
        weight: Any = c.weight
        plain = type(weight) is float and type(self.weight) is float
        self.weight = self.weight + weight if plain else tree_map(add, self.weight, weight)
        for name, (s, n) in c.metrics.items():
            before = self.metrics.get(name, (0.0, 0.0))
            self.metrics[name] = (before[0] + s, before[1] + n)

    def add_many(self, stack: Stack) -> None:
        """As `add` for each row, one after the other."""
        self._add_rows(stack)
        self._count(stack)

    def add_blocks(self, stack: Stack, size: int) -> None:
        """As `add` for the sum of each block of so many."""
        if size == 1:
            return self.add_many(stack)
        sums = np.array(stack.rows[::size], np.float64)
        for i in range(1, size):
            np.add(sums, stack.rows[i::size], out=sums, casting="unsafe")
        weight = _stepwise(stack.weight, size)
        metrics = {k: _stepwise(v, size) for k, v in stack.metrics.items()}
        return self.add_many(replace(stack, rows=sums, weight=weight, metrics=metrics))

    def _add_rows(self, stack: Stack) -> None:
        if self._flat is None:
            self._flat = np.array(ravel(self.value), np.float64)
            self.value = stack.layout.tree(self._flat)
        for row in stack.rows:
            np.add(self._flat, row, out=self._flat, casting="unsafe")

    def _count(self, stack: Stack) -> None:
        """Add weights and metrics."""
        for w in stack.weight.tolist():
            self.weight = self.weight + w
        for name, pairs in stack.metrics.items():
            total, count = self.metrics.get(name, (0.0, 0.0))
            for s, n in pairs.tolist():
                total, count = total + s, count + n
            self.metrics[name] = (total, count)

    def all(self) -> Contribution:
        return Contribution(self.kind, self.value, self.weight, self.metrics)


def _stepwise(x: Array, size: int) -> Array:
    """The sums of so many neighbours each, one after the other."""
    out: Array = x[::size].copy()
    for i in range(1, size):
        out += x[i::size]
    return out


def _added(rows: Array) -> Array:
    """The sum of all rows, one after the other: numpy adds in this order wherever a row has more than one number."""
    out: Array
    if rows.shape[1] > 1:
        out = np.add.reduce(rows, axis=0, dtype=np.float64)
    else:
        out = np.add.accumulate(rows, axis=0, dtype=np.float64)[-1].copy()
    return out


def _summed(c: "_Sum | Contribution") -> "_Sum":
    """A sum of one is widened only when another is to be added."""
    return c if isinstance(c, _Sum) else _Sum(c)


def _looks(x: Any) -> Any:
    """(shape, kind of number) of a leaf; of a branch, those of all that it holds."""
    if is_branch(x):
        return {k: _looks(v) for k, v in x.items()}
    a = x if isinstance(x, np.ndarray) else np.asarray(x)
    return a.shape, a.dtype.kind


def _fits(x: Any, looks: Any) -> bool:
    """Is `looks` what this leaf or branch looks like? As `_looks(x) == looks`, without making it."""
    if type(x) is np.ndarray:
        return type(looks) is tuple and looks == (x.shape, x.dtype.kind)
    if type(x) is float:
        return looks == ((), "f")  # type: ignore[no-any-return]
    if is_branch(x):
        alike = type(looks) is dict and x.keys() == looks.keys()
        return alike and all(_fits(v, looks[k]) for k, v in x.items())
    return bool(_looks(x) == looks)


def _widened(x: Any) -> Any:
    a = np.asarray(x)
    return np.array(a, np.float64 if a.dtype.kind == "f" else np.int64)


def _float_weight(w: Any) -> Any:
    """Weights are floats, so that 20, 20.0 and a 0-d array of it add; what is no number stays, to be refused."""
    a = np.asarray(w)
    return w if a.dtype.kind not in "fiub" else a.astype(np.float64) if a.ndim else float(a)


def _widened_weight(w: Any) -> Any:
    return np.array(w, np.float64) if np.ndim(w) else float(w)


def _into(a: Any, b: Any) -> None:
    np.add(a, b, out=a, casting="unsafe")
