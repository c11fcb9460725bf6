"""DP-SGD without torch: batches and noise from a stream, and the clipped gradients of co.Linear and co.MLP."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import comity as co
from comity.adapters import private
from comity.core.round import Round
from comity.core.tree import ravel

HERE = Round("test", seed=1, me="a")
RNG = np.random.default_rng(4)
ROWS = 30
X = RNG.normal(size=(ROWS, 5)).astype("float32") * RNG.uniform(0.1, 4, size=(ROWS, 1)).astype("float32")
Y = np.arange(ROWS) % 3
MODELS = {
    "Linear": (co.Linear(5, 3, rate=1.0, batch=7), Y),
    "regression": (co.Linear(5, rate=1.0, batch=7), X[:, 0] + 1),
    "MLP": (co.MLP(5, 3, hidden=(6, 4), rate=1.0, batch=7), Y),
    "soft": (co.MLP(5, 2, rate=1.0, batch=7), np.full((ROWS, 2), 0.5)),
}


def stream(name="test"):
    return co.testing.fixed_secret().stream(name)


def begun(model):
    """Parameters at which no gradient is zero by the way they begin."""
    return {k: v + RNG.normal(0, 0.3, size=v.shape).astype("float32") for k, v in model.init(HERE).items()}


def moved(model, start, data, clip, noise=0.0, rate=1.0, **more):
    step = co.Step(private=co.Private(clip, noise, stream(more.pop("name", "test")), rate), **more)
    new, metrics = model.fit(start, data, HERE, step)
    assert metrics == {}
    return ravel(new) - ravel(start)


def rows_of(model, start, x, y):
    """Each row's own gradient, by an ordinary step on it alone."""
    fits = (model.fit(start, (x[i : i + 1], y[i : i + 1]), HERE)[0] for i in range(len(x)))
    return np.stack([ravel(start).astype(float) - ravel(new) for new in fits])


@pytest.mark.parametrize("name", MODELS)
def test_the_clipped_sum_is_that_of_the_rows_one_by_one(name):
    model, y = MODELS[name]
    start = begun(model)
    found = rows_of(model, start, X, y)
    norms = np.linalg.norm(found, axis=1, keepdims=True)
    clip = float(np.median(norms))
    wanted = (found * np.minimum(1, clip / np.maximum(norms, 1e-12))).sum(0)
    np.testing.assert_allclose(-ROWS * moved(model, start, (X, y), clip), wanted, rtol=1e-5, atol=3e-5)
    assert np.abs(found.sum(0) - wanted).max() > 1e-2
    for i in range(ROWS):
        assert np.linalg.norm(moved(model, start, (X[i : i + 1], y[i : i + 1]), clip)) <= clip * (1 + 1e-5)


