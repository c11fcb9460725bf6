"""Gaussian: each contribution clipped at its site, noise added to the sum at the hub (central privacy)."""

import math
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar

import numpy as np

from comity.core.checks import number, refusal
from comity.core.contribution import Contribution, Tree, View
from comity.core.errors import ContributionError
from comity.core.parts import Secret, Spend
from comity.core.round import Round
from comity.core.spec import Spec
from comity.core.together import Stack, Together, Works
from comity.core.tree import ravel
from comity.privacy.clipping import (
    anonymous,
    answered,
    clipped,
    idle,
    keep_numbers,
    narrowed,
    noised,
    purpose,
    released,
)
from comity.privacy.noise import normals

_OUTSIDE, _IDLE, _WITHIN = 1.0, 1.5, 2.0
_FALL = 2.0**-40


@dataclass(frozen=True)
class Gaussian:
    """Each contribution is clipped to an L2 norm, and normal noise of noise · clip is added to each number of the sum.

    DP-FedAvg (McMahan, Ramage, Talwar and Zhang, ICLR 2018). The unit of privacy is the participant: all that it sends
    in a round has norm `clip` at most, whatever its data, so that one participant more or less changes the sum by no
    more. It acts on the lifted contribution (weight times value), drops metrics and weights, and wants a denominator
    that is not data: `Mean(public=True)`, or `Mean(uniform=True)` where the size of the cohort is no secret. The noise
    comes from the hub's secret, and an empty cohort's sum gets it too. Whoever runs the hub sees the exact sum:
    `DiscreteGaussian` trusts nobody with it. Doubles are no real numbers (Mironov, CCS 2012): its noise is of integers.

    With `quantile` the clip follows that quantile of the norms (Andrew, Thakkar, Ramaswamy and McMahan, NeurIPS 2021,
    Algorithm 1): each participant says by one bit whether its norm was within the clip, the bits are summed with noise,
    and the clip is multiplied by exp(-rate · (share within - quantile)). The bit travels as weight, which then is
    1 (beyond) or 2 (within), and 1.5 of whoever has nothing. What the count spends comes out of `noise`: values get the
    noise (noise⁻² - (2 · bits)⁻²)^(-1/2), and both together cost what `noise` says. The share is taken of the
    public expectation of the cohort; unlike in the paper it is kept within [0, 1], and the clip below `most`.

    Attributes:
        clip: the largest L2 norm of a contribution over all leaves, > 0; with `quantile` that of the first round.
        noise: standard deviation over clip (the noise multiplier), >= 0; 0 only clips, and has no privacy.
        quantile: which share of the norms is to lie within the clip, in [0, 1]; None keeps the clip as it is.
        rate: how fast the clip follows, > 0.
        bits: standard deviation of the noise on the number within, more than noise / 2; by default a twentieth of the
            expected cohort, as in the paper, and `noise` at least.
        most: the largest clip, >= clip; by default 100 · clip.

    Raises:
        ConfigError: a setting out of range.

    Example:
        >>> import numpy as np, comity as co
        >>> private, here = co.Gaussian(clip=1.0, noise=0.5), co.Round(run="", seed=0, asked=1)
        >>> c = co.Contribution("delta", np.array([3.0, 4.0]), metrics={"loss": (1.0, 1.0)})
        >>> told, _ = private.encode(c, None, {}, here, None)
        >>> told.value.round(6), told.metrics
        (array([0.6, 0.8]), {})
        >>> secret = co.testing.fixed_secret()
        >>> bool(abs(private.decode(told, None, here, secret)[0].value - told.value).max() < 3)
        True
        >>> private.spend(here)
        Spend(mechanism='gaussian', noise=0.5, rate=1.0, count=1, unit='participant', sampling='none', who='')
    """

    clip: float
    noise: float
    _: KW_ONLY
    quantile: float | None = None
    rate: float = 0.2
    bits: float | None = None
    most: float | None = None
    decodes: ClassVar[View] = "sum"
    contracts: ClassVar[bool] = True
    central: ClassVar[bool] = True

    def __post_init__(self) -> None:
        keep_numbers(self, clip="(0, inf)", noise="[0, inf)", rate="(0, inf)")
        for name, within in (("quantile", "[0, 1]"), ("bits", "[0, inf)"), ("most", "(0, inf)")):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, float(number(name, "Gaussian", getattr(self, name), within)))
        if self.most is not None and self.most < self.clip:
            raise refusal("most", "Gaussian", f"at least the clip, {self.clip:g}", self.most)
        if self.bits is not None and self.noise and 2 * self.bits <= self.noise:
            said = f"more than half of the noise, {self.noise / 2:g}"
            raise refusal("bits", "Gaussian", said, self.bits, "The count of bits spends from the noise.")

    def init(self) -> Any:
        """The clip of the first round, where it adapts."""
        return None if self.quantile is None else {"clip": self.clip}

    def publish(self, state: Any, round: Round) -> Any:
        """The clip of this round, where it adapts."""
        return state

    def bounds(self, spec: Spec) -> Spec:
        """No number beyond the largest clip."""
        return narrowed(spec, self._most, 1.0 if self.quantile is None else _WITHIN)

    def spend(self, round: Round) -> Spend:
        """One release."""
        return Spend("gaussian", self.noise)

    def encode(
        self, c: Contribution, public: Any, local: Tree, round: Round, secret: Secret
    ) -> tuple[Contribution, Tree]:
        """At the site: clip, and say whether it had to.

        Raises:
            ContributionError: NaN, infinity, what is no number, or a clip that is none.
        """
        if self.quantile is None:
            return anonymous(c, clipped(c.value, self.clip)[0]), local
        clip = float(public["clip"])
        if not 0 < clip <= self._most:
            raise ContributionError(f"The clip must lie in (0, {self._most:g}]. Got {clip:g}. Use the same settings.")
        value, size = clipped(c.value, clip)
        return anonymous(c, value, _IDLE if idle(c) else _WITHIN if size <= clip else _OUTSIDE), local

    def encode_many(self, stack: Stack, public: Any, works: Works) -> Together:
        """As `encode` for each of a stack, whose rows are overwritten: the same bits."""
        weight: Any = np.ones(len(stack))
        for i in range(len(stack)):
            c, _ = self.encode(stack.one(i), public, {}, works.rounds[i], works.secrets[i])
            stack.rows[i], weight[i] = ravel(c.value, stack.layout), c.weight
        return Together(replace(stack, weight=weight, metrics={}), works.local)

    def decode(self, c: Contribution, state: Any, round: Round, secret: Secret) -> tuple[Contribution, Any]:
        """At the hub: noise on the sum, and the clip of the next round."""
        both = {"value": c.value, "weight": c.weight}
        stream = secret.stream(*purpose("gaussian", round, both))
        if self.quantile is None:
            return released(c, noised(c.value, self.noise * self.clip, stream), round), state
        bits, clip = self._bits(round), float(state["clip"])
        value = noised(c.value, self._left(bits) * clip, stream)
        beyond = float(c.weight) - _IDLE * answered(round)  # type: ignore[arg-type]
        beyond += bits * float(normals(secret.stream(*purpose("gaussian count", round, both)), 1)[0])
        share = min(1.0, max(0.0, 0.5 + beyond / max(1.0, round.expected or round.asked)))
        after = clip * math.exp(-self.rate * (share - self.quantile))
        return released(c, value, round), {"clip": min(self._most, max(after, self.clip * _FALL))}

    @property
    def _most(self) -> float:
        if self.quantile is None:
            return self.clip
        return 100 * self.clip if self.most is None else self.most

    def _bits(self, round: Round) -> float:
        """The noise on the count."""
        if self.bits is not None or not self.noise:
            return self.bits or 0.0
        return max(self.noise, round.expected / 20)

    def _left(self, bits: float) -> float:
        """The noise multiplier of the values (Andrew et al., Theorem 1)."""
        return 1 / math.sqrt(self.noise**-2 - (2 * bits) ** -2) if self.noise else 0.0
