"""Sparse: sides that disagree say so, and strange replies are refused in little memory."""

import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import comity as co
from comity.core.contribution import Contribution
from comity.core.wire import as_tree, decode, encode, encode_tree

HERE = co.Round("sparse", 0)
SHAPE = (60, 50)
RNG = np.random.default_rng(5)
MASK = RNG.random(SHAPE) < 0.06


def bits(c: Contribution) -> bytes:
    return encode_tree(as_tree(c))


def ticket(mask: Any, n: float = 12.0) -> Contribution:
    """A delta that counts where the mask is, beside a bias that counts as a whole."""
    value = {"layer": {"w": np.where(mask, np.float32(2), np.float32(0)), "b": np.ones(4, "float32")}}
    return Contribution("delta", value, {"layer": {"w": mask.astype("float32") * np.float32(n), "b": n}})


def passed(sparse: Any, c: Contribution, drawer: Any, entry: Any) -> Any:
    reply, drawer = sparse.encode(c, None, drawer, HERE, None)
    return (*sparse.decode(decode(encode(reply)), entry, HERE, None), drawer)


def test_sides_that_disagree_say_so():
    sparse = co.Sparse()
    other = MASK.copy()
    other[0, 0] ^= True
    _, one, drawer = passed(sparse, ticket(MASK), {}, {})
    _, two, *_ = passed(sparse, ticket(other), {}, {})
    with pytest.raises(co.ContributionError, match="must have the same masks"):
        passed(sparse, ticket(MASK), drawer, two)
    with pytest.raises((co.ContributionError, co.WireError), match="mask"):
        passed(sparse, ticket(MASK & other), drawer, {})
    told = sparse.pack(ticket(np.ones(SHAPE, bool)), two, "a", HERE)
    for mine in (drawer, {}):
        with pytest.raises(co.ContributionError, match="must have the same masks"):
            sparse.unpack(decode(encode(told)), mine, HERE)
    assert encode_tree(one) == encode_tree(drawer)


def spoilt(reply: Contribution, **changes: Any) -> Contribution:
    return replace(reply, value={**reply.value, **changes})


def test_strange_replies_are_refused():
    sparse = co.Sparse(most=5000)
    reply, drawer = sparse.encode(ticket(MASK), None, {}, HERE, None)
    mask = reply.value["masks"]["v0"]
    kept = reply.value["value"]["layer"]["w"]
    shape = np.array([5001], np.int64)

    def layer(w: Any) -> Any:
        return {"value": {"layer": {"w": w, "b": np.ones(4)}}}

    def said(**changes: Any) -> Any:
        return {"masks": {"v0": {**mask, **changes}}}

    wrong = [
        (layer(kept[:-1]), "must hold what its mask keeps"),
        (layer("text"), "must hold what its mask keeps"),
        (layer({"deeper": kept}), "same masks"),
        ({"hash": b"12345678"}, "same masks"),
        ({"hash": None}, "same masks"),
        ({"masks": 3}, "must be a Tree"),
        ({"masks": {**reply.value["masks"], "v9": None}}, "must be of leaves"),
        ({"masks": {"v0": {"change": b"\0\0\0"}}}, "a mask that the hub knows"),
        ({"masks": {"v0": {"shape": shape}}}, "must be"),
        ({"masks": {"v0": 3}}, "must be"),
        ({"more": 1}, "must be"),
        (said(shape=shape), "most 5000 positions"),
        (said(shape=np.array([2**40, 0])), "most 5000 positions"),
        (said(shape=np.array([2**32, 2**32])), "most 5000 positions"),
        (said(shape=np.array([-5, -5])), "most 5000 positions"),
        (said(shape=np.array(5)), "whole numbers"),
        (said(shape="x"), "whole numbers"),
        (said(mask=b"\x81\0"), "same masks"),
        (said(joint=1), "True or False"),
        (said(joint=False), "same masks"),
        (said(mask=b"\0"), "positions must be"),
        (said(mask=None), "positions must be"),
    ]
    for changes, text in wrong:
        with pytest.raises((co.ContributionError, co.WireError), match=text):
            sparse.decode(spoilt(reply, **changes), {}, HERE, None)
    for value in (1.0, None, {"value": 1.0}, np.ones(3)):
        with pytest.raises(co.ContributionError, match="Use the same transforms"):
            sparse.decode(replace(reply, value=value), {}, HERE, None)
        with pytest.raises(co.ContributionError, match="Use the same transforms"):
            sparse.unpack(Contribution("model", value), drawer, HERE)


def test_a_few_hostile_bytes_take_memory_by_most_alone():
    reply, _ = co.Sparse().encode(Contribution("delta", 1.0 * MASK, 2.0), None, {}, HERE, None)
    shape = np.array([10**6], np.int64)
    for code in (b"\x81\0", b"\x14\x01\x80\0\0\0", b"\0" + b"\xff" * 125000):
        said = {"value": np.ones(1), "masks": {"v0": {"shape": shape, "mask": code, "joint": False}}, "hash": b""}
        tracemalloc.start()
        try:
            with pytest.raises((co.ContributionError, co.WireError)):
                co.Sparse(most=10**6).decode(replace(reply, value=said), {}, HERE, None)
            assert tracemalloc.get_traced_memory()[1] < 30 * 10**6
        finally:
            tracemalloc.stop()
        with pytest.raises(co.ContributionError, match="at most 999999 positions"):
            co.Sparse(most=10**6 - 1).decode(replace(reply, value=said), {}, HERE, None)


def test_most_is_for_all_masks_together():
    two = Contribution("delta", {"a": 1.0 * MASK, "b": 1.0 * MASK}, 2.0)
    reply, _ = co.Sparse().encode(two, None, {}, HERE, None)
    assert bits(co.Sparse(most=2 * MASK.size).decode(reply, {}, HERE, None)[0]) == bits(two)
    with pytest.raises(co.ContributionError, match=r"2999 positions that are left.*Use Sparse\(most"):
        co.Sparse(most=2 * MASK.size - 1).decode(reply, {}, HERE, None)


@given(st.data())
def test_any_damage_is_refused_or_changes_no_position(data):
    """A bit of a reply is turned: values may be others, masks never are unnoticed."""
    sparse, c = co.Sparse(most=10**5), ticket(MASK)
    good, drawer = sparse.encode(c, None, {}, HERE, None)
    raw = bytearray(encode(good))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        back, entry = sparse.decode(decode(bytes(raw)), {}, HERE, None)
    except (co.ContributionError, co.WireError):
        return
    assert encode_tree(entry) == encode_tree(drawer)
    assert back.value["layer"]["w"].shape == SHAPE
