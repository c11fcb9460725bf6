"""Keyed randomness: a function of the key only, and of all of the key."""

import subprocess
import sys

import numpy as np
import pytest

from comity.core.rng import digest, keyed, keyed_order
from comity.core.round import Round

KEYS = [(0,), (1,), ("0",), (0, ""), (0, "a", "b"), (0, "ab"), (0, "a b"), (0, "a", "b", ""), (0.0,), (True,), ("a", 0)]


def test_no_two_keys_share_a_stream():
    assert len({digest(*k) for k in KEYS}) == len(KEYS)
    assert len({keyed(*k).bytes(16) for k in KEYS}) == len(KEYS)


def test_a_stream_is_the_same_in_another_process():
    code = "from comity.core.rng import keyed, keyed_order; print(keyed(7, 'x').bytes(8).hex(), keyed_order(5, 7, 'x'))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert said == f"{keyed(7, 'x').bytes(8).hex()} {keyed_order(5, 7, 'x')}"
    assert keyed(7, "x").bytes(8).hex() == "97282f0ba22d09db"


@pytest.mark.parametrize("n", [0, 1, 2, 63, 1000])
def test_an_order_is_a_permutation(n):
    order = keyed_order(n, "k")
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(n))


def test_orders_are_uniform():
    """Where 0 lands in 5 places, 5,000 times: chi-square with 4 degrees of freedom; false alarm 1e-6 at 33.4."""
    places = [int(np.flatnonzero(keyed_order(5, "u", i) == 0)[0]) for i in range(5000)]
    counts = np.bincount(places, minlength=5)
    assert ((counts - 1000) ** 2 / 1000).sum() < 33.4


def test_mine_is_keyed_by_me_and_rng_is_not():
    hub, a, b = (Round("r", 3, number=2, me=me) for me in ("", "a", "b"))
    assert a.rng("x").bytes(8) == b.rng("x").bytes(8) == hub.rng("x").bytes(8)
    assert len({r.mine("x").bytes(8) for r in (hub, a, b)}) == 3
    assert a.mine("x").bytes(8) != Round("r", 3, number=3, me="a").mine("x").bytes(8)
    assert a.mine("x").bytes(8) != Round("r", 4, number=2, me="a").mine("x").bytes(8)
    assert a.mine("x").bytes(8) == Round("other", 3, number=2, me="a", attempt=1, hub="h").mine("x").bytes(8)
    assert a.order(9).tolist() != b.order(9).tolist()
