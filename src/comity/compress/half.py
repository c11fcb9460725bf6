"""Half: floats in two bytes, both ways."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np

from comity.compress.coding import Same, array_of, coded, from_bfloat16, marked, opened, to_bfloat16, unmarked
from comity.core.checks import word
from comity.core.contribution import Array, Contribution, Tree, View
from comity.core.errors import ContributionError
from comity.core.parts import Secret
from comity.core.round import Round


@dataclass(frozen=True)
class Half:
    """Float leaves travel in two bytes a number, up and down; what arrives has its old dtype again.

    Each number is rounded to the nearest; whole numbers, text and weights stay as they are. It needs a channel that
    shows each contribution. Rounding may pass a bound of the method (`FedAvg(bound=...)`) by 0.4 %: leave it room.

    Attributes:
        kind: "bfloat16" keeps the range of float32 and 8 bits of each number (off by at most 1/256 of it);
            "float16" keeps 11 bits (1/2048) of what lies between 6e-5 and 65504, and refuses what is larger.

    Raises:
        ConfigError: another kind.

    Example:
        >>> import numpy as np, comity as co
        >>> half, here = co.Half(), co.Round(run="", seed=0)
        >>> c = co.Contribution("delta", {"w": np.full(1000, 0.1, "float32")})
        >>> told, drawer = half.encode(c, None, {}, here, None)
        >>> told.value["value"]["w"].nbytes
        2000
        >>> half.decode(told, None, here, None)[0].value["w"][:2]
        array([0.10009766, 0.10009766], dtype=float32)
    """

    kind: Literal["bfloat16", "float16"] = "bfloat16"
    decodes: ClassVar[View] = "each"
    contracts: ClassVar[bool] = False

    def __post_init__(self) -> None:
        word("kind", "Half", self.kind, ("bfloat16", "float16"))

    def init(self) -> Tree:
        """No state."""
        return None

    def pack(self, c: Contribution, state: Any, to: str, round: Round) -> Contribution:
        """At the hub: what goes down, in two bytes a number."""
        value, marks = _packed(self, round, Same(c.value))
        return coded(c, value, marks)

    def unpack(self, c: Contribution, local: Any, round: Round) -> tuple[Contribution, Tree]:
        """At the site: in the old dtypes again."""
        return self._read(c), local

    def encode(
        self, c: Contribution, public: Tree, local: Any, round: Round, secret: Secret
    ) -> tuple[Contribution, Tree]:
        """At the site: what goes up, in two bytes a number.

        Raises:
            ContributionError: a number too large for float16.
        """
        return coded(c, *marked(c.value, self._halved)), local

    def decode(self, c: Contribution, state: Any, round: Round, secret: Secret) -> tuple[Contribution, Any]:
        """At the hub: in the old dtypes again.

        Raises:
            ContributionError: nothing that `encode` writes.
        """
        return self._read(c), state

    def _halved(self, x: Array) -> tuple[Array, bool]:
        if self.kind == "bfloat16":
            return to_bfloat16(x), False
        with np.errstate(over="ignore"):
            small = x.astype(np.float16)
        if np.isinf(small).any() and (np.isinf(small) & np.isfinite(x)).any():
            most = float(np.abs(x[np.isfinite(x)]).max())
            raise ContributionError(f"A number in float16 must be at most 65504. Got {most:g}. Use Half('bfloat16').")
        return small, False

    def _read(self, c: Contribution) -> Contribution:
        def full(name: str, x: Any, second: bool) -> Array:
            if self.kind == "bfloat16":
                return from_bfloat16(array_of("uint16", x, name, "Half"))
            return array_of("float16", x, name, "Half")

        weight, (value, marks) = opened(c, "Half")
        return replace(c, value=unmarked(value, marks, full, "Half"), weight=weight)


@lru_cache(maxsize=1)
def _packed(half: Half, round: Round, told: Same) -> tuple[Any, str]:
    return marked(told.thing, half._halved)
