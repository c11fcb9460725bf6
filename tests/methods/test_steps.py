"""What methods do with parameters, against the plain way of doing it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.core.tree import ravel
from comity.methods.steps import added

KINDS = st.sampled_from(["float16", "float32", "float64"])


@given(KINDS, KINDS, KINDS, st.integers(0, 2**32 - 1))
def test_a_change_is_added_in_the_precision_of_both_and_kept_in_that_of_the_parameters(first, second, moves, seed):
    rng = np.random.default_rng(seed)
    shapes = {"a": (3, 2), "b": (), "c": (0,), "d": (4,)}
    params = {name: np.asarray(rng.normal(size=s), first if name < "c" else second) for name, s in shapes.items()}
    change = {name: np.asarray(1e-3 * rng.normal(size=s), moves) for name, s in shapes.items()}
    before = {name: x.copy() for name, x in params.items()}
    got = added(params, change)
    for name, p in params.items():
        want = (p + change[name]).astype(p.dtype)
        assert (got[name].dtype, got[name].shape, got[name].tobytes()) == (p.dtype, p.shape, want.tobytes())
        assert np.array_equal(p, before[name])
    if first == second:
        assert np.shares_memory(ravel(got), got["d"]), "over one flat vector"


def test_a_change_with_other_names_is_refused():
    with pytest.raises(KeyError):
        added({"a": np.ones(2)}, {"b": np.ones(2)})
