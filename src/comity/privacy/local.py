"""Local privacy: RandomisedResponse for labels, Laplace for numbers; whoever runs the hub is trusted with nothing."""

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import numpy as np

from comity.core.checks import refusal, whole
from comity.core.contribution import Array, Contribution, Tree, View
from comity.core.errors import ContributionError
from comity.core.parts import Secret, Spend, Stream
from comity.core.round import Round
from comity.core.tree import Layout, ravel, tree_map
from comity.privacy.clipping import anonymous, clipped, keep_numbers, purpose, released
from comity.privacy.noise import choices, discrete_laplace

_FINE = 2.0**-20


@dataclass(frozen=True)
class RandomisedResponse:
    """Each label is kept with probability e^ε / (e^ε + K - 1), else another of the K classes is told at its place.

    Randomised response of Warner (1965) for K answers (Kairouz, Bonawitz and Ramage, ICML 2016, equation 7). A
    contribution is {"votes": (tasks, classes)} or {"proba": ...}, of which the largest of each row is the label; a row
    of zeros abstains, and that it does is not hidden. On the sum the counts are estimated without bias: of n answers of
    which c are of a class, (c - n q) / (p - q), with p and q the probabilities to tell the true class and each
    other; such an estimate may be negative. Each label costs ε: a participant may give `labels` of them in a round,
    and all of them are charged. Metrics are dropped, and every voter counts once.

    Attributes:
        epsilon: of one label, in nats, > 0.
        classes: K, >= 2.
        labels: the most labels of a contribution, >= 1.

    Raises:
        ConfigError: a setting out of range.

    Example:
        >>> import numpy as np, comity as co
        >>> vague, here = co.RandomisedResponse(epsilon=1.0, classes=2), co.Round(run="", seed=0, asked=100)
        >>> told = co.Contribution("label", {"votes": np.array([[60.0, 40.0]])})
        >>> vague.decode(told, None, here, None)[0].value["votes"].round(2)
        array([[71.64, 28.36]])
    """

    epsilon: float
    classes: int
    _: KW_ONLY
    labels: int = 1
    decodes: ClassVar[View] = "sum"
    contracts: ClassVar[bool] = False

    def __post_init__(self) -> None:
        keep_numbers(self, epsilon="(0, inf)")
        for name, least in (("classes", 2), ("labels", 1)):
            object.__setattr__(self, name, whole(name, "RandomisedResponse", getattr(self, name), least))

    def init(self) -> Tree:
        """No state."""
        return None

    def spend(self, round: Round) -> Spend:
        """As many responses as there may be labels."""
        return Spend("response", self.epsilon, count=self.labels)

    def encode(
        self, c: Contribution, public: Tree, local: Tree, round: Round, secret: Secret
    ) -> tuple[Contribution, Tree]:
        """At the site: what is told in place of the labels.

        Raises:
            ContributionError: no such labels, or too many of them.
        """
        name, votes = self._votes(c)
        given = np.flatnonzero(votes.max(axis=1, initial=0) > 0)
        if len(given) > self.labels:
            said = f"A contribution must have {self.labels} labels at most. Got {len(given)}."
            raise ContributionError(f"{said} Use RandomisedResponse(labels={len(given)}), which costs more.")
        label = votes[given].argmax(axis=1)
        told = self._told(label, secret.stream(*purpose("response", round, {"row": given, "label": label})))
        hot = np.zeros(votes.shape, votes.dtype if votes.dtype.kind == "f" else np.float64)
        hot[given, told] = 1
        return anonymous(c, {name: hot}), local

    def decode(self, c: Contribution, state: Any, round: Round, secret: Secret) -> tuple[Contribution, Any]:
        """At the hub: estimates of the true counts, float64."""
        name, counts = self._votes(c)
        true, other = self._chances()
        gap = -math.expm1(-self.epsilon) * true
        found = (counts - other * counts.sum(axis=1, keepdims=True)) / gap
        return released(c, {name: found}, round), state

    def _told(self, label: Array, stream: Stream) -> Array:
        """(labels,) int64: the label or, with the chance of all others together, one of them."""
        _, other = self._chances()
        rare = math.ceil((self.classes - 1) * other * 2**53)
        changed = choices(stream, len(label), 2**53) < rare
        shift = choices(stream, len(label), self.classes - 1) + 1
        return np.asarray(np.where(changed, (label + shift) % self.classes, label))

    def _chances(self) -> tuple[float, float]:
        """To tell the true class, and each other."""
        true = 1 / (1 + (self.classes - 1) * math.exp(-self.epsilon))
        return true, math.exp(-self.epsilon) * true

    def _votes(self, c: Contribution) -> tuple[str, Array]:
        names = list(c.value) if isinstance(c.value, Mapping) else []
        votes: Any = c.value[names[0]] if names in (["votes"], ["proba"]) else None  # type: ignore[index, call-overload]
        if not isinstance(votes, np.ndarray) or votes.ndim != 2 or votes.dtype.kind not in "fiub":
            raise ContributionError("Labels must be {'votes': (tasks, classes)} of numbers. Got another value.")
        if votes.shape[1] != self.classes:
            raise ContributionError(f"Labels must be of {self.classes} classes. Got {votes.shape[1]}.")
        if not np.isfinite(votes).all():
            raise ContributionError("Votes must be finite. Got NaN or infinity. A row of zeros abstains.")
        return names[0], votes


