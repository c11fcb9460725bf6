"""FedAvg: train where the data are, average the changes (McMahan et al., AISTATS 2017, Algorithm 1).

participant  sends a delta: parameters after local training minus before, float32; weight: its examples
hub          averages the deltas and steps: plainly, with momentum (FedAvgM: Hsu et al., arXiv 1909.06335)
             or with Adam (FedAdam: Reddi et al., ICLR 2021, Algorithm 2)
never leaves examples, labels, buffers with the policy "local"
bytes        one model down and one up for each participant and round
"""

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from comity.combine.mean import Mean
from comity.core.contribution import Contribution, Metrics, Tree
from comity.core.errors import ConfigError
from comity.core.parts import Combiner, Model, Secret
from comity.core.round import Round
from comity.core.scores import scores
from comity.core.spec import Spec, like
from comity.core.tree import ravel, tree_map, unravel


class HubOptimizer(Protocol):
    """How the hub turns the mean delta into a step; its own state is a Tree."""

    def init(self, params: Tree) -> Any:
        """The state before the first round."""
        ...

    def step(self, delta: Any, state: Any) -> tuple[Any, Any]:
        """The step to add to the parameters, and the state after it."""
        ...


@dataclass(frozen=True)
class Momentum:
    """Momentum at the hub: m = beta·m + delta; step = rate·m (FedAvgM). With beta 0 and rate 1, plain FedAvg.

    Attributes:
        rate: the hub's learning rate, > 0.
        beta: momentum, in [0, 1).

    Raises:
        ConfigError: a value outside.
    """

    rate: float = 1.0
    beta: float = 0.0

    def __post_init__(self) -> None:
        _positive("rate", "Momentum", self.rate)
        if not 0 <= self.beta < 1:
            raise ConfigError(f"The 'beta' of Momentum must be in [0, 1). Got {self.beta!r}. Use 0.9 or less.")

    def init(self, params: Tree) -> Any:
        """No memory without momentum."""
        return {"m": tree_map(np.zeros_like, params)} if self.beta else {}

    def step(self, delta: Any, state: Any) -> tuple[Any, Any]:
        """One step; what nobody contributed to has delta 0."""
        if not self.beta:
            return (delta if self.rate == 1 else tree_map(lambda d: self.rate * d, delta)), state
        m = tree_map(lambda m, d: (self.beta * m + d).astype(m.dtype), state["m"], delta)
        return tree_map(lambda m: self.rate * m, m), {"m": m}


@dataclass(frozen=True)
class Adam:
    """Adam at the hub (Reddi et al., ICLR 2021, Algorithm 2): no bias correction, as in the paper.

    m = beta1·m + (1-beta1)·delta; v = beta2·v + (1-beta2)·delta²; step = rate·m/(√v + tau).

    Attributes:
        rate: the hub's learning rate, > 0.
        beta1: decay of m, in [0, 1).
        beta2: decay of v, in [0, 1).
        tau: adaptivity, > 0; v starts at tau², as the paper asks (v ≥ tau²).

    Raises:
        ConfigError: a value outside.
    """

    rate: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        _positive("rate", "Adam", self.rate)
        _positive("tau", "Adam", self.tau)
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"The '{name}' of Adam must be in [0, 1). Got {getattr(self, name)!r}.")

    def init(self, params: Tree) -> Any:
        """First and second moments."""
        square = self.tau**2
        return {"m": tree_map(np.zeros_like, params), "v": tree_map(lambda x: np.full_like(x, square), params)}

    def step(self, delta: Any, state: Any) -> tuple[Any, Any]:
        """One step."""
        b1, b2 = self.beta1, self.beta2
        m = tree_map(lambda m, d: (b1 * m + (1 - b1) * d).astype(m.dtype), state["m"], delta)
        v = tree_map(lambda v, d: (b2 * v + (1 - b2) * d * d).astype(v.dtype), state["v"], delta)
        return tree_map(lambda m, v: self.rate * m / (np.sqrt(v) + self.tau), m, v), {"m": m, "v": v}


