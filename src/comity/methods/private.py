"""DP-SGD at a participant (Abadi et al., CCS 2016): trains on its own examples with noise of its own; with `FedAvg`.

participant  sends a delta of noised steps, float32; weight 1, and no metrics: both would tell of the examples
hub          averages the deltas, as it does Trainer's
never leaves examples, the gradient of any of them, and the noise
bytes        as FedAvg
"""

from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from comity.core.checks import number, refusal
from comity.core.contribution import Contribution, Tree
from comity.core.errors import ConfigError
from comity.core.parts import Model, Private, Secret, Spend, Step
from comity.core.round import Round
from comity.core.tree import fingerprint
from comity.methods.training import difference, fitted, held_out, model_fits


@dataclass(frozen=True)
class PrivateTrainer:
    """Trains the shared model with DP-SGD, so that what it sends tells little of any one of its examples.

    Each step takes each example with probability `rate`, clips the gradient of each to an L2 norm of `clip`, adds
    Gaussian noise of standard deviation `noise * clip` to their sum and divides by `rate` times the number of rows.
    Which examples and what noise comes from the participant's own secret. What is protected is an example, not the
    participant; `comity audit` and `co.epsilon` say how well, from what `spend` says.

    Its weight is 1, not its number of rows, which is data: with the usual Mean all participants count the same. It
    sends no metrics, and scores are off in a run that has one. The number of rows counts as public in the steps
    themselves, by which each divides.

    Attributes:
        model: the same as the method's: co.TorchModel without BatchNorm, co.Linear or co.MLP.
        data: (X, y), as the model takes them.
        clip: the largest L2 norm of one example's gradient, of the whole model together, > 0.
        noise: standard deviation of the noise over `clip`, > 0; 1 is usual.
        rate: the share of the examples that a step takes, in (0, 1]; small is more private, and slower.
        epochs: passes over the data in one round: each makes round(epochs / rate) steps, one at least.
        test: (X, y) for scores, where somebody asks for them.
        valid: (X, y) for choices; its scores begin with "valid_".

    Raises:
        ConfigError: a setting out of range, no step in a round, or a model that cannot be trained.

    Example:
        >>> import numpy as np, comity as co
        >>> X = np.random.default_rng(0).normal(size=(200, 2)).astype("float32")
        >>> model, data = co.Linear(2, 2, rate=0.5), (X, (X[:, 0] > 0).astype(int))
        >>> ann = co.PrivateTrainer(model, data, clip=1.0, noise=1.0, rate=0.1, epochs=3)
        >>> run = co.Collaboration(co.FedAvg(model), {"ann": ann}).run(rounds=2)
        >>> bool((model.predict(run.shared, X).argmax(1) == data[1]).mean() > 0.8)
        True
        >>> ann.spend(co.Round("doctest", seed=0))
        Spend(mechanism='gaussian', noise=1.0, rate=0.1, count=30, unit='example', sampling='poisson', who='')
    """

    model: Model
    data: Any = field(metadata={"data": True}, repr=False)
    _: KW_ONLY
    clip: float
    noise: float
    rate: float
    epochs: float = 1
    test: Any = field(default=None, metadata={"data": True}, repr=False)
    valid: Any = field(default=None, metadata={"data": True}, repr=False)

    def __post_init__(self) -> None:
        model_fits(self, "fit()")
        if not getattr(self.model, "private", False):
            hint = "Use co.TorchModel, co.Linear or co.MLP."
            raise refusal("model", "PrivateTrainer", "one that offers Step(private)", type(self.model).__name__, hint)
        number("clip", "PrivateTrainer", self.clip, "(0, inf)")
        number("noise", "PrivateTrainer", self.noise, "(0, inf)", hint="Without noise use Trainer.")
        number("rate", "PrivateTrainer", self.rate, "(0, 1]")
        number("epochs", "PrivateTrainer", self.epochs, "(0, inf)")
        if not self.steps:
            hint = f"Use epochs={self.rate!r} for one."
            raise refusal("epochs", "PrivateTrainer", "enough for a step, epochs / rate", self.epochs, hint)
        mixing = [*self.model.statistics, *getattr(self.model, "norms", ())]
        if mixing:
            raise ConfigError(
                "The model of PrivateTrainer must have no statistics: they would be released without noise. "
                f"Got {sorted(mixing)[0]!r}. Use nn.GroupNorm or nn.LayerNorm in place of BatchNorm."
            )

    @property
    def steps(self) -> int:
        """How many steps a round makes."""
        return round(self.epochs / self.rate)

    def contribute(self, shared: Contribution, local: Any, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """A delta of noised steps, with weight 1; or scores on `test` and `valid` when scores are asked for."""
        buffers = local.get("buffers", {})
        if shared.kind == "score":
            held = self.test is not None or self.valid is not None
            return Contribution("score", None, metrics=held_out(self, shared.value, buffers) if held else {}), local
        turn = str(round.number), str(round.attempt), round.hub
        stream = secret.stream("dp-sgd", *turn, fingerprint(shared.value))
        step = Step(private=Private(self.clip, self.noise, stream, self.rate), epochs=self.epochs)
        params, _, _ = fitted(self, shared.value, buffers, round, step)
        return Contribution("delta", difference(params, shared.value)), local

    def spend(self, round: Round) -> Spend:
        """So many Gaussian mechanisms on Poisson samples of the examples; of everybody's own budget for itself."""
        return Spend("gaussian", self.noise, rate=self.rate, count=self.steps, unit="example", sampling="poisson")
