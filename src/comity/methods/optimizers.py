"""Hub optimizers: how the hub turns the mean of what came into a step.

participant  nothing: it does not know which one the hub uses
hub          treats the mean delta as a gradient of the shared parameters and steps along it: with momentum (FedAvgM:
             Hsu et al., arXiv 1909.06335), Adagrad, Adam or Yogi (FedOpt: Reddi et al., ICLR 2021, Algorithm 2)
never leaves the optimizer's memory stays at the hub
bytes        none; at the hub one more model (Momentum) or two (the others)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from comity.core.checks import number
from comity.core.contribution import Tree
from comity.core.tree import tree_map


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
        number("rate", "Momentum", self.rate, "(0, inf)")
        number("beta", "Momentum", self.beta, "[0, 1)")

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
class Adagrad:
    """Adagrad at the hub (FedAdagrad: Reddi et al., ICLR 2021, Algorithm 2).

    m = beta1·m + (1-beta1)·delta; v = v + delta²; step = rate·m/(√v + tau).

    Attributes:
        rate: the hub's learning rate, > 0.
        beta1: decay of m, in [0, 1); 0 is Adagrad without momentum.
        tau: adaptivity, > 0; v starts at tau², as the paper asks (v ≥ tau²).

    Raises:
        ConfigError: a value outside.

    Example:
        >>> import numpy as np, comity as co
        >>> adagrad = co.Adagrad(rate=0.5, tau=1.0)
        >>> step, memory = adagrad.step({"w": np.array([3.0])}, adagrad.init({"w": np.zeros(1)}))
        >>> memory["v"]["w"], step["w"].round(3)
        (array([10.]), array([0.36]))
    """

    rate: float = 0.03
    beta1: float = 0.0
    tau: float = 1e-3

    def __post_init__(self) -> None:
        _settings(self, "Adagrad")

    def init(self, params: Tree) -> Any:
        """First and second moments."""
        return _moments(params, self.tau)

    def step(self, delta: Any, state: Any) -> tuple[Any, Any]:
        """One step; what nobody contributed to has delta 0."""
        return _stepped(self, delta, state, lambda v, square: v + square)


@dataclass(frozen=True)
class Adam:
    """Adam at the hub (FedAdam: Reddi et al., ICLR 2021, Algorithm 2): no bias correction, as in the paper.

    m = beta1·m + (1-beta1)·delta; v = beta2·v + (1-beta2)·delta²; step = rate·m/(√v + tau).

    Attributes:
        rate: the hub's learning rate, > 0.
        beta1: decay of m, in [0, 1).
        beta2: decay of v, in [0, 1).
        tau: adaptivity, > 0; v starts at tau², as the paper asks (v ≥ tau²).

    Raises:
        ConfigError: a value outside.

    Example:
        >>> import numpy as np, comity as co
        >>> adam = co.Adam(rate=0.1, tau=1.0)
        >>> step, memory = adam.step({"w": np.array([10.0])}, adam.init({"w": np.zeros(1)}))
        >>> memory["m"]["w"].round(3), memory["v"]["w"].round(3)
        (array([1.]), array([1.99]))
    """

    rate: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        _settings(self, "Adam")
        number("beta2", "Adam", self.beta2, "[0, 1)")

    def init(self, params: Tree) -> Any:
        """First and second moments."""
        return _moments(params, self.tau)

    def step(self, delta: Any, state: Any) -> tuple[Any, Any]:
        """One step; what nobody contributed to has delta 0."""
        return _stepped(self, delta, state, lambda v, square: self.beta2 * v + (1 - self.beta2) * square)


@dataclass(frozen=True)
class Yogi:
    """Yogi at the hub (FedYogi: Reddi et al., ICLR 2021, Algorithm 2): no bias correction, as in the paper.

    m = beta1·m + (1-beta1)·delta; v = v - (1-beta2)·delta²·sign(v - delta²); step = rate·m/(√v + tau).
    Where Adam lets v fall as a multiple of itself, here it falls by what delta² is: slowly, where deltas are small.

    Attributes:
        rate: the hub's learning rate, > 0.
        beta1: decay of m, in [0, 1).
        beta2: 1 - beta2 is how far v moves, in [0, 1).
        tau: adaptivity, > 0; v starts at tau², as the paper asks (v ≥ tau²).

    Raises:
        ConfigError: a value outside.

    Example:
        >>> import numpy as np, comity as co
        >>> yogi = co.Yogi(rate=0.1, tau=1.0)
        >>> step, memory = yogi.step({"w": np.array([0.5, 2.0])}, yogi.init({"w": np.zeros(2)}))
        >>> memory["v"]["w"]
        array([0.9975, 1.04  ])
    """

    rate: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        _settings(self, "Yogi")
        number("beta2", "Yogi", self.beta2, "[0, 1)")

    def init(self, params: Tree) -> Any:
        """First and second moments."""
        return _moments(params, self.tau)

    def step(self, delta: Any, state: Any) -> tuple[Any, Any]:
        """One step; what nobody contributed to has delta 0."""
        return _stepped(self, delta, state, lambda v, square: v - (1 - self.beta2) * square * np.sign(v - square))


Adaptive = Adagrad | Adam | Yogi


def _moments(params: Tree, tau: float) -> Any:
    return {"m": tree_map(np.zeros_like, params), "v": tree_map(lambda x: np.full_like(x, tau**2), params)}


def _stepped(part: Adaptive, delta: Any, state: Any, second: Callable[[Any, Any], Any]) -> tuple[Any, Any]:
    """Algorithm 2's step: its three optimizers differ in the second moment alone."""
    b, rate, tau = part.beta1, part.rate, part.tau
    m = tree_map(lambda m, d: (b * m + (1 - b) * d).astype(m.dtype), state["m"], delta)
    v = tree_map(lambda v, d: second(v, d * d).astype(v.dtype), state["v"], delta)
    return tree_map(lambda m, v: rate * m / (np.sqrt(v) + tau), m, v), {"m": m, "v": v}


def _settings(part: Adaptive, name: str) -> None:
    number("rate", name, part.rate, "(0, inf)")
    number("tau", name, part.tau, "(0, inf)")
    number("beta1", name, part.beta1, "[0, 1)")
