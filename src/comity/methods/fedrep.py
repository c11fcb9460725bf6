"""FedRep: one body for all, a head for each (Collins et al., ICML 2021, Algorithm 1).

participant  trains its head on the shared body, then the body under its new head; sends the body's delta, float32
hub          averages the bodies
never leaves examples, labels, the head, buffers with the policy "local"
bytes        one body down and one up for each participant and round: less than FedAvg by the head
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from comity.combine.mean import Mean
from comity.core.checks import number, refusal, shown, word
from comity.core.contribution import Contribution, Tree
from comity.core.errors import ConfigError
from comity.core.parts import Combiner, Model, Secret, Step
from comity.core.round import Round
from comity.core.spec import Spec
from comity.core.tree import ravel, unravel
from comity.methods.fedavg import SENDS, FedAvg
from comity.methods.steps import as_dict, first
from comity.methods.training import difference, fitted, held_out, model_fits, weighed


@dataclass(frozen=True)
class FedRep:
    """Learns a representation together; what is made of it stays with each. Participants are `FedRepTrainer`.

    `run.shared` is the body; `{**run.shared, **run.local(name)["head"]}` is a participant's whole model. The mean is
    uniform, as in the paper; with combine=Mean(), examples weigh in.

    Attributes:
        model: what is trained; the participants hold the same one.
        head: names of the layers that do not travel, such as ("2",) for "2.weight" and "2.bias", or names of leaves.
        bound: the largest absolute value of a delta's coordinate, > 0; what passes it is refused.
        send: "delta" or "model" (whole bodies, as peers without a hub need).
        start: parameters to begin with, in place of the model's own: a body, such as `run.shared`, or a whole model,
            of which the head is not used.

    Raises:
        ConfigError: a head that names nothing or everything, a bound that is not > 0, another `send`, no model, or a
            start of another form than it.

    Example:
        >>> import numpy as np, comity as co
        >>> X, model = np.eye(4, dtype="float32"), co.MLP(4, 2, hidden=(8,), rate=0.5)
        >>> y = {"a": np.array([0, 0, 1, 1]), "b": np.array([1, 1, 0, 0])}
        >>> sites = {name: co.FedRepTrainer(model, (X, y[name])) for name in y}
        >>> run = co.Collaboration(co.FedRep(model, head=("2",)), sites).run(rounds=20)
        >>> run.metrics["train_accuracy"], sorted(run.shared), sorted(run.local("a")["head"])
        (1.0, ['0.bias', '0.weight'], ['2.bias', '2.weight'])
    """

    model: Model
    head: Sequence[str]
    bound: float = math.inf
    send: str = "delta"
    start: Tree = None

    def __post_init__(self) -> None:
        model_fits(self, "statistics")
        number("bound", "FedRep", self.bound, "(0, inf]", hint="Use math.inf for none.")
        word("send", "FedRep", self.send, SENDS)
        names = () if isinstance(self.head, str) or not isinstance(self.head, Sequence) else tuple(self.head)
        if not names or not all(isinstance(n, str) and n for n in names):
            raise refusal("head", "FedRep", "a tuple of names of layers", self.head, 'Use ("2",), for one.')
        object.__setattr__(self, "head", names)
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
        """The body.

        Raises:
            ConfigError: the head names nothing or everything, or the start has another form than the model.
        """
        own: Any = self.model.init(round)
        start = self.start
        if isinstance(start, Mapping) and start and not any(self._in_head(str(name)) for name in start):
            start = {**{name: leaf for name, leaf in own.items() if self._in_head(name)}, **start}
        params = own if start is None else first(self.model, round, start)
        body = {name: leaf for name, leaf in params.items() if not self._in_head(name)}
        lost = [h for h in self.head if not any(_below(name, h) for name in params)]
        if lost or not body.keys() - set(self.model.statistics):
            raise ConfigError(
                f"The 'head' of FedRep must name some of {', '.join(sorted(params))}, and not all. "
                f"Got {shown(self.head)}. Name the last layer, for one."
            )
        stepped = {name: leaf for name, leaf in body.items() if name not in self.model.statistics}
        return {"params": unravel(ravel(body), body), "optimizer": self._hub.optimizer.init(stepped)}

    def share(self, state: Any, to: str, round: Round) -> Contribution:
        """The body."""
        return self._hub.share(state, to, round)

    def expect(self, state: Any, to: str, round: Round) -> Spec:
        """The body's names, shapes and dtypes, within the bound."""
        return self._hub.expect(state, to, round)

    def update(self, state: Any, combined: Contribution, round: Round) -> Any:
        """The mean of the bodies."""
        return self._hub.update(state, combined, round)

    @property
    def _hub(self) -> FedAvg:
        return FedAvg(self.model, bound=self.bound, send=self.send)

    def _in_head(self, name: str) -> bool:
        return any(_below(name, h) for h in self.head)


