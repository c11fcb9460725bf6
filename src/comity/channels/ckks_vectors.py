"""Vectors of numbers under CKKS (Cheon, Kim, Kim & Song, ASIACRYPT 2017), by TenSEAL: made, added, opened.

The parameters are a ring of degree 8192 with moduli of 60, 40 and 40 bits (128 bits of security by the table of
homomorphicencryption.org: at most 218 bits), so 4096 numbers in one ciphertext and 100 bits for a sum.
"""

import math
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from typing import Any

import numpy as np

from comity.channels.layout import Form
from comity.core.contribution import Array, Contribution
from comity.core.errors import ChannelError, ConfigError, ContributionError
from comity.core.tree import is_branch, leaves, tree_map

DEGREE, MODULI, SCALE = 8192, (60, 40, 40), 2.0**60
SLOTS, MOST = DEGREE // 2, 2.0**38
_LOST = (RuntimeError, ValueError, TypeError, IndexError, MemoryError)


@cache
def library() -> Any:
    """TenSEAL.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import tenseal
    except ImportError:
        raise ConfigError("TenSEAL must be installed for CKKS. It is missing. Run: pip install comity[he].") from None
    return tenseal


def keys() -> tuple[bytes, bytes]:
    """A fresh public and secret key, as bytes, some 330 and 160 kB."""
    given, no = _context(), {"save_relin_keys": False, "save_galois_keys": False}
    public = given.serialize(save_secret_key=False, **no)
    return public, given.serialize(save_public_key=False, save_secret_key=True, **no)


def _context() -> Any:
    ts = library()
    return ts.context(ts.SCHEME_TYPE.CKKS, DEGREE, coeff_mod_bit_sizes=list(MODULI), n_threads=1)


@cache
def _adding() -> Any:
    """A context with keys of its own: to add, only the parameters count."""
    return _context()


@lru_cache(maxsize=4)
def _under(public: bytes) -> Any:
    """The context of a public key."""
    try:
        given = library().context_from(public, n_threads=1)
        if given.has_public_key() and not given.has_secret_key():
            given.global_scale = SCALE
            return given
    except _LOST:
        pass
    raise ChannelError("A public key of CKKS must be one. Got other bytes. Its holder runs another version.")


def encrypted(public: bytes, numbers: Array) -> dict[str, bytes]:
    """Numbers under a public key: 4096 in each ciphertext, the last filled up with zeros."""
    context, ts = _under(public), library()
    pieces = (numbers[i : i + SLOTS] for i in range(0, numbers.size, SLOTS))
    whole = (np.pad(p, (0, SLOTS - p.size)) if p.size < SLOTS else p for p in pieces)
    return {str(i): ts.ckks_vector(context, p).serialize() for i, p in enumerate(whole)}


def read(ciphertexts: Any, numbers: int, context: Any = None) -> list[Any]:
    """Ciphertexts from anybody, of so many numbers.

    Raises:
        ChannelError: they are none, or of another length.
    """
    want = -(-numbers // SLOTS)
    if not isinstance(ciphertexts, Mapping) or set(ciphertexts) != {str(i) for i in range(want)}:
        raise ChannelError(f"A vector of {numbers} numbers must be {want} ciphertexts. Got others.")
    given = [ciphertexts[str(i)] for i in range(want)]
    if all(isinstance(data, bytes) and data for data in given):
        try:
            found = [library().ckks_vector_from(context or _adding(), data) for data in given]
            if all(v.size() == SLOTS for v in found):
                return found
        except _LOST:
            pass
    raise ChannelError("Ciphertexts must be of CKKS with the parameters of the channel. Got other bytes.")


def add(total: list[Any], more: list[Any]) -> None:
    """Add ciphertexts, in place."""
    for a, b in zip(total, more, strict=True):
        a += b


def written(total: list[Any]) -> dict[str, bytes]:
    """Ciphertexts as they travel."""
    return {str(i): v.serialize() for i, v in enumerate(total)}


def decrypted(secret: bytes, ciphertexts: Any, numbers: int) -> Array:
    """The numbers, (numbers,) float64.

    Raises:
        ChannelError: they are no such ciphertexts.
    """
    context = library().context_from(secret, n_threads=1)
    found = read(ciphertexts, numbers, context)
    try:
        out = np.concatenate([np.array(v.decrypt()) for v in found])[:numbers]
    except _LOST:
        out = np.full(numbers, math.nan)
    if not np.isfinite(out).all():
        raise ChannelError("A sum must open to numbers. Got something else: it is under another key, or damaged.")
    return out


def flat(c: Contribution, metrics: tuple[str, ...], asked: int) -> tuple[Form, Array]:
    """A contribution as one vector: 1 (so that a sum says of how many it is), value and weight, then metrics.

    Raises:
        ContributionError: what is no number, not finite, or too large.
    """
    both = {"value": c.value, "weight": c.weight}
    for path, x in leaves(both):
        if x is not None and np.asarray(x).dtype.kind not in "fiub":
            raise ContributionError(f"Only numbers can be added. Got {type(x).__name__} in {'.'.join(path)}.")
    form = Form.of(Contribution(c.kind, tree_map(_place, both), 0.0, dict.fromkeys(metrics, (0.0, 0.0))))
    pairs = [n for name in form.metrics for n in c.metrics.get(name, (0.0, 0.0))]
    given = [np.asarray(x, np.float64).ravel() for _, x in leaves(both) if x is not None]
    numbers = np.concatenate([np.ones(1), *given, np.array(pairs, np.float64)])
    most = MOST / max(1, asked)
    if not (np.abs(numbers) <= most).all():
        raise ContributionError(f"Numbers under CKKS must be finite and within {most:.3g}. Got others.")
    return form, numbers


def _place(x: Any) -> Any:
    return None if x is None else np.broadcast_to(np.int8(0), np.shape(x))


def length(form: Form) -> int:
    """How many numbers a vector of this form holds."""
    return 1 + sum(math.prod(s) for s in form.shapes if s is not None) + 2 * len(form.metrics)


def back(form: Form, numbers: Array) -> Contribution:
    """What a sum of vectors says; metrics that nobody had are left out."""
    given, at = _shaped(form, numbers), length(form) - 2 * len(form.metrics)
    both: Any = _filled(form.value, given)
    pairs = zip(form.metrics, numbers[at::2].tolist(), numbers[at + 1 :: 2].tolist(), strict=True)
    weight = both["weight"]
    weight = float(weight) if isinstance(weight, np.ndarray) and not weight.ndim else weight
    return Contribution(form.kind, both["value"], weight, {k: (s, n) for k, s, n in pairs if abs(n) > 1e-3})


def _shaped(form: Form, numbers: Array) -> Iterator[Array | None]:
    at = 1
    for shape in form.shapes:
        n = 0 if shape is None else math.prod(shape)
        yield None if shape is None else numbers[at : at + n].reshape(shape)
        at += n


def _filled(tree: Any, given: Iterator[Array | None]) -> Any:
    return {k: _filled(v, given) for k, v in sorted(tree.items())} if is_branch(tree) else next(given)
