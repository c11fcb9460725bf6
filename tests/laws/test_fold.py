"""The fold: the same bits whatever the order of arrival, and the sum of what came."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comity.core.contribution import Contribution
from comity.core.errors import ContributionError
from comity.core.together import Stack
from comity.core.tree import Layout, leaves
from comity.loop.fold import BLOCKS, Fold

SIZES = [0, 1, 2, 63, 64, 65, 129, 1000]


def cohort(n, seed=0):
    rng = np.random.default_rng(seed)
    return [
        Contribution(
            "delta",
            {"w": (rng.normal(size=3) * 10.0 ** rng.integers(-6, 7)).astype("float32"), "d": {"x": rng.normal()}},
            float(rng.integers(1, 50)),
            {"loss": (float(rng.normal()), 2.0)},
        )
        for _ in range(n)
    ]


def folded(n, items):
    fold = Fold(n)
    for at, c in items:
        fold.add(at, c)
    return fold.total()


def bits(c):
    if c is None:
        return None
    return [(p, np.asarray(x).tobytes()) for p, x in leaves(c.value)], c.weight, dict(c.metrics)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("missing", [0.0, 0.3, 1.0])
def test_arrival_does_not_change_the_bits(n, missing):
    rng = np.random.default_rng(n)
    given = [(i, c) for i, c in enumerate(cohort(n)) if rng.random() >= missing]
    straight = folded(n, given)
    for seed in range(5):
        shuffled = [given[i] for i in np.random.default_rng(seed).permutation(len(given))]
        assert bits(folded(n, shuffled)) == bits(straight)
    said_so = [(i, dict(given).get(i)) for i in np.random.default_rng(1).permutation(n)]
    assert bits(folded(n, said_so)) == bits(straight)
    assert (straight is None) == (not given)


@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 1000])
def test_it_is_the_sum_in_blocks_of_the_cohort_order(n):
    """Written out: at most 64 blocks of ceil(n / 64); inside in cohort order, then block after block, in float64."""
    given = cohort(n)
    size = -(-n // BLOCKS)
    total = None
    for start in range(0, n, size):
        block = given[start].value["w"].astype(float)
        for c in given[start + 1 : start + size]:
            block = block + c.value["w"]
        total = block if total is None else total + block
    got = folded(n, enumerate(given))
    assert got.value["w"].dtype == np.float64
    assert got.value["w"].tobytes() == total.tobytes()
    assert got.weight == sum(c.weight for c in given)
    assert got.metrics["loss"][1] == 2.0 * n


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 200), st.randoms())
def test_any_order_any_size(n, random):
    given = cohort(n)
    order = list(range(n))
    random.shuffle(order)
    assert bits(folded(n, [(i, given[i]) for i in order])) == bits(folded(n, enumerate(given)))


def test_memory_is_the_sum_not_the_cohort():
    fold = Fold(1000)
    for i, c in enumerate(cohort(1000)):
        fold.add(i, c)
        held = sum(len(b._early) for b in fold._open.values()) + len(fold._open) + len(fold._done)
        assert held <= 1


def test_inputs_are_not_changed():
    given = cohort(5)
    before = [bits(c) for c in given]
    folded(5, enumerate(given))
    assert [bits(c) for c in given] == before


def test_integers_add_as_integers():
    big = Contribution("n", {"n": np.array([2**53 + 1], np.int64)})
    got = folded(2, [(0, big), (1, big)])
    assert got.value["n"].tolist() == [2**54 + 2]


@pytest.mark.parametrize(
    "odd",
    [
        {"w": np.zeros(4, "float32"), "d": {"x": 0.0}},
        {"w": np.zeros(3, "int64"), "d": {"x": 0.0}},
        {"w": np.zeros(3, "float32")},
        {"w": np.zeros(3, "float32"), "d": 0.0},
        {"w": "text", "d": {"x": 0.0}},
        {"w": None, "d": {"x": 0.0}},
    ],
)
def test_what_does_not_add_is_refused_and_the_sum_is_as_without_it(odd):
    given = cohort(3)
    fold = Fold(3)
    fold.add(0, given[0])
    with pytest.raises(ContributionError, match="add"):
        fold.add(1, Contribution("delta", odd, 3.0))
    fold.add(1, None)
    fold.add(2, given[2])
    assert bits(fold.total()) == bits(folded(3, [(0, given[0]), (2, given[2])]))


def test_weights_by_coordinate_add():
    c = [Contribution("delta", {"w": np.ones(2)}, {"w": np.array([i, 1.0])}) for i in (0.0, 2.0)]
    assert folded(2, enumerate(c)).weight["w"].tolist() == [2.0, 2.0]
    with pytest.raises(ContributionError):
        folded(2, [(0, c[0]), (1, Contribution("delta", {"w": np.ones(2)}, 1.0))])


def stack_of(rng, n, width):
    rows = (rng.normal(size=(n, width)) * 10.0 ** rng.integers(-6, 6, (n, width))).astype("float32")
    layout = Layout.of({"a": np.zeros(width, "float32")})
    return Stack("delta", rows, layout, rng.integers(1, 9, n).astype(float), {"loss": rng.random((n, 2))})


def whole(c):
    return c and (c.value["a"].tobytes(), c.weight, dict(c.metrics))


@given(st.integers(1, 200), st.integers(0, 99), st.sampled_from([1, 2, 3, 8, 17]), st.data())
def test_a_stack_adds_as_its_rows(asked, seed, width, data):
    """However a cohort is cut into stacks, with some of it alone or absent."""
    rng = np.random.default_rng(seed)
    one, many, at = Fold(asked), Fold(asked), 0
    while at < asked:
        n = min(asked - at, data.draw(st.sampled_from([1, 2, 5, 64])))
        stack, how = stack_of(rng, n, width), data.draw(st.sampled_from(["stack", "stack", "alone", "absent"]))
        for i in range(n):
            one.add(at + i, None if how == "absent" else stack.one(i))
            if how != "stack":
                many.add(at + i, None if how == "absent" else stack.one(i))
        if how == "stack":
            many.add_many(at, stack)
        at += n
    assert whole(one.total()) == whole(many.total())


@given(st.integers(1, 200), st.integers(0, 99), st.lists(st.integers(0, 64), max_size=4), st.randoms())
def test_blocks_added_elsewhere_add_as_their_members(asked, seed, cuts, random):
    """Runs of whole blocks, folded apart and taken in any order; one that is lost is absent."""
    rng = np.random.default_rng(seed)
    stack, here, hub = stack_of(rng, asked, 3), Fold(asked), Fold(asked)
    here.add_many(0, stack)
    ends = sorted({min(c * hub.size, asked) for c in [*cuts, 64]} - {0})
    parts = []
    for a, b in zip([0, *ends], ends, strict=False):
        away = Fold(asked)
        away.add_many(a, stack.part(a, b))
        last = (b - 1) // hub.size
        parts += [(0, last, away.total())] if a == 0 else [(n, n, c) for n, c in away.finished()]
    random.shuffle(parts)
    for part in parts:
        hub.take(*part)
    assert whole(hub.total()) == whole(here.total())


def test_a_stack_of_another_form_is_refused_whole():
    rng, fold = np.random.default_rng(0), Fold(10)
    fold.add_many(0, stack_of(rng, 4, 3))
    before = whole(fold.total())
    with pytest.raises(ContributionError, match="do not add"):
        fold.add_many(4, stack_of(rng, 3, 2))
    assert whole(fold.total()) == before
