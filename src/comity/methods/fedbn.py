"""FedBN: everything is averaged but the normalisation layers (Li et al., ICLR 2021, Algorithm 1).

participant  trains the whole model with its own BatchNorm layers; sends the delta of all other layers, float32
hub          averages what is shared
never leaves examples, labels, weights, biases and running statistics of BatchNorm
bytes        as FedAvg, less the normalisation layers, which are small: one or two numbers in a hundred
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from comity.combine.mean import Mean
from comity.core.checks import number, part, shown, word
from comity.core.contribution import Contribution, Tree
from comity.core.errors import ConfigError
from comity.core.fits import Unchanged
from comity.core.parts import Combiner, Model, Secret
from comity.core.round import Round
from comity.core.spec import Spec
from comity.core.together import Plan, Stack, Together, Wish, Works
from comity.core.tree import Layout, ravel, unravel
from comity.methods.fedavg import SENDS, FedAvg
from comity.methods.optimizers import HubOptimizer, Momentum
from comity.methods.steps import as_dict, first
from comity.methods.training import difference, fitted, held_out, model_fits, planned, trained_many, weighed


def norms_fit(who: Any) -> None:
    """Refuse a method or a participant whose model has no normalisation layers to keep at home.

    Raises:
        ConfigError: says what to use.
    """
    names = getattr(who.model, "norms", ())
    if not names:
        got = f"{shown(who.model)} without any" if hasattr(who.model, "norms") else shown(who.model)
        raise ConfigError(
            f"The 'model' of {type(who).__name__} must have normalisation layers with running statistics, trained and "
            f"not frozen. Got {got}. Use co.TorchModel(...) of a network with BatchNorm, or co.FedAvg."
        )


@dataclass(frozen=True)
class FedBN:
    """Learns all layers together but BatchNorm, which each keeps for itself. Participants are `FedBNTrainer`.

    For parties whose inputs look unlike (scanners, cameras, stains) and whose labels mean the same. What stays is
    `model.norms`: weights, biases and running statistics of the layers that keep such. `run.shared` is the rest;
    `{**run.shared, **run.local(name)["norms"]}` is a participant's whole model. Who never took part has none: begin
    with the model's own values, or somebody's, and `model.recalibrate`.

    The mean is uniform, as in the paper; with combine=Mean(), examples weigh in. The paper's hub has no optimizer;
    the default one takes the mean as it is.

    Attributes:
        model: what is trained; it must have `norms`, as a TorchModel of a network with BatchNorm has.
        optimizer: how the hub turns the mean delta into a step: `Momentum(rate, beta)`, `Adagrad`, `Adam` or `Yogi`.
        bound: the largest absolute value of a delta's coordinate, > 0; what passes it is refused.
        send: "delta" or "model" (all that is shared, as peers without a hub need).
        start: parameters to begin with, in place of the model's own: those of `run.shared`, or a whole model, of which
            the normalisation layers are not used.

    Raises:
        ConfigError: a model without such layers or with nothing else, a bound that is not > 0, another `send`, or a
            start of another form than the model.

    Example:
        >>> import numpy as np, torch, comity as co
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2))
        >>> model = co.TorchModel(net, torch.nn.functional.cross_entropy, epochs=5)
        >>> X, y = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
        >>> sites = {"a": co.FedBNTrainer(model, (X, y)), "b": co.FedBNTrainer(model, (5 - 2 * X, y))}
        >>> run = co.Collaboration(co.FedBN(model), sites).run(rounds=20)
        >>> run.metrics["train_accuracy"], sorted(run.local("a")["norms"])
        (1.0, ['1.bias', '1.running_mean', '1.running_var', '1.weight'])
        >>> sorted(run.shared)
        ['0.bias', '0.weight', '2.bias', '2.weight']
    """

    model: Model
    optimizer: HubOptimizer = field(default_factory=Momentum)
    bound: float = math.inf
    send: str = "delta"
    start: Tree = None
    tells: ClassVar[Any] = Unchanged("share", "expect", yes="all", no="each")

    def __post_init__(self) -> None:
        model_fits(self, "statistics")
        norms_fit(self)
        part("optimizer", "FedBN", self.optimizer, ("init()", "step()"), "co.Momentum()")
        number("bound", "FedBN", self.bound, "(0, inf]", hint="Use math.inf for none.")
        word("send", "FedBN", self.send, SENDS)
        self.init(Round("start", 0))

    @property
    def combiner(self) -> Combiner:
        """Mean, uniform as in the paper."""
        return Mean(uniform=True)

    @property
    def ages(self) -> bool:
        """A delta may be added to a later model; a whole one would undo what came between."""
        return self.send == "delta"

    def init(self, round: Round) -> Any:
        """What is shared, and the hub optimizer's memory of what it steps.

        Raises:
            ConfigError: nothing is left to share, or the start has another form than the model.
        """
        norms, start = set(self._norms), self.start
        own: Any = self.model.init(round)
        if isinstance(start, Mapping) and start and not norms & start.keys():
            start = {**{name: own[name] for name in norms}, **start}
        params = own if start is None else first(self.model, round, start)
        rest = {name: leaf for name, leaf in params.items() if name not in norms}
        if not rest:
            raise ConfigError(
                f"The 'model' of FedBN must have other layers than {', '.join(sorted(norms)[:4])}. Got none."
            )
        stepped = {name: leaf for name, leaf in rest.items() if name not in self.model.statistics}
        return {"params": unravel(ravel(rest), rest), "optimizer": self.optimizer.init(stepped)}

    def share(self, state: Any, to: str, round: Round) -> Contribution:
        """All but the normalisation layers."""
        return self._hub.share(state, to, round)

    def expect(self, state: Any, to: str, round: Round) -> Spec:
        """Their names, shapes and dtypes, within the bound."""
        return self._hub.expect(state, to, round)

    def update(self, state: Any, combined: Contribution, round: Round) -> Any:
        """Add the step."""
        return self._hub.update(state, combined, round)

    @property
    def _hub(self) -> FedAvg:
        return FedAvg(self.model, self.optimizer, bound=self.bound, send=self.send)

    @property
    def _norms(self) -> Sequence[str]:
        names: Sequence[str] = self.model.norms  # type: ignore[attr-defined]
        return names


@dataclass(frozen=True)
class FedBNTrainer:
    """Trains the shared layers and its own normalisation layers together; only the shared ones travel.

    What of the model is not shared is its own. It begins with the model's own values, the same at all, and lies in the
    drawer: `run.local(name)["norms"]`. Scores are those of the shared layers with the own ones.

    Attributes:
        model: the same as the method's.
        data: (X, y): X (examples, ...), y (examples,); or whatever else the model's `fit` takes.
        test: (X, y) for the reported scores.
        valid: (X, y) for choices; its scores begin with "valid_".
        send: "delta", or "model" for `FedBN(send="model")`.

    Where neither test nor valid is given, scores are of the training data and begin with "train_".

    Raises:
        ConfigError: another `send`, or a model without such layers.
    """

    model: Model
    data: Any = field(metadata={"data": True}, repr=False)
    test: Any = field(default=None, metadata={"data": True}, repr=False)
    valid: Any = field(default=None, metadata={"data": True}, repr=False)
    send: str = "delta"

    def __post_init__(self) -> None:
        model_fits(self, "fit()")
        norms_fit(self)
        word("send", "FedBNTrainer", self.send, SENDS)

    def contribute(self, shared: Contribution, local: Tree, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """The shared layers' delta weighted by examples, its own into the drawer; or scores when they are asked for."""
        mine, given = as_dict(local), as_dict(shared.value)
        params, buffers = self._whole(given, mine, round), mine.get("buffers", {})
        if shared.kind == "score":
            return Contribution("score", None, metrics=held_out(self, params, buffers)), local
        params, buffers, metrics = fitted(self, params, buffers, round)
        after = {name: params[name] for name in given}
        value = after if self.send == "model" else difference(after, given)
        norms = {name: leaf for name, leaf in params.items() if name not in given}
        kept = {**mine, **({"buffers": buffers} if buffers else {}), "norms": norms}
        return weighed(self, self.send, value, metrics), kept

    def _whole(self, given: Mapping[str, Any], mine: Mapping[str, Any], round: Round) -> dict[str, Any]:
        """The shared layers with its own."""
        if own := mine.get("norms"):
            return {**given, **own}
        params = as_dict(self.model.init(replace(round, number=0, me="")))
        return {**params, **given}

    @property
    def alike(self) -> Hashable:
        """Those of one model can work together where the model can."""
        mine = type(self).contribute is FedBNTrainer.contribute
        return (id(self.model), self.send) if mine and hasattr(self.model, "fit_many") else None

    def contribute_many(self, works: Works, plan: Plan) -> Sequence[tuple[Contribution, Tree]]:
        """For each of these, who are alike, what `contribute` gives when it is not asked for scores."""
        whole = self._wholes(works)
        done: Any = trained_many(whole, plan, send="model")
        given = as_dict(works.shared[0].value)
        layout, rows = Layout.of(given), done.stack.rows
        travels = np.concatenate([np.full(np.size(x), name in given) for name, x in _sorted(whole.shared[0].value)])
        sent = np.ascontiguousarray(rows[:, travels])
        if self.send != "model":
            sent -= np.stack([ravel(s.value, layout) for s in works.shared])
        norms = [
            {name: leaf.copy() for name, leaf in done.stack.layout.tree(row).items() if name not in given}
            for row in rows
        ]
        stack = Stack(self.send, sent, layout, done.stack.weight, done.stack.metrics)
        return Together(stack, [{**drawer, "norms": own} for drawer, own in zip(done.local, norms, strict=True)])

    def _wholes(self, works: Works) -> Works:
        """The same works, each given its whole model."""
        drawers: Sequence[Any] = works.local
        each = zip(works.shared, drawers, works.rounds, strict=True)
        return replace(works, shared=[replace(s, value=self._whole(as_dict(s.value), d, r)) for s, d, r in each])

    def plan(self, works: Works, wish: Wish) -> Plan:
        """How these, who are alike, do their work: what their model measures."""
        return planned(self._wholes(works), wish)


def _sorted(tree: Any) -> list[tuple[str, Any]]:
    """Leaves by name, in canonical order."""
    return [(name, tree[name]) for name in sorted(tree)]
