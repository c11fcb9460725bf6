"""The steps of many clients at once: parameters in the rows of one matrix, each step one call of a traced graph.

A chunk of clients, longest first, is done together; those that still have batches are always the first ones, and who is
done is taken out at once, so what the step does to the rows behind does not matter. Batches of fewer rows are filled up
and the rows too many count for nothing; where that cannot be (BatchNorm looks at the whole batch, a loss that is no sum
over rows) batches of one size are done together and none is filled up.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from comity.adapters.torch.batches import Ready
from comity.adapters.torch.chunks import Chunk
from comity.adapters.torch.fit import ELEMENTWISE as LOSSES
from comity.adapters.torch.fit import aligned, loss_name
from comity.adapters.torch.flat import ELEMENTWISE, Buffer, Flat, plain_rate
from comity.adapters.torch.losses import Unbatched, labels_of, of_rows, of_spread, spreads
from comity.adapters.torch.packing import Laid, laid
from comity.adapters.torch.tracing import Goal, compiled
from comity.adapters.torch.works import Done, Form, Signature, Work
from comity.core.contribution import Array
from comity.core.round import Turns
from comity.core.tree import Layout

AT_ONCE = 2**20
"""Up to so many places of samples the batches of all chunks are laid out in one go."""


@dataclass(eq=False)
class Space:
    """Room for the parameters, gradients and buffers of a chunk, and the graphs that work on it."""

    matrix: Tensor
    slopes: Tensor | None
    buffers: dict[str, Tensor]
    graphs: dict[Any, Callable[..., Tensor]] = field(default_factory=dict)


class Batched:
    """Fits of one model, a chunk at a time. All methods want the lock of `flat` to be held.

    Args:
        flat: the module and its layout.
        loss: the user's.
        optimizer: as `TorchModel` takes it.
        batch: rows in a step.
    """

    def __init__(self, flat: Flat, loss: Callable[..., Any], optimizer: Callable[..., Any], batch: int) -> None:
        """Raises: Unbatched: the module or the optimizer cannot be done for many at once."""
        self.flat, self.loss, self.make, self.batch = flat, loss, optimizer, batch
        self.rate = plain_rate(optimizer)
        kind = optimizer.func if isinstance(optimizer, partial) else optimizer
        if kind not in ELEMENTWISE or (isinstance(optimizer, partial) and optimizer.args):
            name = getattr(kind, "__name__", type(kind).__name__)
            raise Unbatched(f"the optimizer {name} does not move each number by its own history")
        if hooked := next((n or type(m).__name__ for n, m in flat.module.named_modules() if _hooked(m)), None):
            raise Unbatched(f"'{hooked}' has hooks")
        self.labels = labels_of(loss)
        self.main = self.side = Space(flat.vector.new_empty(0, flat.layout.size), None, {})
        self.proven: dict[Signature, Form | Unbatched] = {}
        self._outputs: dict[Signature, torch.Size] = {}

    def run(self, work: Work, chunk: int, form: Form) -> Done:
        """Fit them all.

        Raises:
            Unbatched: a step cannot be traced.
        """
        sizes = np.array(work.sizes, np.int64)
        order = np.argsort(-sizes, kind="stable")
        rows = np.empty((len(sizes), self.flat.layout.size), self.flat.layout.dtype)
        out = torch.from_numpy(rows) if self.flat.array is not None else self.flat.vector.new_empty(rows.shape)
        local: list[dict[str, Array]] = [{} for _ in work.sizes]
        loss = np.zeros((len(sizes), 2))
        self._room(min(chunk, len(sizes)), form)
        ready = self._start(work)
        for batches, who in self._laid(work, order, sizes, chunk, form):
            start = ready if ready.ndim == 1 else ready[torch.from_numpy(who).to(ready.device)]
            some = who.tolist()
            chunked = Chunk(self, [work.data[i] for i in some], batches, form)
            loss[who] = chunked.fit(start, [work.local[i] for i in some], out, who, local)
        if self.flat.array is None:
            rows = out.cpu().numpy()
        return Done(rows, local, loss)

    def _start(self, work: Work) -> Tensor:
        start = torch.from_numpy(np.require(work.start, requirements=["W"]))
        return start if self.flat.array is not None else start.to(self.flat.vector.device)

    def _laid(self, work: Work, order: Array, sizes: Array, chunk: int, form: Form) -> Iterator[tuple[Laid, Array]]:
        """The chunks, longest clients first: their batches, and who they are."""
        names, all_at_once = work.rounds.names, len(sizes) * sizes.max() <= AT_ONCE
        step = len(sizes) if all_at_once else chunk
        pairs = form == "exact" and self.flat.pairs
        for begin in range(0, len(sizes), step):
            some = order[begin : begin + step]
            turns = Turns(work.rounds.turn, [names[i] for i in some.tolist()])
            found = laid(sizes[some], self.batch, work.epochs, turns, pairs)
            for at in range(0, len(some), chunk):
                yield found.part(at, at + chunk), some[at : at + chunk]

    def _room(self, clients: int, form: Form) -> None:
        """Make room for so many clients, and forget the graphs of a smaller one."""
        wanted = 1 << (clients - 1).bit_length()
        if len(self.main.matrix) < wanted:
            self.main = self._space(wanted)
        if form == "exact" and len(self.side.matrix) < wanted:
            self.side = self._space(wanted)

    def _space(self, clients: int) -> Space:
        matrix = self.flat.vector.new_zeros(clients, self.flat.layout.size)
        buffers = {
            b.name: b.first.new_zeros((clients, *b.first.shape))
            for b in self.flat.buffers
            if b.policy in ("local", "reset") and not _constant(b)
        }
        return Space(matrix, None if self.rate is not None else torch.zeros_like(matrix), buffers)

    def outputs(self, x: Tensor, known: Signature) -> torch.Size:
        """The shape of what the module gives for two rows."""
        if known not in self._outputs:
            self.flat.put(self.flat.start)
            with torch.no_grad():
                self._outputs[known] = self.flat.module(x[:2].clone()).shape
        return self._outputs[known]

    def graph(self, space: Space, form: Form, width: int, inputs: Sequence[Tensor]) -> Callable[..., Tensor]:
        """The step for inputs of these shapes, traced the first time."""
        key = (form, width, *((t.shape, t.dtype, t.stride()) for t in inputs))
        if key not in space.graphs:
            space.graphs[key] = self._traced(space, form, width, inputs)
        return space.graphs[key]

    def _traced(self, space: Space, form: Form, width: int, inputs: Sequence[Tensor]) -> Callable[..., Tensor]:
        layout, stats = self.flat.layout, set(self.flat.statistics)
        names = [p[0] for p in layout.paths]
        views = dict(zip(names, _views(space.matrix[:width], layout), strict=True))
        trained = [n for n in names if n not in stats]
        buffers = {n: views[n] for n in names if n in stats} | {n: b[:width] for n, b in space.buffers.items()}
        slopes = None
        if space.slopes is not None:
            given = dict(zip(names, _views(space.slopes[:width], layout), strict=True))
            slopes = [given[n] for n in trained]
        goal = Goal([views[n] for n in trained], slopes, self.rate or 0.0, list(buffers.values()))
        step = self._step(form, trained, list(buffers))
        try:
            with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                warnings.filterwarnings("error", message="There is a performance drop")
                return compiled(step, goal, inputs)
        except Unbatched:
            raise
        except Exception as error:
            raise Unbatched(_reason(error)) from error
        finally:
            self.flat.bind()

    def _step(self, form: Form, trained: Sequence[str], buffers: Sequence[str]) -> Callable[..., Any]:
        module, loss = self.flat.module, self._loss(form)

        def one(p: Sequence[Tensor], b: Sequence[Tensor], x: Tensor, *rest: Tensor) -> tuple[Any, list[Tensor]]:
            given = dict(zip(trained, p, strict=True)) | dict(zip(buffers, b, strict=True))
            value = loss(functional_call(module, given, (x,)), *rest)
            return value, [given[n].detach() for n in buffers]

        many = vmap(grad_and_value(one, has_aux=True), randomness="error")

        def step(p: Sequence[Tensor], b: Sequence[Tensor], *inputs: Tensor) -> list[Tensor]:
            slopes, (losses, after) = many(p, [t.clone() for t in b], *inputs)
            return [*slopes, losses, *after]

        return step

    def _loss(self, form: Form) -> Callable[..., Any]:
        if form == "spread":
            return of_spread
        if form == "filled":
            return of_rows(self.loss)
        loss, elementwise = self.loss, loss_name(self.loss) in LOSSES
        return lambda outputs, y: loss(outputs, aligned(outputs, y, elementwise))

    def forms(self, data: Sequence[Ready], known: Signature) -> list[Form]:
        """Ways to try, the best first."""
        if self.flat.pairs:
            return ["exact"]
        first: Form = "spread" if spreads(self.loss, self.outputs(data[0].x, known), data[0].y) else "filled"
        return [first, "exact"]


def _views(matrix: Tensor, layout: Layout) -> list[Tensor]:
    """Each leaf of all rows, (rows, *shape)."""
    ends = zip(layout.offsets, layout.offsets[1:], layout.shapes, strict=False)
    return [matrix[:, a:b].view(len(matrix), *shape) for a, b, shape in ends]


def _hooked(module: nn.Module) -> bool:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, k) for k in kinds)


def _constant(buffer: Buffer) -> bool:
    """Is it one that is not persistent? Then nothing should write into it, and vmap refuses where something does."""
    return buffer.leaf in buffer.owner._non_persistent_buffers_set


def _reason(error: Exception) -> str:
    said = str(error).strip().splitlines()[:1] or [""]
    if "randomness" in said[0] or "random operation" in said[0]:
        return "random layers draw their numbers one client at a time"
    if any(w in str(error) for w in (".item()", "data-dependent", "numpy", "control flow", "data pointer")):
        return "the module's Python looks at values: a data-dependent if, .item() or numpy"
    if "performance drop" in said[0]:
        return f"torch has no batched {said[0].split('batching rule for ')[-1].split('.')[0]}"
    return f"it cannot be traced: {type(error).__name__}: {said[0][:120]}"
