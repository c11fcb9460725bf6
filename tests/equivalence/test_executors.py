"""Many fits at once against one after the other: every kind of module, optimizer, loss and size."""

from contextlib import nullcontext
from functools import partial
from unittest import mock

import numpy as np
import pytest

import comity as co
from comity.core.round import Round, Turns
from comity.core.together import Plan, Wish

torch = pytest.importorskip("torch")
nn, F, optim = torch.nn, torch.nn.functional, torch.optim
many = pytest.importorskip("comity.adapters.torch.many")
SGD = partial(optim.SGD, lr=0.1)
HERE = Round("executors", seed=3, number=2)
SIZES = (19, 1, 8, 40, 5, 16, 17)
PINNED = Wish("batched", ahead=1)


def slow(*case):
    return pytest.param(*case, marks=pytest.mark.slow)


class Residual(nn.Module):
    """A small ResNet with BatchNorm."""

    def __init__(self, channels):
        super().__init__()
        self.a, self.b = (nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))
        self.norm, self.last = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)

    def forward(self, x):
        return F.relu(x + self.last(self.b(F.relu(self.norm(self.a(x))))))


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.embed, self.inner, self.out = nn.Embedding(20, 5), kind(5, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        return self.out(self.inner(self.embed(x))[0][:, -1])


class Odd(nn.Module):
    """A layer, and something done between it and the next."""

    def __init__(self, between):
        super().__init__()
        self.a, self.between, self.b, self.seen = nn.Linear(4, 6), between, nn.Linear(6, 3), 0

    def forward(self, x):
        return self.b(self.between(self, self.a(x)))


def counted(self, h):
    self.seen += 1
    return h


def flat_layers(*between):
    return nn.Sequential(nn.Linear(4, 8), *between, nn.ReLU(), nn.Linear(8, 3))


def image_layers(*between):
    return nn.Sequential(nn.Conv2d(1, 4, 3), *between, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))


NETS = {
    "mlp": lambda: flat_layers(),
    "layernorm": lambda: flat_layers(nn.LayerNorm(8)),
    "frozen": lambda: nn.Sequential(nn.Linear(4, 8).requires_grad_(False), nn.Tanh(), nn.Linear(8, 3)),
    "cnn": lambda: image_layers(nn.ReLU(inplace=True), nn.MaxPool2d(2)),
    "groupnorm": lambda: image_layers(nn.GroupNorm(2, 4), nn.GELU()),
    "batchnorm": lambda: nn.Sequential(nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)),
    "resnet": lambda: image_layers(nn.BatchNorm2d(4), nn.ReLU(), Residual(4)),
    "gru": lambda: Recurrent(nn.GRU),
    "rnn": lambda: Recurrent(nn.RNN),
}
UNBATCHED = {
    "dropout": (lambda: flat_layers(nn.Dropout(0.5)), "random layers"),
    "if": (lambda: Odd(lambda _, h: h * 2 if h.sum() > 0 else h), "looks at values"),
    "item": (lambda: Odd(lambda _, h: h * h.mean().item()), "looks at values"),
    "numpy": (lambda: Odd(lambda _, h: h + float(h.detach().numpy().mean())), "looks at values"),
    "counter": (lambda: Odd(counted), "keeps something from step to step: 'seen'"),
    "python random": (lambda: Odd(lambda _, h: h * np.random.default_rng().random()), "differ from sequential"),
    "lstm": (lambda: Recurrent(nn.LSTM), "torch has no batched"),
}


def shape_of(kind):
    return {"cnn": (1, 8, 8), "groupnorm": (1, 8, 8), "resnet": (1, 8, 8)}.get(kind, (4,))


def examples(n, kind="mlp", seed=0, y=None):
    rng = np.random.default_rng((seed, n))
    x = rng.normal(size=(n, *shape_of(kind))).astype("float32")
    if kind in ("gru", "rnn", "lstm"):
        x = rng.integers(0, 20, (n, 6))
    return x, rng.integers(0, 3, n) if y is None else y(rng, n)


