"""Quantize: floats as small integers with one scale for each block, both ways."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from comity.compress.coding import (
    Same,
    array_of,
    coded,
    from_bfloat16,
    marked,
    opened,
    spread,
    starts,
    strange,
    to_bfloat16,
    unmarked,
    vector_of,
)
from comity.core.checks import refusal, whole
from comity.core.contribution import Array, Contribution, Tree, View
from comity.core.parts import Secret
from comity.core.rng import Rng
from comity.core.round import Round


@dataclass(frozen=True)
class Quantize:
    """Float leaves travel as integers of 2 to 8 bits; what arrives has its old dtype again.

    With b bits a number is one of 2L + 1 steps from -top to top, L = 2**(b - 1) - 1, where top is the largest magnitude
    of its block of consecutive numbers, rounded up to bfloat16. On the way up each number goes to one of its two
    neighbours at random so that its mean is the number itself (stochastic rounding: Gupta et al., ICML 2015): it is off
    by less than top / L, with variance at most (top / L)**2 / 4, and the errors of many contributions cancel. The
    randomness is public (`round.mine`): it hides nothing. On the way down it goes to the nearest. Leaves with few
    numbers travel as bfloat16, rounded in the same way. Whole numbers, text and weights stay as they are.

    Integers take one byte each, whatever the bits: `Deflate` after it makes them short. As rounding may raise a norm,
    it may not stand after a transform that bounds it; and a bound of the method (`FedAvg(bound=...)`) may be passed by
    0.8 %: leave it room. NaN or infinity makes its whole block so, for the hub to refuse. It needs a channel that shows
    each contribution.

    Attributes:
        up: bits of a contribution, 2 to 8; 0 leaves contributions alone.
        down: bits of what the hub shares, 2 to 8; 0 leaves it alone. Questions for scores are never packed.
        block: how many numbers have a scale (2 bytes) together, >= 1.
        least: leaves with so many numbers become integers, >= 1. Large leaves of very unlike numbers, such as the
            averaged variances of wide layers, are better kept out by a larger one.

    Raises:
        ConfigError: a setting out of range.

    Example:
        >>> import numpy as np, comity as co
        >>> codec, here = co.Quantize(up=4), co.Round(run="", seed=0)
        >>> delta = {"w": np.linspace(-1, 1, 1000, dtype="float32"), "b": np.ones(3, "float32")}
        >>> told, drawer = codec.encode(co.Contribution("delta", delta), None, {}, here, None)
        >>> told.value["value"]["w"].dtype, told.value["top"].shape
        (dtype('int8'), (16,))
        >>> back = codec.decode(told, None, here, None)[0].value
        >>> bool(abs(back["w"] - delta["w"]).max() < 1 / 7), back["b"]
        (True, array([1., 1., 1.], dtype=float32))
    """

    up: int = 8
    down: int = 0
    block: int = 64
    least: int = 256
    decodes: ClassVar[View] = "each"

    def __post_init__(self) -> None:
        for name in ("up", "down"):
            bits = whole(name, "Quantize", getattr(self, name), 0, hint="Use 2 to 8 bits, or 0 for none.")
            if bits == 1 or bits > 8:
                raise refusal(name, "Quantize", "0 or from 2 to 8", bits, "Use 8, for one.")
            object.__setattr__(self, name, bits)
        object.__setattr__(self, "block", whole("block", "Quantize", self.block, 1))
        object.__setattr__(self, "least", whole("least", "Quantize", self.least, 1))

    @property
    def contracts(self) -> bool:
        """Only where it does nothing on the way up: half a step may become a whole one."""
        return self.up == 0

    def init(self) -> Tree:
        """No state."""
        return None

    def pack(self, c: Contribution, state: Any, to: str, round: Round) -> Contribution:
        """At the hub: what goes down, rounded to the nearest."""
        return _laid(c, _packed(self, round, Same(c.value))) if self.down else c

    def unpack(self, c: Contribution, local: Any, round: Round) -> tuple[Contribution, Tree]:
        """At the site: floats of the old dtypes.

        Raises:
            ContributionError: nothing that `pack` writes.
        """
        return self._read(c, self.down) if self.down else c, local

    def encode(
        self, c: Contribution, public: Tree, local: Any, round: Round, secret: Secret
    ) -> tuple[Contribution, Tree]:
        """At the site: what goes up, rounded at random without bias."""
        if not self.up:
            return c, local
        return _laid(c, self._coded(c.value, self.up, round.mine("Quantize"))), local

    def decode(self, c: Contribution, state: Any, round: Round, secret: Secret) -> tuple[Contribution, Any]:
        """At the hub: floats of the old dtypes.

        Raises:
            ContributionError: nothing that `encode` writes.
        """
        return self._read(c, self.up) if self.up else c, state

    def _coded(self, tree: Any, bits: int, rng: Rng | None) -> tuple[Any, str, Array]:
        tops = [np.zeros(0, np.uint16)]

        def small(x: Array) -> tuple[Array, bool]:
            if x.size < self.least:
                return to_bfloat16(x, rng), True
            integers, top = self._integers(x, bits, rng)
            tops.append(top)
            return integers, False

        value, marks = marked(tree, small)
        return value, marks, np.concatenate(tops)

    def _integers(self, x: Array, bits: int, rng: Rng | None) -> tuple[Array, Array]:
        """(x.shape) int8, and the top of each block as bfloat16."""
        most = 2 ** (bits - 1) - 1
        with np.errstate(over="ignore", invalid="ignore"):
            flat = np.asarray(x, np.float32).reshape(-1)
            top = to_bfloat16(np.maximum.reduceat(np.abs(flat), starts(flat.size, self.block)), up=True)
            step = spread(_steps(top, most), self.block, flat.size)
            steps = np.divide(flat, step, out=np.zeros_like(flat), where=step != 0)
            if rng is None:
                near = np.rint(steps)
            else:
                near = np.floor(steps)
                near += rng.random(flat.size, np.float32) < steps - near
            near = np.where(np.isfinite(step), np.clip(near, -most, most), 1)
        return near.astype(np.int8).reshape(x.shape), top

    def _read(self, c: Contribution, bits: int) -> Contribution:
        most, at = 2 ** (bits - 1) - 1, 0
        weight, (value, marks, tops) = opened(c, "Quantize", "top")
        vector_of("uint16", tops, "top", "Quantize")

        def full(name: str, x: Any, second: bool) -> Array:
            nonlocal at
            if second:
                return from_bfloat16(array_of("uint16", x, name, "Quantize"))
            flat = array_of("int8", x, name, "Quantize").reshape(-1)
            if flat.size and not -most <= int(flat.min()) <= int(flat.max()) <= most:
                raise strange("Quantize", f"lie from -{most} to {most} in '{name}'", f"{flat.min()} to {flat.max()}")
            blocks = -(-flat.size // self.block)
            top = tops[at : at + blocks]
            at += blocks
            if top.shape != (blocks,):
                raise strange("Quantize", f"have {at} scales or more", tops)
            with np.errstate(invalid="ignore"):
                numbers: Array = flat * spread(_steps(top, most), self.block, flat.size)
            return numbers.reshape(x.shape)

        value = unmarked(value, marks, full, "Quantize")
        if tops.shape != (at,):
            raise strange("Quantize", f"have {at} scales", tops)
        return replace(c, value=value, weight=weight)


def _steps(top: Array, most: int) -> Array:
    return from_bfloat16(top) / np.float32(most)


def _laid(c: Contribution, made: tuple[Any, str, Array]) -> Contribution:
    value, marks, top = made
    return coded(c, value, marks, top=top)


@lru_cache(maxsize=1)
def _packed(codec: Quantize, round: Round, told: Same) -> tuple[Any, str, Array]:
    return codec._coded(told.thing, codec.down, None)
