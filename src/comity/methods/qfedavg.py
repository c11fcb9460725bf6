"""q-FedAvg: the worse a party fares, the more it counts (q-FFL: Li et al., ICLR 2020, Algorithm 2).

participant  sends F^q·L·Δ and h = q·F^(q-1)·|L·Δ|² + L·F^q, F being its loss at the shared parameters and Δ its
             delta, float32; weight: its examples
hub          w ← w + sum(F^q·L·Δ) / sum(h): both are sums, so the plain mean does it and the hub need see no single one
never leaves examples, labels, the loss itself, buffers with the policy "local"
bytes        as FedAvg, and 8 more up: one model down and one up for each participant and round
"""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from comity.combine.mean import Mean
from comity.core.checks import number
from comity.core.contribution import Contribution, Tree
from comity.core.fits import Unchanged
from comity.core.parts import Combiner, Model, Secret
from comity.core.round import Round
from comity.core.spec import Leaf, Spec, like
from comity.core.tree import norm
from comity.methods.steps import added, as_dict, first, scaled, start_fits, training_loss, without_statistics
from comity.methods.training import difference, fitted, held_out, model_fits, weighed


@dataclass(frozen=True)
class QFedAvg:
    """Fair federated averaging: minimises sum p_k·F_k^(q+1)/(q+1). Participants are `QFedAvgTrainer`.

    With q = 0 it is `FedAvg`; the larger q, the more alike the parties' losses become. The paper draws participants in
    proportion to their examples and sums plainly; here the draw is the collaboration's and the sum is weighted by
    examples, which expects the same. combine=Mean(uniform=True) counts each party once. Both settings travel with the
    model, so that no party can give itself more; `run.shared` is the parameters.

    Attributes:
        model: what is trained; the participants hold the same one.
        q: fairness, >= 0; the paper tries 0.001 to 15.
        rate: 1/L, > 0: the local learning rate, as in the paper. A larger one makes larger steps.
        bound: the largest absolute value of a coordinate of F^q·L·Δ, > 0; what passes it is refused.
        start: parameters to begin with, in place of the model's own.

    Raises:
        ConfigError: q below 0, a rate or a bound that is not > 0, no model, or a start of another form than it.

    Example:
        >>> import numpy as np, comity as co
        >>> X, y = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
        >>> model = co.Linear(inputs=4, classes=2, rate=0.5)
        >>> sites = {name: co.QFedAvgTrainer(model, (X, y)) for name in ("a", "b")}
        >>> co.Collaboration(co.QFedAvg(model, q=1.0, rate=0.5), sites).run(rounds=5).metrics["train_accuracy"]
        1.0
    """

    model: Model
    q: float = 1.0
    rate: float = 0.1
    bound: float = math.inf
    start: Tree = None
    send: ClassVar[str] = "delta"
    tells: ClassVar[Any] = Unchanged("share", "expect", yes="all", no="each")

    def __post_init__(self) -> None:
        model_fits(self, "statistics")
        number("q", "QFedAvg", self.q, "[0, inf)")
        number("rate", "QFedAvg", self.rate, "(0, inf)")
        number("bound", "QFedAvg", self.bound, "(0, inf]", hint="Use math.inf for none.")
        start_fits(self.model, self.start)

    @property
    def combiner(self) -> Combiner:
        """Mean, weighted by examples."""
        return Mean()

    def init(self, round: Round) -> Any:
        """The parameters, with q and the rate."""
        return {"params": first(self.model, round, self.start), "q": float(self.q), "rate": float(self.rate)}

    def share(self, state: Any, to: str, round: Round) -> Contribution:
        """Parameters, q and the rate; to nobody in particular, the parameters."""
        return Contribution("model", state if to else state["params"])

    def expect(self, state: Any, to: str, round: Round) -> Spec:
        """The parameters' names, shapes and dtypes, within the bound; h >= 0."""
        return Spec(
            {"delta": like(state["params"], -self.bound, self.bound), "h": Leaf((), "float64", low=0.0)}, kind="delta"
        )

    def update(self, state: Any, combined: Contribution, round: Round) -> Any:
        """Line 7 of Algorithm 2; statistics (BatchNorm) move by their mean."""
        mean: Any = combined.value
        h = float(mean["h"])
        step = scaled(mean["delta"], 1 / h if h > 0 else 0.0, self.model)
        return {**state, "params": added(state["params"], step)}


@dataclass(frozen=True)
class QFedAvgTrainer:
    """Trains as `Trainer` does, and weighs its delta by a power of its loss before training.

    F is the mean cross-entropy in nats, or the mean squared error, of `predict` on its training data (another loss of
    a TorchModel plays no part in it), at least 1e-10.

    Attributes:
        model: the same as the method's.
        data: (X, y): X (examples, ...), y (examples,).
        test: (X, y) for the reported scores.
        valid: (X, y) for choices; its scores begin with "valid_".

    Where neither test nor valid is given, scores are of the training data and begin with "train_".

    Raises:
        ConfigError: no model that can be trained.
    """

    model: Model
    data: Any = field(metadata={"data": True}, repr=False)
    test: Any = field(default=None, metadata={"data": True}, repr=False)
    valid: Any = field(default=None, metadata={"data": True}, repr=False)

    def __post_init__(self) -> None:
        model_fits(self, "fit()", "predict()")

    def contribute(self, shared: Contribution, local: Tree, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """F^q·L·Δ and h, weighted by examples; or scores when scores are asked for."""
        mine, told = as_dict(local), as_dict(shared.value)
        params, q, lipschitz, buffers = (
            told["params"],
            float(told["q"]),
            1 / float(told["rate"]),
            mine.get("buffers", {}),
        )
        if shared.kind == "score":
            return Contribution("score", None, metrics=held_out(self, params, buffers)), local
        loss = training_loss(self, params, buffers)
        after, buffers, metrics = fitted(self, params, buffers, round)
        change = difference(after, params)
        far = lipschitz * norm(without_statistics(change, self.model))
        h = q * loss ** (q - 1) * far**2 + lipschitz * loss**q
        value = {"delta": scaled(change, loss**q * lipschitz, self.model), "h": np.asarray(h, np.float64)}
        return weighed(self, "delta", value, metrics), ({**mine, "buffers": buffers} if buffers else local)
