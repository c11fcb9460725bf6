import numpy as np
import pytest

from comity.adapters.numpy import MLP, Linear, Net, Worker
from comity.core.errors import ConfigError
from comity.core.parts import Model, Step
from comity.core.round import Round
from comity.core.tree import leaves, ravel

HERE = Round("test", seed=1, me="a")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(70, 5)).astype("float32")
Y = (X[:, 0] + X[:, 1] ** 2 > 0.7).astype(int) + (X[:, 2] > 1)
MODELS = [
    Linear(5, 3, rate=0.2, momentum=0.5, decay=0.01, epochs=3),
    MLP(5, 3, hidden=(16, 8), rate=0.3, epochs=60),
    Linear(5, epochs=2),
    MLP(5, 0, hidden=(8,), rate=0.01),
]


@pytest.mark.parametrize(("classes", "hidden"), [(3, ()), (4, (6,)), (3, (7, 5)), (0, (6,)), (0, ())])
def test_the_gradient_is_that_of_finite_differences(classes, hidden):
    net = Net((5, *hidden, max(classes, 1)), classes, "float64")
    vector = RNG.normal(size=net.layout.size)
    x, t = X[:9].astype(float), net.targets(Y[:9])
    worker = Worker(net, vector, 9)
    worker.step(x, t)
    slopes = worker.gradient.copy()
    for i in range(net.layout.size):
        h = np.eye(1, net.layout.size, i)[0] * 1e-6
        up, down = (Worker(net, vector + s * h, 9).step(x, t) for s in (1, -1))
        assert slopes[i] == pytest.approx((up - down) / (2e-6 * 9), abs=1e-6)


@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_fit_gives_new_parameters_over_one_vector_and_keeps_the_old(model):
    start = model.init(HERE)
    before = ravel(start).copy()
    for v in start.values():
        v.flags.writeable = False
    new, metrics = model.fit(start, (X, Y), HERE)
    np.testing.assert_array_equal(ravel(start), before)
    assert not np.array_equal(ravel(new), before)
    assert np.shares_memory(ravel(new), new["0.weight"])
    assert [p for p, _ in leaves(new)] == [p for p, _ in leaves(start)]
    assert all(v.dtype == np.float32 for v in new.values())
    assert metrics["examples"] == (70.0, 1.0)
    assert metrics["train_loss"][1] == 70.0 * model.epochs
    assert model.statistics == ()


@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_predictions(model):
    p = model.predict(model.fit(model.init(HERE), (X, Y), HERE)[0], X)
    if model.classes:
        assert p.shape == (70, 3)
        np.testing.assert_allclose(p.sum(1), 1.0, rtol=1e-5)
        assert (p.argmax(1) == Y).mean() > 0.6
    else:
        assert p.shape == (70,)
    assert model.predict(model.init(HERE), X[:0]).shape[0] == 0


def test_train_loss_is_the_mean_loss_of_the_batches():
    model = Linear(5, 3, rate=0.0)
    _, metrics = model.fit(model.init(HERE), (X, Y), HERE)
    assert metrics["train_loss"][0] == pytest.approx(70 * np.log(3), rel=1e-5)


def test_momentum_and_decay_by_hand():
    model = Linear(5, rate=0.05, momentum=0.9, decay=0.1, batch=70, epochs=3)
    w, b, v, u = np.zeros(5), 0.0, np.zeros(5), 0.0
    for _ in range(3):
        error = X @ w + b - Y
        v = 0.9 * v + 2 * X.T @ error / 70 + 0.1 * w
        u = 0.9 * u + 2 * error.mean()
        w, b = w - 0.05 * v, b - 0.05 * u
    new, _ = model.fit(model.init(HERE), (X, Y), HERE)
    np.testing.assert_allclose(new["0.weight"][0], w, rtol=1e-4)
    np.testing.assert_allclose(new["0.bias"][0], b, rtol=1e-4)


def test_features_are_the_hidden_activations():
    model = MLP(5, 3, hidden=(8, 4))
    params = model.init(HERE)
    seen = model.features(params, X, ["hidden1", "outputs"])
    first = np.maximum(X @ params["0.weight"].T + params["0.bias"], 0)
    np.testing.assert_allclose(
        seen["hidden1"], np.maximum(first @ params["2.weight"].T + params["2.bias"], 0), rtol=1e-4, atol=1e-6
    )
    z = np.exp(seen["outputs"].astype(float))
    np.testing.assert_allclose(z / z.sum(1, keepdims=True), model.predict(params, X), rtol=1e-4)
    with pytest.raises(ConfigError, match=r"Did you mean 'hidden0'"):
        model.features(params, X, ["hiden0"])