@dataclass(frozen=True)
class FedAvg:
    """Federated averaging.

    Attributes:
        model: what is trained; the participants hold the same one.
        optimizer: how the hub turns the mean delta into a step: `Momentum(rate, beta)` or `Adam(rate)`.
        bound: the largest absolute value of a delta's coordinate; what passes it is refused.
        send: "delta" or "model" (whole models, as peers without a hub need).
        start: parameters to begin with, in place of the model's own.

    Raises:
        ConfigError: a bound that is not > 0, or another `send`.

    Example:
        >>> import numpy as np, comity as co
        >>> X, y = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
        >>> model = co.Linear(inputs=4, classes=2, rate=0.5)
        >>> fed = co.Collaboration(co.FedAvg(model), {"a": co.Trainer(model, (X, y)), "b": co.Trainer(model, (X, y))})
        >>> fed.run(rounds=3).metrics["train_accuracy"]
        1.0
    """

    model: Model
    optimizer: HubOptimizer = field(default_factory=Momentum)
    bound: float = math.inf
    send: str = "delta"
    start: Tree = None

    def __post_init__(self) -> None:
        if not self.bound > 0:
            raise ConfigError(f"The 'bound' of FedAvg must be a float > 0. Got {self.bound!r}. Use math.inf for none.")
        if self.send not in ("delta", "model"):
            raise ConfigError(f"The 'send' of FedAvg must be 'delta' or 'model'. Got {self.send!r}.")

    @property
    def combiner(self) -> Combiner:
        """Mean, weighted by examples."""
        return Mean()

    def init(self, round: Round) -> Any:
        """Parameters, and the hub optimizer's memory of those it steps."""
        params = self.model.init(round) if self.start is None else self.start
        return {"params": params, "optimizer": self.optimizer.init(self._stepped(params))}

    def share(self, state: Any, to: str, round: Round) -> Contribution:
        """The parameters, and how the participants are to answer."""
        return Contribution("model", state["params"])

    def expect(self, state: Any, to: str, round: Round) -> Spec:
        """The parameters' names, shapes and dtypes, within the bound."""
        return Spec(like(state["params"], -self.bound, self.bound), kind=self.send)

    def update(self, state: Any, combined: Contribution, round: Round) -> Any:
        """Add the step; statistics (BatchNorm) move by their mean, whatever the optimizer."""
        params = state["params"]
        change = combined.value
        if self.send == "model":
            change = tree_map(np.subtract, change, params)
        step, memory = self.optimizer.step(self._stepped(change), state["optimizer"])
        new = tree_map(_moved, params, {**_as_dict(change), **step})
        return {"params": unravel(ravel(new), new), "optimizer": memory}

    def _stepped(self, tree: Any) -> Any:
        """Without the statistics."""
        return {k: v for k, v in tree.items() if k not in self.model.statistics}


def _as_dict(tree: Any) -> dict[str, Any]:
    return dict(tree)


def _moved(p: Any, d: Any) -> Any:
    return (p + d).astype(p.dtype)


@dataclass(frozen=True)
class Trainer:
    """Trains the shared model on its own examples, and scores it on its own held-out ones.

    Attributes:
        model: the same as the method's.
        data: (X, y): X (examples, ...), y (examples,); or whatever else the model's `fit` takes.
        test: (X, y) for the reported scores.
        valid: (X, y) for choices; its scores begin with "valid_".
        send: "delta", or "model" for `FedAvg(send="model")`.

    Where neither test nor valid is given, scores are of the training data and begin with "train_".
    """

    model: Model
    data: Any = field(metadata={"data": True}, repr=False)
    test: Any = field(default=None, metadata={"data": True}, repr=False)
    valid: Any = field(default=None, metadata={"data": True}, repr=False)
    send: str = "delta"

    def contribute(self, shared: Contribution, local: Tree, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """A delta weighted by examples; or scores when scores are asked for."""
        if shared.kind == "score":
            return Contribution("score", None, metrics=self._scores(shared.value, local)), local
        params, local, metrics = self._fitted(shared.value, local, round)
        value = params if self.send == "model" else _difference(params, shared.value)
        weight = float(metrics["examples"][0]) if "examples" in metrics else float(len(self.data[1]))
        return Contribution(self.send, value, weight, {k: v for k, v in metrics.items() if k != "examples"}), local

    def _fitted(self, params: Any, local: Any, round: Round) -> tuple[Any, Any, Metrics]:
        if fit_local := getattr(self.model, "fit_local", None):
            params, buffers, metrics = fit_local(params, local.get("buffers", {}), self.data, round)
            return params, ({**local, "buffers": buffers} if buffers else local), metrics
        params, metrics = self.model.fit(params, self.data, round)
        return params, local, metrics

    def _scores(self, params: Any, local: Any) -> Metrics:
        held = {"": self.test, "valid_": self.valid}
        sets = {k: v for k, v in held.items() if v is not None} or {"train_": self.data}
        out: dict[str, tuple[float, float]] = {}
        for prefix, (x, y) in sets.items():
            out |= scores(self._predict(params, local, x), np.asarray(y), prefix) if len(y) else {}
        return out

    def _predict(self, params: Any, local: Any, x: Any) -> Any:
        if predict_local := getattr(self.model, "predict_local", None):
            return predict_local(params, local.get("buffers", {}), x)
        return self.model.predict(params, x)


def _difference(after: Any, before: Any) -> Any:
    """after - before, leaf for leaf, on the flat vectors."""
    return unravel(ravel(after) - ravel(before), after)


def _positive(name: str, part: str, value: Any) -> None:
    if not (isinstance(value, float | int) and value > 0):
        raise ConfigError(f"The '{name}' of {part} must be a float > 0. Got {value!r}.")