def model_of(net, loss=F.cross_entropy, optimizer=SGD, **settings):
    torch.manual_seed(0)
    return co.TorchModel(net(), loss=loss, optimizer=optimizer, **{"batch": 8, **settings})


def turns(n):
    return Turns(HERE, [f"p{i}" for i in range(n)])


def alone(model, params, local, data):
    each = [model.fit_local(*given) for given in zip(params, local, data, turns(len(data)), strict=True)]
    rows = np.array([np.concatenate([p[k].ravel() for k in sorted(p)]) for p, _, _ in each])
    metrics = {k: np.array([m[k] for _, _, m in each]) for k in ("examples", "train_loss")}
    return rows, [own for _, own, _ in each], metrics


def starts(model, n):
    """Not the model's own values, and for the last client other ones."""
    first = {k: v * 0.9 for k, v in model.init(HERE).items()}
    return [first] * (n - 1) + [{k: v * 1.1 for k, v in first.items()}]


def check(model, data, chunk, executor="batched", exactly=False):
    local, params = [model.local_init() for _ in data], starts(model, len(data))
    with nullcontext() if exactly else mock.patch.object(many, "one_by_one", side_effect=AssertionError):
        found = model.fit_many(params, local, data, turns(len(data)), Plan(executor, chunk))
    rows, own, metrics = alone(model, params, local, data)
    near = {"rtol": 0, "atol": 0} if exactly else {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(found.rows, rows, **near)
    assert found.rows.dtype == rows.dtype
    assert [p[0] for p in found.layout.paths] == sorted(params[0])
    assert found.metrics["train_loss"].dtype == np.float64
    np.testing.assert_array_equal(found.metrics["examples"], metrics["examples"])
    np.testing.assert_allclose(found.metrics["train_loss"], metrics["train_loss"], **near)
    for a, b in zip(found.local, own, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_allclose(a[name], b[name], **near)
            assert a[name].dtype == b[name].dtype
    return found


def batched(model):
    """Did it find a way, and was it taken?"""
    return [form for form in model._engine.proven.values() if isinstance(form, str)]


def sizes_for(kind):
    """BatchNorm needs two rows, and a graph for each size of a batch."""
    return SIZES if kind not in ("batchnorm", "resnet") else (17, 4, 12, 17, 8)


@pytest.mark.parametrize("kind", [slow(k) if k in ("rnn", "groupnorm", "layernorm") else k for k in NETS])
def test_batched_as_alone(kind):
    model = model_of(NETS[kind])
    check(model, [examples(n, kind) for n in sizes_for(kind)], chunk=4)
    assert len(batched(model)) == 1


@pytest.mark.parametrize(
    ("kind", "chunk"), [*(("mlp", c) for c in (1, 3, 16)), ("batchnorm", 3), slow("batchnorm", 16)]
)
def test_any_chunk(kind, chunk):
    model = model_of(NETS[kind], epochs=1.5)
    check(model, [examples(n, kind) for n in sizes_for(kind)], chunk)
    assert batched(model)


@pytest.mark.parametrize(
    ("kind", "batch", "epochs"),
    [*(("mlp", 8, e) for e in (0, 0.3, 2.5)), slow("mlp", 1, 1.5), ("mlp", 100, 2), slow("batchnorm", 4, 1.5)],
)
def test_any_epochs_and_batch(kind, batch, epochs):
    model = model_of(NETS[kind], epochs=epochs, batch=batch, optimizer=partial(optim.SGD, lr=0.1, momentum=0.9))
    check(model, [examples(n, kind) for n in sizes_for(kind)], 4)
    assert batched(model)


@pytest.mark.parametrize(
    "optimizer",
    [
        partial(optim.SGD, lr=0.1),
        partial(optim.SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
        partial(optim.SGD, lr=0.1, weight_decay=0.01, maximize=True),
        partial(optim.Adam, lr=0.01),
        slow(partial(optim.Adam, lr=0.01, amsgrad=True)),
        partial(optim.AdamW, lr=0.01),
        slow(partial(optim.Adamax, lr=0.01)),
        slow(partial(optim.NAdam, lr=0.01)),
        slow(partial(optim.RAdam, lr=0.01)),
        slow(partial(optim.Adagrad, lr=0.01)),
        slow(partial(optim.Adadelta, lr=0.5)),
        slow(partial(optim.RMSprop, lr=0.01)),
        partial(optim.RMSprop, lr=0.01, momentum=0.5, centered=True),
    ],
    ids=lambda o: f"{o.func.__name__} {o.keywords}",
)
def test_any_optimizer_that_moves_numbers_alone(optimizer):
    model = model_of(NETS["mlp"], optimizer=optimizer, epochs=2)
    found = check(model, [examples(n) for n in SIZES], 4)
    assert batched(model)
    assert np.abs(found.rows - found.rows[0]).max() > 1e-3


@pytest.mark.parametrize(("policy", "epochs"), [("average", 2), ("local", 2), slow("reset", 1)])
def test_buffers(policy, epochs):
    model = model_of(NETS["batchnorm"], buffers=policy, epochs=epochs, optimizer=partial(optim.Adam, lr=0.01))
    found = check(model, [examples(n, "batchnorm") for n in sizes_for("batchnorm")], 4)
    assert batched(model)
    assert bool(found.local[0]) == (policy == "local")
    if policy == "local":
        assert found.local[0]["1.num_batches_tracked"] == 2 * epochs


def column(rng, n):
    return rng.normal(size=n).astype("float32")


def coins(rng, n):
    return rng.integers(0, 2, n)


def odds(rng, n):
    return rng.dirichlet([1, 1, 1], n).astype("float32")


def some_ignored(rng, n):
    return np.where(rng.random(n) < 0.3, -100, rng.integers(0, 3, n))


def root(outputs, y):
    return F.mse_loss(outputs, y).sqrt()


HEAVY = torch.tensor([1.0, 3.0, 0.5])
LOSSES = {
    "cross_entropy": (F.cross_entropy, 3, None, "spread"),
    "smoothed": (partial(F.cross_entropy, label_smoothing=0.1), 3, None, "spread"),
    "class weights": (nn.CrossEntropyLoss(weight=HEAVY), 3, None, "spread"),
    "class weights, smoothed": (nn.CrossEntropyLoss(weight=HEAVY, label_smoothing=0.2), 3, None, "spread"),
    "ignored": (F.cross_entropy, 3, some_ignored, "spread"),
    "ignored, weights": (partial(F.cross_entropy, weight=HEAVY, ignore_index=1), 3, None, "spread"),
    "odds": (F.cross_entropy, 3, odds, "filled"),
    "nll": (partial(F.nll_loss, weight=HEAVY), 3, None, "filled"),
    "mse, a column": (F.mse_loss, 1, column, "filled"),
    "mse module": (nn.MSELoss(), 1, column, "filled"),
    "huber": (partial(F.huber_loss, delta=0.5), 1, column, "filled"),
    "coins": (F.binary_cross_entropy_with_logits, 1, coins, "filled"),
    "kl": (partial(F.kl_div, reduction="batchmean"), 3, odds, "filled"),
    "own mean": (lambda outputs, y: F.cross_entropy(outputs * 2, y), 3, None, "filled"),
    "own, weighted": (lambda outputs, y: F.cross_entropy(outputs, y, weight=HEAVY), 3, None, "exact"),
    "own, no sum": (root, 1, column, "exact"),
    "a sum": (nn.CrossEntropyLoss(reduction="sum"), 3, None, "exact"),
}


MORE = ("smoothed", "class weights", "odds", "kl", "mse module", "huber", "coins", "a sum", "own, no sum")


@pytest.mark.parametrize("name", [slow(n) if n in MORE else n for n in LOSSES])
def test_any_loss(name):
    loss, columns, y, form = LOSSES[name]
    model = model_of(lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, columns)), loss=loss)
    sizes = [n for n in SIZES if n > 8] if name == "ignored" else SIZES
    check(model, [examples(n, y=y) for n in sizes], 4)
    assert batched(model) == [form]


def test_words_at_every_place():
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.out = nn.Embedding(20, 5), nn.Linear(5, 3)

        def forward(self, x):
            return self.out(self.embed(x)).transpose(1, 2)

    def tags(rng, n):
        return np.where(rng.random((n, 6)) < 0.2, -100, rng.integers(0, 3, (n, 6)))

    data = [examples(n, "gru", y=tags) for n in SIZES]
    for loss in (F.cross_entropy, partial(F.cross_entropy, weight=HEAVY)):
        model = model_of(Tagger, loss=loss)
        check(model, data, 4)
        assert batched(model) == ["spread"]


@pytest.mark.parametrize("kind", UNBATCHED)
def test_what_cannot_be_batched_is_right_all_the_same(kind):
    make, words = UNBATCHED[kind]
    data = [examples(n, kind) for n in SIZES]
    model, params = model_of(make), None
    params = starts(model, len(data))
    plan = model.plan(params, [{}] * len(data), data, turns(len(data)), PINNED)
    assert (plan.executor, plan.measured) == ("sequential", True)
    assert words in plan.reason
    assert "\n" not in plan.reason
    if kind != "python random":
        check(model, data, 4, exactly=True)


def test_other_optimizers_hooks_and_data():
    data = [examples(n) for n in SIZES]
    rows = torch.utils.data.ConcatDataset([torch.utils.data.TensorDataset(*map(torch.as_tensor, data[0]))])
    hooked = flat_layers()
    hooked[1].register_forward_hook(lambda *_: None)
    cases = [
        (model_of(NETS["mlp"], optimizer=optim.LBFGS), data, "LBFGS"),
        (model_of(lambda: hooked), data, "'1' has hooks"),
        (model_of(NETS["mlp"]), [*data[:2], rows], "in memory"),
        (model_of(NETS["gru"]), [examples(9, "gru"), (np.ones((4, 3), int), np.zeros(4, int))], "rows of one shape"),
    ]
    for model, some, words in cases:
        plan = model.plan(starts(model, len(some)), [{}] * len(some), some, turns(len(some)), PINNED)
        assert plan.executor == "sequential"
        assert words in plan.reason
        if words != "LBFGS":
            check(model, some, 4, exactly=True)


def test_sequential_is_alone_to_the_bit():
    for kind, make in [*NETS.items(), ("dropout", UNBATCHED["dropout"][0])]:
        for settings in ({}, {"epochs": 1.5, "optimizer": partial(optim.Adam, lr=0.01), "buffers": "local"}):
            check(model_of(make, **settings), [examples(n, kind) for n in sizes_for(kind)], 0, "sequential", True)


def test_who_else_is_there_changes_nothing_but_rounding():
    model, data = model_of(NETS["mlp"]), [examples(n) for n in SIZES]
    params, names = [model.init(HERE)] * len(data), [f"p{i}" for i in range(len(data))]

    def fits(who, chunk):
        some = [[c[i] for i in who] for c in (params, data, names)]
        return model.fit_many(some[0], [{}] * len(who), some[1], Turns(HERE, some[2]), Plan("batched", chunk)).rows

    whole = fits(range(7), 4)
    assert np.array_equal(whole, fits(range(7), 4))
    np.testing.assert_allclose(fits([6, 3], 4), whole[[6, 3]], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(fits([2, 0, 5], 1), whole[[2, 0, 5]], rtol=1e-4, atol=1e-5)


def test_one_that_fails_is_told_so():
    model, data = model_of(NETS["mlp"]), [examples(n) for n in SIZES]
    broken = [*data[:3], (data[3][0], np.full(40, 7))]
    with pytest.raises((IndexError, RuntimeError)):
        model.fit_many([model.init(HERE)] * 4, [{}] * 4, broken, turns(4), Plan("batched", 4))
    check(model, data, 4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", ["mlp", "resnet", "gru"])
def test_on_a_gpu(kind):
    model = model_of(NETS[kind], device="cuda")
    data = [examples(n, kind) for n in sizes_for(kind)]
    local = [{}] * len(data)
    found = model.fit_many(starts(model, len(data)), local, data, turns(len(data)), Plan("batched", 4))
    rows, _, _ = alone(model, starts(model, len(data)), local, data)
    np.testing.assert_allclose(found.rows, rows, rtol=1e-3, atol=1e-4)
    assert batched(model)
