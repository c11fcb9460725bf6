"""Each example's own gradient, in three ways: layer by layer, by vmap of the whole module, one after the other.

The first that gives what the last gives, on a few rows, is taken.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from comity.adapters.torch.fit import ELEMENTWISE, aligned, loss_name, reseed
from comity.adapters.torch.flat import Flat
from comity.adapters.torch.ghost import Found, Rule, Slopes, Unfit, rule_of
from comity.adapters.torch.losses import Unbatched, of_rows
from comity.core.errors import ConfigError

_MADE = 2**24
"""Numbers in the gradients that are made at once."""
_LOOSE = {torch.float32: 1e-3, torch.float64: 1e-6}


class Way(Protocol):
    """How the gradients of examples are found; `rows` is how many at once at most."""

    rows: int

    def __call__(self, x: Tensor, y: Tensor) -> Found:
        """Of a batch: the squared norms, and how to add a weighted sum to the gradient of the model."""
        ...


class Ghost:
    """Layer by layer, from one backward pass that stops at the first layer and makes no gradient of a weight."""

    def __init__(self, flat: Flat, loss: Callable[..., Any], rows: int) -> None:
        """Raises: Unfit: parameters are shared. Unbatched: the loss has no number for each row."""
        self.rows, self._module, self._summed = rows, flat.module, of_rows(loss)
        if len(list(flat.module.named_parameters(remove_duplicate=False))) != len(list(flat.module.parameters())):
            raise Unfit("parameters are shared")
        self._layers: dict[nn.Module, tuple[Rule, Slopes]] = {}
        for module in flat.module.modules():
            own = {n: p.grad for n, p in module.named_parameters(recurse=False) if p.requires_grad}
            if own:
                self._layers[module] = rule_of(module), own  # type: ignore[assignment]

    def __call__(self, x: Tensor, y: Tensor) -> Found:
        """As Way."""
        seen: dict[nn.Module, tuple[Tensor, GradientEdge]] = {}
        n = len(x)

        def note(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
            if module in seen or len(args) != 1 or any(not isinstance(v, Tensor) or len(v) != n for v in (*args, out)):
                raise Unfit(f"{type(module).__name__} is not called once with one batch")
            seen[module] = args[0].detach(), get_gradient_edge(out)

        hooks = [module.register_forward_hook(note) for module in self._layers]
        try:
            value = self._summed(self._module(x), y, x.new_ones(len(x), dtype=_dtype(self._module)))
        finally:
            for hook in hooks:
                hook.remove()
        slopes = torch.autograd.grad(value, [edge for _, edge in seen.values()])
        with torch.no_grad():
            found = [
                rule(m, seen[m][0], g, own)
                for (m, g) in zip(seen, slopes, strict=True)
                for rule, own in [self._layers[m]]
            ]
            return Found(torch.stack([f.squares for f in found]).sum(0), lambda c: _all(found, c))


class Whole:
    """By vmap of the gradient of the whole module: the gradients of all rows of a batch are made."""

    def __init__(self, flat: Flat, loss: Callable[..., Any], rows: int) -> None:
        """Args: as Ghost."""
        self.rows = max(1, min(rows, _MADE // flat.vector.numel()))
        named = {n: p for n, p in flat.module.named_parameters() if p.requires_grad}
        self._own, self._slopes = {n: p.detach() for n, p in named.items()}, {n: p.grad for n, p in named.items()}
        elementwise = loss_name(loss) in ELEMENTWISE

        def one(own: Any, x: Tensor, y: Tensor) -> Any:
            outputs = functional_call(flat.module, own, (x[None],))
            return loss(outputs, aligned(outputs, y[None], elementwise))

        self._each = vmap(grad(one), in_dims=(None, 0, 0), randomness="different")

    def __call__(self, x: Tensor, y: Tensor) -> Found:
        """As Way."""
        with sdpa_kernel(SDPBackend.MATH):  # the others have no batched form
            rows = {name: made.flatten(1) for name, made in self._each(self._own, x, y).items()}

        def add(c: Tensor) -> None:
            for name, made in rows.items():
                self._slopes[name].view(-1).add_(c @ made)  # type: ignore[union-attr]

        return Found(torch.stack([made.square().sum(1) for made in rows.values()]).sum(0), add)


class Alone:
    """One example after the other, with ordinary torch: always right, and slow."""

    rows = 1

    def __init__(self, flat: Flat, loss: Callable[..., Any], rows: int = 1) -> None:
        """Args: as Ghost; one row at a time is all it can."""
        self._flat, self._loss, self._elementwise = flat, loss, loss_name(loss) in ELEMENTWISE

    def value(self, x: Tensor, y: Tensor) -> Any:
        """The loss of a batch."""
        outputs = self._flat.module(x)
        return self._loss(outputs, aligned(outputs, y, self._elementwise))

    def __call__(self, x: Tensor, y: Tensor) -> Found:
        """As Way, of one row."""
        trained = self._flat.trained
        found = torch.autograd.grad(self.value(x, y), trained, allow_unused=True)
        pairs = [(p.grad, g.to_dense()) for p, g in zip(trained, found, strict=True) if g is not None]
        squares = torch.stack([g.square().sum() for _, g in pairs]).sum()[None]

        def add(c: Tensor) -> None:
            for slope, made in pairs:
                slope.add_(made * c)  # type: ignore[union-attr]

        return Found(squares, add)


def _all(found: list[Found], c: Tensor) -> None:
    for one in found:
        one.add(c)


def _dtype(module: nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype


def way_of(flat: Flat, loss: Callable[..., Any], x: Tensor, y: Tensor, rows: int) -> Way:
    """The first way that gives, on these rows, the gradients of the loss of each row alone.

    They are compared where the parameters were moved a little, so that no gradient is zero by the way they begin. Where
    the module draws random numbers (dropout), it is compared as in evaluation.

    Args:
        flat: the model, whose gradient is overwritten.
        loss: of a batch, a mean over its rows.
        x: a few rows.
        y: their targets.
        rows: how many at once at most.

    Raises:
        ConfigError: the loss of the rows together is not the mean of their losses alone.
    """
    before, alone = flat.vector.clone(), Alone(flat, loss)
    noise = torch.randn(before.shape, generator=torch.Generator().manual_seed(0), dtype=before.dtype)
    flat.vector.add_(noise.to(before.device), alpha=0.05)
    try:
        if _random(flat, alone, x, y):
            flat.eval()
        _separate(alone, x, y)
        wanted = [_summed(flat, alone, x[i : i + 1], y[i : i + 1]) for i in range(len(x))]
        for kind in (Ghost, Whole):
            if (way := _tried(kind, flat, loss, rows)) is not None and _agrees(flat, way, x, y, wanted):
                return way
        return alone
    finally:
        flat.vector.copy_(before)
        flat.train()


def _tried(kind: type[Ghost | Whole], flat: Flat, loss: Any, rows: int) -> Way | None:
    try:
        return kind(flat, loss, rows)
    except (Unfit, Unbatched):
        return None


def _random(flat: Flat, alone: Alone, x: Tensor, y: Tensor) -> bool:
    """Does the module draw random numbers?"""
    values = []
    with torch.no_grad():
        for seed in (0, 1):
            reseed(str(flat.vector.device), seed)
            values.append(flat.module(x))
    same: bool = torch.equal(values[0], values[1])
    return not same and bool(values[0].isfinite().all())


@torch.no_grad()
def _separate(alone: Alone, x: Tensor, y: Tensor) -> None:
    together = alone.value(x, y)
    apart = torch.stack([alone.value(x[i : i + 1], y[i : i + 1]) for i in range(len(x))]).mean()
    if together.isfinite() and not torch.isclose(together, apart, rtol=1e-3, atol=1e-5):
        raise ConfigError(
            "A private step must have a module and a loss that look at each row alone, and a loss that is their mean. "
            "Got another loss for some rows together than the mean of each alone. "
            "Take out what mixes rows: class weights, ignored targets, statistics of the batch."
        )


def _summed(flat: Flat, way: Way, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The squared norms, and the sum with the weights 1, 2, 3..."""
    flat.gradient.zero_()
    found = way(x, y)
    with torch.no_grad():
        found.add(torch.arange(1, len(x) + 1, dtype=flat.dtype, device=x.device))
    return found.squares, flat.gradient.clone()


def _agrees(flat: Flat, way: Way, x: Tensor, y: Tensor, wanted: list[tuple[Tensor, Tensor]]) -> bool:
    """Are norms and sum those of the rows alone?"""
    try:
        squares, total = _summed(flat, way, x, y)
    except Exception:  # noqa: BLE001 (torch has as many errors as operations that vmap cannot do)
        return False
    norms = torch.cat([s for s, _ in wanted]).sqrt()
    sums = torch.stack([(i + 1) * g for i, (_, g) in enumerate(wanted)]).sum(0)
    loose = _LOOSE[flat.dtype]
    close = (squares.sqrt() - norms).norm() <= loose * norms.norm()
    return bool(close and (total - sums).norm() <= loose * norms.norm())