@dataclass(frozen=True)
class Laplace:
    """Each contribution is clipped to an L1 norm and gets Laplace noise at its site, whatever the hub may see.

    The Laplace mechanism (Dwork, McSherry, Nissim and Smith, TCC 2006) on each contribution: any two contributions are
    2 · bound apart, so the scale is 2 · bound / ε, and what is sent is ε-differentially private for whoever
    receives it. The noise is that of integers on a grid of a millionth of the scale, so the guarantee is exact:
    doubles have no part in it. It acts on the lifted contribution, over all leaves together, and drops metrics and
    weights. The noise is large: it is for few numbers of many participants.

    Attributes:
        epsilon: of one contribution, in nats, > 0.
        bound: the largest L1 norm over all leaves, > 0.

    Raises:
        ConfigError: a setting out of range.

    Example:
        >>> import numpy as np, comity as co
        >>> private, here = co.Laplace(epsilon=2.0, bound=1.0), co.Round(run="", seed=0)
        >>> c, secret = co.Contribution("delta", np.array([0.5, 9.0])), co.testing.fixed_secret()
        >>> private.encode(c, None, {}, here, secret)[0].value.shape, private.spend(here).noise
        ((2,), 0.5)
    """

    epsilon: float
    bound: float
    decodes: ClassVar[View] = "sum"
    contracts: ClassVar[bool] = False

    def __post_init__(self) -> None:
        keep_numbers(self, epsilon="(0, inf)", bound="(0, inf)")
        if not 1e-200 < self.bound / self.epsilon < 1e200:
            raise refusal("bound", "Laplace", f"comparable with the epsilon, {self.epsilon:g}", self.bound)

    def init(self) -> Tree:
        """No state."""
        return None

    def spend(self, round: Round) -> Spend:
        """One release; its sensitivity is that of one contribution replaced by any other."""
        return Spend("laplace", 1 / self.epsilon)

    def encode(
        self, c: Contribution, public: Tree, local: Tree, round: Round, secret: Secret
    ) -> tuple[Contribution, Tree]:
        """At the site: clip, and add noise.

        Raises:
            ContributionError: NaN, infinity, or what is no number.
        """
        value, _ = clipped(c.value, self.bound, order=1)
        layout = Layout.of(value, "float64")
        scale = 2 * self.bound / self.epsilon
        step = 2.0 ** math.floor(math.log2(scale * _FINE))
        noise = discrete_laplace(secret.stream(*purpose("laplace", round, value)), scale / step, layout.size)
        noisy = layout.tree((np.trunc(ravel(value, layout) / step) + noise) * step)
        return anonymous(c, tree_map(lambda x, like: x.astype(like.dtype), noisy, value)), local

    def decode(self, c: Contribution, state: Any, round: Round, secret: Secret) -> tuple[Contribution, Any]:
        """At the hub: the sum as it is."""
        return released(c, c.value, round), state
