"""The keystream: whatever the portions, the same bytes; they look like chance; and a vector for others to check."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import comity as co
from comity.ledger.stream import CipherStream


@given(st.lists(st.integers(0, 300_000), min_size=1, max_size=6))
def test_portions_make_no_difference(sizes: list[int]) -> None:
    whole, parts = CipherStream(bytes(16)).take(sum(sizes)), CipherStream(bytes(16))
    assert np.array_equal(np.concatenate([parts.take(n) for n in sizes]), whole)


def test_what_was_taken_does_not_change() -> None:
    stream = CipherStream(bytes(16))
    first = stream.take(100)
    kept = first.copy()
    first2 = stream.take(50)
    first2 += 1
    stream.take(10**6)
    assert np.array_equal(first, kept)


def test_it_is_aes_in_counter_mode_from_block_two() -> None:
    """GCM begins its counter at 2 for a nonce of 12 bytes (NIST SP 800-38D, 7.1)."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    key = bytes(range(16))
    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    wanted = b"".join(block.update(bytes(12) + (2 + i).to_bytes(4, "big")) for i in range(3))
    assert CipherStream(key).take(48).tobytes() == wanted


def test_vector() -> None:
    taken = CipherStream(bytes(range(32))).take(300_000)
    assert (
        hashlib.sha256(taken.tobytes()).hexdigest()
        == "91ed00f593fca7157a3a06fa92dc3494d1e524cfc433378c9a2504568f855573"
    )


def test_bytes_are_even() -> None:
    counts = np.bincount(CipherStream(b"k" * 16).take(2**20), minlength=256)
    chi = float(((counts - 4096) ** 2 / 4096).sum())
    assert 170 < chi < 350


@pytest.mark.parametrize("other", ["noise", "noise.1"])
def test_purposes_and_sides_have_streams_of_their_own(other: str) -> None:
    secret = co.testing.fixed_secret()
    one = secret.stream("noise", "1").take(32)
    assert not np.array_equal(one, secret.stream(other).take(32))
    assert not np.array_equal(one, secret.side("ann").stream("noise", "1").take(32))
    assert secret.key("noise", "1") != one.tobytes()
