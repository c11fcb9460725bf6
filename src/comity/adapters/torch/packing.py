"""Which rows go into which step: the batches of many clients as one index, longest clients first."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from comity.core.contribution import Array
from comity.core.round import Turns

ORDERS = 2**22
"""So many places of samples are shuffled in one go."""


@dataclass(frozen=True, eq=False)
class Laid:
    """The batches of some clients, longest first.

    Attributes:
        index: (clients, steps, rows) of each batch in its client's data; unused places hold 0.
        counts: (clients, steps) rows in use; 0 once a client is done.
        share: (clients, steps, rows) float64, one over `counts`; 0 in unused places.
    """

    index: Array
    counts: Array
    share: Array

    def part(self, start: int, end: int) -> "Laid":
        """Those clients from `start` to before `end`, without steps that none of them has."""
        steps = int(np.count_nonzero(self.counts[start]))
        return Laid(self.index[start:end, :steps], self.counts[start:end, :steps], self.share[start:end, :steps])


@dataclass(frozen=True, eq=False)
class Piece:
    """One step of some clients.

    Attributes:
        time: its number.
        width: how many clients the step is done for.
        size: rows in each batch.
        active: how many clients are not done: the first ones.
        rows: which clients; None for the first `width`.
    """

    time: int
    width: int
    size: int
    active: int
    rows: Array | None = None


def orders_of(sizes: Sequence[int], epochs: float, rounds: Turns) -> Iterator[tuple[Array, Array]]:
    """For each epoch the orders of all clients, and how many samples of each are used: as `epochs_of` one by one.

    Args:
        sizes: samples of each.
        epochs: >= 0; the last may be a part.
        rounds: each one's round.

    Yields:
        (clients, the largest size) int64, of which the first `used` count; (clients,) int64.
    """
    whole = np.asarray(sizes, np.int64)
    for e in range(ceil(epochs)):
        used = whole if epochs - e >= 1 else np.ceil((epochs - e) * whole - 1e-9).astype(np.int64)
        yield rounds.orders(sizes, "shuffle", str(e)), used


def laid(sizes: Sequence[int], batch: int, epochs: float, rounds: Turns, pairs: bool) -> Laid:
    """The batches of all epochs, one after the other.

    Args:
        sizes: samples of each client, descending.
        batch: rows in a batch.
        epochs: >= 0.
        rounds: keys the orders.
        pairs: a last batch of one row joins the one before.
    """
    width, parts = batch + pairs, []
    for order, used in orders_of(sizes, epochs, rounds):
        counts = _counts(used, batch, pairs)
        places = np.arange(counts.shape[1])[:, None] * batch + np.arange(width)
        parts.append((order[:, np.minimum(places, order.shape[1] - 1)], counts))
    if not parts:
        parts = [(np.zeros((len(sizes), 0, width), np.int64), np.zeros((len(sizes), 0), np.int64))]
    index, counts = parts[0] if len(parts) == 1 else _joined(parts)
    used = np.arange(width) < counts[..., None]
    return Laid(index * used, counts, used / np.maximum(counts, 1)[..., None])


def _counts(used: Array, batch: int, pairs: bool) -> Array:
    """(clients, steps) rows of each batch of an epoch."""
    steps = -(-used // batch)
    if pairs:
        steps = steps - ((steps > 1) & (used - (steps - 1) * batch == 1))
    left = used[:, None] - np.arange(steps.max(initial=0)) * batch
    counts: Array = np.clip(left, 0, batch)
    if pairs:
        alone = np.flatnonzero((steps > 0) & (used == steps * batch + 1))
        counts[np.arange(counts.shape[1]) >= steps[:, None]] = 0
        counts[alone, steps[alone] - 1] += 1
    return counts


def _joined(parts: Sequence[tuple[Array, Array]]) -> tuple[Array, Array]:
    """The epochs behind one another, without gaps."""
    steps = [(counts > 0).sum(1) for _, counts in parts]
    longest = int(np.sum(steps, axis=0).max(initial=0))
    first = parts[0][0]
    index = np.zeros((len(first), longest, first.shape[2]), np.int64)
    counts, begin = np.zeros((len(first), longest), np.int64), np.zeros(len(first), np.int64)
    for (block, some), many in zip(parts, steps, strict=True):
        who, step = np.nonzero(some > 0)
        index[who, begin[who] + step] = block[who, step]
        counts[who, begin[who] + step] = some[who, step]
        begin += many
    return index, counts


def pieces(counts: Array, batch: int) -> list[Piece]:
    """The steps of a chunk where batches may be filled up: few widths and sizes, so that there are few graphs."""
    active = np.count_nonzero(counts, 0).tolist()
    largest = counts.max(0, initial=0).tolist()
    most = first_width(len(counts))
    out = []
    for time, (now, rows) in enumerate(zip(active, largest, strict=True)):
        width = min(most, 1 << (now - 1).bit_length())
        size = next(s for s in (ceil(batch / 4), ceil(batch / 2), batch) if s >= rows)
        out.append(Piece(time, width, size, now))
    return out


def exact_pieces(counts: Array) -> list[Piece]:
    """The steps of a chunk where batches keep their size: at each time one for each size that there is."""
    out = []
    for time, now in enumerate(np.count_nonzero(counts, 0).tolist()):
        here = counts[:now, time]
        found = np.unique(here)[::-1]
        if len(found) == 1:
            out.append(Piece(time, min(first_width(len(counts)), 1 << (now - 1).bit_length()), int(found[0]), now))
            continue
        for size in found.tolist():
            rows = np.flatnonzero(here == size)
            width = 1 << (len(rows) - 1).bit_length()
            rows = np.concatenate([rows, np.repeat(rows[:1], width - len(rows))])
            out.append(Piece(time, width, size, now, rows))
    return out


def first_width(n: int) -> int:
    """How many rows a chunk of n clients begins with: the next number of three leading bits."""
    step = 1 << max(0, n.bit_length() - 3)
    return -(-n // step) * step
