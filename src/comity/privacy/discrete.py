"""DiscreteGaussian: integers and shares of noise at the sites, so that only the noised sum is ever seen."""

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from comity.core.checks import flag
from comity.core.contribution import Array, Contribution, Tree, View
from comity.core.errors import ChannelError, ConfigError, ContributionError
from comity.core.parts import Secret, Spend, Stream
from comity.core.round import Round
from comity.core.spec import Spec
from comity.core.tree import Layout, ravel, tree_map
from comity.privacy.clipping import anonymous, answered, clipped, keep_numbers, narrowed, purpose, released
from comity.privacy.noise import discrete_gaussian, uniform

FINEST, COARSEST = 1e6, 4.0
"""Steps in the standard deviation of a share of noise: more are of no use, fewer are not as good as a Gaussian."""
_HEADROOM, _TRIES = 12.0, 100


class Grid(NamedTuple):
    """Integers for one round and size of vector.

    Attributes:
        steps: for each unit of the value.
        norm: the largest L2 norm in steps.
        top: the largest magnitude of a number in steps, before noise.
        std: of each share of noise, in steps.
        most: the largest integer of which all who are asked can send one.
    """

    steps: float
    norm: float
    top: float
    std: float
    most: int


@dataclass(frozen=True)
class DiscreteGaussian:
    """Each site clips, rounds to integers and adds its share of discrete Gaussian noise; the hub sees the noised sum.

    The distributed discrete Gaussian mechanism (Kairouz, Liu and Steinke, ICML 2021, Algorithms 1 and 2). It stands
    last before a channel that reveals only the sum and adds in a ring, in place of `FixedPoint`. Shares have variance
    noise² · clip² / m, where m is how many are asked less those that `drops` and `corrupt` allow for: whoever drops
    out takes a share along, and those who conspire with the hub know theirs. In a round in which more drop out
    nothing is released; the hub's channel should stop before that (`SecAgg(threshold=...)` of 1 - drops or more).

    A round has as many steps for each unit as 32 bits hold for the sum of all who are asked, noise included (12
    standard deviations: passed once in 10^32 numbers, and then the site refuses). Rounding is unbiased and repeated
    until it keeps the norm (conditional rounding, β = exp(-1/2)); where the paper lets the sensitivity grow for it, the
    clip is shortened here, by less than 1 % as long as clip · steps is 10 · √numbers. With `rotate` a random rotation
    (Hadamard, signs from public randomness) spreads each vector evenly, so that large cohorts have more steps; the
    vector is then as long as the next power of two. Metrics and weights are dropped.

    The unit of privacy is the participant: its value in place of zeros. The noise is that of integers, and exact.

    Attributes:
        clip: the largest L2 norm of a contribution over all leaves, > 0.
        noise: standard deviation of the noise of m shares over clip, >= 0; 0 only clips, and has no privacy.
        drops: the share of those asked who may drop out, in [0, 1).
        corrupt: the share of those asked who may conspire with the hub, in [0, 1); with `drops` below 1.
        rotate: spread vectors by a random rotation?

    Raises:
        ConfigError: a setting out of range.

    Example:
        >>> import numpy as np, comity as co
        >>> ring, here = co.DiscreteGaussian(clip=1.0, noise=0.5, drops=0.0), co.Round(run="", seed=0, asked=2)
        >>> c, secret = co.Contribution("delta", {"w": np.array([0.3, -0.4])}), co.testing.fixed_secret()
        >>> told, _ = ring.encode(c, None, {}, here, secret)
        >>> back = ring.decode(told, None, here, secret)[0].value["w"]
        >>> told.value["w"].dtype, bool(abs(back - c.value["w"]).max() < 2)
        (dtype('int32'), True)
    """

    clip: float
    noise: float
    _: KW_ONLY
    drops: float = 0.1
    corrupt: float = 0.0
    rotate: bool = False
    decodes: ClassVar[View] = "sum"
    contracts: ClassVar[bool] = False
    integers: ClassVar[bool] = True
    hides: ClassVar[View] = "sum"

    def __post_init__(self) -> None:
        keep_numbers(self, clip="(0, inf)", noise="[0, inf)", drops="[0, 1)", corrupt="[0, 1)")
        if self.drops + self.corrupt >= 1:
            raise ConfigError(
                f"The 'drops' and 'corrupt' of DiscreteGaussian must leave somebody: their sum must be below 1. "
                f"Got {self.drops:g} and {self.corrupt:g}. Use smaller ones."
            )
        object.__setattr__(self, "rotate", flag("rotate", "DiscreteGaussian", self.rotate))

    def init(self) -> Tree:
        """No state."""
        return None

    def bounds(self, spec: Spec) -> Spec:
        """No number beyond the clip."""
        return narrowed(spec, self.clip)

    def spend(self, round: Round) -> Spend:
        """One release, of the noise that is left when as many drop out and conspire as are allowed for.

        A share has four steps or more as its standard deviation, so that what a sum of discrete Gaussians lacks of one
        Gaussian (Theorem 1) is below what a double can tell, for vectors of any length.
        """
        return Spend("discrete-gaussian", self.noise)

    def encode(
        self, c: Contribution, public: Tree, local: Tree, round: Round, secret: Secret
    ) -> tuple[Contribution, Tree]:
        """At the site: integers with a share of noise.

        Raises:
            ContributionError: NaN, infinity, what is no number, or too many participants for 32 bits.
        """
        if not (layout := Layout.of(c.value, "float64")).size:
            return anonymous(c, tree_map(lambda x: np.zeros(np.shape(x), np.int32), c.value)), local
        flat = ravel(clipped(c.value, self.clip)[0], layout)
        length = _power_of_two(layout.size) if self.rotate else layout.size
        grid = self._grid(length, round)
        x = flat * grid.steps
        if self.rotate:
            x = np.clip(_rotated(x, length, round), -grid.top, grid.top)
        x = _rounded(x, grid.norm, secret.stream(*purpose("discrete rounding", round, flat)))
        x += discrete_gaussian(secret.stream(*purpose("discrete gaussian", round, flat)), grid.std, length)
        if max(int(x.max()), -int(x.min())) > grid.most:
            raise ContributionError(f"Noised integers must stay within {grid.most}. Got more. Ask fewer participants.")
        words = x.astype(np.int32)
        tree = layout.tree(words[: layout.size])
        return anonymous(c, {"rotated": tree, "rest": words[layout.size :]} if self.rotate else tree), local

    def decode(self, c: Contribution, state: Any, round: Round, secret: Secret) -> tuple[Contribution, Any]:
        """At the hub: numbers of the sum again, float64.

        Raises:
            ChannelError: more dropped out than the noise is made for.
        """
        here, least = answered(round), round.asked - math.floor(round.asked * self.drops)
        if here < max(1, least):
            raise ChannelError(
                f"{least} of {round.asked} must answer for the noise to be as agreed. Got {here}. "
                "Nothing is released. Use DiscreteGaussian(drops=...) of more."
            )
        value: Any = c.value
        layout = Layout.of(value["rotated"] if self.rotate and "rotated" in value else value, "float64")
        if not layout.size:
            return released(c, value, round), state
        if not self.rotate:
            steps = self._grid(layout.size, round).steps
            return released(c, tree_map(lambda x: np.asarray(x) / steps, value), round), state
        flat = np.concatenate([ravel(value["rotated"], layout), np.asarray(value["rest"], np.float64)])
        flat = _rotated_back(flat / self._grid(len(flat), round).steps, round)
        return released(c, layout.tree(flat[: layout.size]), round), state

    def _grid(self, length: int, round: Round) -> Grid:
        n = max(1, round.asked)
        most = (2**31 - 1) // n
        shares = max(1, n - math.floor(n * self.drops) - math.floor(n * self.corrupt))
        std = self.noise * self.clip / math.sqrt(shares)
        spread = math.sqrt(2 * math.log(2 * length * 2**40) / length) if self.rotate else 1.0
        top = self.clip * min(1.0, spread)
        steps = (most - 2) / (top + _HEADROOM * std)
        if std:
            steps = min(steps, FINEST / std)
        grid = Grid(steps, self.clip * steps, top * steps + 1, std * steps, most)
        if most < 3 or (std and grid.std < COARSEST) or _shortened(grid.norm, length) <= 0:
            said = "too few steps" if not self.rotate else "too few steps, even if rotated"
            raise ContributionError(
                f"32 bits must hold the sum of {n} vectors of {length} numbers with their noise. Got {said}. "
                "Ask fewer participants, or use DiscreteGaussian(rotate=True)."
            )
        return grid


