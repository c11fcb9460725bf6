"""FedLTN: sparse personal lottery tickets (Mugunthan et al., ECCV 2022, LNCS 13672, pp. 69-85).

participant  trains its ticket (the shared weights under its own mask, with its own normalisation layers), prunes it
             *after* training once it validates well enough, and never rewinds; sends a delta, float32, with a weight
             for each coordinate: its examples where its mask keeps it, 0 elsewhere
hub          averages each coordinate over those who kept it, and steps with momentum; a coordinate that nobody covered
             in a round stays as it is, and so does its velocity
never leaves examples, labels, all of the normalisation layers (weight, bias, running mean and variance), buffers with
             the policy "local"; the mask shows in what is sent
bytes        one model less its normalisation layers down, and two up (values and weights); with `Sparse` only the
             values at the kept coordinates each way, and the mask when it changed
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from comity.combine.mean import Mean
from comity.core.checks import number, word
from comity.core.contribution import Array, Contribution, Tree
from comity.core.errors import ConfigError
from comity.core.fits import Unchanged
from comity.core.parts import Combiner, Model, Secret, Step
from comity.core.round import Round
from comity.core.scores import scores
from comity.core.spec import Spec, like
from comity.core.tree import ravel, unravel
from comity.methods.sparsity import SCOPES, everything, kept, magnitude_mask, masked, sparse_delta
from comity.methods.steps import as_dict, first, zeros_like
from comity.methods.training import Examples, fitted, held_out, model_fits, predicted, weighed

NORMS = ("local", "average")


@dataclass(frozen=True)
class FedLTN:
    """Learns the weights that personal tickets share. Participants are `TicketTrainer`.

    `run.shared` is the model without its normalisation layers, dense; the whole sparse model of a participant is
    `sites[name].personal(run.shared, run.local(name))`.

    For each coordinate i, with n_k the examples of k and m_k its mask: d_i = Σ n_k m_ki (w_ki - w_i) / Σ n_k m_ki, then
    v_i ← momentum·v_i + d_i and w_i ← w_i + rate·v_i; where Σ n_k m_ki is 0, v_i and w_i stay. The paper names server
    momentum without its coefficient, and weighting by examples without a formula that could be read: 0.9, rate 1 and
    the rule for uncovered coordinates are ours. For a mean that counts each participant once use
    combine=Mean(uniform=True).

    Attributes:
        model: what is trained; the participants hold the same one. Its `norms` are the leaves of its normalisation
            layers; a model that does not tell them has its `statistics` for them, which may be none.
        momentum: of the hub, in [0, 1).
        rate: the hub's learning rate, > 0.
        norms: "local" leaves the normalisation layers at the sites, as the paper does; "average" shares them like the
            rest, statistics without momentum.
        bound: the largest absolute value of a delta's coordinate, > 0; what passes it is refused.
        start: parameters to begin with, in place of the model's own: a whole model, or what `run.shared` is.

    Raises:
        ConfigError: a setting outside its range, no model, or a start of another form than it.

    Example:
        >>> import numpy as np, comity as co
        >>> X, y = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
        >>> model = co.MLP(4, 2, hidden=(8,), rate=0.5)
        >>> sites = {n: co.TicketTrainer(model, (X, y), valid=(X, y), keep=0.4, rate=0.5, threshold=1.0) for n in "ab"}
        >>> run = co.Collaboration(co.FedLTN(model, momentum=0.5), sites).run(rounds=20)
        >>> run.metrics["valid_accuracy"], round(run.metrics["density"], 2)
        (1.0, 0.42)
    """

    model: Model
    momentum: float = 0.9
    rate: float = 1.0
    norms: str = "local"
    bound: float = math.inf
    start: Tree = None
    tells: ClassVar[Any] = Unchanged("share", "expect", yes="all", no="each")

    def __post_init__(self) -> None:
        model_fits(self, "statistics")
        number("momentum", "FedLTN", self.momentum, "[0, 1)")
        number("rate", "FedLTN", self.rate, "(0, inf)")
        word("norms", "FedLTN", self.norms, NORMS)
        number("bound", "FedLTN", self.bound, "(0, inf]", hint="Use math.inf for none.")
        if self.start is not None:
            self.init(Round("start", 0))

    @property
    def combiner(self) -> Combiner:
        """Mean, weighted by the examples of those who kept a coordinate."""
        return Mean()

    def init(self, round: Round) -> Any:
        """The shared parameters, and the velocity of those that are no statistics."""
        own, start, away = as_dict(self.model.init(round)), self.start, self._away()
        if isinstance(start, Mapping) and start and not away & start.keys():
            start = {**{name: leaf for name, leaf in own.items() if name in away}, **start}
        whole = own if start is None else first(self.model, round, start)
        params = {name: leaf for name, leaf in whole.items() if name not in away}
        params = unravel(ravel(params), params)
        stepped = {name: leaf for name, leaf in params.items() if name not in self.model.statistics}
        return {"params": params, "velocity": zeros_like(stepped) if self.momentum else {}}

    def share(self, state: Any, to: str, round: Round) -> Contribution:
        """The shared parameters."""
        return Contribution("model", state["params"])

    def expect(self, state: Any, to: str, round: Round) -> Spec:
        """The shared parameters' names, shapes and dtypes, within the bound, each with weights of its own."""
        return Spec(like(state["params"], -self.bound, self.bound), kind="delta", weights="tree")

    def update(self, state: Any, combined: Contribution, round: Round) -> Any:
        """Step where somebody covered a coordinate; statistics that are shared move by their mean."""
        params, velocity, change = dict(state["params"]), dict(state["velocity"]), as_dict(combined.value)
        for name, p in params.items():
            here, step = covered(combined.weight, name), change[name]
            if name in velocity:
                v = velocity[name]
                step = np.where(here, self.momentum * v + step, v).astype(p.dtype)
                velocity[name] = step
            by = 1.0 if name in self.model.statistics else self.rate
            params[name] = np.where(here, p + by * step, p).astype(p.dtype)
        return {"params": unravel(ravel(params), params), "velocity": velocity}

    def _away(self) -> set[str]:
        return set(norms_of(self.model)) if self.norms == "local" else set()