def _below(name: str, layer: str) -> bool:
    return name == layer or name.startswith(f"{layer}.")


@dataclass(frozen=True)
class FedRepTrainer:
    """Trains its own head under the shared body, then the body under its own head; only the body travels.

    What of the model is not shared is the head: the method says which. It begins with the model's own values, the same
    at all, and lies in the drawer: `run.local(name)["head"]`. Scores are those of the shared body with the own head.

    Attributes:
        model: the same as the method's; it must offer Step(mask=...), as Linear, MLP and TorchModel do.
        data: (X, y): X (examples, ...), y (examples,); or whatever else the model's `fit` takes.
        head_epochs: of the head in a round, >= 0; the paper uses 10.
        epochs: of the body in a round, >= 0; None for the model's own. The paper uses 1 to 5.
        test: (X, y) for the reported scores.
        valid: (X, y) for choices; its scores begin with "valid_".
        send: "delta", or "model" for `FedRep(send="model")`.

    Where neither test nor valid is given, scores are of the training data and begin with "train_".

    Raises:
        ConfigError: epochs below 0 or not finite, another `send`, or no model that can be trained.
    """

    model: Model
    data: Any = field(metadata={"data": True}, repr=False)
    head_epochs: float = 5
    epochs: float | None = None
    test: Any = field(default=None, metadata={"data": True}, repr=False)
    valid: Any = field(default=None, metadata={"data": True}, repr=False)
    send: str = "delta"

    def __post_init__(self) -> None:
        model_fits(self, "fit()")
        number("head_epochs", "FedRepTrainer", self.head_epochs, "[0, inf)")
        word("send", "FedRepTrainer", self.send, SENDS)
        if self.epochs is not None:
            number("epochs", "FedRepTrainer", self.epochs, "[0, inf)", hint="None is the model's own.")

    def contribute(self, shared: Contribution, local: Tree, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """The body's delta weighted by examples, and the head into the drawer; or scores when scores are asked for."""
        mine, body = as_dict(local), as_dict(shared.value)
        head, buffers = mine.get("head") or self._first_head(body, round), mine.get("buffers", {})
        if shared.kind == "score":
            return Contribution("score", None, metrics=held_out(self, {**body, **head}, buffers)), local
        still = Step(mask=_zeros(body), epochs=self.head_epochs)
        params, buffers, _ = fitted(self, {**body, **head}, buffers, round, still)
        params, buffers, metrics = fitted(self, params, buffers, round, Step(mask=_zeros(head), epochs=self.epochs))
        after = {name: params[name] for name in body}
        value = after if self.send == "model" else difference(after, body)
        kept = {**mine, "head": {name: params[name] for name in head}, **({"buffers": buffers} if buffers else {})}
        return weighed(self, self.send, value, metrics), kept

    def _first_head(self, body: Any, round: Round) -> Any:
        params: Any = self.model.init(replace(round, number=0, me=""))
        return {name: leaf for name, leaf in params.items() if name not in body}


def _zeros(tree: Any) -> Any:
    return {name: np.zeros_like(leaf) for name, leaf in tree.items()}
