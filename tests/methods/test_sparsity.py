"""Masks against the plain way: sort everything, keep the largest."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import comity as co
from comity.methods.sparsity import (
    cubic,
    density,
    everything,
    kept,
    magnitude_mask,
    masked,
    prunable,
    sparse_delta,
)

SHAPES = {"b.weight": (3, 4), "a.weight": (2, 2, 3), "bias": (3,), "count": ()}


def tree(seed, ties=False):
    rng = np.random.default_rng(seed)
    return {
        k: (rng.integers(-2, 3, s).astype("float32") if ties else rng.normal(size=s).astype("float32"))
        for k, s in SHAPES.items()
    }


def plainly(params, share, within, names):
    """Sorted by magnitude, of equals the first; a loop over positions."""
    places = [(n, i) for n in sorted(names) for i in range(params[n].size)]
    inside = [p for p in places if within[p[0]].flat[p[1]]]
    ranked = sorted(range(len(inside)), key=lambda j: (-abs(params[inside[j][0]].flat[inside[j][1]]), j))
    count = max(1, int(np.ceil(share * len(places) - 1e-9)))
    out = {n: np.zeros(params[n].shape, bool) for n in names}
    for j in ranked[:count]:
        n, i = inside[j]
        out[n].flat[i] = True
    return out


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 99), share=st.floats(0, 1), first=st.floats(0, 1), ties=st.booleans(), each=st.booleans())
def test_the_largest_are_kept_and_masks_only_shrink(seed, share, first, ties, each):
    params, earlier = tree(seed, ties), tree(seed + 100, ties)
    scope, names = ("layer" if each else "global"), ("a.weight", "b.weight")
    within = magnitude_mask(earlier, first, scope=scope)
    found = magnitude_mask(params, share, within=within, scope=scope)
    groups = [[n] for n in names] if each else [names]
    for group in groups:
        wanted = plainly(params, share, within, group)
        for n in group:
            assert found[n].dtype == bool
            np.testing.assert_array_equal(found[n], wanted[n])
            assert not (found[n] & ~within[n]).any()


def test_what_may_be_pruned():
    floats = {"w": np.ones((2, 2), "float32"), "half": np.ones((1, 2), "float16"), "var": np.ones((2, 2))}
    params = {**floats, "bias": np.ones(3), "ids": np.ones((2, 2), int), "n": 3.0}
    assert prunable(params, ["var"]) == ("half", "w")
    assert everything(params, ["var"]).keys() == {"half", "w"}
    assert magnitude_mask(params, 0.5, statistics=["var"]).keys() == {"half", "w"}
    assert magnitude_mask({"bias": np.ones(3)}, 0.5) == {}


def test_one_weight_is_always_left():
    params = tree(0)
    assert kept(magnitude_mask(params, 0.0)) == (1, 24)
    assert [int(m.sum()) for m in magnitude_mask(params, 0.0, scope="layer").values()] == [1, 1]
    empty = {"w": np.ones((0, 3))}
    assert magnitude_mask(empty, 0.5)["w"].shape == (0, 3)
    assert density(magnitude_mask(empty, 0.5)) == 1.0


def test_a_nan_is_kept_to_be_found():
    mask = magnitude_mask({"w": np.array([[1.0, np.nan, 3.0, np.inf]])}, 0.5)
    assert mask["w"].tolist() == [[False, True, False, True]]


def test_masked_keeps_dtypes_and_leaves_the_rest():
    params = tree(3)
    mask = magnitude_mask(params, 0.25)
    out = masked(params, mask)
    assert out["bias"] is params["bias"]
    for n, m in mask.items():
        assert out[n].dtype == np.float32
        np.testing.assert_array_equal(out[n], params[n] * m)
        assert not np.signbit(out[n][~m]).any(), "A zero must be plain: its bits travel."
    assert density(mask) == 0.25


def test_a_sparse_delta_counts_where_it_is_kept():
    before, after = tree(1), tree(2)
    mask = magnitude_mask(after, 0.3)
    c = sparse_delta(co.Contribution("delta", None, 7.0, {"m": (1.0, 2.0)}), {**after, "own": np.ones(2)}, before, mask)
    assert c.value.keys() == c.weight.keys() == before.keys()
    assert (c.kind, c.metrics, c.weight["bias"], c.weight["count"]) == ("delta", {"m": (1.0, 2.0)}, 7.0, 7.0)
    np.testing.assert_array_equal(c.value["bias"], after["bias"] - before["bias"])
    for n, m in mask.items():
        np.testing.assert_array_equal(c.weight[n], 7.0 * m)
        np.testing.assert_array_equal(c.value[n], np.where(m, after[n] - before[n], 0))
        assert c.weight[n].dtype == c.value[n].dtype == np.float32


def test_the_schedule_is_the_papers():
    """s_t = s_f + (s_i - s_f)(1 - (t - t_0)/(nΔt))³, of sparsities; here of densities."""
    for t in range(12):
        sparsity = 0.7 + (0.1 - 0.7) * (1 - min(t, 8) / 8) ** 3
        assert cubic(t, 8, 0.3, first=0.9) == pytest.approx(1 - sparsity, abs=1e-12)
    falling = [cubic(t, 8, 0.3) for t in range(12)]
    assert falling == sorted(falling, reverse=True)
    assert (falling[0], falling[-1]) == (1.0, 0.3)
    assert cubic(0, 0, 0.3) == 0.3


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: magnitude_mask(tree(0), 1.1), "'density' of magnitude_mask must be a number"),
        (lambda: magnitude_mask(tree(0), 0.5, scope="each"), "'scope' of magnitude_mask must be one of"),
        (lambda: cubic(-1, 4, 0.5), "'round' of cubic"),
        (lambda: cubic(1, 4, 2), "'final' of cubic"),
    ],
)
def test_what_is_out_of_range_is_refused(call, says):
    with pytest.raises(co.ConfigError, match=says):
        call()
