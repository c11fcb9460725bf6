"""Sparse: of each leaf only the numbers that are kept travel, and which they are only when that has changed."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np

from comity.core.checks import flag, whole
from comity.core.contribution import Array, Contribution, Tree, View
from comity.core.errors import ContributionError
from comity.core.parts import Secret
from comity.core.positions import decode_delta, decode_mask, encode_delta, encode_mask, mask_hash
from comity.core.round import Round
from comity.core.tree import is_branch, leaves

ROOM = 64
"""Bytes by which a leaf must become shorter to be sent sparse; about what is said of a mask beside its code."""
UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
DIMS = 32


@dataclass(frozen=True)
class Sparse:
    """Sends the numbers that are kept, one after the other, and the mask as Rice-coded gaps when it changed.

    What is kept of a leaf: where its weight is not 0, if weights are given coordinate by coordinate (tickets), else
    where its bits are not all 0. A mask travels whole the first time, then as what became of it where that is shorter,
    and not at all while it stays; 8 bytes of hash always do. A weight that is one number wherever it counts travels as
    that number. Both sides keep the masks of the last accepted reply, so that lost and refused replies change nothing.
    Leaves that would not become shorter travel as they are.

    On the way down a member is sent only what it gave weight to, coordinate by coordinate, in its last accepted reply,
    and finds 0 elsewhere: for participants that use nothing beside their own mask, as those that train tickets.
    Questions for scores carry everything, and so does the one after a reply without any weight, which does not tell
    what is kept. What is decoded is the same to the bit, but that -0.0 without weight becomes 0.0.

    It needs a channel that shows each reply, and the hub learns each member's mask. Coding positions as gaps follows
    Golomb (IEEE Trans. Inf. Theory 1966) and Rice (JPL 1979); sending values and masks apart is FedLTN's (Mugunthan et
    al., ECCV 2022), which leaves the code open.

    Attributes:
        down: send a member only what it kept; False sends everything down.
        most: how many positions the masks of one reply may have together, >= 1; what a few hostile bytes can make the
            hub hold is some 20 times as many bytes.

    Raises:
        ConfigError: a setting out of range.

    Example:
        >>> import numpy as np, comity as co
        >>> from comity.core.wire import size
        >>> sparse, here = co.Sparse(), co.Round(run="", seed=0)
        >>> kept = np.arange(10000) % 20 == 0
        >>> ticket = co.Contribution("delta", {"w": 0.5 * kept}, weight={"w": 30.0 * kept})
        >>> reply, drawer = sparse.encode(ticket, None, {}, here, None)
        >>> back, entry = sparse.decode(reply, sparse.init(), here, None)
        >>> bool((back.value["w"] == ticket.value["w"]).all() and (back.weight["w"] == ticket.weight["w"]).all())
        True
        >>> again, _ = sparse.encode(ticket, None, drawer, here, None)
        >>> size(ticket), size(reply), size(again)
        (160048, 4504, 4080)
    """

    down: bool = True
    most: int = 2**26
    decodes: ClassVar[View] = "each"
    contracts: ClassVar[bool] = True
    lossless: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "down", flag("down", "Sparse", self.down))
        object.__setattr__(self, "most", whole("most", "Sparse", self.most, 1))

    def init(self) -> Tree:
        """Nothing is known of a member's masks yet."""
        return {}

    def encode(
        self, c: Contribution, public: Tree, local: Any, round: Round, secret: Secret
    ) -> tuple[Contribution, Tree]:
        """At the site: what is kept of each leaf, which masks are new, and a drawer that holds all of them."""
        sides, weighs = _Sides(_masks(local)), any(np.any(w) for _, w in leaves(c.weight))

        def thin(name: str, path: Path, x: Any) -> Any:
            w = _weight_at(c.weight, path)
            joint = weighs and _is_joint(x, w)
            mask = sides.found(name, path, x, w, joint)
            return x if mask is None else x[mask.bits]

        def light(name: str, path: Path, w: Any) -> Any:
            mask = _shared(sides.new, path) or sides.found(name, path, w, None, False)
            return w if mask is None else _one(w[mask.bits])

        value, weight = _each(c.value, thin, "v"), _each(c.weight, light, "w")
        said = {"value": value, "masks": sides.told, "hash": _hash(sides.new)}
        return replace(c, value=said, weight=weight), _tree(sides.new)

    def decode(self, c: Contribution, state: Any, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """At the hub: value and weight as they were, and the masks that this member has now.

        Raises:
            ContributionError: no such three, leaves that do not fit their masks, masks of more than `most` positions,
                or not those of the sender.
            WireError: bytes that are no mask.
        """
        said = _entries(c.value, ("value", "masks", "hash"))
        masks = _Read(_masks(state), said["masks"], self.most).all(said["value"], c.weight)
        if said["hash"] != _hash(masks):
            raise ContributionError(f"Site and hub must have the same masks. Got other hashes. {ANEW}")

        def full(name: str, path: Path, x: Any) -> Any:
            mask = _shared(masks, path) or masks.get(_key(name[0], path))
            return x if mask is None else _spread(mask, x, path)

        value, weight = _each(said["value"], full, "v"), _each(c.weight, full, "w")
        return replace(c, value=value, weight=weight), _tree(masks)

    def pack(self, c: Contribution, state: Any, to: str, round: Round) -> Contribution:
        """At the hub: of each leaf what the member kept, and the hash of its masks."""
        held = _masks(state)
        whole: dict[str, None] = {}

        def thin(name: str, path: Path, x: Any) -> Any:
            mask = _shared(held, path) if self.down else None
            if mask is None:
                return x
            if isinstance(x, np.ndarray) and x.shape == mask.bits.shape:
                return x[mask.bits]
            whole[name] = None
            return x

        value = _each(c.value, thin, "v")
        return replace(c, value={"value": value, "whole": whole, "hash": _hash(held) if held else b""})

    def unpack(self, c: Contribution, local: Any, round: Round) -> tuple[Contribution, Tree]:
        """At the site: what it kept, and 0 elsewhere. Where the hub knows no mask, the drawer forgets them too.

        Raises:
            ContributionError: the hub takes other masks for this site's, or leaves do not fit them.
        """
        said = _entries(c.value, ("value", "whole", "hash"))
        if said["hash"] == b"":
            return replace(c, value=said["value"]), {}
        held = _masks(local)
        if said["hash"] != _hash(held) or not is_branch(said["whole"]):
            raise ContributionError(f"Site and hub must have the same masks. Got other hashes. {ANEW}")

        def full(name: str, path: Path, x: Any) -> Any:
            mask = _shared(held, path) if self.down and name not in said["whole"] else None
            return x if mask is None else _spread(mask, x, path)

        return replace(c, value=_each(said["value"], full, "v")), local


Path: TypeAlias = tuple[str, ...]
ANEW = "Join with a new name."


class _Mask(NamedTuple):
    """What is kept of one leaf; joint: of its weight too, coordinate by coordinate."""

    bits: Array
    code: bytes
    joint: bool

    def same(self, other: "_Mask | None") -> bool:
        if other is None or (self.code, self.joint) != (other.code, other.joint):
            return False
        return self.bits.shape == other.bits.shape


_Masks: TypeAlias = dict[str, _Mask]


class _Sides:
    """The masks of one reply as they are found at the site: those before, those after, and what is told of them."""

    def __init__(self, held: _Masks) -> None:
        self.held, self.new = held, dict[str, _Mask]()
        self.told: dict[str, Any] = {}

    def found(self, name: str, path: Path, x: Any, w: Any, joint: bool) -> _Mask | None:
        """The mask of a leaf, where it is worth one."""
        key = _key(name[0], path)
        old = self.held.get(key)
        if (mask := _mask_of(x, w, joint, old)) is not None:
            self.new[key] = mask
            if not mask.same(old):
                self.told[name] = _said(mask, old)
        elif old is not None:
            self.told[name] = None
        return mask


class _Read:
    """The masks of one message as they are read: those before, those after, and what was told of them, by anybody."""

    def __init__(self, held: _Masks, told: Any, most: int) -> None:
        if not isinstance(told, Mapping):
            raise ContributionError(f"Masks must be a Tree. Got {type(told).__name__}. Use the same transforms.")
        self.held, self.new, self.told = held, dict[str, _Mask](), dict(told)
        self.room = most

    def all(self, value: Any, weight: Any) -> _Masks:
        """The masks as they are now, all that was told of them used up."""
        _each(value, self._read, "v")
        _each(weight, self._read, "w")
        if self.told:
            raise ContributionError(f"Masks must be of leaves. Got one of {next(iter(self.told))!r:.20}. {ANEW}")
        return self.new

    def _read(self, name: str, path: Path, x: Any) -> None:
        if name[0] == "w" and _shared(self.new, path):
            return
        key = _key(name[0], path)
        old = self.held.get(key)
        mask = old if name not in self.told else self._changed(self.told.pop(name), old)
        if mask is not None:
            self.room -= mask.bits.size
            self.new[key] = mask

    def _changed(self, told: Any, old: _Mask | None) -> _Mask | None:
        if told is None:
            return None
        if isinstance(told, Mapping) and told.keys() == {"change"}:
            if old is None:
                raise ContributionError(f"A change must be of a mask that the hub knows. Got one of another. {ANEW}")
            return _coded(decode_delta(old.bits, told["change"]).reshape(old.bits.shape), old.joint)
        told = _entries(told, ("shape", "mask", "joint"))
        shape = _shape(told["shape"], self.room)
        if not isinstance(told["joint"], bool):
            raise ContributionError(
                f"'joint' must be True or False. Got {told['joint']!r:.40}. Use the same transforms."
            )
        bits = decode_mask(told["mask"], math.prod(shape)).reshape(shape)
        return _Mask(bits, told["mask"], told["joint"])


def _spread(mask: _Mask, x: Any, path: Path) -> Array:
    """The leaf again, 0 where it was not kept."""
    kept = (np.count_nonzero(mask.bits),)
    if not isinstance(x, np.ndarray) or x.shape not in ((), kept):
        got = f"{x.dtype.name} of shape {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__
        raise ContributionError(f"{'.'.join(path)} must hold what its mask keeps. Got {got}. {ANEW}")
    full = np.zeros(mask.bits.shape, x.dtype)
    full[mask.bits] = x
    return full


def _each(tree: Any, f: Callable[[str, Path, Any], Any], side: str) -> Any:
    """The Tree with f(name, path, leaf) in place of each leaf; a name is the side and the leaf's number."""
    count = iter(range(2**62))

    def walk(x: Any, path: Path) -> Any:
        return {k: walk(x[k], (*path, k)) for k in x} if is_branch(x) else f(f"{side}{next(count)}", path, x)

    return walk(tree, ())


def _shared(masks: _Masks, path: Path) -> _Mask | None:
    """The mask that value and weight share at a place."""
    mask = masks.get(_key("v", path))
    return mask if mask is not None and mask.joint else None


def _weight_at(weight: Any, path: Path) -> Any:
    """The weight that stands at a leaf or above it; None where there is none."""
    for k in path:
        if not is_branch(weight):
            return weight
        weight = weight.get(k)
    return None if is_branch(weight) else weight


def _is_joint(x: Any, w: Any) -> bool:
    """Is the weight of this leaf given coordinate by coordinate?"""
    arrays = isinstance(x, np.ndarray) and isinstance(w, np.ndarray)
    return arrays and x.ndim > 0 and x.shape == w.shape and {x.itemsize, w.itemsize} <= UNSIGNED.keys()


def _mask_of(x: Any, w: Any, joint: bool, old: _Mask | None) -> _Mask | None:
    if not isinstance(x, np.ndarray) or not x.ndim or x.itemsize not in UNSIGNED:
        return None
    if joint:
        return _coded(_is_set(w) | (x != 0), True)
    mask = _coded(x != 0 if _is_nothing(w) else _is_set(x), False)
    about = 0 if mask.same(old) else len(mask.code) + ROOM
    return mask if np.count_nonzero(mask.bits) * x.itemsize + about < x.nbytes else None


def _is_set(x: Array) -> Array:
    """Where the bits of a number are not all 0: NaN and -0.0 are."""
    bits: Array = np.ascontiguousarray(x).view(UNSIGNED[x.itemsize]) != 0
    return bits


def _is_nothing(w: Any) -> bool:
    return w is not None and np.size(w) == 1 and not np.any(w)


def _one(kept: Array) -> Array:
    """One number for all where their bits are the same."""
    bits = kept.view(UNSIGNED[kept.itemsize])
    return kept[:1].reshape(()) if kept.size and (bits == bits[0]).all() else kept


def _coded(bits: Array, joint: bool) -> _Mask:
    return _Mask(bits, encode_mask(bits), joint)


def _said(mask: _Mask, old: _Mask | None) -> Tree:
    """A mask as it travels: what became of the old one where that is shorter."""
    if old is not None and old.bits.shape == mask.bits.shape and old.joint == mask.joint:
        change = encode_delta(old.bits, mask.bits)
        if len(change) < len(mask.code) + ROOM:
            return {"change": change}
    return {"shape": np.array(mask.bits.shape, np.int64), "mask": mask.code, "joint": mask.joint}


def _tree(masks: _Masks) -> Tree:
    """Masks as they are kept between rounds: coded."""
    return {k: {"shape": np.array(m.bits.shape, np.int64), "mask": m.code, "joint": m.joint} for k, m in masks.items()}


def _masks(tree: Any) -> _Masks:
    found = {}
    for key, kept in tree.items():
        shape = tuple(kept["shape"].tolist())
        bits = decode_mask(kept["mask"], math.prod(shape)).reshape(shape)
        found[key] = _Mask(bits, kept["mask"], kept["joint"])
    return found


def _hash(masks: _Masks) -> bytes:
    return mask_hash({f"{key} {m.bits.shape} {m.joint}": m.bits for key, m in masks.items()})


def _key(side: str, path: Path) -> str:
    """A name for a leaf that no other leaf has."""
    return side + json.dumps(path)


def _shape(said: Any, room: int) -> tuple[int, ...]:
    if not isinstance(said, np.ndarray) or said.dtype != np.int64 or said.ndim != 1 or not 0 < said.size <= DIMS:
        raise ContributionError("The shape of a mask must be whole numbers. Got another. Use the same transforms.")
    shape = tuple(said.tolist())
    if min(shape) < 0 or max(*shape, math.prod(shape)) > room:
        left = f"have at most {room} positions that are left of Sparse.most"
        raise ContributionError(f"A mask must {left}. Got one of shape {shape}. Use Sparse(most=...).")
    return shape


def _entries(said: Any, names: tuple[str, ...]) -> Mapping[str, Any]:
    if not is_branch(said) or said.keys() != set(names):
        wanted = ", ".join(map(repr, names))
        raise ContributionError(f"A message must be {{{wanted}}}. Got another Tree. Use the same transforms.")
    return said
