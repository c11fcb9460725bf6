"""Tickets: one sparse model for all, pruned at the hub by magnitude while it is trained.

participant  trains the kept weights of what it received; sends how they changed, dense in the kept coordinates, and how
             the rest (biases, normalisation, statistics) changed, float32; weight: its examples
hub          averages, steps with momentum (statistics move by their mean), prunes the weights of least magnitude as
             the schedule says, and keeps a moving average of the parameters for deployment
never leaves examples, labels, buffers with the policy "local"
bytes        each way the kept weights and the rest; down also the mask, until it stays as it is (`Once`).
             With [Once(least=512), Quantize(up=4, down=8), Deflate()] about an eighth of it up and a quarter down

Everybody has the same mask, so contributions are sums like any other: secure aggregation and noise on the sum fit.
"""

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar

import numpy as np

from comity.combine.mean import Mean
from comity.core.checks import number, shown, whole, word
from comity.core.contribution import Array, Contribution, Tree
from comity.core.errors import ConfigError, ContributionError
from comity.core.fits import Unchanged
from comity.core.parts import Combiner, Model, Secret
from comity.core.positions import encode_mask
from comity.core.round import Round
from comity.core.spec import Spec, check, like
from comity.core.tree import ravel, tree_map, unravel
from comity.methods.augmenting import Augment, augment_fits, fitted_anew
from comity.methods.sparsity import (
    PRUNES,
    decoded,
    everything,
    masked,
    prunable,
    pruned,
    pruning_fits,
    schedule_fits,
    scheduled,
    to_prune,
    unlike,
)
from comity.methods.steps import as_dict, first
from comity.methods.training import held_out, model_fits, weighed

TICKET = frozenset(("values", "rest", "mask"))
STATE = frozenset(("params", "ema", "velocity", "closed"))