def test_soft_labels_equal_hard_ones_where_they_are_hard():
    model = MLP(5, 3, epochs=2)
    hard, _ = model.fit(model.init(HERE), (X, Y), HERE)
    soft, _ = model.fit(model.init(HERE), (X, np.eye(3)[Y]), HERE)
    np.testing.assert_array_equal(ravel(hard), ravel(soft))


def test_a_mask_keeps_weights_where_they_are_even_under_decay_and_momentum():
    model = MLP(5, 3, hidden=(8,), momentum=0.9, decay=0.1, epochs=2)
    start = model.init(HERE)
    mask = {"0.weight": (RNG.random((8, 5)) < 0.5).astype("float32"), "2.bias": np.zeros(3)}
    new, _ = model.fit(start, (X, Y), HERE, Step(mask=mask))
    assert ((new["0.weight"] != start["0.weight"]) <= (mask["0.weight"] == 1)).all()
    assert (new["0.weight"] != start["0.weight"]).any()
    assert (new["2.bias"] == start["2.bias"]).all()
    assert (new["2.weight"] != start["2.weight"]).any()
    with pytest.raises(ConfigError, match="mask"):
        model.fit(start, (X, Y), HERE, Step(mask={"0.weights": 1.0}))


def test_adjust_changes_the_gradient():
    model = MLP(5, 3, batch=70, rate=0.1)
    start = model.init(HERE)
    plain, _ = model.fit(start, (X, Y), HERE)
    twice, _ = model.fit(start, (X, Y), HERE, Step(adjust=lambda p, g, s: 2 * g))
    np.testing.assert_allclose(ravel(twice) - ravel(start), 2 * (ravel(plain) - ravel(start)), rtol=1e-4, atol=1e-6)
    calls = []
    model.fit(start, (X, Y), HERE, Step(adjust=lambda p, g, s: calls.append((p - s).any()) or g, epochs=2))
    assert calls == [False, True]


@pytest.mark.parametrize(("epochs", "seen"), [(0, 0), (0.5, 35), (2, 140), (1.1, 77)])
def test_a_step_may_set_the_epochs(epochs, seen):
    model = MLP(5, 3)
    new, metrics = model.fit(model.init(HERE), (X, Y), HERE, Step(epochs=epochs))
    assert metrics["train_loss"][1] == seen
    assert (seen > 0) == (not np.array_equal(ravel(new), ravel(model.init(HERE))))


def test_rounds_and_names_give_other_orders():
    model = MLP(5, 3)
    fits = [
        model.fit(model.init(HERE), (X, Y), r)[0] for r in (HERE, HERE, Round("test", 1, me="b"), Round("test", 1, 1))
    ]
    first, same, other, later = map(ravel, fits)
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()
    assert (first != later).any()


def test_a_diverging_fit_raises_nothing_and_ends_in_no_number():
    model = MLP(5, 0, rate=1e6, epochs=20)
    new, _ = model.fit(model.init(HERE), (X, Y), HERE)
    assert not np.isfinite(ravel(new)).all()


def _take_model(model: Model) -> Model:
    return model


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (lambda: Linear(5, 1), "'classes'"),
        (lambda: Linear(5, rate=-1), "'rate'"),
        (lambda: MLP(5, 2, batch=0), "'batch'"),
        (lambda: MLP(5, 2, epochs=np.nan), "'epochs'"),
        (lambda: MLP(5, 2, hidden=(0,)), "widths"),
        (lambda: MLP(5, 2, momentum=1.0), "momentum"),
        (lambda: _fit((X[:, :4], Y)), r"\(rows, 5\)"),
        (lambda: _fit((X, Y[:-1])), "same number of rows"),
        (lambda: _fit((X[:0], Y[:0])), "rows, >= 1"),
        (lambda: _fit((X, Y + 1)), "from 0 to 2"),
        (lambda: _fit((X, Y + 0.5)), "from 0 to 2"),
        (lambda: _fit(X), "pair"),
        (lambda: _fit((X, Y), Step(loss=lambda o, f, b: 0.0)), "TorchModel"),
        (lambda: Linear(5, 3).predict(MLP(5, 3).init(HERE), X), "must be named"),
        (lambda: Linear(5, 3).predict(Linear(5, 4).init(HERE), X), "must have shape"),
    ],
)
def test_refusals(bad, words):
    with pytest.raises(ConfigError, match=words):
        bad()


def _fit(data, step=Step()):
    model = _take_model(Linear(5, 3))
    return model.fit(model.init(HERE), data, HERE, step)
