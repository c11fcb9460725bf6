"""DP-SGD (Abadi et al., CCS 2016, Algorithm 1) with an ordinary module, loss and optimizer."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from comity.adapters.private import drawn, private_of, put_normals, steps_of
from comity.adapters.torch.batches import collated, tensors
from comity.adapters.torch.examples import Way, way_of
from comity.adapters.torch.fit import around, mover
from comity.adapters.torch.flat import Flat
from comity.adapters.torch.losses import labels_of
from comity.core.contribution import Array, Metrics, Tree
from comity.core.errors import ConfigError
from comity.core.parts import Private, Step
from comity.core.round import Round

_TRIED = 4


def private_fit(
    model: Any, params: Tree, local: Tree, data: Any, round: Round, step: Step
) -> tuple[Tree, Tree, Metrics]:
    """What `TorchModel.fit_local` gives for Step(private): there are no metrics, which would not be private.

    Each of round(epochs / rate) steps draws its batch from the stream, clips each example's gradient over all
    parameters together to `clip`, adds noise of standard deviation `noise * clip` to their sum, divides by
    `rate` times the number of rows, which counts as public, and moves as the optimizer does. A batch may be empty: then
    the step is noise alone. An example whose gradient is not finite adds nothing. `adjust` and `mask` act on what was
    noised, and cost nothing as long as they hold nothing of the data.

    Raises:
        ConfigError: the module or the loss mixes examples, or buffers move; settings that are none.
    """
    flat, private = model._flat, private_of(step.private, "Private")  # type: ignore[arg-type]
    refuse_mixing(flat, model.loss)
    settings = model.device, model.threads, round.mine_seed("torch")
    rows = tensors(data, flat.dtype, model.device)
    n = len(rows[0] if isinstance(rows, tuple) else rows)  # type: ignore[arg-type]
    count = steps_of(model.epochs if step.epochs is None else step.epochs, private.rate)
    with flat.lock:
        flat.put(params, model._checked(local))
        flat.train()
        with around(*settings):
            some = np.unique(np.linspace(0, n - 1, _TRIED).astype(np.int64))
            way = _way(flat, model, *taken(rows, some, flat))
        with around(*settings):
            move = mover(flat, model.optimizer, step)
            for _ in range(count):
                gradient(flat, way, rows, n, private)
                move()
        return flat.take(), flat.take_local(), {}


def gradient(flat: Flat, way: Way, rows: Any, n: int, private: Private) -> None:
    """Put the noised mean of the clipped gradients of a Poisson batch into the gradient of the model."""
    share = 1 / (private.rate * n)
    batch = drawn(private.stream, n, private.rate)
    put_noise(flat.gradient, private, share)
    for part in np.array_split(batch, -(-len(batch) // way.rows)) if len(batch) else ():
        add_clipped(way, *taken(rows, part, flat), private.clip, share=share)


def add_clipped(way: Way, x: Tensor, y: Tensor, clip: float, *, share: float) -> None:
    """Add to the gradient of the model the sum of each row's own gradient, clipped, times `share`."""
    found = way(x, y)
    fine = found.squares.isfinite()
    if not fine.all():
        if fine.any():
            add_clipped(way, x[fine], y[fine], clip, share=share)
        return
    with torch.no_grad():
        norms = found.squares.sqrt().clamp_min(torch.finfo(found.squares.dtype).tiny)
        found.add((clip / norms).clamp(max=1) * share)


def put_noise(vector: Tensor, private: Private, share: float) -> None:
    """Fill with noise of standard deviation noise * clip * share, drawn on the host."""
    host = vector.numpy() if vector.device.type == "cpu" else np.empty(len(vector), str(vector.dtype)[6:])
    put_normals(host, private.stream, private.noise * private.clip * share)
    if vector.device.type != "cpu":
        vector.copy_(torch.from_numpy(host))


def taken(rows: Any, some: Array, flat: Flat) -> tuple[Tensor, Tensor]:
    """These rows, as a batch."""
    if isinstance(rows, Dataset):
        return next(collated(rows, some, [len(some)], flat.vector))
    where = torch.from_numpy(some).to(flat.vector.device)
    return rows[0][where], rows[1][where]


def _way(flat: Flat, model: Any, x: Tensor, y: Tensor) -> Way:
    """How gradients are found, chosen once for rows of this shape."""
    shape = x.shape[1:], x.dtype, y.shape[1:], y.dtype
    if shape in flat.ways:
        return flat.ways[shape]  # type: ignore[no-any-return]
    before = [(b.name, b.owner._buffers[b.leaf].clone()) for b in flat.buffers]  # type: ignore[union-attr]
    way = way_of(flat, model.loss, x, y, model.batch)
    for (name, was), b in zip(before, flat.buffers, strict=True):
        if not torch.equal(was, b.owner._buffers[b.leaf]):  # type: ignore[arg-type]
            raise ConfigError(
                f"A private step must leave buffers as they are: they would be released without noise. Got '{name}', "
                "which moves in training. Use nn.GroupNorm or nn.LayerNorm, which keep no statistics."
            )
    flat.ways[shape] = way
    return way


def refuse_mixing(flat: Flat, loss: Any) -> None:
    """Refuse what is known to mix examples.

    Raises:
        ConfigError: BatchNorm, averaged buffers, class weights, or embeddings that count or rescale words.
    """
    for name, module in flat.module.named_modules():
        fault = _fault(module, flat)
        if fault:
            raise ConfigError(f"A private step must look at each row alone. Got '{name}': {fault}")
    if flat.statistics:
        raise ConfigError(
            f"A private step must move parameters only. Got the averaged buffer '{flat.statistics[0]}'. "
            'Use TorchModel(buffers="reset") where it is a constant.'
        )
    labels = labels_of(loss)
    if labels is not None and labels.weight is not None:
        raise ConfigError(
            "The loss of a private step must be a mean over rows. Got class weights, by whose sum it divides. "
            "Leave them out."
        )


def _fault(module: nn.Module, flat: Flat) -> str:
    norms = nn.modules.batchnorm
    mixes = isinstance(module, norms._BatchNorm) or getattr(module, "track_running_stats", False)
    if mixes and not any(module is still for still in flat.still):
        return f"a {type(module).__name__}, which mixes them. Use nn.GroupNorm or nn.LayerNorm."
    if isinstance(module, nn.Embedding | nn.EmbeddingBag) and (module.max_norm or module.scale_grad_by_freq):
        return f"a {type(module).__name__} with max_norm or scale_grad_by_freq. Leave these out."
    return ""