def _shortened(norm: float, length: int) -> float:
    """The norm of which, once rounded, with probability 1 - exp(-1/2) or more no more than `norm` becomes.

    The bound in Theorem 1 of Kairouz, Liu and Steinke, solved for the norm before: x² + d/4 + x + √d/2 = norm², or
    x + √d = norm where that leaves more.
    """
    likely = norm**2 - length / 4 - math.sqrt(length) / 2 + 0.25
    return max(math.sqrt(likely) - 0.5 if likely > 0 else 0.0, norm - math.sqrt(length))


def _rounded(x: Array, norm: float, stream: Stream) -> Array:
    """Integers of norm `norm` at most, whose mean is x but for what that takes away."""
    size, most = math.sqrt(float(x @ x)), _shortened(norm, len(x)) * (1 - 1e-12)
    if size > most:
        x = x * (most / size)
    low = np.floor(x)
    part = x - low
    for _ in range(_TRIES):
        found: Array = low + (uniform(stream, len(x)) < part)
        if float(found @ found) <= norm**2:
            break
    else:
        found = np.trunc(x)
    return np.asarray(found.astype(np.int64))


def _power_of_two(size: int) -> int:
    return 1 << max(0, size - 1).bit_length()


def _signs(length: int, round: Round) -> Array:
    """The same for all: 1 or -1."""
    signs: Array = round.rng("DiscreteGaussian").integers(0, 2, length, dtype=np.int8)
    return 1.0 - 2.0 * signs


def _rotated(x: Array, length: int, round: Round) -> Array:
    out = np.zeros(length)
    out[: len(x)] = x
    out *= _signs(length, round)
    return _hadamard(out)


def _rotated_back(x: Array, round: Round) -> Array:
    x = _hadamard(x.copy())
    x *= _signs(len(x), round)
    return x


def _hadamard(x: Array) -> Array:
    """The Walsh-Hadamard transform over √length, in place: it is its own inverse."""
    half = 1
    while half < len(x):
        pairs = x.reshape(-1, 2, half)
        low, high = pairs[:, 0], pairs[:, 1]
        difference = low - high
        low += high
        high[...] = difference
        half *= 2
    x /= math.sqrt(len(x))
    return x
