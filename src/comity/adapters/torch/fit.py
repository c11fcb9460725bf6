"""The steps of a fit: threads and randomness set around the work, the loss, and what a Step changes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from comity.adapters.common import mask_of, named
from comity.adapters.torch.flat import Flat
from comity.core.checks import refusal
from comity.core.errors import ConfigError
from comity.core.parts import Step

ELEMENTWISE = frozenset(
    [
        "mse_loss",
        "l1_loss",
        "smooth_l1_loss",
        "huber_loss",
        "binary_cross_entropy",
        "binary_cross_entropy_with_logits",
        "poisson_nll_loss",
        "MSELoss",
        "L1Loss",
        "SmoothL1Loss",
        "HuberLoss",
        "BCELoss",
        "BCEWithLogitsLoss",
        "PoissonNLLLoss",
    ]
)
"""Losses of torch that compare output and target number by number, and would broadcast."""


_CLASSES = ("cross_entropy", "CrossEntropyLoss", "nll_loss", "NLLLoss")


def loss_name(loss: Any) -> str:
    """The name of a loss of torch, "" for any other."""
    inner = loss.func if isinstance(loss, partial) else loss
    kind = type(inner) if isinstance(inner, nn.Module) else inner
    return getattr(kind, "__name__", "") if str(getattr(kind, "__module__", "")).startswith("torch.") else ""


def described(thing: Any) -> str:
    """A loss, an optimizer or a function with what it was given, in a line."""
    if isinstance(thing, partial):
        given = [*map(repr, thing.args), *(f"{k}={v!r}" for k, v in sorted(thing.keywords.items()))]
        return f"{named(thing.func)}({', '.join(given)})"
    return f"{named(thing)}({thing.extra_repr()})" if isinstance(thing, nn.Module) else named(thing)


def classes_fit(outputs: Tensor, y: Tensor, loss: Any) -> None:
    """Refuse class numbers for which cross-entropy has no output.

    Raises:
        ConfigError: a label below 0 (but for the one to be ignored) or beyond the outputs.
    """
    if loss_name(loss) not in _CLASSES or y.is_floating_point() or outputs.ndim < 2:
        return
    ignored = getattr(loss, "keywords", {}).get("ignore_index", getattr(loss, "ignore_index", -100))
    counted = y[y != ignored]
    low, high = (int(counted.min()), int(counted.max())) if counted.numel() else (0, 0)
    if low < 0 or high >= outputs.shape[1]:
        raise ConfigError(
            f"The y must be class numbers from 0 to {outputs.shape[1] - 1}. Got {low if low < 0 else high}. "
            "Number the classes, or give the module more outputs."
        )


def device_of(device: Any) -> str:
    """A device of this machine.

    Raises:
        ConfigError: there is none of that name.
    """
    try:
        kind = torch.device(device).type if isinstance(device, str | torch.device) else ""
    except RuntimeError:
        kind = ""
    if kind not in ("cpu", "cuda", "mps", "xpu") or (kind == "cuda" and not torch.cuda.is_available()):
        raise refusal("device", "TorchModel", "a device of this machine", device, 'Use "cpu".')
    return str(device)


@contextmanager
def around(device: str, threads: int | None, seed: int) -> Iterator[None]:
    """Set torch's threads and random streams for the work inside, and put back what was there."""
    before, generator = torch.get_num_threads(), torch.default_generator
    state, kind = generator.get_state(), torch.device(device)
    cuda = torch.cuda.get_rng_state(kind) if kind.type == "cuda" else None
    try:
        if threads is not None and threads != before:
            torch.set_num_threads(threads)
        reseed(device, seed)
        yield
    finally:
        generator.set_state(state)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda, kind)
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def reseed(device: str, seed: int) -> None:
    """Begin torch's random streams anew."""
    torch.default_generator.manual_seed(seed)
    if device.startswith("cuda"):
        with torch.cuda.device(torch.device(device)):
            torch.cuda.manual_seed(seed)