@dataclass(frozen=True)
class Tickets:
    """Trains one sparse model together: a shared lottery ticket. Participants are `SharedTicketTrainer`.

    After round t = 1, 2, ... the hub, with the mean change d of the kept weights and of the rest, sets

        v = momentum v + d;  w = w + v  (statistics: w = w + d, without v)
        keep the weights of largest |w|, over all layers, of those kept before; elsewhere w = v = a = 0
        a = ema a + (1 - ema) w  (the first time: a = w)

    The share that is kept falls as in gradual magnitude pruning (Zhu & Gupta, arXiv 1710.01878, eq. 1). Weights are not
    wound back and do not grow again. One mask for all, made at the hub, departs from FedLTN (Mugunthan et al., ECCV
    2022; `FedLTN` here), where each participant prunes its own; so does BatchNorm, which is averaged like all else.
    Prunable are weights of linear, convolution and embedding layers: leaves of two dimensions or more.

    With prune="nodes" whole channels and neurons of hidden layers go, the weakest first, until at most the density is
    kept; the strongest of each layer stays. The strength is that of the weights that lead to a node (minimum weight
    with layer-wise normalisation, Molchanov et al., ICLR 2017). `co.shrink(net, mask=tickets.mask(run.shared))` takes
    them out afterwards: the network is then faster, and not only its file smaller.

    What is shared (`run.shared`) is a ticket: {"values": {name: (kept,) array}, "rest": {name: array}, "mask":
    {name: bytes of core.positions}}; `params` makes parameters of it. While there are rounds to come it holds the
    parameters as they are; after the last of `rounds` the average, so that the last scores are those of what is
    deployed. A participant answers with {"values", "rest"} of the same shapes.

    Attributes:
        model: what is trained; the participants hold the same one.
        rounds: of the whole schedule, >= 1; run as many.
        density: the share of prunable weights that is kept in the end, in (0, 1].
        begin: the share of the rounds before the first weight is pruned, in [0, 1).
        by: the share of the rounds after which the density is reached, in [begin, 1]. From 100 rounds on 0.3 does.
        momentum: of the hub, in [0, 1).
        ema: how slowly the average moves, in [0, 1); 0 deploys the last parameters. From 100 rounds on 0.9 does.
        scope: "global" compares all weights with each other; "layer" only those of one layer, and each comes to the
            density. Where little is left of a small model, "global" may take a whole layer.
        prune: "weights" one by one, or "nodes", which wants a model that has `nodes`: an MLP, or a TorchModel of a
            chain of layers.
        bound: the largest absolute value of a change, > 0; what passes it is refused.
        start: parameters to begin with, or a ticket (`run.shared`, whose mask it keeps), or the state of another run of
            such a method (`run.state`), whose schedule goes on after the rounds that it closed.

    Raises:
        ConfigError: a setting out of range, a model with nothing to prune, or a start of another form.

    Example:
        >>> import numpy as np, comity as co
        >>> X, y = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
        >>> model = co.MLP(inputs=4, classes=2, hidden=(50,), rate=0.5)
        >>> tickets = co.Tickets(model, 20, density=0.1)
        >>> sites = {name: co.SharedTicketTrainer(model, (X, y)) for name in ("a", "b")}
        >>> run = co.Collaboration(tickets, sites).run(rounds=20)
        >>> params = tickets.params(run.shared)
        >>> run.metrics["train_accuracy"], sum(int(np.count_nonzero(params[name])) for name in ("0.weight", "2.weight"))
        (1.0, 30)
    """

    model: Model
    rounds: int
    _: KW_ONLY
    density: float = 0.3
    begin: float = 0.0
    by: float = 0.4
    momentum: float = 0.5
    ema: float = 0.8
    scope: str = "global"
    prune: str = "weights"
    bound: float = math.inf
    start: Tree = None
    tells: ClassVar[Any] = Unchanged("share", "expect", yes="all", no="each")

    def __post_init__(self) -> None:
        model_fits(self, "statistics")
        schedule_fits(self)
        for name in ("momentum", "ema"):
            object.__setattr__(self, name, number(name, "Tickets", getattr(self, name), "[0, 1)"))
        word("prune", "Tickets", self.prune, PRUNES)
        number("bound", "Tickets", self.bound, "(0, inf]", hint="Use math.inf for none.")
        self.init(Round("start", 0))

    @property
    def combiner(self) -> Combiner:
        """Mean, weighted by examples."""
        return Mean()

    def density_after(self, closed: int) -> float:
        """The density after so many closed rounds, of all prunable weights together."""
        return scheduled(self, closed)

    def init(self, round: Round) -> Any:
        """The ticket that keeps everything, or what `start` gives."""
        own: Any = self.model.init(round)
        to_prune(self, own)
        pruning_fits(self, own)
        if isinstance(self.start, Mapping) and self.start.keys() == STATE:
            return self._going_on(own, self.start)
        given: Any = self.start
        ticket = isinstance(given, Mapping) and given.keys() == TICKET
        mask = self._mask(given, own) if ticket else everything(own, self.model.statistics)
        dense = first(self.model, round, _dense(given, mask, own) if ticket else given)
        return self._state(_packed(masked(dense, mask), mask))

    def share(self, state: Any, to: str, round: Round) -> Contribution:
        """The ticket: kept values, the rest, the mask."""
        return Contribution("model", self._shared(state))

    def expect(self, state: Any, to: str, round: Round) -> Spec:
        """Changes of exactly the kept values and of the rest, within the bound."""
        now = self._shared(state)
        value = {part: like(now[part], -self.bound, self.bound) for part in ("values", "rest")}
        return Spec(value, kind="delta")

    def update(self, state: Any, combined: Contribution, round: Round) -> Any:
        """Step, prune, average."""
        was, change = self._shared(state), as_dict(combined.value)
        velocity = tree_map(self._stepped, state["velocity"], self._moved(change))
        step = {**change, "values": velocity["values"], "rest": {**change["rest"], **velocity["rest"]}}
        params = {k: tree_map(_added, was[k], step[k]) for k in ("values", "rest")}
        closed = state["closed"] + 1
        own: Any = self.model.init(round)
        before = self._mask(was, own)
        share = self.density_after(closed)
        after = pruned(self, _dense(params, before, own), share, before)
        mask = {name: encode_mask(leaf) for name, leaf in after.items()}
        inside = {name: leaf[before[name]] for name, leaf in after.items()}
        now = {**_cut(params, inside), "mask": mask}
        old = _cut(state["ema"], inside) if state["closed"] else now
        mean = {k: tree_map(self._mixed, old[k], now[k]) for k in ("values", "rest")}
        return {"params": now, "ema": {**mean, "mask": mask}, "velocity": _cut(velocity, inside), "closed": closed}

    def params(self, found: Any, *, ema: bool = True) -> Any:
        """The parameters of a ticket, 0 where nothing is kept: for the model's `predict`, or to be deployed.

        Args:
            found: what a run shared (`run.shared`, `run.best`, `co.load`), or the state of a run (`run.state`).
            ema: of a state, the moving average; else the parameters as the next round would begin with them.

        Returns:
            {name: array} as the model has them.

        Raises:
            ConfigError: it is no ticket of this model.
        """
        own, ticket = self._own, self._ticket(found, ema)
        return _dense(ticket, self._mask(ticket, own), own)

    def mask(self, found: Any) -> dict[str, Array]:
        """What a ticket keeps: {name: bool array} over the prunable weights. Takes what `params` takes."""
        return self._mask(self._ticket(found, True), self._own)

    @property
    def _own(self) -> Any:
        return self.model.init(Round("start", 0))

    def _shared(self, state: Any) -> Any:
        """The average once the schedule is done: it is what the last scores are of."""
        return state["ema" if state["closed"] >= self.rounds else "params"]

    def _state(self, ticket: Any) -> Any:
        velocity = tree_map(np.zeros_like, self._moved(ticket))
        return {"params": ticket, "ema": ticket, "velocity": velocity, "closed": 0}

    def _moved(self, ticket: Any) -> dict[str, Any]:
        """What momentum is for: all but the statistics."""
        rest = {k: v for k, v in ticket["rest"].items() if k not in self.model.statistics}
        return {"values": ticket["values"], "rest": rest}

    def _stepped(self, v: Array, d: Array) -> Array:
        return np.asarray(self.momentum * v + d, v.dtype)

    def _mixed(self, old: Array, new: Array) -> Array:
        return np.asarray(self.ema * old + (1.0 - self.ema) * new, new.dtype) if self.ema else new

    def _ticket(self, found: Any, ema: bool) -> Any:
        if isinstance(found, Mapping) and found.keys() == STATE:
            return found["ema" if ema else "params"]
        if isinstance(found, Mapping) and found.keys() == TICKET:
            return found
        raise ConfigError(f"A ticket must be what a run of Tickets shared, or its state. Got {shown(found)}.")

    def _mask(self, ticket: Any, own: Any) -> dict[str, Array]:
        return _mask(ticket, own, prunable(own, self.model.statistics))

    def _going_on(self, own: Any, state: Any) -> Any:
        """The state of an earlier run, looked at."""
        closed, out = whole("closed", "start", state["closed"]), {}
        for part in ("params", "ema"):
            mask = self._mask(state[part], own)
            out[part] = _packed(first(self.model, Round("start", 0), _dense(state[part], mask, own)), mask)
        spec = Spec(like(self._state(out["params"])["velocity"]))
        try:
            check(Contribution("velocity", state["velocity"]), spec)
        except ContributionError as error:
            got = shown(state["velocity"])
            raise ConfigError(
                f"The 'start' must have a velocity like its parameters. Got {got}. Use run.state."
            ) from error
        if out["params"]["mask"] != out["ema"]["mask"]:
            raise ConfigError("The 'start' must be a state whose parts fit. Got parts of two masks. Use run.state.")
        return {**out, "velocity": state["velocity"], "closed": closed}


