"""One module, used again for every client: its parameters, gradients and averaged buffers are views of one vector."""

import copy
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from threading import RLock
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from comity.adapters.common import flat
from comity.core.contribution import Array, Tree
from comity.core.errors import ConfigError
from comity.core.tree import Layout

Policy = Literal["average", "local", "reset", "frozen"]
_OPTIM = torch.optim
ELEMENTWISE = (
    _OPTIM.SGD,
    _OPTIM.Adam,
    _OPTIM.AdamW,
    _OPTIM.Adamax,
    _OPTIM.NAdam,
    _OPTIM.RAdam,
    _OPTIM.Adagrad,
    _OPTIM.Adadelta,
    _OPTIM.RMSprop,
)
"""Optimizers that move each number by its own history: one vector serves them as well as many tensors."""


@dataclass(frozen=True, eq=False)
class Buffer:
    """One buffer of a module, and what becomes of it.

    Attributes:
        name: as in `named_buffers`.
        owner: the submodule that holds it.
        leaf: its name there.
        policy: "average" (in the Tree), "local" (stays at the site), "reset" (anew in each fit) or "frozen" (never
            moves).
        home: where its values live while the module is used.
        first: its values at construction.
    """

    name: str
    owner: nn.Module
    leaf: str
    policy: Policy
    home: Tensor
    first: Tensor

    def bind(self, value: Any = None) -> None:
        """Give the module this buffer again, with `value` or its first values unless it is averaged."""
        if self.policy != "average":
            self.home.copy_(self.first if value is None else torch.from_numpy(np.array(value)))
        self.owner._buffers[self.leaf] = self.home

    def settle(self) -> None:
        """Bring home what the module put elsewhere: some assign a new tensor to a buffer."""
        now = self.owner._buffers[self.leaf]
        if now is not None and now is not self.home:
            self.home.copy_(now)
            self.owner._buffers[self.leaf] = self.home


def policies(module: nn.Module, wanted: Policy) -> dict[str, Policy]:
    """What becomes of each buffer: counts (integers) are never averaged, constants (not persistent) never move.

    Running statistics of a frozen normalisation stay as they are: they belong to weights that do not travel.
    """
    out: dict[str, Policy] = {}
    still = {id(m) for m in frozen_norms(module)}
    for name, tensor in module.named_buffers():
        path, _, leaf = name.rpartition(".")
        owner = module.get_submodule(path)
        counts = wanted == "average" and not tensor.is_floating_point()
        constant = leaf in owner._non_persistent_buffers_set
        out[name] = "frozen" if id(owner) in still else "reset" if constant or counts else wanted
    return out


def frozen_norms(module: nn.Module) -> list[nn.Module]:
    """Normalisations with running statistics (BatchNorm, InstanceNorm) that have weights, all of them frozen."""
    norms = (m for m in module.modules() if isinstance(m, nn.modules.batchnorm._NormBase))
    weights = ((m, list(m.parameters(recurse=False))) for m in norms)
    return [m for m, own in weights if own and not any(p.requires_grad for p in own)]


def frozen_values(module: nn.Module) -> dict[str, str]:
    """The sha256, hex, of each parameter that is not trained and each buffer that never moves, by name."""
    held: dict[str, Tensor] = {n: p for n, p in module.named_parameters() if not p.requires_grad}
    kinds = policies(module, "average")
    held |= {n: b for n, b in module.named_buffers() if kinds[n] == "frozen"}
    return {name: _digest(held[name]) for name in sorted(held)}


def _digest(tensor: Tensor) -> str:
    plain = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(plain.numpy().data).hexdigest()


