"""TorchModel: any nn.Module behind the one face of a model."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from comity.adapters.common import epochs_of, measured, named, over, refuse, settings, taken
from comity.adapters.common import flat as flat_of
from comity.adapters.rows import finite
from comity.adapters.torch.batched import Batched
from comity.adapters.torch.batches import batches, tensor, tensors
from comity.adapters.torch.chain import nodes_of
from comity.adapters.torch.fit import (
    ELEMENTWISE,
    around,
    classes_fit,
    described,
    device_of,
    loss_name,
    mover,
    objective,
    tapped,
    train,
)
from comity.adapters.torch.flat import Flat, Policy, frozen_values, policies
from comity.adapters.torch.many import fit_many, plan_for
from comity.adapters.torch.norms import norm_leaves, recalibrated
from comity.adapters.torch.private import private_fit
from comity.core.checks import refusal, whole, word
from comity.core.contribution import Array, Metrics, Tree
from comity.core.errors import ConfigError
from comity.core.nodes import Nodes
from comity.core.parts import Step
from comity.core.round import Round, Turns
from comity.core.together import Fitted, Plan, Wish
from comity.core.tree import ravel

_ROWS, _TRIED = 1024, 7
_SGD = partial(torch.optim.SGD, lr=0.1)
_PLAN = Plan()
_BINARY = ("binary_cross_entropy_with_logits", "BCEWithLogitsLoss")
_WAYS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda z: z.softmax(1),
    "sigmoid": lambda z: _two(z.sigmoid()),
    "none": lambda z: z[:, 0] if z.ndim == 2 and z.shape[1] == 1 else z,
}


@dataclass(frozen=True, eq=False)
class TorchModel:
    """An ordinary nn.Module, trained with an ordinary loss and optimizer.

    The module is copied at construction and never changed; one copy, over one flat vector, is used again for every
    fit. Parameters are {name: array} as in `named_parameters`, in the module's dtype. The optimizer starts anew in each
    fit. Where the module has BatchNorm, a last batch of one row joins the batch before it.

    Parameters that do not require a gradient are frozen: they neither move nor travel, and all must have the same
    (see `frozen`). A BatchNorm whose weights are all frozen normalises by its own running statistics, in training too,
    and they stay as they are.

    Attributes:
        module: any nn.Module whose parameters are all float32 or all float64.
        loss: `loss(outputs, targets)`, a mean over the rows of the batch. Targets (rows,) meet outputs (rows, 1) as a
            column; nothing is broadcast.
        optimizer: called with a list of tensors: a class of torch.optim, or a partial of one.
        batch: rows in a step; of a private one, rows at once, which bounds memory.
        epochs: passes over the data in one fit; the last may be a part.
        buffers: what becomes of floating-point buffers such as BatchNorm's running statistics: "average" (they travel
            with the parameters and are named in `statistics`), "local" (they stay at the site: `fit_local`) or "reset"
            (each fit begins with the module's own, and they never travel). Whole-number buffers are never averaged;
            see `buffers_policy`.
        device: such as "cpu" or "cuda".
        threads: torch threads during the work, put back afterwards; None leaves them alone.
        probabilities: how `predict` reads the outputs: "softmax", "sigmoid" (of one column: two columns), "none", or a
            callable on the output tensor. None decides: sigmoid for binary_cross_entropy_with_logits, none for
            regression losses and one column, else softmax.

    Data are (X, y) of numpy or torch, a TensorDataset or a Subset of one, all in memory; or any Dataset with a length
    and rows (x, y), collated batch by batch, so that its random transforms are drawn anew.

    Raises:
        ConfigError: a setting out of range, or a module that cannot be copied or trained.

    Example:
        >>> from functools import partial
        >>> import torch
        >>> from comity.core.round import Round
        >>> net = torch.nn.Sequential(torch.nn.Linear(1, 1))
        >>> sgd = partial(torch.optim.SGD, lr=0.1)
        >>> model = TorchModel(net, torch.nn.functional.mse_loss, optimizer=sgd, epochs=200)
        >>> here, X = Round("doctest", seed=0), torch.arange(4.0)[:, None]
        >>> params, metrics = model.fit(model.init(here), (X, 2 * X[:, 0] + 1), here)
        >>> model.predict(params, [[4.0]]).round(1).tolist(), metrics["examples"]
        ([9.0], (4.0, 1.0))
    """

    module: nn.Module
    loss: Callable[..., Any]
    _: KW_ONLY
    optimizer: Callable[..., Any] = _SGD
    batch: int = 32
    epochs: float = 1
    buffers: Policy = "average"
    device: str = "cpu"
    threads: int | None = 1
    probabilities: str | Callable[[Tensor], Tensor] | None = None
    private: ClassVar[bool] = True

    def __post_init__(self) -> None:
        settings(self, "batch", "epochs")
        word("buffers", "TorchModel", self.buffers, ("average", "local", "reset"))
        if not callable(self.probabilities) and self.probabilities is not None:
            word("probabilities", "TorchModel", self.probabilities, tuple(_WAYS))
        for name, use in (("loss", "torch.nn.functional.cross_entropy"), ("optimizer", "torch.optim.SGD")):
            value = getattr(self, name)
            if not callable(value) or (name == "loss" and isinstance(value, type)):
                raise refusal(name, "TorchModel", "a function", value, f"Use {use}.")
        if self.threads is not None:
            object.__setattr__(self, "threads", whole("threads", "TorchModel", self.threads, 1, hint="Use None."))
        object.__setattr__(self, "device", device_of(self.device))
        if not isinstance(self.module, nn.Module):
            raise refusal("module", "TorchModel", "an nn.Module", self.module)
        try:
            self.__dict__["_own"] = copy.deepcopy(self.module)
        except (RuntimeError, TypeError) as error:
            raise ConfigError(
                f"The 'module' must be one that copy.deepcopy can copy. Got {error}. Build it anew."
            ) from error

    @cached_property
    def _flat(self) -> Flat:
        return Flat(self._own, self.buffers, self.device)

    @cached_property
    def _engine(self) -> Batched:
        return Batched(self._flat, self.loss, self.optimizer, self.batch)

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs: it makes its own vectors and graphs."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_flat", "_engine")}

    @property
    def _own(self) -> nn.Module:
        """The module as it was at construction."""
        own: nn.Module = self.__dict__["_own"]
        return own

    @property
    def statistics(self) -> tuple[str, ...]:
        """The names of the averaged buffers."""
        return self._flat.statistics

    @cached_property
    def norms(self) -> tuple[str, ...]:
        """Leaves of layers with running statistics (BatchNorm): weights, biases, averaged statistics; not if frozen."""
        return norm_leaves(self._own, {path[0] for path in self._flat.layout.paths})

    @property
    def nodes(self) -> tuple[Nodes, ...]:
        """Which weights belong to one channel or neuron, for each hidden layer whose weights are not frozen.

        Raises:
            ConfigError: the module is no chain that `co.shrink` can follow; says what is in the way.
        """
        try:
            return nodes_of(self._own, {path[0] for path in self._flat.layout.paths})
        except ConfigError as error:
            raise ConfigError(
                f"The module must be a chain of layers for its nodes to be known. Got this: {error}"
            ) from error

    def buffers_policy(self) -> dict[str, Policy]:
        """What becomes of each buffer: name to "average", "local", "reset" or "frozen"."""
        return policies(self._own, self.buffers)

    @cached_property
    def frozen(self) -> Mapping[str, str]:
        """The sha256, hex, of each frozen parameter and buffer: as they do not travel, the recipe holds them to it."""
        return frozen_values(self._own)

    def init(self, round: Round) -> Tree:
        """The module's own values at construction: {name: array}, views of one vector."""
        return over(self._flat.layout, ravel(self._flat.start, self._flat.layout).copy())

    def local_init(self) -> Tree:
        """The first values of the buffers that stay at the site; {} unless buffers="local"."""
        return {b.name: b.first.cpu().numpy().copy() for b in self._flat.resident}

    def fit(self, params: Tree, data: Any, round: Round, step: Step = Step()) -> tuple[Tree, Metrics]:
        """Train from `params` on `data`; `params` is not changed. Local buffers begin with their first values.

        Returns:
            New parameters, and `examples` (rows, 1) and `train_loss` (summed loss, samples seen).

        Raises:
            ConfigError: data or parameters that do not fit, or Step(private) with a module that mixes examples.
        """
        new, _, metrics = self.fit_local(params, None, data, round, step=step)
        return new, metrics

    def fit_local(
        self, params: Tree, local: Tree, data: Any, round: Round, *, step: Step = Step()
    ) -> tuple[Tree, Tree, Metrics]:
        """As `fit`, with the site's own buffers: None or {} stands for `local_init()`.

        Returns:
            New parameters, the local buffers afterwards, metrics; no metrics with Step(private).
        """
        if step.private is not None:
            refuse(step, "TorchModel with private", ("adjust", "mask", "private"))
            return private_fit(self, params, local, data, round, step)
        flat, epochs = self._flat, self.epochs if step.epochs is None else step.epochs
        with flat.lock, around(self.device, self.threads, round.mine_seed("torch")):
            flat.put(params, self._checked(local))
            flat.train()
            whole = tensors(data, flat.dtype, self.device)
            n = len(whole[0]) if isinstance(whole, tuple) else len(whole)  # type: ignore[arg-type]
            orders = epochs_of(n, epochs, round)
            pieces = batches(whole, orders, self.batch, pairs=flat.pairs, like=flat.vector)
            loss, count = train(flat, pieces, objective(flat, self.loss, step), mover(flat, self.optimizer, step))
            return flat.take(), flat.take_local(), measured(n, loss, count)

    def fit_many(
        self, params: Sequence[Tree], local: Sequence[Tree], data: Sequence[Any], rounds: Turns, plan: Plan = _PLAN
    ) -> Fitted:
        """For each what `fit_local` gives, in less time.

        With `Plan("sequential")` to the bit. With `Plan("batched")` the steps of `plan.chunk` fits are done at once,
        and each differs by rounding: two short fits, done both ways, had to agree to rtol 1e-4, atol 1e-5. Where it
        cannot be, they are done one after the other.

        Args:
            params: where each begins; best the same object where it is the same.
            local: each one's own buffers; None or {} stands for `local_init()`.
            data: each one's examples.
            rounds: each one's round.
            plan: how, best from `plan`.
        """
        return fit_many(self, params, local, data, rounds, plan)

    def plan(
        self, params: Sequence[Tree], local: Sequence[Tree], data: Sequence[Any], rounds: Turns, wish: Wish
    ) -> Plan:
        """How such fits are done best: batched is tried, compared with one after the other, and timed.

        Not batched are modules that draw random numbers in training (dropout), whose Python looks at values, that keep
        something from step to step or have hooks; operations that torch has no batched form of (nn.LSTM); optimizers
        that look at more than each number's own history; data that are not in memory. The module's Python runs only
        when a step is traced: what it does beside computing (printing, counting in a list, a global) is then not seen,
        and cannot be found out.
        """
        return plan_for(self, params, local, data, rounds, wish)

    def ready(self, data: Any) -> Any:
        """The data as tensors, to be given to `fit` again and again: nothing is copied that has the right dtype."""
        return tensors(data, self._flat.dtype, self.device)

    def check(self, data: Any) -> None:
        """Refuse data that `fit` cannot learn from: some rows are tried, and all looked at that are in memory.

        Raises:
            ConfigError: rows that the module does not take, classes that it has no output for, NaN or infinity.
        """
        flat = self._flat
        whole = tensors(data, flat.dtype, "cpu")
        if not isinstance(whole, tuple):
            return
        for name, values in zip(("X", "y"), whole, strict=True):
            finite(name, "TorchModel", values.numpy())
        outputs = self._passes(self.init(Round("check", 0)), None, whole[0][:_TRIED], ())[0][0]
        classes_fit(outputs, whole[1], self.loss)

    def _checked(self, local: Tree) -> Mapping[str, Any] | None:
        if local is None or (isinstance(local, Mapping) and not local):
            return None
        shapes = {b.name: tuple(b.first.shape) for b in self._flat.resident}
        if not isinstance(local, Mapping) or {k: np.shape(v) for k, v in local.items()} != shapes:
            raise ConfigError(f"The local buffers of TorchModel must be {shapes}. Got {local!r:.80}. Use local_init().")
        return local

    def predict(self, params: Tree, x: Any) -> Array:
        """(rows, classes) probabilities where there are classes, else (rows,) or (rows, k) numbers."""
        return self.predict_local(params, None, x)

    def predict_local(self, params: Tree, local: Tree, x: Any) -> Array:
        """As `predict`, with the site's own buffers: None or {} stands for `local_init()`."""
        parts = self._passes(params, local, x, ())
        return np.concatenate([self._way(out)(out).cpu().numpy() for out, _ in parts])

    def recalibrate(self, params: Tree, x: Any) -> Tree:
        """The parameters with running statistics recomputed over x, and nothing else changed: x needs no labels.

        Batches are cut from a fixed shuffle; statistics are their plain mean, as a BatchNorm with momentum=None makes
        it. Dropout is off. Without such layers nothing changes.

        Args:
            params: of this model.
            x: (rows, ...), or a Dataset of (x, y).

        Raises:
            ConfigError: no rows, rows that the module does not take, or buffers="reset".
        """
        return self.recalibrate_local(params, None, x)[0]

    def recalibrate_local(self, params: Tree, local: Tree, x: Any) -> tuple[Tree, Tree]:
        """As `recalibrate`, with the site's own buffers: gives both."""
        with self._flat.lock, around(self.device, self.threads, 0):
            return recalibrated(self._flat, params, self._checked(local), x, self.batch)

    def features(self, params: Tree, x: Any, taps: Sequence[str]) -> Mapping[str, Array]:
        """What submodules put out, by their name in `named_modules`: each (rows, ...); "outputs" is the last of all."""
        taken(taps, [*(n for n, _ in self._flat.module.named_modules() if n), "outputs"], "TorchModel")
        parts = self._passes(params, None, x, taps)
        return {t: np.concatenate([seen[t].cpu().numpy() for _, seen in parts]) for t in taps}

    @torch.no_grad()
    def _passes(self, params: Tree, local: Tree, x: Any, taps: Sequence[str]) -> list[tuple[Tensor, dict[str, Any]]]:
        flat, out = self._flat, []
        with flat.lock, around(self.device, self.threads, 0):
            flat.put(params, self._checked(local))
            flat.eval()
            x = tensor(x, flat.dtype, self.device)
            for part in torch.split(x, _ROWS) if x.ndim else (x,):
                with tapped(flat.module, taps) as seen:
                    out.append((self._outputs(part.clone()), seen))  # some modules write into what they are given
        return out

    def _outputs(self, x: Tensor) -> Any:
        try:
            return self._flat.module(x)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            said = str(error).strip().splitlines()[:1] or [type(error).__name__]
            raise ConfigError(
                f"The module of TorchModel must take X. Got X of shape {tuple(x.shape)}, "
                f"of which it says: {said[0][:160].rstrip('.')}."
            ) from error

    def _way(self, outputs: Tensor) -> Callable[[Tensor], Tensor]:
        if self.probabilities is not None:
            return self.probabilities if callable(self.probabilities) else _WAYS[self.probabilities]
        name, columns = loss_name(self.loss), outputs.shape[1] if outputs.ndim == 2 else 0
        if name in _BINARY:
            return _WAYS["sigmoid"]
        return _WAYS["none" if columns < 2 or name in ELEMENTWISE else "softmax"]

    @torch.no_grad()
    def load(self, net: nn.Module, tree: Tree) -> None:
        """Copy parameters (and averaged buffers) into a module of the same shape; nothing else of it changes.

        Raises:
            ConfigError: a name or shape that differs; nothing was copied then.
        """
        if not isinstance(net, nn.Module):
            raise refusal("net", "TorchModel.load", "an nn.Module", net)
        layout = self._flat.layout
        values = over(layout, flat_of(tree, layout, "TorchModel"))
        known = {**dict(net.named_parameters()), **dict(net.named_buffers())}
        for name, value in values.items():
            got = tuple(known[name].shape) if name in known else "none"
            if got != value.shape:
                raise ConfigError(
                    f"'{name}' of the module must have shape {value.shape}. Got {got}. Use the same architecture."
                )
        for name, value in values.items():
            known[name].copy_(torch.from_numpy(value.copy()))

    def fingerprint(self) -> dict[str, Any]:
        """What a site compares with its own: names, shapes, dtypes, settings and version; no source.

        Of values only what is frozen enters, as a hash: whatever else there is travels.
        """
        tensors = [*self._own.named_parameters(), *self._own.named_buffers()]
        return {
            "module": named(type(self._own)),
            "modules": {n: f"{named(type(m))}({m.extra_repr()})" for n, m in self._own.named_modules() if n},
            "tensors": {n: [str(t.dtype).removeprefix("torch."), *t.shape] for n, t in tensors},
            "frozen": dict(self.frozen),
            "buffers": self.buffers_policy(),
            "loss": described(self.loss),
            "optimizer": described(self.optimizer),
            "probabilities": described(self.probabilities) if callable(self.probabilities) else self.probabilities,
            "batch": self.batch,
            "epochs": self.epochs,
            "torch": str(torch.__version__),
        }


def _two(p: Tensor) -> Tensor:
    """The probability of the second class as two columns; more columns are as many questions and stay."""
    p = p[:, 0] if p.ndim == 2 and p.shape[1] == 1 else p
    return torch.stack([1 - p, p], 1) if p.ndim == 1 else p
