"""What many participants do together: their contributions as one stack, how the work is done, and sums made near it."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypeAlias, overload

import numpy as np

from comity.core.contribution import Array, Contribution, Tree
from comity.core.envelope import Envelope, Receipt
from comity.core.round import Turns
from comity.core.spec import Spec
from comity.core.tree import Layout, is_branch, leaves

Executor: TypeAlias = Literal["sequential", "batched"]


@dataclass(frozen=True, slots=True)
class Plan:
    """How participants that are alike do their work. Chosen once, by measuring; then a fact in the ledger.

    Attributes:
        executor: "sequential" (one after the other) or "batched" (the steps of many at once).
        chunk: how many at once; 0 leaves it to whoever does the work.
        threads: of the numerical library during the work; None leaves them alone.
        reason: why, in one line.
        measured: was it found by measuring? What was not may be measured later.
    """

    executor: Executor = "sequential"
    chunk: int = 0
    threads: int | None = None
    reason: str = ""
    measured: bool = False


@dataclass(frozen=True, slots=True)
class Wish:
    """What is known before a plan is made.

    Attributes:
        executor: what the user pinned; None leaves it to measuring.
        ahead: contributions still to come in this run, this one included: measuring must pay.
        chunk: how many at once, pinned with the executor; None leaves it to measuring.
    """

    executor: Executor | None = None
    ahead: int = 1
    chunk: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Works:
    """What participants that are alike are asked to do together, by column.

    Attributes:
        who: the participants.
        shared: what each was given; the same object where it is the same.
        local: each one's drawer.
        rounds: the round as each knows it.
        secrets: each one's own.
    """

    who: Sequence[Any]
    shared: Sequence[Contribution]
    local: Sequence[Tree]
    rounds: Turns
    secrets: Sequence[Any]

    def __len__(self) -> int:
        return len(self.who)


class Lazy(Sequence[Any]):
    """A column whose entries are made when they are asked for: most are never."""

    def __init__(self, make: Callable[[str], Any], names: Sequence[str]) -> None:
        """Args: name to entry, and the names."""
        self._make, self._names = make, names

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, i: Any, /) -> Any:
        """The entry of the name at this position."""
        return self._make(self._names[i])


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """Contributions of one form, one above the other.

    Attributes:
        kind: of each.
        rows: (contributions, numbers) floats: each row the leaves of one value, in canonical order. Whoever makes a
            stack gives them away: they may be overwritten by whoever takes it.
        layout: where each leaf lies in a row.
        weight: (contributions,) float64.
        metrics: name to (contributions, 2) float64: sums and counts.
    """

    kind: str
    rows: Array
    layout: Layout
    weight: Array
    metrics: Mapping[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def is_whole(self) -> bool:
        """Has each its weight and metrics, and each row the numbers that the layout says?"""
        n = len(self.rows)
        pairs = all(np.shape(v) == (n, 2) for v in self.metrics.values())
        return np.shape(self.rows) == (n, self.layout.size) and np.shape(self.weight) == (n,) and pairs

    def one(self, i: int) -> Contribution:
        """One of them: its leaves are views of its row."""
        metrics = {k: (float(v[i, 0]), float(v[i, 1])) for k, v in self.metrics.items()}
        return Contribution(self.kind, self.layout.tree(self.rows[i]), float(self.weight[i]), metrics)

    def part(self, start: int, end: int) -> "Stack":
        """Those from `start` to before `end`: views."""
        metrics = {k: v[start:end] for k, v in self.metrics.items()}
        return replace(self, rows=self.rows[start:end], weight=self.weight[start:end], metrics=metrics)


class Together(Sequence[tuple[Contribution, Tree]]):
    """What `contribute_many` and `encode_many` give where contributions have one form: a stack, read one by one.

    Attributes:
        stack: the contributions.
        local: the drawer of each after it.
    """

    def __init__(self, stack: Stack, local: Sequence[Tree]) -> None:
        """Put contributions and drawers side by side."""
        self.stack, self.local = stack, local

    def __len__(self) -> int:
        return len(self.stack)

    def is_whole(self) -> bool:
        """Is there a drawer for each contribution, and do these fit together?"""
        return len(self.local) == len(self.stack) and self.stack.is_whole()

    @overload
    def __getitem__(self, i: int, /) -> tuple[Contribution, Tree]: ...
    @overload
    def __getitem__(self, i: slice, /) -> list[tuple[Contribution, Tree]]: ...
    def __getitem__(self, i: int | slice, /) -> Any:
        """One contribution and the drawer after it."""
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        return self.stack.one(i), self.local[i]


def faults(stack: Stack, spec: Spec) -> list[int]:
    """Which of a stack `check` might refuse, as lifted: all others it takes. Quicker than asking for each.

    Args:
        stack: lifted contributions.
        spec: what the method expects before `lift`.

    Returns:
        Their places, in order.
    """
    if not len(stack) or not _has_form(stack, spec):
        return list(range(len(stack)))
    with np.errstate(over="ignore", invalid="ignore"):
        sound = np.isfinite(np.vecdot(stack.rows, stack.rows)) & (stack.weight >= 0) & (stack.weight <= spec.max_weight)
    for pairs in stack.metrics.values():
        sound &= np.isfinite(pairs).all(1) & (pairs[:, 1] >= 0)
    return [] if sound.all() else np.flatnonzero(~sound).tolist()


def _has_form(stack: Stack, spec: Spec) -> bool:
    """Has it the names, shapes, dtype, kind and metrics that are asked for, without bounds for its numbers?"""
    layout = stack.layout
    wanted = list(leaves(spec.value)) if is_branch(spec.value) else []
    same = len(wanted) == len(layout.paths) and stack.rows.dtype.name == layout.dtype
    for (path, leaf), known, shape in zip(wanted, layout.paths, layout.shapes, strict=False):
        free = leaf.low == -math.inf and leaf.high == math.inf
        same = same and free and path == known and leaf.shape == shape and leaf.dtype == layout.dtype
    metrics = spec.metrics is None or stack.metrics.keys() <= spec.metrics
    return same and metrics and spec.kind in (None, stack.kind)


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """What `fit_many` gives: for each fit what `fit_local` would.

    Attributes:
        rows: (fits, numbers): the new parameters, a row for each, in canonical order.
        layout: where each parameter lies in a row.
        local: the local buffers of each afterwards.
        metrics: name to (fits, 2) float64, `examples` among them.
    """

    rows: Array
    layout: Layout
    local: Sequence[Tree]
    metrics: Mapping[str, Array]


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """One question for a run of neighbours in a cohort, whose answers are added near the work.

    Attributes:
        question: what each is asked; its `round.me` is "", and `round.asked` the size of the whole cohort.
        names: who is asked, in cohort order.
        start: the position of the first in the cohort; the run begins and ends where blocks do.
        receipts: of those who have one, by name.
        spec: what each contribution must look like, before `lift`.
        plans: how those who are alike work, by their label; who is not named works as `Plan()` says.
    """

    question: Envelope
    names: Sequence[str]
    start: int
    receipts: Mapping[str, Receipt]
    spec: Spec
    plans: Mapping[str, Plan] = field(default_factory=dict)

    def run(self, start: int, end: int) -> "Task":
        """The part of it from one position of the cohort to before another, with no more receipts than it needs."""
        names = self.names[start - self.start : end - self.start]
        mine = {n: self.receipts[n] for n in names if n in self.receipts}
        return replace(self, names=names, start=start, receipts=mine)


@dataclass(slots=True, eq=False)
class Part:
    """What came of a run of neighbouring blocks.

    Attributes:
        first: the first block.
        last: the last one; more than one only where the first is block 0: blocks are added in their order.
        sum: of the lifted and encoded contributions of these blocks, in wide numbers; None where there are none.
        start: the position of the first member in the cohort.
        up: bytes of each member's answer, in cohort order; 0 where none came.
        accepted: whose contributions are in the sum, in cohort order.
        refused: name and reason.
        dropped: name and reason.
    """

    first: int
    last: int
    sum: Contribution | None
    start: int
    up: list[int]
    accepted: list[bool]
    refused: list[tuple[str, str]] = field(default_factory=list)
    dropped: list[tuple[str, str]] = field(default_factory=list)


class Door(Protocol):
    """The sites of one process, as an engine reaches them. Only `__call__` is needed; a plain function will do.

    An engine with several processes sends `away()` to each of them once. Drawers stay where the run is: those that a
    worker needs are lent to it (`lend`, then `visit` over there), and what it changed comes back (`touched` over there,
    then `keep`). All of it pickles: it never crosses a trust boundary.
    """

    def __call__(self, asked: Envelope) -> Envelope:
        """Answer as the site named in `asked.round.me`."""
        ...

    def many(self, asked: Iterable[Envelope]) -> Iterator[Envelope]:
        """The answers that `__call__` gives one by one, in the order of the questions."""
        ...

    def total(self, task: Task) -> Iterator[Part]:
        """Ask a run of neighbours and add what they give: one Part where it begins at block 0, else one a block."""
        ...

    def planned(self, task: Task) -> Task:
        """The same task with a plan for those who are alike at its beginning: measured, recorded, or known already."""
        ...

    def away(self) -> "Door":
        """The same sites without drawers, to be sent to another process of the same owner."""
        ...

    def lend(self, names: Iterable[str]) -> Mapping[str, Any]:
        """The drawers of these sites that hold something."""
        ...

    def visit(self, drawers: Mapping[str, Any]) -> None:
        """Hold exactly these drawers, none of them touched."""
        ...

    def touched(self) -> Mapping[str, Any]:
        """The drawers that changed since `visit` (or since the last save)."""
        ...

    def keep(self, drawers: Mapping[str, Any]) -> None:
        """Take back drawers that changed elsewhere."""
        ...
