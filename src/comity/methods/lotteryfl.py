"""LotteryFL: personal lottery tickets with rewinding (Li et al., arXiv 2008.03371; SEC 2021, Algorithm 1).

participant  measures the shared model under its mask *before* training; where it validates well enough it prunes each
             layer and goes back to the first weights; trains; sends a delta, float32, with a weight for each
             coordinate: its examples where its mask keeps it, 0 elsewhere
hub          averages each coordinate over those who kept it; what nobody covered in a round stays as it is
never leaves examples, labels, buffers with the policy "local"; the mask shows in what is sent
bytes        one model down and two up (values and weights); with `Sparse` only the values at the kept coordinates each
             way, and the mask when it changed
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from comity.combine.mean import Mean
from comity.core.checks import number, word
from comity.core.contribution import Contribution, Tree
from comity.core.fits import Unchanged
from comity.core.parts import Combiner, Model, Secret, Step
from comity.core.round import Round
from comity.core.spec import Spec
from comity.methods.fedltn import FedLTN, accuracy_of, cut, cuts_fit, own_mask, pair, scored
from comity.methods.sparsity import SCOPES, masked, sparse_delta
from comity.methods.steps import as_dict, first, start_fits
from comity.methods.training import fitted, model_fits, weighed


@dataclass(frozen=True)
class LotteryFL:
    """Averages personal tickets, coordinate by coordinate. Participants are `LotteryTrainer`.

    For each coordinate: w_i ← mean of w_ki over those whose mask keeps it, each counted once as in the paper; with
    combine=Mean(), examples weigh in. A coordinate that nobody covered keeps its value. Normalisation layers are
    averaged like the rest.

    Attributes:
        model: what is trained; the participants hold the same one.
        bound: the largest absolute value of a delta's coordinate, > 0; what passes it is refused.
        start: parameters to begin with, in place of the model's own; the participants must be given the same.

    Raises:
        ConfigError: a bound that is not > 0, no model, or a start of another form than it.

    Example:
        >>> import numpy as np, comity as co
        >>> X, y = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
        >>> model = co.MLP(4, 2, hidden=(8,), rate=0.5)
        >>> sites = {n: co.LotteryTrainer(model, (X, y), valid=(X, y), keep=0.5) for n in "ab"}
        >>> run = co.Collaboration(co.LotteryFL(model), sites).run(rounds=20)
        >>> run.metrics["valid_accuracy"], run.metrics["density"]
        (1.0, 0.5)
    """

    model: Model
    bound: float = math.inf
    start: Tree = None
    tells: ClassVar[Any] = Unchanged("share", "expect", yes="all", no="each")

    def __post_init__(self) -> None:
        model_fits(self, "statistics")
        number("bound", "LotteryFL", self.bound, "(0, inf]", hint="Use math.inf for none.")
        start_fits(self.model, self.start)

    @property
    def combiner(self) -> Combiner:
        """Mean over those who kept a coordinate, uniform as in the paper."""
        return Mean(uniform=True)

    def init(self, round: Round) -> Any:
        """The first weights."""
        return self._hub.init(round)

    def share(self, state: Any, to: str, round: Round) -> Contribution:
        """The parameters."""
        return self._hub.share(state, to, round)

    def expect(self, state: Any, to: str, round: Round) -> Spec:
        """The parameters' names, shapes and dtypes, within the bound, each with weights of its own."""
        return self._hub.expect(state, to, round)

    def update(self, state: Any, combined: Contribution, round: Round) -> Any:
        """The mean where somebody covered a coordinate."""
        return self._hub.update(state, combined, round)

    @property
    def _hub(self) -> FedLTN:
        """Its hub is that of FedLTN without momentum, which shares all."""
        return FedLTN(self.model, momentum=0.0, norms="average", bound=self.bound, start=self.start)


