"""Trees: mapped, laid out flat and back, protected from whoever writes into them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.core.tree import Layout, frozen, leaves, norm, owned, ravel, tree_map, unravel

SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)
ARRAYS = st.builds(lambda s, n: np.random.default_rng(n).normal(size=s).astype("float32"), SHAPES, st.integers(0, 99))
NAMES = st.text("abc.", min_size=1, max_size=3)
TREES = st.dictionaries(NAMES, st.recursive(ARRAYS, lambda t: st.dictionaries(NAMES, t, max_size=3), max_leaves=6))


def same(a, b):
    pairs, others = list(leaves(a)), list(leaves(b))
    assert [p for p, _ in pairs] == [p for p, _ in others]
    for (_, x), (_, y) in zip(pairs, others, strict=True):
        assert x.dtype == y.dtype
        assert x.shape == y.shape
        assert x.tobytes() == y.tobytes()


@given(TREES)
def test_ravel_and_back(tree):
    vector = ravel(tree)
    assert vector.shape == (sum(x.size for _, x in leaves(tree)),)
    back = unravel(vector, tree)
    for (_, x), (_, y) in zip(leaves(tree), leaves(back), strict=True):
        assert x.tobytes() == y.tobytes()
        assert x.shape == y.shape
        assert x.size == 0 or np.shares_memory(y, vector)


@given(TREES)
def test_the_order_of_names_does_not_matter(tree):
    turned = {k: tree[k] for k in reversed(list(tree))}
    assert ravel(tree).tobytes() == ravel(turned).tobytes()


def test_ravel_is_free_for_views_of_one_vector_only():
    layout = Layout.of({"b": np.zeros(3, "float32"), "a": np.zeros((2, 2), "float32")})
    vector = np.arange(7, dtype="float32")
    tree = layout.tree(vector)
    assert ravel(tree) is vector
    assert ravel({"a": tree["a"], "b": tree["b"].copy()}) is not vector
    swapped = {"a": vector[3:].reshape(2, 2), "b": vector[:3]}
    assert ravel(swapped).tolist() == [3, 4, 5, 6, 0, 1, 2]
    assert ravel({"a": vector[6:2:-1].reshape(2, 2), "b": vector[:3]}).tolist() == [6, 5, 4, 3, 0, 1, 2]


def test_several_dtypes_come_back_as_they_were():
    tree = {"a": np.float32([1.5, -2]), "n": np.int64([2**40, 3]), "z": np.float64(0.1)}
    vector = ravel(tree)
    assert vector.dtype == np.float64
    back = unravel(vector, tree)
    assert [back[k].dtype.name for k in "anz"] == ["float32", "int64", "float64"]
    assert back["n"].tolist() == [2**40, 3]
    assert back["z"] == 0.1


def test_a_prefix_serves_everything_below():
    tree = {"a": {"x": 1, "y": 2}, "b": 3}
    assert tree_map(lambda v, w: v * w, tree, {"a": 10, "b": 2}) == {"a": {"x": 10, "y": 20}, "b": 6}
    assert tree_map(lambda v, w: v * w, tree, 2) == {"a": {"x": 2, "y": 4}, "b": 6}
    with pytest.raises(KeyError):
        tree_map(lambda v, w: v * w, tree, {"a": 1})


def test_frozen_shares_and_owned_copies():
    x = np.zeros(3)
    view, copy = frozen({"x": x})["x"], owned({"x": x})["x"]
    for y in (view, copy):
        with pytest.raises(ValueError, match="read-only"):
            y[0] = 1
    x[0] = 7
    assert view[0] == 7
    assert copy[0] == 0
    assert owned({"x": copy})["x"] is copy


@given(TREES)
def test_norm_is_that_of_the_flat_vector(tree):
    assert norm(tree) == pytest.approx(float(np.linalg.norm(ravel(tree).astype(float))))


def test_a_bare_array_is_a_tree():
    x = np.arange(4.0).reshape(2, 2)
    same(unravel(ravel(x), x), x)
