"""Which positions of an array are kept, as few bytes: Rice-coded gaps, or plain bits where those are no longer.

A mask of `size` positions is one byte that says how it is coded, and what follows:

    0            plain bits, the first position in the highest bit of the first byte, zeros at the end
    1 + k        the kept positions as gaps, Rice-coded with parameter k (0 to 62)
    129 + k      the same for the positions that are not kept, when those are fewer

Rice-coded gaps (Golomb, IEEE Trans. Inf. Theory 1966; Rice, JPL 1979) are a count (a little-endian number, 7 bits in
a byte), the quotients gap >> k in unary (zeros, then a one), and the k low bits of all gaps, plane by plane, the
highest first. Coders usually write quotient and remainder of one gap after the other; apart, all are read at once.
There is one way to write a mask: the rarer kind of position (the kept ones of two equals), the parameter with the
fewest bits (the least of equals), and plain bits where the gaps take as many bytes.
"""

import hashlib
from typing import Any, NoReturn

import numpy as np

from comity.core.checks import shown
from comity.core.contribution import Array, Tree
from comity.core.errors import ConfigError, WireError
from comity.core.tree import leaves

HASH = 8
_OTHERS = 128


def encode_mask(mask: Array) -> bytes:
    """The bytes of a mask.

    Long masks of independent positions take at most 3.4 % more than their entropy at densities to 0.36, 4.3 % at worst
    (0.38). Never more than 1 + ceil(size / 8).

    Args:
        mask: any shape, bool, taken in C order; True where a position is kept.

    Raises:
        ConfigError: no bool array.

    Example:
        >>> mask = np.zeros(1000, bool)
        >>> mask[::100] = True
        >>> len(encode_mask(mask))
        12
        >>> bool((decode_mask(encode_mask(mask), 1000) == mask).all())
        True
    """
    flat = _flat(mask)
    kept = int(np.count_nonzero(flat))
    fewer = min(kept, flat.size - kept)
    raw = 1 + (flat.size + 7) // 8
    if 2 + (fewer + 7) // 8 < raw:
        others = kept != fewer
        coded = _rice(np.flatnonzero(~flat if others else flat), others, raw)
        if len(coded) < raw:
            return coded
    return b"\0" + np.packbits(flat).tobytes()


def decode_mask(data: Any, size: int) -> Array:
    """The mask that `data` holds, from anybody.

    Memory is at most some 40 bytes for each position, whatever `data` declares.

    Args:
        data: what `encode_mask` wrote.
        size: how many positions there are.

    Returns:
        (size,) bool.

    Raises:
        WireError: bytes that `encode_mask` does not write for any mask of this size.
    """
    most = 1 + (size + 7) // 8
    if not isinstance(data, bytes) or not 0 < len(data) <= most:
        got = f"{len(data)}" if isinstance(data, bytes) else shown(data)
        raise WireError(f"A mask of {size} positions must be 1 to {most} bytes. Got {got}.")
    mask = _unpacked(data[1:], size) if data[0] == 0 else _from_gaps(data, size)
    if encode_mask(mask) != data:
        _refuse(size, "another way to write it")
    return mask


def encode_delta(old: Array, new: Array) -> bytes:
    """What became of a mask: which of the kept positions went, and which of the others came.

    Dropping a share p of the kept positions costs about H(p) bits for each of them.

    Args:
        old: any shape, bool; what the other side has.
        new: as many positions.

    Raises:
        ConfigError: no bool arrays, or of unlike sizes.

    Example:
        >>> old = np.arange(1000) % 10 == 0
        >>> new = old.copy()
        >>> new[500] = False
        >>> len(encode_delta(old, new)), len(encode_mask(new))
        (6, 64)
        >>> bool((decode_delta(old, encode_delta(old, new)) == new).all())
        True
    """
    before, after = _flat(old), _flat(new)
    if before.size != after.size:
        raise ConfigError(f"Masks must have as many positions. Got {before.size} and {after.size}. Send it whole.")
    gone = encode_mask(~after[before])
    return _number(len(gone)) + gone + encode_mask(after[~before])