def test_a_row_with_no_finite_gradient_adds_nothing():
    model, start = MODELS["MLP"][0], begun(MODELS["MLP"][0])
    spoilt, kept = X.copy(), np.arange(ROWS) != 3
    spoilt[3, 2] = np.nan
    whole = -ROWS * moved(model, start, (spoilt, Y), 0.5)
    np.testing.assert_allclose(whole, -(ROWS - 1) * moved(model, start, (X[kept], Y[kept]), 0.5), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rate", [1.0, 0.2])
def test_numpy_and_torch_do_the_same_with_one_stream(rate):
    ours = co.MLP(5, 3, hidden=(6,), rate=0.3, momentum=0.5, epochs=2, batch=7)
    net = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    sgd = partial(torch.optim.SGD, lr=0.3, momentum=0.5)
    theirs = co.TorchModel(net, nn.functional.cross_entropy, optimizer=sgd, epochs=2, batch=7)
    start = begun(ours)
    a, b = (moved(m, start, (X, Y), 0.5, 1.0, rate) for m in (ours, theirs))
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert np.abs(a).max() > 0.01


def test_adjust_and_mask_act_on_what_was_noised():
    model, start = MODELS["Linear"][0], begun(MODELS["Linear"][0])
    plain = moved(model, start, (X, Y), 0.5, 1.0)
    doubled = moved(model, start, (X, Y), 0.5, 1.0, adjust=lambda p, g, s: 2 * g)
    np.testing.assert_allclose(doubled, 2 * plain, rtol=1e-4, atol=1e-6)
    masked = moved(model, start, (X, Y), 0.5, 1.0, mask={"0.bias": np.zeros(3)})
    np.testing.assert_array_equal(masked[:3], 0)
    np.testing.assert_array_equal(masked[3:], plain[3:])


@pytest.mark.parametrize(
    "model", [co.Linear(2000, 3, rate=1.0), co.TorchModel(nn.Linear(2000, 3), nn.functional.cross_entropy)]
)
def test_the_noise_of_a_step_has_the_deviation_that_is_asked_for(model):
    """6,000 numbers of a fixed stream, in the weights, which have no gradient on zeros."""
    x, y, clip, noise, rate = np.zeros((50, 2000), "float32"), np.arange(50) % 3, 0.4, 1.7, 0.1
    lr = 1.0 if isinstance(model, co.Linear) else 0.1
    z = -moved(model, model.init(HERE), (x, y), clip, noise, rate, epochs=rate)[3:] * rate * 50 / (noise * clip * lr)
    gaussian(z, error=2e-3)


def gaussian(z, error=0.0):
    """Mean, variance, tails and neighbours are those of a standard Gaussian within 4 standard errors, and `error`."""
    n = len(z)
    assert abs(z.mean()) < 4 / np.sqrt(n) + error
    assert abs(z.var() - 1) < 4 * np.sqrt(2 / n) + error
    for at, share in ((0.6745, 0.5), (1.96, 0.05), (3.2905, 0.001)):
        assert abs((np.abs(z) > at).mean() - share) < 4 * np.sqrt(share * (1 - share) / n) + error
    for a, b in ((z[1:], z[:-1]), (z[: n // 2], z[-(n // 2) :]), (z[: n // 2] ** 2, z[-(n // 2) :] ** 2)):
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(len(a)) + error


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [99_999, 2**17, 300_001])
def test_normals_are_gaussian(dtype, size):
    z = np.empty(size, dtype)
    private.put_normals(z, stream(dtype), 3.0)
    gaussian(z / 3)
    with pytest.raises(AssertionError):
        gaussian(z / 3.1)
    assert len(np.unique(z)) > 0.95 * size


def test_the_smallest_and_the_largest_bytes_give_finite_noise():
    class Bytes:
        def __init__(self, byte):
            self.byte = byte

        def take(self, size):
            return np.full(size, self.byte, np.uint8)

    for byte in (0, 1, 127, 128, 255):
        z = np.empty(9, "float32")
        private.put_normals(z, Bytes(byte), 1.0)
        assert (np.abs(z) < 9.5).all()


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.97])
def test_each_row_is_drawn_by_itself_at_the_rate(rate):
    """400 batches of 500 rows: sizes are binomial, rows are drawn alike, all within 4.5 standard errors."""
    source, counts = stream(str(rate)), np.zeros((400, 500))
    for row in counts:
        row[private.drawn(source, 500, rate)] = 1
    sizes, times = counts.sum(1), counts.sum(0)
    assert abs(sizes.mean() - 500 * rate) < 4.5 * np.sqrt(500 * rate * (1 - rate) / 400)
    assert sizes.var() == pytest.approx(500 * rate * (1 - rate), rel=4.5 * np.sqrt(2 / 400))
    assert (np.abs(times - 400 * rate) < 4.5 * np.sqrt(400 * rate * (1 - rate)) + 1).all()


def test_at_rate_one_all_are_drawn():
    assert private.drawn(stream(), 5, 1.0).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"clip": 0.0}, "'clip'"),
        ({"clip": np.inf}, "'clip'"),
        ({"noise": -1.0}, "'noise'"),
        ({"noise": np.nan}, "'noise'"),
        ({"rate": 0.0}, "'rate'"),
        ({"rate": 1.5}, "'rate'"),
        ({"stream": np.random.default_rng(0)}, "a seeded generator can be guessed"),
    ],
)
@pytest.mark.parametrize("model", [MODELS["MLP"][0], co.TorchModel(nn.Linear(5, 3), nn.functional.cross_entropy)])
def test_settings_have_a_range(model, given, says):
    step = co.Step(private=co.Private(**{"clip": 1.0, "noise": 1.0, "stream": stream(), **given}))
    with pytest.raises(co.ConfigError, match=says):
        model.fit(model.init(HERE), (X, Y), HERE, step)
