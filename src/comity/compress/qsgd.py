"""QSGD: each number as its share of the norm, in a few levels, on the way up."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from comity.compress.coding import array_of, coded, marked, opened, spread, starts, strange, unmarked, vector_of
from comity.core.checks import refusal, whole
from comity.core.contribution import Array, Contribution, Tree, View
from comity.core.parts import Secret
from comity.core.rng import Rng
from comity.core.round import Round


@dataclass(frozen=True)
class QSGD:
    """Float leaves go up as levels of their norm (Alistarh et al., NeurIPS 2017, section 3.1).

    In a bucket of d numbers with norm |v|, each becomes |v| · sign · l / s, with l one of the two levels next to
    s · |v_i| / |v|, drawn so that the mean is the number itself. The squared error is at most min(d / s², √d / s) |v|²
    in the mean (lemma 3.1), and at most s (s + √d) levels are expected not to be zero. The randomness is public.

    Unlike the paper, levels travel as integers of one byte (two from 128 levels on) in place of Elias codes, which
    `Deflate` after it makes up for, and a bucket ends where its leaf does. It needs a channel that shows each
    contribution, and may not stand after a transform that bounds the norm; a number may pass a bound of the method
    (`FedAvg(bound=...)`, probabilities) by |v| / s, and is then refused. What goes down is left alone.

    Attributes:
        levels: the s of the paper, 1 to 32767. With √d levels the error is at most that of the numbers themselves.
        bucket: the d of the paper, >= 1; each costs a norm of 4 bytes.

    Raises:
        ConfigError: a setting out of range.

    Example:
        >>> import numpy as np, comity as co
        >>> codec, here = co.QSGD(levels=4), co.Round(run="", seed=0)
        >>> delta = {"w": np.linspace(-1, 1, 1000, dtype="float32")}
        >>> told, drawer = codec.encode(co.Contribution("delta", delta), None, {}, here, None)
        >>> told.value["value"]["w"].dtype, int(abs(told.value["value"]["w"]).max())
        (dtype('int8'), 1)
    """

    levels: int = 16
    bucket: int = 512
    decodes: ClassVar[View] = "each"
    contracts: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", whole("levels", "QSGD", self.levels, 1))
        if self.levels > 32767:
            raise refusal("levels", "QSGD", "at most 32767", self.levels, "Use Half() for more.")
        object.__setattr__(self, "bucket", whole("bucket", "QSGD", self.bucket, 1))

    def init(self) -> Tree:
        """No state."""
        return None

    def encode(
        self, c: Contribution, public: Tree, local: Any, round: Round, secret: Secret
    ) -> tuple[Contribution, Tree]:
        """At the site: signed levels, and the norm of each bucket."""
        norms = [np.zeros(0, np.float32)]
        rng = round.mine("QSGD")

        def small(x: Array) -> tuple[Array, bool]:
            levels, norm = self._drawn(x, rng)
            norms.append(norm)
            return levels, False

        value, marks = marked(c.value, small)
        return coded(c, value, marks, norm=np.concatenate(norms)), local

    def decode(self, c: Contribution, state: Any, round: Round, secret: Secret) -> tuple[Contribution, Any]:
        """At the hub: floats of the old dtypes.

        Raises:
            ContributionError: nothing that `encode` writes.
        """
        at = 0
        weight, (value, marks, norms) = opened(c, "QSGD", "norm")
        vector_of("float32", norms, "norm", "QSGD")

        def full(name: str, x: Any, second: bool) -> Array:
            nonlocal at
            flat = array_of(self._dtype, x, name, "QSGD").reshape(-1)
            if flat.size and not -self.levels <= int(flat.min()) <= int(flat.max()) <= self.levels:
                raise strange("QSGD", f"have at most {self.levels} levels in '{name}'", f"{flat.min()} to {flat.max()}")
            buckets = -(-flat.size // self.bucket)
            norm = norms[at : at + buckets]
            at += buckets
            if norm.shape != (buckets,):
                raise strange("QSGD", f"have {at} norms or more", norms)
            with np.errstate(invalid="ignore", over="ignore"):
                numbers: Array = flat * spread(norm / np.float32(self.levels), self.bucket, flat.size)
            return numbers.reshape(x.shape)

        value = unmarked(value, marks, full, "QSGD")
        if norms.shape != (at,):
            raise strange("QSGD", f"have {at} norms", norms)
        return replace(c, value=value, weight=weight), state

    @property
    def _dtype(self) -> str:
        return "int8" if self.levels < 128 else "int16"

    def _drawn(self, x: Array, rng: Rng) -> tuple[Array, Array]:
        """(x.shape) signed levels, and the norm of each bucket."""
        flat = x.astype(np.float64).reshape(-1)
        with np.errstate(over="ignore", invalid="ignore"):
            squares = np.add.reduceat(flat * flat, starts(flat.size, self.bucket)) if flat.size else flat
            norm = np.sqrt(squares).astype(np.float32)
            each = spread(norm.astype(np.float64), self.bucket, flat.size)
            share = np.divide(np.abs(flat) * self.levels, each, out=np.zeros_like(flat), where=each != 0)
            level = np.floor(share)
            level += rng.random(flat.size) < share - level
            level = np.where(np.isfinite(each), np.copysign(np.minimum(level, self.levels), flat), 1)
        return level.astype(self._dtype).reshape(x.shape), norm
