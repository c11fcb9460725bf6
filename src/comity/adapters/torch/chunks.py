"""One chunk of clients on its way through its steps."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from comity.adapters.torch.batches import Ready
from comity.adapters.torch.losses import Labels
from comity.adapters.torch.packing import Laid, Piece, exact_pieces, first_width, pieces
from comity.adapters.torch.works import Form, Signature
from comity.core.contribution import Array

if TYPE_CHECKING:
    from comity.adapters.torch.batched import Batched, Space

BYTES_AHEAD = 2**24
"""So many bytes of batches are gathered at a time."""


class Chunk:
    """One chunk on its way."""

    def __init__(self, engine: "Batched", data: Sequence[Ready], batches: Laid, form: Form) -> None:
        self.engine, self.form, self.counts, self.share = engine, form, batches.counts, batches.share
        self.x, self.y = (torch.cat(p) if len(p) > 1 else p[0] for p in zip(*data, strict=True))
        begin = np.cumsum([0, *(d[1].shape[0] for d in data[:-1])])
        self.index = batches.index + begin[:, None, None]
        self.pieces = exact_pieces(self.counts) if form == "exact" else pieces(self.counts, engine.batch)
        self.losses: list[tuple[Piece, Tensor]] = []

    def fit(self, start: Tensor, local: Sequence[Any], out: Tensor, who: Array, kept: list[dict[str, Array]]) -> Array:
        """Begin at `start`, do all steps, put rows into `out` and buffers into `kept`; (clients, 2) losses."""
        many, engine = len(who), self.engine
        space, names = engine.main, list(engine.main.buffers)
        places = torch.from_numpy(who).to(out.device)
        taken = {n: torch.empty_like(space.buffers[n][:many]) for n in names}

        def harvest(begin: int, end: int) -> None:
            out.index_copy_(0, places[begin:end], space.matrix[begin:end])
            for n in taken:
                taken[n][begin:end] = space.buffers[n][begin:end]

        with torch.inference_mode() if engine.rate is not None else torch.no_grad():
            self._fill(start, local)
            self._steps(harvest)
        self._keep(taken, who, kept)
        return self._summed()

    def _fill(self, start: Tensor, local: Sequence[Any]) -> None:
        space, many = self.engine.main, len(self.counts)
        width = first_width(many)
        space.matrix[:many] = start
        space.matrix[many:width] = start[-1:] if start.ndim == 2 else start
        for b in self.engine.flat.buffers:
            if b.name in space.buffers:
                space.buffers[b.name][:width] = b.first
                for i, own in enumerate(local if b.policy == "local" else ()):
                    if own is not None:
                        space.buffers[b.name][i] = torch.from_numpy(np.array(own[b.name]))

    def _steps(self, harvest: Callable[[int, int], None]) -> None:
        engine, space = self.engine, self.engine.main
        move = None if engine.rate is not None else Mover(engine, space)
        before, last = len(self.counts), len(self.pieces) - 1
        for i, (piece, inputs) in enumerate(self._gathered()):
            if piece.active < before:
                harvest(piece.active, before)
                before = piece.active
            if piece.rows is None:
                loss = engine.graph(space, self.form, piece.width, inputs)(*inputs)
            else:
                loss = self._aside(piece, inputs)
            self.losses.append((piece, loss))
            if move is not None and (i == last or self.pieces[i + 1].time > piece.time):
                move(min(len(space.matrix), 1 << (piece.active - 1).bit_length()))
        harvest(0, before)

    def _aside(self, piece: Piece, inputs: Sequence[Tensor]) -> Tensor:
        """A step of some clients that do not stand side by side."""
        main, side = self.engine.main, self.engine.side
        assert piece.rows is not None
        rows = torch.from_numpy(piece.rows).to(main.matrix.device)
        pairs = [(main.matrix, side.matrix), *((main.buffers[n], side.buffers[n]) for n in main.buffers)]
        for there, here in pairs:
            here[: piece.width] = there[rows]
        loss = self.engine.graph(side, self.form, piece.width, inputs)(*inputs)
        if main.slopes is not None and side.slopes is not None:
            pairs.append((main.slopes, side.slopes))
        for there, here in pairs:
            there[rows] = here[: piece.width]
        return loss

    def _gathered(self) -> Iterator[tuple[Piece, list[Tensor]]]:
        """The pieces with their inputs, so many ahead as hold little memory."""
        block: list[Piece] = []
        held, row = 0, self.x[0].nbytes + self.y[0].nbytes if len(self.x) else 1
        for piece in self.pieces:
            block.append(piece)
            held += piece.width * piece.size * row
            if held >= BYTES_AHEAD:
                yield from self._block(block)
                block, held = [], 0
        yield from self._block(block)

    def _block(self, block: Sequence[Piece]) -> Iterator[tuple[Piece, list[Tensor]]]:
        if not block:
            return
        where = torch.from_numpy(self._picked(self.index, block)).to(self.x.device)
        lengths = [p.width * p.size for p in block]
        columns = [self.x.index_select(0, where), *self._targets(self.y.index_select(0, where), block)]
        parts = zip(*(c.split_with_sizes(lengths) for c in columns), strict=True)
        for piece, inputs in zip(block, parts, strict=True):
            yield piece, [t.view(piece.width, piece.size, *t.shape[1:]) for t in inputs]

    def _picked(self, what: Array, block: Sequence[Piece]) -> Array:
        """Of (clients, steps, rows) what belongs to the rows of these pieces, in their order."""
        return np.concatenate([what[self._clients(p), p.time, : p.size].ravel() for p in block])

    def _clients(self, piece: Piece) -> Any:
        """Which clients have the rows of a piece; who is too many is the last one once more."""
        many = len(self.counts)
        if piece.rows is None:
            return slice(piece.width) if piece.width <= many else np.minimum(np.arange(piece.width), many - 1)
        return piece.rows

    def _targets(self, y: Tensor, block: Sequence[Piece]) -> list[Tensor]:
        """The inputs of a step beside x."""
        if self.form == "exact":
            return [y]
        labels, dtype = self.engine.labels, self.engine.flat.vector.dtype
        share = torch.from_numpy(self._picked(self.share, block)).to(dtype).to(y.device)
        if labels is not None and not y.is_floating_point():
            share = share / (y[0].numel() or 1) if labels.even(y) else self._weighed(labels, y, share, block)
        if self.form == "filled":
            return [y, share]
        assert labels is not None
        classes = self.engine.outputs(self.x, self.known)[1]
        return [labels.spread(y, share.reshape(-1, *[1] * (y.ndim - 1)).expand(y.shape), classes)]

    @property
    def known(self) -> Signature:
        """As `signature`."""
        return (self.x.shape[1:], self.x.dtype, self.y.shape[1:], self.y.dtype)

    def _weighed(self, labels: Labels, y: Tensor, share: Tensor, block: Sequence[Piece]) -> Tensor:
        """(rows,) one over the summed weight of the labels of a batch; 0 for rows that fill it up."""
        used, device = share > 0, y.device
        lengths = torch.tensor([p.size for p in block for _ in range(p.width)], device=device)
        batch = torch.repeat_interleave(torch.arange(len(lengths), device=device), lengths)
        heavy = labels.counts(y).to(share.dtype).reshape(len(y), -1).sum(1) * used
        total = share.new_zeros(len(lengths)).index_add_(0, batch, heavy)
        return torch.where(used, 1 / total[batch], 0)

    def _summed(self) -> Array:
        """(clients, 2) summed losses and samples seen."""
        out = np.zeros((len(self.counts), 2))
        out[:, 1] = self.counts.sum(1)
        if not self.losses:
            return out
        values = torch.cat([loss for _, loss in self.losses]).to("cpu", torch.float64).numpy()
        at = 0
        for piece, _ in self.losses:
            here = values[at : at + piece.width]
            at += piece.width
            if piece.rows is None:
                out[: piece.active, 0] += here[: piece.active] * self.counts[: piece.active, piece.time]
            else:
                rows, first = np.unique(piece.rows, return_index=True)
                out[rows, 0] += here[first] * piece.size
        return out

    def _keep(self, taken: dict[str, Tensor], who: Array, kept: list[dict[str, Array]]) -> None:
        for b in self.engine.flat.resident:
            values = taken[b.name].cpu().numpy()
            for i, w in enumerate(who.tolist()):
                kept[w][b.name] = values[i].copy()


class Mover:
    """An optimizer over the first rows of a matrix; its state shrinks with them."""

    def __init__(self, engine: "Batched", space: "Space") -> None:
        assert space.slopes is not None
        self.matrix, self.slopes, self.width = space.matrix, space.slopes, len(space.matrix)
        self.spans = engine.flat.spans()
        self.parameters = [nn.Parameter(self.matrix[:, a:b]) for a, b in self.spans]
        self._grads()
        self.optimizer = engine.make(self.parameters)

    def _grads(self) -> None:
        for p, (a, b) in zip(self.parameters, self.spans, strict=True):
            p.grad = self.slopes[: self.width, a:b]

    def __call__(self, width: int) -> None:
        """Move the first `width` rows."""
        if width < self.width:
            self._shrink(width)
        self.optimizer.step()

    def _shrink(self, width: int) -> None:
        self.width = width
        for p, (a, b) in zip(self.parameters, self.spans, strict=True):
            p.grad = None
            p.data = self.matrix[:width, a:b]
            state = self.optimizer.state.get(p, {})
            for name, value in state.items():
                if isinstance(value, Tensor) and value.ndim == 2:
                    state[name] = value[:width]
        self._grads()
