"""Hub optimizers against Algorithm 2 of Reddi et al. (2021), written out in numpy, and what they refuse."""

import numpy as np
import pytest

import comity as co
from comity.core.tree import frozen

PARTS = {
    "momentum": co.Momentum(0.7, 0.9),
    "adagrad": co.Adagrad(0.05, 0.3, 1e-2),
    "adam": co.Adam(0.05, 0.8, 0.95, 1e-2),
    "yogi": co.Yogi(0.05, 0.8, 0.95, 1e-2),
}


def textbook(name, deltas):
    """The steps of lines 9 to 13, number by number, in float64; tau² is where v begins."""
    m, v, steps = 0.0, 1e-2**2, []
    for d in deltas:
        if name == "momentum":
            m = 0.9 * m + d
            steps.append(0.7 * m)
            continue
        beta = 0.3 if name == "adagrad" else 0.8
        m = beta * m + (1 - beta) * d
        if name == "adagrad":
            v = v + d**2
        if name == "adam":
            v = 0.95 * v + 0.05 * d**2
        if name == "yogi":
            v = v - 0.05 * d**2 * (1 if v > d**2 else -1 if v < d**2 else 0)
        steps.append(0.05 * m / (v**0.5 + 1e-2))
    return steps


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_eight_steps_are_those_of_the_paper(name, dtype):
    """Deltas of all sizes, zeros among them: v both rises and falls."""
    rng = np.random.default_rng(0)
    sizes = 10.0 ** rng.integers(-4, 1, size=(8, 3, 2))
    deltas = (rng.normal(size=(8, 3, 2)) * sizes * (rng.random((8, 3, 2)) > 0.2)).astype(dtype)
    part, params = PARTS[name], {"a": np.zeros((3, 2), dtype), "b": {"c": np.zeros((), dtype)}}
    state = part.init(params)
    for i, d in enumerate(deltas):
        step, state = part.step({"a": d.astype(float), "b": {"c": np.float64(d[0, 0])}}, frozen(state))
        want = np.array([[textbook(name, deltas[: i + 1, r, c].astype(float))[-1] for c in range(2)] for r in range(3)])
        np.testing.assert_allclose(step["a"], want, rtol=1e-12 if dtype == "float64" else 2e-4, atol=1e-9)
        np.testing.assert_allclose(step["b"]["c"], want[0, 0], rtol=2e-4, atol=1e-9)
        assert {x.dtype.name for x in (m["a"] for m in state.values())} == {dtype}


@pytest.mark.parametrize("name", ["adagrad", "adam", "yogi"])
def test_v_begins_at_tau_squared_and_nothing_moves_without_a_delta(name):
    part, zeros = PARTS[name], {"a": np.zeros(2)}
    state = part.init(zeros)
    np.testing.assert_array_equal(state["v"]["a"], 1e-4)
    step, _ = part.step(zeros, state)
    np.testing.assert_array_equal(step["a"], 0.0)


def test_yogi_forgets_more_slowly_than_adam():
    """After one large delta and many small ones, Adam's v has shrunk by its own size, Yogi's hardly."""
    v = {}
    for name in ("adam", "yogi"):
        part = PARTS[name]
        state = part.init({"a": np.zeros(1)})
        for d in (1.0, *[1e-3] * 50):
            _, state = part.step({"a": np.array([d])}, state)
        v[name] = float(state["v"]["a"][0])
    assert v["adam"] < 0.1 * v["yogi"]


def test_adagrad_never_forgets():
    part = co.Adagrad(tau=1.0)
    state = part.init({"a": np.zeros(1)})
    for d in (3.0, -4.0, 0.0):
        _, state = part.step({"a": np.array([d])}, state)
    assert state["v"]["a"][0] == 26.0


@pytest.mark.parametrize("part", [co.Momentum, co.Adagrad, co.Adam, co.Yogi])
@pytest.mark.parametrize("rate", [0, -1.0, np.inf, np.nan, "fast", True, None])
def test_a_rate_must_be_a_finite_number_above_zero(part, rate):
    with pytest.raises(co.ConfigError, match=rf"The 'rate' of {part.__name__} must be .* Got "):
        part(rate=rate)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        (co.Momentum, "beta", 1.0),
        (co.Adagrad, "beta1", -0.1),
        (co.Adam, "beta1", 1.0),
        (co.Adam, "beta2", 1.5),
        (co.Yogi, "beta2", 1.0),
        *((p, "tau", 0.0) for p in (co.Adagrad, co.Adam, co.Yogi)),
    ],
)
def test_decays_and_tau_have_a_range(part, name, value):
    with pytest.raises(co.ConfigError, match=f"The '{name}' of {part.__name__} must be"):
        part(**{name: value})