class Flat:
    """A copy of a module over one vector, in canonical (sorted) order of the names.

    Args:
        module: copied, never changed.
        buffers: the policy wanted.
        device: where the copy lives.

    Raises:
        ConfigError: nothing to train, or parameters not all float32 or all float64.
    """

    def __init__(self, module: nn.Module, buffers: Policy, device: str) -> None:
        self.module, self.lock = copy.deepcopy(module).to(device), RLock()
        kinds = policies(self.module, buffers)
        trained: dict[str, Tensor] = {n: p for n, p in self.module.named_parameters() if p.requires_grad}
        averaged = {n: b for n, b in self.module.named_buffers() if kinds[n] == "average"}
        self.dtype = _dtype(trained, averaged)
        shapes = {n: np.broadcast_to(np.zeros(()), tuple(t.shape)) for n, t in (trained | averaged).items()}
        self.layout = Layout.of(shapes, str(self.dtype).removeprefix("torch."))
        self.vector = torch.empty(self.layout.size, dtype=self.dtype, device=device)
        self.gradient = torch.zeros_like(self.vector)
        self.array = self.vector.numpy() if self.vector.device.type == "cpu" else None
        here, slopes = self.layout.tree(self.vector), self.layout.tree(self.gradient)
        self.places: dict[str, Array] = self.layout.tree(self.array) if self.array is not None else {}
        with torch.no_grad():
            for name, tensor in (trained | averaged).items():
                here[name].copy_(tensor)
        for name, p in trained.items():
            p.data, p.grad = here[name], slopes[name]
        self.trained, self.statistics = list(trained.values()), tuple(sorted(averaged))
        self.slack = [slopes[name] for name in averaged]
        self.buffers = [self._buffer(n, b, kinds[n], here) for n, b in list(self.module.named_buffers())]
        self.resident = sorted((b for b in self.buffers if b.policy == "local"), key=lambda b: b.name)
        self.start = self.take()
        norms, self.still = nn.modules.batchnorm._BatchNorm, frozen_norms(self.module)
        still = {id(m) for m in self.still}
        self.pairs = any(isinstance(m, norms) and id(m) not in still for m in self.module.modules())
        self._optimizer: torch.optim.Optimizer | None = None
        self._training = False
        self.ways: dict[Any, Any] = {}  # how private steps find gradients, by the shape of the rows

    def _buffer(self, name: str, tensor: Tensor, policy: Policy, here: Mapping[str, Tensor]) -> Buffer:
        path, _, leaf = name.rpartition(".")
        home = here[name] if policy == "average" else tensor.detach().clone()
        return Buffer(name, self.module.get_submodule(path), leaf, policy, home, tensor.detach().clone())

    def train(self) -> None:
        """Switch all submodules to training; walking through them is slow, so only when they were not."""
        if not self._training:
            self.module.train()
            for norm in self.still:
                norm.eval()
            self._training = True

    def eval(self) -> None:
        """Switch all submodules to evaluation."""
        self.module.eval()
        self._training = False

    def put(self, params: Tree, local: Mapping[str, Any] | None = None) -> None:
        """Copy parameters in, and the local buffers (their first values where there are none)."""
        if self.array is not None and self._alike(params):
            for name, place in self.places.items():
                place[...] = params[name]  # type: ignore[index, call-overload]
        else:
            self.set(flat(params, self.layout, "TorchModel"))
        self.bind(local)

    def set(self, vector: Array) -> None:
        """Copy parameters in, as one vector."""
        if self.array is not None:
            self.array[...] = vector
        else:
            with torch.no_grad():
                self.vector.copy_(torch.from_numpy(np.require(vector, requirements="W")))

    def bind(self, local: Mapping[str, Any] | None = None) -> None:
        """Give the module its buffers, the local ones with these values (their first ones where there are none)."""
        if self.buffers:
            with torch.no_grad():
                for buffer in self.buffers:
                    buffer.bind(local[buffer.name] if local and buffer.policy == "local" else None)

    def of(self, params: Tree) -> Array:
        """Parameters as one vector; do not write to it."""
        if self._alike(params):
            parts = [params[name].ravel() for name in self.places]  # type: ignore[index, call-overload, union-attr]
            return np.concatenate(parts, dtype=self.layout.dtype, casting="unsafe")
        return flat(params, self.layout, "TorchModel")

    def _alike(self, params: Any) -> bool:
        """Are these arrays of the names and shapes that are asked for?"""
        if type(params) is not dict or params.keys() != self.places.keys():
            return False
        return all(type(x) is np.ndarray and x.shape == self.places[name].shape for name, x in params.items())

    def take(self) -> Any:
        """Copy parameters and averaged buffers out: a Tree of views of one new numpy vector."""
        out = np.empty(self.layout.size, self.layout.dtype)
        self.take_into(out)
        return self.layout.tree(out)

    def take_into(self, out: Array) -> None:
        """As `take`, into a vector of numpy."""
        if self.buffers:
            with torch.no_grad():
                for buffer in self.buffers:
                    buffer.settle()
        out[...] = self.array if self.array is not None else self.vector.cpu().numpy()

    def take_local(self) -> dict[str, Array]:
        """Copy the local buffers out, after `take`."""
        return {b.name: b.home.detach().cpu().numpy().copy() for b in self.resident}

    def mover(self, make: Callable[..., Any]) -> tuple[Callable[[], Any], bool]:
        """A function that moves the parameters by `gradient`, and whether it is the plain `p -= lr * g`."""
        rate = plain_rate(make)
        if rate is not None:
            return partial(self.vector.add_, self.gradient, alpha=-rate), True
        kind = make.func if isinstance(make, partial) else make
        if kind not in ELEMENTWISE or (isinstance(make, partial) and make.args):
            return make(self.trained).step, False
        if self._optimizer is None:
            self._optimizer = make(self._stretches())
        self._optimizer.state.clear()
        return self._optimizer.step, False

    def _stretches(self) -> list[nn.Parameter]:
        """The parameters as few vectors, without the statistics that lie between them."""
        spans = self.spans()
        out = [nn.Parameter(self.vector[a:b]) for a, b in spans]
        for p, (a, b) in zip(out, spans, strict=True):
            p.grad = self.gradient[a:b]
        return out

    def spans(self) -> list[tuple[int, int]]:
        """Where the parameters lie between the statistics."""
        statistics = {(name,) for name in self.statistics}
        spans: list[tuple[int, int]] = []
        for path, a, b in zip(self.layout.paths, self.layout.offsets, self.layout.offsets[1:], strict=False):
            if path in statistics:
                continue
            if spans and spans[-1][1] == a:
                spans[-1] = (spans[-1][0], b)
            else:
                spans.append((a, b))
        return spans