@dataclass(frozen=True)
class SharedTicketTrainer:
    """Trains the kept weights of a shared ticket on its own examples, and scores the ticket on its own held-out ones.

    Weights that are not kept are 0 and stay so. With `augment` each example is seen anew in each epoch: before a fit as
    many copies of the examples are made as there are epochs, each augmented alone, and shuffled together (a pass over
    the data is then no longer an epoch; the number of steps is the same).

    Attributes:
        model: the same as the method's; it must offer Step(mask=...), as Linear, MLP and TorchModel do.
        data: (X, y): X (examples, ...), y (examples,); or whatever else the model's `fit` takes.
        epochs: in a round, >= 0; None for the model's own.
        augment: `augment(x, rng) -> x`: (rows, ...) to as many rows, changed at random: by a numpy Generator keyed by
            seed, round and participant, so that it can be repeated. A Dataset with transforms needs none.
        test: (X, y) for the reported scores.
        valid: (X, y) for choices; its scores begin with "valid_".

    Where neither test nor valid is given, scores are of the training data and begin with "train_".

    Raises:
        ConfigError: epochs below 0 or not finite, an `augment` that cannot be called or has no (X, y) to change, or no
            model that can be trained.

    Example:
        >>> import numpy as np, comity as co
        >>> def shifted(x, rng):
        ...     return x + rng.normal(0, 0.1, (len(x), 1)).astype(x.dtype)
        >>> X, y = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
        >>> model = co.MLP(inputs=4, classes=2, hidden=(50,), rate=0.5)
        >>> sites = {name: co.SharedTicketTrainer(model, (X, y), epochs=3, augment=shifted) for name in ("a", "b")}
        >>> co.Collaboration(co.Tickets(model, 20), sites).run(rounds=20).metrics["train_accuracy"]
        1.0
    """

    model: Model
    data: Any = field(metadata={"data": True}, repr=False)
    epochs: float | None = None
    augment: Augment | None = None
    test: Any = field(default=None, metadata={"data": True}, repr=False)
    valid: Any = field(default=None, metadata={"data": True}, repr=False)

    def __post_init__(self) -> None:
        model_fits(self, "fit()", "statistics")
        augment_fits(self)

    def contribute(self, shared: Contribution, local: Tree, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """The change of the ticket weighted by examples; or scores when scores are asked for."""
        mine, (params, mask) = as_dict(local), self._opened(shared.value)
        buffers = mine.get("buffers", {})
        if shared.kind == "score":
            return Contribution("score", None, metrics=held_out(self, params, buffers)), local
        after, buffers, metrics = fitted_anew(self, params, buffers, round, mask)
        change = _packed({name: np.subtract(after[name], leaf) for name, leaf in params.items()}, mask)
        reply = weighed(self, "delta", {k: change[k] for k in ("values", "rest")}, metrics)
        return reply, ({**mine, "buffers": buffers} if buffers else mine)

    def received(self, ticket: Any) -> Any:
        """The parameters of a ticket, 0 where nothing is kept."""
        return self._opened(ticket)[0]

    def _opened(self, ticket: Any) -> tuple[Any, dict[str, Array]]:
        """Parameters and mask."""
        own: Any = self.model.init(Round("start", 0))
        mask = _mask(ticket, own, prunable(own, self.model.statistics))
        return _dense(ticket, mask, own), mask


def _packed(params: Mapping[str, Any], mask: Mapping[str, Array]) -> dict[str, Any]:
    """A ticket: the values that are kept, in C order, the rest as it is, and the mask."""
    return {
        "values": {name: np.asarray(params[name])[leaf] for name, leaf in mask.items()},
        "rest": {name: leaf for name, leaf in params.items() if name not in mask},
        "mask": {name: encode_mask(leaf) for name, leaf in mask.items()},
    }


def _mask(ticket: Any, own: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Array]:
    return decoded(ticket.get("mask") if isinstance(ticket, Mapping) else None, own, names)


def _dense(ticket: Any, mask: Mapping[str, Array], own: Mapping[str, Any]) -> Any:
    """Parameters like `own`, over one flat vector, 0 where nothing is kept."""
    out = unravel(np.zeros_like(ravel(own)), own)
    for name, leaf in own.items():
        part = ticket.get("values" if name in mask else "rest")
        given = part.get(name) if isinstance(part, Mapping) else None
        shape = (int(mask[name].sum()),) if name in mask else leaf.shape
        if not isinstance(given, np.ndarray) or given.shape != shape or given.dtype.kind not in "fiub":
            raise unlike(f"'{name}' of shape {shape}", given)
        out[name][mask.get(name, slice(None))] = given
    return out


def _cut(ticket: Any, inside: Mapping[str, Array]) -> dict[str, Any]:
    """What is left of values and rest when, of the kept values, only those `inside` stay."""
    return {"values": {k: v[inside[k]] for k, v in ticket["values"].items()}, "rest": dict(ticket["rest"])}


def _added(p: Array, d: Array) -> Array:
    return np.asarray(p + d, p.dtype)