def aligned(outputs: Tensor, y: Tensor, elementwise: bool) -> Tensor:
    """Targets in the shape and dtype of the outputs where they stand for the same numbers.

    Raises:
        ConfigError: an elementwise loss would broadcast.
    """
    if y.ndim == 1 and outputs.ndim == 2 and outputs.shape[1] == 1:
        y = y[:, None]
    if y.shape == outputs.shape:
        return y if y.is_floating_point() else y.to(outputs.dtype)
    if elementwise:
        raise ConfigError(
            f"The targets of an elementwise loss must have the shape of the outputs. "
            f"Got {tuple(y.shape)} and {tuple(outputs.shape)}. Reshape y or the last layer."
        )
    return y


def objective(flat: Flat, loss: Callable[..., Any], step: Step) -> Callable[[Tensor, Tensor], Any]:
    """The loss of one batch: the model's own, or the step's `loss(outputs, features, (x, y))`.

    The features are those named in `step.loss.taps`, where it has any.
    """
    module, elementwise = flat.module, loss_name(loss) in ELEMENTWISE
    if step.loss is None:

        def own_loss(x: Tensor, y: Tensor) -> Any:
            outputs = module(x)
            return loss(outputs, aligned(outputs, y, elementwise))

        return own_loss
    own, taps = step.loss, tuple(getattr(step.loss, "taps", ()))

    def with_features(x: Tensor, y: Tensor) -> Any:
        with tapped(module, taps) as seen:
            outputs = module(x)
        return own(outputs, seen, (x, y))

    return with_features


@contextmanager
def tapped(module: nn.Module, taps: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Note the outputs of submodules by name; "outputs" is that of the whole module, before softmax."""
    seen: dict[str, Any] = {}

    def note(name: str) -> Any:
        return module.get_submodule("" if name == "outputs" else name).register_forward_hook(
            lambda _module, _inputs, out: seen.__setitem__(name, out)
        )

    hooks = [note(name) for name in taps]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def mover(flat: Flat, make: Callable[..., Any], step: Step) -> Callable[[], None]:
    """A function that moves the parameters after a backward pass, with the step's adjustment and mask."""
    move, plain = flat.mover(make)
    if step.adjust is None and step.mask is None:
        return move
    vector, gradient, start = flat.vector, flat.gradient, flat.vector.clone()
    mask = _mask(flat, step)

    @torch.no_grad()
    def adjusted() -> None:
        if step.adjust is not None:
            gradient.copy_(step.adjust(vector, gradient, start))
            for slopes in flat.slack:
                slopes.zero_()
        if mask is not None:
            gradient.mul_(mask)
        move()
        if mask is not None and not plain:
            vector.copy_(torch.where(mask, vector, start))

    return adjusted


def _mask(flat: Flat, step: Step) -> Tensor | None:
    """The step's mask over the vector; running statistics always move."""
    mask = mask_of(step.mask, flat.layout, "TorchModel")
    if mask is None:
        return None
    here = flat.layout.tree(mask)
    for name in flat.statistics:
        here[name][...] = True
    return torch.from_numpy(mask).to(flat.vector.device)


def train(
    flat: Flat,
    pieces: Iterator[tuple[Tensor, Tensor]],
    loss: Callable[[Tensor, Tensor], Any],
    move: Callable[[], Any],
) -> tuple[float, int]:
    """One step for each batch; the summed loss and the samples seen."""
    losses, counts = [], []
    for x, y in pieces:
        flat.gradient.zero_()
        value = loss(x, y)
        value.backward()
        move()
        losses.append(value.item() if flat.array is not None else value.detach())
        counts.append(len(y))
    if flat.array is None and losses:
        losses = torch.stack(losses).to("cpu", torch.float64).tolist()
    return float(sum(a * n for a, n in zip(losses, counts, strict=True))), sum(counts)