def plain_rate(make: Callable[..., Any]) -> float | None:
    """The learning rate where `make` is torch.optim.SGD and nothing more, else None."""
    kind, args, given = (make.func, make.args, make.keywords) if isinstance(make, partial) else (make, (), {})
    off = {"momentum": 0, "dampening": 0, "weight_decay": 0, "nesterov": False, "maximize": False}
    if kind is not torch.optim.SGD or args:
        return None
    if any(k != "lr" and not (k in off and v == off[k]) for k, v in given.items()):
        return None
    return float(given.get("lr", 1e-3))


def _dtype(trained: dict[str, Tensor], averaged: dict[str, Tensor]) -> torch.dtype:
    if not trained:
        raise ConfigError(
            "The module of TorchModel must have parameters to train. Got none. Set requires_grad on some."
        )
    if lazy := [n for n, t in trained.items() if isinstance(t, nn.parameter.UninitializedParameter)]:
        raise ConfigError(f"The module must know its shapes. Got '{lazy[0]}' uninitialized. Pass it one batch first.")
    kinds = {t.dtype for t in (trained | averaged).values()}
    if len(kinds) != 1 or not kinds <= {torch.float32, torch.float64}:
        raise ConfigError(
            f"Parameters must be all float32 or all float64. Got {sorted(map(str, kinds))}. Use net.float()."
        )
    return kinds.pop()