def covered(weight: Any, name: str) -> Any:
    """Where of a leaf somebody gave weight: bools of its shape, or one for all of it."""
    return np.asarray(weight[name] if isinstance(weight, Mapping) else weight) > 0


def norms_of(model: Any) -> tuple[str, ...]:
    """The leaves of a model's normalisation layers; of a model that does not tell them, its statistics."""
    return tuple(getattr(model, "norms", model.statistics))


@dataclass(frozen=True)
class TicketTrainer:
    """Trains a sparse personal sub-network, its ticket, and prunes it further when it can afford it.

    In each round, with w the shared weights, m its mask and b its own normalisation layers: train (w·m, b) with the
    pruned weights held at 0; measure the accuracy of what came of it on `valid`; if that is good enough and more than
    `keep` is left, remove the smallest `rate` of the rest; measure again, and take the cut back where the accuracy fell
    by more than `tolerance`. Nothing is rewound. Masks only shrink.

    Good enough is an accuracy of at least `threshold`; or, where `drop` is given, one that lies at most `drop` below
    the best that its trained ticket has had (in its first round there is none yet, and it does not prune).

    The drawer holds the ticket, `run.local(name)["mask"]` and `["norms"]`; normalisation layers begin with the model's
    own values. Scores are of the shared weights under the own mask and norms, beside them "density", the share of the
    prunable weights that is kept.

    The paper reports tickets of 90 % sparsity, and gives in what could be read of it neither the pruning rate, the
    threshold, the epochs nor whether magnitudes are compared over all layers or in each; it tests a ticket again after
    pruning. 0.06, 0.25, 0.5, 0.05 and "global" are ours: 6 % rather than 10 %, so that the file is a tenth as well.

    Attributes:
        model: the same as the method's; it must offer Step(mask=...), as Linear, MLP and TorchModel do.
        data: (X, y): X (examples, ...), y (examples,); or whatever else the model's `fit` takes.
        valid: (X, y) with class numbers, by which it decides; its scores begin with "valid_". Without them it decides
            by the accuracy on its training data, which flatters: it then prunes early.
        test: (X, y) for the reported scores; never looked at for a decision.
        keep: share of the prunable weights to end with, in (0, 1].
        rate: share of the rest that a cut removes, in (0, 1).
        threshold: accuracy from which on it prunes, in [0, 1].
        drop: how far below its best the accuracy may lie for it to prune, in [0, 1], in place of the threshold.
        tolerance: how much accuracy a cut may cost, in [0, 1]; 1 never takes one back.
        scope: "global" or "layer": over which weights magnitudes are compared.
        epochs: of training in a round, >= 0; None for the model's own.

    Raises:
        ConfigError: a setting outside its range, no model that can be trained, or, in a run, a model that predicts no
            classes.
    """

    model: Model
    data: Any = field(metadata={"data": True}, repr=False)
    valid: Any = field(default=None, metadata={"data": True}, repr=False)
    test: Any = field(default=None, metadata={"data": True}, repr=False)
    keep: float = 0.06
    rate: float = 0.25
    threshold: float = 0.5
    drop: float | None = None
    tolerance: float = 0.05
    scope: str = "global"
    epochs: float | None = None
    drawer: ClassVar[str] = "ticket"

    def __post_init__(self) -> None:
        model_fits(self, "fit()", "statistics")
        cuts_fit(self)
        for name in ("tolerance", "drop"):
            if getattr(self, name) is not None or name == "tolerance":
                number(name, "TicketTrainer", getattr(self, name), "[0, 1]")
        word("scope", "TicketTrainer", self.scope, SCOPES)

    def contribute(self, shared: Contribution, local: Tree, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """A delta at the kept coordinates, and the ticket into the drawer; or scores when scores are asked for."""
        mine, given = as_dict(local), as_dict(shared.value)
        mask, buffers = own_mask(self, given, mine), mine.get("buffers", {})
        params = masked({**given, **self._norms(given, mine, round)}, mask)
        if shared.kind == "score":
            return scored(self, params, buffers, mask), local
        params, buffers, metrics = fitted(self, params, buffers, round, Step(mask=mask, epochs=self.epochs))
        mask, best = self._pruned(params, buffers, mask, mine.get("best"))
        c = weighed(self, "delta", None, {**metrics, "density": pair(mask)})
        ticket = {"mask": mask, "norms": {name: leaf for name, leaf in params.items() if name not in given}}
        notes = {**({"buffers": buffers} if buffers else {}), **({} if best is None else {"best": best})}
        return sparse_delta(c, params, given, mask), {**mine, **ticket, **notes}

    def personal(self, shared: Tree, local: Tree) -> dict[str, Any]:
        """The whole sparse model of a participant: the shared weights under its mask, with its own norms.

        Args:
            shared: `run.shared`.
            local: its drawer, `run.local(name)`; {} stands for one that was never asked.
        """
        mine, given = as_dict(local), as_dict(shared)
        return masked({**given, **self._norms(given, mine, Round("", 0))}, own_mask(self, given, mine))

    def _norms(self, given: Mapping[str, Any], mine: Mapping[str, Any], round: Round) -> Any:
        """What of the model is not shared: its own, first as the model begins."""
        if "norms" in mine:
            return mine["norms"]
        begun = as_dict(self.model.init(replace(round, number=0, attempt=0, me="")))
        return {name: leaf for name, leaf in begun.items() if name not in given}

    def _pruned(self, params: Any, buffers: Any, mask: Any, best: float | None) -> tuple[Any, float | None]:
        """The mask after training, and the best accuracy so far where that is asked for."""
        accuracy = accuracy_of(self, params, buffers)
        if self.drop is None:
            enough, best = accuracy >= self.threshold, None
        else:
            enough, best = best is not None and accuracy >= best - self.drop, max(accuracy, best or 0.0)
        smaller = cut(params, mask, keep=self.keep, rate=self.rate, scope=self.scope) if enough else None
        if smaller is None:
            return mask, best
        after = accuracy_of(self, masked(params, smaller), buffers) if self.tolerance < 1 else accuracy
        return (smaller if accuracy - after <= self.tolerance + 1e-9 else mask), best


def cuts_fit(who: Any) -> None:
    """Refuse, of a participant that prunes, a `keep`, `rate`, `threshold` or `epochs` out of range."""
    of = type(who).__name__
    number("keep", of, who.keep, "(0, 1]", hint="Use 0.1 to keep a tenth.")
    number("rate", of, who.rate, "(0, 1)", hint="Use 0.2 to remove a fifth of what is left.")
    number("threshold", of, who.threshold, "[0, 1]")
    if who.epochs is not None:
        number("epochs", of, who.epochs, "[0, inf)", hint="None is the model's own.")


def own_mask(who: Any, given: Mapping[str, Any], mine: Mapping[str, Any]) -> Any:
    """The mask in a drawer; everything, the first time."""
    return mine["mask"] if "mask" in mine else everything(given, who.model.statistics)


def cut(
    params: Mapping[str, Any], mask: Mapping[str, Any], *, keep: float, rate: float, scope: str
) -> dict[str, Array] | None:
    """The mask after one cut, or None where nothing may be removed any more.

    Args:
        params: {name: array}, as trained.
        mask: the mask so far; it covers what is to be cut.
        keep: share of all prunable weights that is never cut, in (0, 1].
        rate: share of the rest to remove, in (0, 1); rounded up to whole weights.
        scope: "global", or "layer" for the same shares in each leaf.
    """
    groups = [dict(mask)] if scope == "global" else [{name: leaf} for name, leaf in mask.items()]
    smaller = {k: v for group in groups for k, v in _cut_group(params, group, keep, rate).items()}
    return smaller if kept(smaller)[0] < kept(mask)[0] else None


def _cut_group(params: Mapping[str, Any], group: Mapping[str, Any], keep: float, rate: float) -> dict[str, Array]:
    some, all_ = kept(group)
    left = max(math.ceil(keep * all_ - 1e-9), math.floor(some * (1.0 - rate) + 1e-9))
    return magnitude_mask(params, left / all_, within=group) if all_ else dict(group)


def accuracy_of(who: Examples, params: Tree, buffers: Tree) -> float:
    """The accuracy by which a participant decides: on `valid`, else on its training data; 0 where there are no rows.

    Raises:
        ConfigError: the model predicts no classes.
    """
    x, y = who.data if who.valid is None else who.valid
    if not len(y):
        return 0.0
    found = scores(predicted(who.model, params, buffers, x), np.asarray(y))
    if "accuracy" not in found:
        raise ConfigError(
            f"The model of {type(who).__name__} must predict classes: it prunes by accuracy. Got numbers. "
            "Use co.Ditto for a personal model of another kind."
        )
    return found["accuracy"][0] / found["accuracy"][1]


def scored(who: Examples, params: Tree, buffers: Tree, mask: Mapping[str, Any]) -> Contribution:
    """The scores of a ticket, and its density."""
    return Contribution("score", None, metrics={**held_out(who, params, buffers), "density": pair(mask)})


def pair(mask: Mapping[str, Any]) -> tuple[float, float]:
    """(kept, all) as a metric."""
    some, all_ = kept(mask)
    return float(some), float(all_)
