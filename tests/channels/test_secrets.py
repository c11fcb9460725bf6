"""What is sealed looks like chance, and no key, seed or share is seen where it should not be."""

import traceback

import cohorts
import numpy as np
import pytest
from cohorts import ROOT, Cohort, numbers

from comity.channels.identity import Keys
from comity.channels.layout import Form, lay
from comity.channels.masks import PIECE, mask
from comity.channels.secagg import SecAgg
from comity.channels.shamir import PRIME, SHARE, join, split, weights
from comity.core.contribution import Contribution
from comity.core.errors import ChannelError
from comity.core.wire import encode, encode_tree

EIGHT = numbers(8)


@pytest.fixture(autouse=True, scope="module")
def _forget():
    yield
    cohorts.SAID.clear()


def test_sealed_vectors_look_uniform():
    """Chi-square of each byte of the words of zeros, 255 degrees of freedom: a false alarm in 10^6 for each."""
    zeros = [Contribution("delta", {"w": np.zeros(50_000, int)}, 1.0, {}, c.sender) for c in EIGHT[:4]]
    walk = Cohort(SecAgg(), zeros)
    walk.through()
    for c in walk.sealed.values():
        data = c.value["words"].view(np.uint8).reshape(-1, 4)
        for byte in range(4):
            count = np.bincount(data[:, byte], minlength=256)
            chi = float(((count - len(data) / 256) ** 2 / (len(data) / 256)).sum())
            assert 158 < chi < 378, chi


def secrets(turn):
    """Every member's keys, seed and shares, by name."""
    out = {}
    for c in EIGHT:
        keys = Keys.of(ROOT.side(c.sender), turn)
        out[c.sender] = [keys.seed, keys.nonce, keys.c.private_bytes_raw(), keys.s.private_bytes_raw()]
    return out


def test_nothing_secret_is_in_what_travels_is_kept_or_is_said():
    walk = Cohort(SecAgg(), EIGHT, gone={"contribute": ["p01"]})
    walk.through()
    said = b"".join(encode(body) for kind, _, body in walk.heard if kind != "unmask")
    said += b"".join(encode(c) for c in walk.sealed.values()) + encode_tree(walk.memories)
    revealed = b"".join(encode(body) for kind, _, body in walk.heard if kind == "unmask")
    shares = set()
    for known in secrets(walk.turn).values():
        for key in known:
            for data in (said, revealed, repr(walk.session).encode(), repr(walk.memories).encode()):
                assert key not in data
                assert key.hex().encode() not in data
    for kind, _, body in walk.heard:
        if kind == "unmask":
            held = body.value["shares"]
            shares |= {held[i + 1 : i + SHARE] for i in range(0, len(held), SHARE)}
    shares.discard(bytes(32))
    assert len(shares) > 40
    assert not [s for s in shares if s in said], "A share is sealed until it is revealed."


def test_nothing_secret_is_in_a_repr_or_an_error():
    walk = Cohort(SecAgg(), EIGHT)
    walk.set_up()
    texts = [repr(Keys.of(ROOT.side("p00"), walk.turn)), repr(SecAgg()), repr(walk.session), repr(walk.heard)]
    for kind, value in (("shares", {}), ("survivors", {}), ("unmask", {}), ("nonce", {"names": b"", "commits": b""})):
        with pytest.raises(ChannelError) as error:
            walk.told("p00", kind, **value)
        texts.append("".join(traceback.format_exception(error.value)))
    for known in secrets(walk.turn).values():
        for key in known:
            assert not any(
                repr(key)[2:-1] in t or key.hex() in t or str(int.from_bytes(key, "big")) in t for t in texts
            )


@pytest.mark.parametrize("size", [1, 2, PIECE // 4 - 6, PIECE // 4 - 5, PIECE // 4, PIECE // 2 + 3])
def test_masks_of_plus_and_minus_cancel_and_numbers_carry(size):
    form = Form("delta", str(size), ("a",))
    words, keys = np.zeros(form.size, np.uint32), [bytes([i]) * 16 for i in range(3)]
    mask(words, form, keys)
    alone = []
    for key in keys:
        one = np.zeros(form.size, np.uint32)
        mask(one, form, [key])
        alone.append(one)
    total = np.zeros(form.size, np.uint32)
    for one in alone:
        form.add(total, one)
    assert (total == words).all()
    mask(words, form, [], keys)
    assert not words.any()
    assert len({a[-6:].tobytes() for a in alone}) == 3


def test_any_enough_shares_join_and_fewer_are_any_secret():
    random = np.random.default_rng(0).bytes(48 * 3)
    for secret in (bytes(32), b"\xff" * 32, bytes(range(32))):
        shares = split(secret, 4, range(1, 8), random)
        for xs in ((1, 2, 3, 4), (7, 5, 3, 1), (1, 2, 3, 4, 5, 6, 7)):
            assert join(xs, [shares[x - 1] for x in xs]) == b"\0" + secret
        assert join((1, 2, 3), shares[:3])[1:] != secret
        other = int.from_bytes(b"other".rjust(32), "big")
        want = [(other, 0), *((int.from_bytes(s, "big"), x) for x, s in zip((1, 2, 3), shares[:3], strict=True))]
        fourth = sum(y * lagrange(x, [p for _, p in want], 4) for y, x in want) % PRIME
        assert join((1, 2, 3, 4), [*shares[:3], fourth.to_bytes(33, "big")])[1:] == b"other".rjust(32)


def lagrange(x, xs, at):
    """The weight of the point at x for the value at `at`."""
    out = 1
    for other in xs:
        if other != x:
            out = out * (at - other) * pow(x - other, -1, PRIME) % PRIME
    return out


def test_weights_are_those_of_the_textbook():
    xs = (3, 1, 17, 2**200)
    assert list(weights(xs)) == [lagrange(x, xs, 0) for x in xs]
    assert all(pow(a, PRIME - 1, PRIME) == 1 for a in (2, 3, 65537)), "Fermat: the modulus is a prime."


def test_a_hub_that_sees_a_seal_cannot_tell_two_contributions():
    """With the same keys the difference of two seals is that of the contributions: so a second is never made."""
    form, words = lay(EIGHT[0], 8)
    first = Cohort(SecAgg(), EIGHT)
    first.set_up()
    sealed = first.seal("p00").value["words"]
    assert (sealed != words).mean() > 0.9
    assert form.fits(sealed)
