"""Once: what a site holds already is not sent to it again; its hash goes down instead."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from comity.core.checks import whole
from comity.core.contribution import Contribution, Tree, View
from comity.core.errors import ContributionError
from comity.core.parts import Secret
from comity.core.round import Round
from comity.core.tree import is_branch

HASH = 32


@dataclass(frozen=True)
class Once:
    """Sends a large leaf down once; while a site holds it, only its sha256 (32 bytes) travels.

    For what is shared again and again: the public inputs of a distillation, a frozen part of a model. A site keeps the
    large leaves of its last questions in its drawer and says in each reply which they are. The hub believes the last
    reply that it accepted: after a lost or refused one it sends the leaf itself again. Values are never changed, both
    ways. It stands last among the transforms, but before those that make leaves anew (`Quantize`, `Half`, `Deflate`):
    behind them it would never see one twice. It needs a channel that shows each reply.

    Questions for scores are not packed; they carry everything.

    Attributes:
        least: bytes from which a leaf is large; whole, >= 64.
        keep: of how many questions a site keeps the large leaves, >= 1. It costs as much room in each drawer.

    Raises:
        ConfigError: a setting out of range.

    Example:
        >>> import numpy as np, comity as co
        >>> once, here = co.Once(), co.Round(run="", seed=0)
        >>> told = co.Contribution("query", {"x": np.zeros((100, 64))})
        >>> got, drawer = once.unpack(once.pack(told, once.init(), "ann", here), {}, here)
        >>> reply, drawer = once.encode(co.Contribution("prediction", {"p": np.ones(3)}), None, drawer, here, None)
        >>> back, entry = once.decode(reply, once.init(), here, None)
        >>> from comity.core.wire import size
        >>> size(told), size(once.pack(told, entry, "ann", here)) < 200
        (51256, True)
    """

    least: int = 4096
    keep: int = 1
    decodes: ClassVar[View] = "each"
    contracts: ClassVar[bool] = True
    lossless: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "least", whole("least", "Once", self.least, 64))
        object.__setattr__(self, "keep", whole("keep", "Once", self.keep, 1))

    def init(self) -> Tree:
        """A member holds nothing yet."""
        return {"holds": b""}

    def pack(self, c: Contribution, state: Any, to: str, round: Round) -> Contribution:
        """At the hub: the Tree without what the member holds, and which hash stands at which leaf."""
        holds = _split(state["holds"])
        held: dict[str, bytes] = {}

        def thin(at: int, leaf: Any) -> Any:
            if holds and self._is_large(leaf) and (name := _hash(leaf)) in holds:
                held[str(at)] = name
                return None
            return leaf

        return replace(c, value={"value": _each(c.value, thin), "held": held})

    def unpack(self, c: Contribution, local: Any, round: Round) -> tuple[Contribution, Tree]:
        """At the site: the whole Tree again, and a drawer that holds its large leaves.

        Raises:
            ContributionError: a hash of what the drawer does not hold.
        """
        told: Any = c.value
        blobs = {name: leaf for kept in local.values() for name, leaf in kept.items()}
        new: dict[str, Any] = {}

        def full(at: int, leaf: Any) -> Any:
            name: bytes | None = told["held"].get(str(at))
            if name is None and not self._is_large(leaf):
                return leaf
            if name is not None and name.hex() not in blobs:
                raise ContributionError(f"The hub takes for held what is not: {name.hex()[:12]}. Join with a new name.")
            key = _hash(leaf).hex() if name is None else name.hex()
            new[key] = leaf if name is None else blobs[key]
            return new[key]

        value = _each(told["value"], full)
        return replace(c, value=value), self._kept(new, local)

    def encode(
        self, c: Contribution, public: Tree, local: Any, round: Round, secret: Secret
    ) -> tuple[Contribution, Tree]:
        """At the site: the contribution, and the hashes of what the drawer holds."""
        names = sorted(name for kept in local.values() for name in kept)
        return replace(c, value={"value": c.value, "holds": bytes.fromhex("".join(names))}), local

    def decode(self, c: Contribution, state: Any, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """At the hub: the contribution as it was, and what this member holds now.

        Raises:
            ContributionError: no such pair.
        """
        said: Any = c.value
        if not isinstance(said, Mapping) or said.keys() != {"value", "holds"} or not isinstance(said["holds"], bytes):
            raise ContributionError("A reply must be {'value', 'holds'}. Got another Tree. Use the same transforms.")
        return replace(c, value=said["value"]), {"holds": said["holds"]}

    def _is_large(self, leaf: Any) -> bool:
        if isinstance(leaf, bytes):
            return len(leaf) >= self.least
        return isinstance(leaf, np.ndarray) and leaf.nbytes >= self.least

    def _kept(self, new: Mapping[str, Any], local: Any) -> Tree:
        """The leaves of the newest questions, each once: "0" the newest."""
        out: dict[str, Any] = {"0": dict(new)} if new else {}
        seen = set(new)
        for i in range(self.keep - 1):
            if older := {k: v for k, v in local.get(str(i), {}).items() if k not in seen}:
                out[str(i + 1)] = older
                seen |= older.keys()
        return out


def _each(tree: Any, f: Any) -> Any:
    """The Tree with `f(position, leaf)` in place of each leaf; positions count in the order of the names."""
    count = iter(range(2**62))

    def walk(x: Any) -> Any:
        return {k: walk(x[k]) for k in x} if is_branch(x) else f(next(count), x)

    return walk(tree)


def _hash(leaf: Any) -> bytes:
    """The sha256 of what a leaf is: its type, shape and content."""
    if isinstance(leaf, bytes):
        return hashlib.sha256(b"bytes:" + leaf).digest()
    h = hashlib.sha256(f"{leaf.dtype.name}:{leaf.shape}:".encode())
    plain = np.ascontiguousarray(leaf)
    h.update(plain.astype(plain.dtype.newbyteorder("<"), copy=False).reshape(-1).view(np.uint8).data)
    return h.digest()


def _split(holds: bytes) -> frozenset[bytes]:
    return frozenset(holds[i : i + HASH] for i in range(0, len(holds), HASH))