def decode_delta(old: Array, data: Any) -> Array:
    """The new mask, from the old one and what `encode_delta` said.

    Args:
        old: any shape, bool.
        data: what `encode_delta` wrote, from anybody.

    Returns:
        (size,) bool.

    Raises:
        WireError: bytes that `encode_delta` does not write for any change of a mask with so many kept positions.
    """
    before = _flat(old)
    if not isinstance(data, bytes):
        raise WireError(f"A change of a mask must be bytes. Got {shown(data)}.")
    length, at = _numbered(data, 0, before.size)
    kept = int(np.count_nonzero(before))
    new = before.copy()
    new[before] = ~decode_mask(data[at : at + length], kept)
    new[~before] = decode_mask(data[at + length :], before.size - kept)
    return new


def mask_hash(masks: Tree) -> bytes:
    """8 bytes that tell a Tree of masks from another: what two sides compare before they trust positions.

    It guards against two sides that disagree, not against one that searches for a collision.

    Args:
        masks: bool arrays of any shape, taken in C order; or one.

    Raises:
        ConfigError: a leaf that is no bool array.
    """
    h = hashlib.blake2b(digest_size=HASH)
    for path, leaf in leaves(masks):
        flat = _flat(leaf)
        name = "\0".join(path).encode()
        h.update(len(name).to_bytes(8, "little") + name + flat.size.to_bytes(8, "little"))
        h.update(np.packbits(flat).data)
    return h.digest()


def _rice(positions: Array, others: bool, most: int) -> bytes:
    """The positions as Rice-coded gaps; cut short where they take `most` bytes or more."""
    gaps = np.diff(positions, prepend=-1) - 1
    k, high = 0, gaps
    while int(((high + 1) >> 1).sum()) > gaps.size:
        k, high = k + 1, high >> 1
    head = bytes([1 + k + _OTHERS * others]) + _number(gaps.size)
    ends = np.cumsum(high + 1) - 1
    unary = int(ends[-1]) + 1 if gaps.size else 0
    length = unary + k * gaps.size
    if len(head) + (length + 7) // 8 >= most:
        return head + bytes(most)
    bits = np.zeros(length, bool)
    bits[ends] = True
    planes = bits[unary:].reshape(k, gaps.size)
    for i in range(k):
        planes[i] = (gaps >> (k - 1 - i)) & 1
    return head + np.packbits(bits).tobytes()


def _from_gaps(data: bytes, size: int) -> Array:
    """The mask of Rice-coded gaps; what is not canonical may come out as any mask."""
    k, others = (data[0] - 1) % _OTHERS, data[0] > _OTHERS
    count, at = _numbered(data, 1, size)
    bits = np.unpackbits(np.frombuffer(data, np.uint8, offset=at)).view(bool)
    ends = np.flatnonzero(bits)[:count]
    unary = int(ends[-1]) + 1 if count and ends.size else 0
    if data[0] == _OTHERS or ends.size < count or unary + k * count > bits.size or k >= size.bit_length():
        _refuse(size, f"{count} gaps that it does not hold")
    gaps = np.diff(ends, prepend=-1) - 1
    for plane in bits[unary : unary + k * count].reshape(k, count):
        gaps = gaps << 1 | plane
    positions = np.cumsum(gaps + 1) - 1
    if count and (int(positions.min()) < 0 or int(positions.max()) >= size):
        _refuse(size, "gaps beyond its end")
    mask = np.full(size, others)
    mask[positions] = not others
    return mask


def _unpacked(data: bytes, size: int) -> Array:
    if len(data) != (size + 7) // 8:
        _refuse(size, f"{len(data)} bytes of plain bits")
    return np.unpackbits(np.frombuffer(data, np.uint8), count=size).view(bool)


def _flat(mask: Any) -> Array:
    if not isinstance(mask, np.ndarray) or mask.dtype != bool:
        raise ConfigError(f"A mask must be an array of bool. Got {shown(mask)}. Use mask != 0.")
    return mask.reshape(-1)


def _number(n: int) -> bytes:
    """7 bits in a byte, the lowest first; the highest bit of a byte says that more follow."""
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes((*out, n))


def _numbered(data: bytes, at: int, size: int) -> tuple[int, int]:
    """The number that begins at a byte, and where it ends."""
    end = at
    while end < min(at + 9, len(data)) and data[end] > 127:
        end += 1
    n = sum((byte & 127) << 7 * i for i, byte in enumerate(data[at : end + 1]))
    if data[at : end + 1] != _number(n):
        _refuse(size, "a count that does not end")
    return n, end + 1


def _refuse(size: int, got: str) -> NoReturn:
    raise WireError(f"A mask of {size} positions must be as encode_mask writes it. Got {got}.")
