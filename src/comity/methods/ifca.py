"""IFCA: several models, and each participant trains the one that fits it (Ghosh et al., NeurIPS 2020, Algorithm 1).

participant  picks the model with the lowest loss on its training data, and sends its delta, float32, with its
             examples as the weight; for the other models zeros with weight 0
hub          averages each model over those who gave it weight: the ordinary Mean with a weight for each model
never leaves examples, labels, buffers with the policy "local"
bytes        k models down and k up for each participant and round
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from comity.combine.mean import Mean
from comity.core.checks import number, whole
from comity.core.contribution import Contribution, Tree
from comity.core.fits import Unchanged
from comity.core.parts import Combiner, Model, Secret
from comity.core.round import Round
from comity.core.spec import Spec, like
from comity.core.tree import ravel, tree_map, unravel
from comity.methods.steps import added, as_dict, first, training_loss, zeros_like
from comity.methods.training import difference, fitted, held_out, model_fits, weighed


@dataclass(frozen=True)
class IFCA:
    """The iterative federated clustering algorithm, model averaging (option II). Participants are `IFCATrainer`.

    `run.shared` is {"0": parameters, "1": ...}. A model that nobody picked stays as it is. Within a cluster the mean is
    weighted by examples; the paper's is uniform: use combine=Mean(uniform=True) for it. Each model begins at random:
    the model's own values, anew for each, and noise. Clusters are found only where the first models differ enough to
    fit some participants better than others; where one wins them all, use more noise or another seed.

    Attributes:
        model: what is trained; the participants hold the same one.
        clusters: k of the paper, >= 1.
        spread: standard deviation of the noise that is added to each first weight, >= 0.
        bound: the largest absolute value of a delta's coordinate, > 0; what passes it is refused.
        start: parameters to begin with, in place of the model's own: one Tree, to which noise is added, or
            {"0": Tree, "1": ...}, taken as they are.

    Raises:
        ConfigError: no whole clusters >= 1, a spread below 0, a bound that is not > 0, no model, or a start of another
            form than it.

    Example:
        >>> import numpy as np, comity as co
        >>> X, model = np.eye(4, dtype="float32"), co.Linear(inputs=4, classes=2, rate=0.5)
        >>> one, other = np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0])
        >>> answers = {"a": one, "b": one, "c": other, "d": other}
        >>> sites = {name: co.IFCATrainer(model, (X, y)) for name, y in answers.items()}
        >>> run = co.Collaboration(co.IFCA(model, clusters=2), sites).run(rounds=10)
        >>> run.metrics["train_accuracy"], [run.local(name)["cluster"] for name in sites]
        (1.0, [0, 0, 1, 1])
    """

    model: Model
    clusters: int = 2
    spread: float = 0.1
    bound: float = math.inf
    start: Tree = None
    send: ClassVar[str] = "delta"
    ages: ClassVar[bool] = True
    tells: ClassVar[Any] = Unchanged("share", "expect", yes="all", no="each")

    def __post_init__(self) -> None:
        model_fits(self, "statistics")
        whole("clusters", "IFCA", self.clusters, 1)
        number("spread", "IFCA", self.spread, "[0, inf)")
        number("bound", "IFCA", self.bound, "(0, inf]", hint="Use math.inf for none.")
        if self.start is not None:
            self.init(Round("start", 0))

    @property
    def combiner(self) -> Combiner:
        """Mean, weighted by examples."""
        return Mean()

    def init(self, round: Round) -> Any:
        """The models by number, as text."""
        names, start = [str(j) for j in range(self.clusters)], self.start
        if isinstance(start, Mapping) and start.keys() == set(names):
            return {name: first(self.model, round, start[name]) for name in names}
        return {name: self._first(replace(round, number=int(name))) for name in names}

    def share(self, state: Any, to: str, round: Round) -> Contribution:
        """All models."""
        return Contribution("model", state)

    def expect(self, state: Any, to: str, round: Round) -> Spec:
        """A change of each, within the bound, and a weight for each."""
        return Spec(like(state, -self.bound, self.bound), kind="delta", weights="tree")

    def update(self, state: Any, combined: Contribution, round: Round) -> Any:
        """Add the mean change of each."""
        change: Any = combined.value
        return {name: added(params, change[name]) for name, params in state.items()}

    def _first(self, round: Round) -> Any:
        params, rng = first(self.model, round, self.start), round.rng("clusters")

        def noisy(x: Any) -> Any:
            return (x + self.spread * rng.normal(size=np.shape(x))).astype(x.dtype)

        new = {k: params[k] if k in self.model.statistics else tree_map(noisy, params[k]) for k in sorted(params)}
        return unravel(ravel(new), new)


@dataclass(frozen=True)
class IFCATrainer:
    """Trains the shared model that has the lowest loss on its training data: cross-entropy, or the squared error.

    The drawer says which it was: `run.local(name)["cluster"]`. Scores are those of the model that fits best now.

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
        """A delta of the best model and zeros for the others; or scores when scores are asked for."""
        mine, models = as_dict(local), as_dict(shared.value)
        buffers, names = mine.get("buffers", {}), sorted(models, key=int)
        losses = [training_loss(self, models[name], buffers) for name in names]
        best = names[int(np.argmin(losses))]
        if shared.kind == "score":
            return Contribution("score", None, metrics=held_out(self, models[best], buffers)), local
        params, buffers, metrics = fitted(self, models[best], buffers, round)
        c = weighed(self, "delta", difference(params, models[best]), metrics)
        value = {name: c.value if name == best else zeros_like(models[name]) for name in names}
        weight = {name: c.weight if name == best else 0.0 for name in names}
        kept = {**mine, "cluster": int(best), **({"buffers": buffers} if buffers else {})}
        return replace(c, value=value, weight=weight), kept