@dataclass(frozen=True)
class LotteryTrainer:
    """Prunes the model that it is given, goes back to the first weights, and trains.

    In each round, with w the shared weights and m its mask: the accuracy of w·m on `valid` is at least `threshold` and
    more than `keep` is left: remove the smallest `rate` of the rest in each layer, and begin from w⁰·m with the new
    mask, w⁰ being the first weights. Else begin from w·m. Then train with the pruned weights held at 0. Masks only
    shrink.

    Departures: the decision is made on validation data, where the authors' code makes it on test data; and only weights
    of linear, convolution and embedding layers are pruned, where that code prunes the weights of normalisation as well.
    The defaults are the paper's for MNIST: 0.2 of the rest at a time, down to 0.1. Its accuracy threshold in that code
    is 0.2 where a party has 2 classes; 0.5 here is ours, the same as that of `TicketTrainer`.

    The drawer holds the mask: `run.local(name)["mask"]`. Scores are of the shared weights under the own mask, beside
    them "density", the share of the prunable weights that is kept.

    Attributes:
        model: the same as the method's; it must offer Step(mask=...), as Linear, MLP and TorchModel do.
        data: (X, y): X (examples, ...), y (examples,); or whatever else the model's `fit` takes.
        valid: (X, y) with class numbers, by which it decides; its scores begin with "valid_". Without them it decides
            by the accuracy on its training data.
        test: (X, y) for the reported scores; never looked at for a decision.
        keep: share of the prunable weights to end with, in (0, 1].
        rate: share of the rest that a cut removes, in (0, 1).
        threshold: accuracy from which on it prunes, in [0, 1].
        scope: "layer" or "global": over which weights magnitudes are compared.
        epochs: of training in a round, >= 0; None for the model's own.
        start: the first weights, where the method was given them as `start`.

    Raises:
        ConfigError: a setting outside its range, no model that can be trained, a start of another form than it, or, in
            a run, a model that predicts no classes.
    """

    model: Model
    data: Any = field(metadata={"data": True}, repr=False)
    valid: Any = field(default=None, metadata={"data": True}, repr=False)
    test: Any = field(default=None, metadata={"data": True}, repr=False)
    keep: float = 0.1
    rate: float = 0.2
    threshold: float = 0.5
    scope: str = "layer"
    epochs: float | None = None
    start: Tree = field(default=None, repr=False)
    drawer: ClassVar[str] = "ticket"

    def __post_init__(self) -> None:
        model_fits(self, "fit()", "statistics")
        cuts_fit(self)
        word("scope", "LotteryTrainer", self.scope, SCOPES)
        start_fits(self.model, self.start)

    def contribute(self, shared: Contribution, local: Tree, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """A delta at the kept coordinates, and the mask into the drawer; or scores when scores are asked for."""
        mine, given = as_dict(local), as_dict(shared.value)
        mask, buffers = own_mask(self, given, mine), mine.get("buffers", {})
        params = masked(given, mask)
        if shared.kind == "score":
            return scored(self, params, buffers, mask), local
        smaller = cut(params, mask, keep=self.keep, rate=self.rate, scope=self.scope)
        if smaller is not None and accuracy_of(self, params, buffers) >= self.threshold:
            mask, params = smaller, masked(self._first(round), smaller)
        params, buffers, metrics = fitted(self, params, buffers, round, Step(mask=mask, epochs=self.epochs))
        c = weighed(self, "delta", None, {**metrics, "density": pair(mask)})
        return sparse_delta(c, params, given, mask), {**mine, "mask": mask, **({"buffers": buffers} if buffers else {})}

    def personal(self, shared: Tree, local: Tree) -> dict[str, Any]:
        """The sparse model of a participant: the shared weights under its mask.

        Args:
            shared: `run.shared`.
            local: its drawer, `run.local(name)`; {} stands for one that was never asked.
        """
        given = as_dict(shared)
        return masked(given, own_mask(self, given, as_dict(local)))

    def _first(self, round: Round) -> Any:
        """The weights of before the first round: everybody can make them anew."""
        return first(self.model, replace(round, number=0, attempt=0, me=""), self.start)
