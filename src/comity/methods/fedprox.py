"""FedProx: local training that stays near the shared model (Li et al., MLSys 2020, Algorithm 2 and eq. 2).

participant  trains on F(w) + mu/2·|w - w_t|², w_t being the model as it was shared, for as many epochs as it can;
             sends a delta, float32; weight: its examples
hub          FedAvg, or any other hub for deltas: partial work is averaged in, not thrown away
never leaves examples, labels, buffers with the policy "local"
bytes        as FedAvg: one model down and one up for each participant and round
"""

from dataclasses import dataclass, field
from typing import Any

from comity.core.checks import number
from comity.core.contribution import Contribution, Tree
from comity.core.parts import Model, Secret, Step
from comity.core.round import Round
from comity.methods.training import model_fits, trained


@dataclass(frozen=True)
class FedProx:
    """Trains as `Trainer` does, with a proximal term; at the hub stands `FedAvg`, which this leaves as it is.

    Each step is w ← w - rate·(∇F(w) + mu·(w - w_t)): the gradient of eq. 2 (rate·mu must be below 2, or the steps
    overshoot). With mu 0 and no epochs of its own it is `Trainer`, to the bit. The paper's hub draws participants in
    proportion to their examples and takes the plain mean; here the draw is the collaboration's and the mean is weighted
    by examples, which expects the same; for the paper's mean use combine=Mean(uniform=True).

    Attributes:
        model: the same as the method's; it must offer Step(adjust=...), as Linear, MLP and TorchModel do.
        data: (X, y): X (examples, ...), y (examples,); or whatever else the model's `fit` takes.
        mu: weight of the proximal term, >= 0; the paper tries 0.001 to 1.
        test: (X, y) for the reported scores.
        valid: (X, y) for choices; its scores begin with "valid_".
        epochs: this participant's own number of epochs in a round, >= 0, which may be a part of one (0.5); None for the
            model's. A slow participant is given fewer.

    Where neither test nor valid is given, scores are of the training data and begin with "train_".

    Raises:
        ConfigError: mu or epochs below 0 or not finite, or no model that can be trained.

    Example:
        >>> import numpy as np, comity as co
        >>> X, y = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
        >>> model = co.Linear(inputs=4, classes=2, rate=0.5, epochs=4)
        >>> sites = {"fast": co.FedProx(model, (X, y), mu=0.1), "slow": co.FedProx(model, (X, y), mu=0.1, epochs=1)}
        >>> co.Collaboration(co.FedAvg(model), sites).run(rounds=3).metrics["train_accuracy"]
        1.0
    """

    model: Model
    data: Any = field(metadata={"data": True}, repr=False)
    mu: float = 0.01
    test: Any = field(default=None, metadata={"data": True}, repr=False)
    valid: Any = field(default=None, metadata={"data": True}, repr=False)
    epochs: float | None = None

    def __post_init__(self) -> None:
        model_fits(self, "fit()")
        number("mu", "FedProx", self.mu, "[0, inf)")
        if self.epochs is not None:
            number("epochs", "FedProx", self.epochs, "[0, inf)", hint="None is the model's own.")

    def contribute(self, shared: Contribution, local: Tree, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """A delta weighted by examples; or scores when scores are asked for."""
        plain = not self.mu and self.epochs is None
        step = None if plain else Step(adjust=self._near if self.mu else None, epochs=self.epochs)
        return trained(self, shared, local, round, step=step)

    def _near(self, params: Any, gradient: Any, start: Any) -> Any:
        """The gradient with that of mu/2·|params - start|² added; training starts at what was shared."""
        return gradient + self.mu * (params - start)
