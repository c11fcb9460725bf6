from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, Subset, TensorDataset

from comity.adapters.torch.fit import around
from comity.adapters.torch.flat import plain_rate
from comity.adapters.torch.model import TorchModel
from comity.core.errors import ConfigError
from comity.core.parts import Step
from comity.core.round import Round
from comity.core.tree import ravel

HERE = Round("test", seed=1, me="a")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(33, 6)).astype("float32")
Y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0.5)
SGD = torch.optim.SGD


def plain(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def normed():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def model(net, **settings):
    return TorchModel(
        net, **{"loss": nn.functional.cross_entropy, "optimizer": partial(SGD, lr=0.1), "batch": 8, **settings}
    )


def by_hand(net, optimizer, epochs=1, batch=8, round=HERE):
    """Ordinary torch: an ordinary loop, optimizer and module."""
    net.train()
    opt = optimizer(net.parameters())
    for e in range(epochs):
        for rows in torch.from_numpy(round.order(len(X), "shuffle", str(e))).split(batch):
            opt.zero_grad()
            nn.functional.cross_entropy(net(torch.from_numpy(X)[rows]), torch.from_numpy(Y)[rows]).backward()
            opt.step()
    return {k: v.detach().numpy() for k, v in net.state_dict().items()}


def same(tree, state, **tolerance):
    assert tree
    for name, value in tree.items():
        np.testing.assert_allclose(value, state[name], **(tolerance or {"rtol": 0, "atol": 0}))


@pytest.mark.parametrize("build", [plain, normed])
def test_the_quick_path_for_sgd_is_ordinary_sgd(build):
    net = build()
    m = model(net, epochs=3, batch=11)
    assert plain_rate(m.optimizer) == 0.1
    new, _ = m.fit(m.init(HERE), (X, Y), HERE)
    ordinary, _ = model(net, epochs=3, batch=11, optimizer=lambda p: SGD(p, lr=0.1)).fit(m.init(HERE), (X, Y), HERE)
    same(new, ordinary)
    same(new, by_hand(net, m.optimizer, epochs=3, batch=11), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "optimizer",
    [
        partial(SGD, lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
        partial(torch.optim.Adam, lr=0.01),
        partial(torch.optim.AdamW, lr=0.01, weight_decay=0.3),
        partial(torch.optim.RMSprop, lr=0.01),
        lambda parameters: torch.optim.Adam(parameters, lr=0.01),
    ],
)
@pytest.mark.parametrize("build", [plain, normed])
def test_any_optimizer_is_the_ordinary_one_and_starts_anew(optimizer, build):
    net = build()
    m = model(net, epochs=2, batch=11, optimizer=optimizer)
    assert plain_rate(m.optimizer) is None
    start = m.init(HERE)
    m.fit(start, (X[::-1], Y), HERE)
    new, _ = m.fit(start, (X, Y), HERE)
    same(new, by_hand(net, optimizer, epochs=2, batch=11), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "rate"),
    [
        (SGD, 1e-3),
        (partial(SGD, lr=0.5, momentum=0), 0.5),
        (partial(SGD, lr=0.5, momentum=0.1), None),
        (partial(SGD, lr=0.5, maximize=True), None),
        (partial(torch.optim.Adam, lr=0.5), None),
    ],
)
def test_what_counts_as_plain_sgd(make, rate):
    assert plain_rate(make) == rate


def test_fit_changes_neither_the_parameters_nor_the_module():
    net = plain()
    m = model(net)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    start = m.init(HERE)
    kept = ravel(start).copy()
    for v in start.values():
        v.flags.writeable = False
    new, metrics = m.fit(start, (X, Y), HERE)
    np.testing.assert_array_equal(ravel(start), kept)
    assert (ravel(new) != kept).any()
    assert np.shares_memory(ravel(new), new["0.bias"])
    assert all(v.dtype == np.float32 and v.base is new["0.bias"].base for v in new.values())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert metrics["examples"] == (33.0, 1.0)
    frozen = {k: v.copy() for k, v in new.items()}
    m.fit(start, (X, Y), Round("test", 5))
    same(new, frozen)


def test_init_is_the_module_at_construction():
    net = plain()
    m = model(net)
    values = {k: v.detach().numpy().copy() for k, v in net.state_dict().items()}
    with torch.no_grad():
        net[0].weight.zero_()
    same(m.init(HERE), values)
    m.fit(m.init(HERE), (X, Y), HERE)
    same(m.init(HERE), values)


def test_train_loss_sums_the_batch_means():
    m = model(plain(), optimizer=partial(SGD, lr=0.0), epochs=2)
    params, metrics = m.fit(m.init(HERE), (X, Y), HERE)
    p = m.predict(params, X)
    mean = -np.log(p[np.arange(33), Y]).mean()
    assert metrics["train_loss"] == (pytest.approx(66 * mean, rel=1e-5), 66.0)


class TestBuffers:
    def test_average_puts_running_statistics_into_the_tree(self):
        m = model(normed(), buffers="average")
        assert m.statistics == ("1.running_mean", "1.running_var")
        assert m.buffers_policy() == {
            "1.running_mean": "average",
            "1.running_var": "average",
            "1.num_batches_tracked": "reset",
        }
        start = m.init(HERE)
        new, _ = m.fit(start, (X, Y), HERE)
        assert (start["1.running_mean"] == 0).all()
        assert (new["1.running_mean"] != 0).all()
        assert "1.num_batches_tracked" not in new
        assert m.local_init() == {}
        moved = {**new, "1.running_var": new["1.running_var"] * 4}
        assert not np.allclose(m.predict(new, X), m.predict(moved, X))

    def test_local_stays_at_the_site_and_goes_on_there(self):
        m = model(normed(), buffers="local")
        assert m.statistics == ()
        start = m.init(HERE)
        assert not any("running" in k for k in start)
        params, one, _ = m.fit_local(start, {}, (X, Y), HERE)
        assert list(one) == sorted(m.local_init())
        assert one["1.num_batches_tracked"] == 4
        for value in one.values():
            value.flags.writeable = False
        params, two, _ = m.fit_local(params, one, (X, Y), HERE)
        assert two["1.num_batches_tracked"] == 8
        assert (two["1.running_mean"] != one["1.running_mean"]).any()
        again, fresh, _ = m.fit_local(start, m.local_init(), (X, Y), HERE)
        same(fresh, one)
        same(m.fit(start, (X, Y), HERE)[0], again)
        assert not np.allclose(m.predict_local(params, two, X), m.predict_local(params, {}, X))
        np.testing.assert_array_equal(m.predict(params, X), m.predict_local(params, m.local_init(), X))
        with pytest.raises(ConfigError, match="local buffers"):
            m.fit_local(start, {"1.running_mean": np.zeros(8)}, (X, Y), HERE)

    def test_local_goes_on_as_ordinary_torch_does(self):
        net = normed()
        m = model(net, buffers="local", batch=11)
        params, local, _ = m.fit_local(m.init(HERE), {}, (X, Y), HERE)
        by_hand(net, m.optimizer, batch=11)
        params, local, _ = m.fit_local(params, local, (X, Y), Round("test", 2))
        state = by_hand(net, m.optimizer, batch=11, round=Round("test", 2))
        same({**params, **local}, state, rtol=1e-6, atol=1e-7)

    def test_reset_starts_anew_in_each_fit_and_never_travels(self):
        m = model(normed(), buffers="reset")
        start = m.init(HERE)
        assert m.statistics == ()
        assert m.local_init() == {}
        assert set(m.buffers_policy().values()) == {"reset"}
        params, local, _ = m.fit_local(start, {}, (X + 5, Y), HERE)
        assert local == {}
        assert not any("running" in k for k in params)
        before = m.predict(params, X)
        m.fit(start, (X - 9, Y), HERE)
        np.testing.assert_array_equal(m.predict(params, X), before)

    def test_a_buffer_that_the_module_assigns_anew_is_brought_home(self):
        class Mean(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(6, 3)
                self.register_buffer("seen", torch.zeros(6))
                self.register_buffer("constant", torch.ones(6), persistent=False)

            def forward(self, x):
                self.seen = 0.5 * self.seen + x.detach().mean(0)
                return self.layer(x * self.constant)

        m = model(Mean(), batch=33)
        assert m.buffers_policy() == {"seen": "average", "constant": "reset"}
        new, _ = m.fit(m.init(HERE), (X, Y), HERE)
        np.testing.assert_allclose(new["seen"], X.mean(0), rtol=1e-4)
        again, _ = m.fit(new, (X, Y), HERE)
        np.testing.assert_allclose(again["seen"], 1.5 * X.mean(0), rtol=1e-4)

    def test_a_last_batch_of_one_joins_the_one_before_only_for_batchnorm(self):
        m = model(normed(), buffers="local")
        assert m.fit_local(m.init(HERE), {}, (X, Y), HERE)[1]["1.num_batches_tracked"] == 4
        _, local, metrics = m.fit_local(m.init(HERE), {}, (X[:17], Y[:17]), HERE)
        assert local["1.num_batches_tracked"] == 2
        assert metrics["train_loss"][1] == 17


def test_dropout_is_reproducible_and_the_global_stream_untouched():
    net = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    m = model(net)
    start = m.init(HERE)
    torch.manual_seed(7)
    first, _ = m.fit(start, (X, Y), HERE)
    drawn = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(torch.rand(3), drawn)
    torch.manual_seed(8)
    same(m.fit(start, (X, Y), HERE)[0], first)
    other, _ = m.fit(start, (X, Y), Round("test", seed=1, me="b"))
    assert (ravel(other) != ravel(first)).any()
    without = model(nn.Sequential(net[0], nn.Identity(), net[2]))
    assert (ravel(without.fit(start, (X, Y), HERE)[0]) != ravel(first)).any()
    np.testing.assert_array_equal(m.predict(first, X), m.predict(first, X))


def test_threads_are_set_around_the_work_and_put_back():
    before = torch.get_num_threads()
    seen = []

    class Spy(nn.Linear):
        def forward(self, x):
            seen.append(torch.get_num_threads())
            return super().forward(x)

    try:
        torch.set_num_threads(2)
        m = model(Spy(6, 3))
        m.fit(m.init(HERE), (X, Y), HERE)
        assert set(seen) == {1}
        assert torch.get_num_threads() == 2
        with pytest.raises(ConfigError):
            m.fit({}, (X, Y), HERE)
        assert torch.get_num_threads() == 2
        seen.clear()
        free = model(Spy(6, 3), threads=None)
        free.predict(free.init(HERE), X)
        assert set(seen) == {2}
        with pytest.raises(KeyError), around("cpu", 1, 0):
            raise KeyError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_predictions_by_loss():
    many = np.tile(X, (40, 1))
    m = model(plain())
    p = m.predict(m.init(HERE), many)
    assert p.shape == (1320, 3)
    np.testing.assert_allclose(p.sum(1), 1.0, rtol=1e-5)
    two = model(nn.Linear(6, 1), loss=nn.functional.binary_cross_entropy_with_logits, epochs=30)
    params, _ = two.fit(two.init(HERE), (X, X[:, 0] > 0), HERE)
    p = two.predict(params, X)
    np.testing.assert_allclose(p.sum(1), 1.0, rtol=1e-5)
    assert (p.argmax(1) == (X[:, 0] > 0)).mean() > 0.9
    line = model(nn.Linear(6, 1), loss=nn.MSELoss())
    assert line.predict(line.init(HERE), X).shape == (33,)
    pair = model(nn.Linear(6, 2), loss=nn.functional.mse_loss)
    out = pair.predict(pair.init(HERE), X)
    assert not np.allclose(out.sum(1), 1.0)
    raw = model(plain(), probabilities="none").predict(m.init(HERE), X)
    own = model(plain(), probabilities=lambda z: z * 2).predict(m.init(HERE), X)
    np.testing.assert_allclose(own, 2 * raw)
    assert m.predict(m.init(HERE), X[:0]).shape == (0, 3)


def test_targets_are_never_broadcast():
    line = model(nn.Linear(6, 1), loss=nn.functional.mse_loss, batch=33)
    params, metrics = line.fit(line.init(HERE), (X, X[:, 0]), HERE)
    start = line.predict(line.init(HERE), X)
    assert metrics["train_loss"][0] == pytest.approx(((start - X[:, 0]) ** 2).sum(), rel=1e-4)
    same(line.fit(line.init(HERE), (X, X[:, :1]), HERE)[0], params)
    with pytest.raises(ConfigError, match="shape of the outputs"):
        model(nn.Linear(6, 8), loss=nn.functional.mse_loss).fit(model(nn.Linear(6, 8)).init(HERE), (X, X[:, 0]), HERE)


def test_data_may_be_arrays_tensors_or_datasets():
    m = model(plain(), epochs=2)
    start = m.init(HERE)
    want, metrics = m.fit(start, (X, Y), HERE)
    tx, ty = torch.from_numpy(X), torch.from_numpy(Y)

    class Rows(Dataset):
        def __len__(self):
            return len(X)

        def __getitem__(self, i):
            return X[i], int(Y[i])

    still = X.copy()
    still.flags.writeable = False
    more = (torch.cat([tx, tx]), torch.cat([ty, ty]))
    for data in (
        (tx, ty),
        (X.astype(float), Y.astype("int8")),
        (still, Y),
        TensorDataset(tx, ty),
        Subset(TensorDataset(*more), list(range(33, 66))),
        Rows(),
        Subset(Rows(), range(33)),
    ):
        got, also = m.fit(start, data, HERE)
        same(got, want)
        assert also == metrics
    with pytest.raises(ConfigError, match="pair"):
        m.fit(start, X, HERE)
    with pytest.raises(ConfigError, match="numbers"):
        m.fit(start, (X.astype(str), Y), HERE)


def test_features_by_module_name():
    m = model(plain())
    params = m.init(HERE)
    seen = m.features(params, X, ["1", "outputs"])
    np.testing.assert_allclose(
        seen["1"], np.maximum(X @ params["0.weight"].T + params["0.bias"], 0), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(
        seen["outputs"], seen["1"] @ params["2.weight"].T + params["2.bias"], rtol=1e-4, atol=1e-5
    )
    assert not m._flat.module[1]._forward_hooks
    with pytest.raises(ConfigError, match="tap"):
        m.features(params, X, ["9"])


def test_load_copies_parameters_and_averaged_buffers_or_nothing():
    m = model(normed())
    new, _ = m.fit(m.init(HERE), (X, Y), HERE)
    net = normed()
    m.load(net, new)
    same(new, {k: v.numpy() for k, v in net.state_dict().items()})
    assert net[1].num_batches_tracked == 0
    net.eval()
    np.testing.assert_allclose(net(torch.from_numpy(X)).softmax(1).detach().numpy(), m.predict(new, X), rtol=1e-5)
    other = nn.Sequential(nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
    kept = other[0].weight.clone()
    for tree, target, words in (
        (new, other, r"'3.bias' of the module must have shape \(3,\). Got \(4,\)"),
        (new, nn.Linear(6, 8), "Got none"),
        ({k: v for k, v in new.items() if k != "1.bias"}, net, "must be named"),
        ({**new, "extra": 1.0}, net, "extra"),
        (None, net, "Got None"),
    ):
        with pytest.raises(ConfigError, match=words):
            m.load(target, tree)
    assert torch.equal(other[0].weight, kept)


def test_a_step_changes_loss_gradient_mask_and_epochs():
    m = model(plain(), batch=33)
    start = m.init(HERE)
    base, _ = m.fit(start, (X, Y), HERE)

    def double(outputs, features, batch):
        assert features["1"].shape == (33, 8)
        return 2 * nn.functional.cross_entropy(outputs, batch[1])

    double.taps = ("1",)
    move = ravel(base) - ravel(start)
    for step in (Step(loss=double), Step(adjust=lambda p, g, s: 2 * g)):
        np.testing.assert_allclose(
            ravel(m.fit(start, (X, Y), HERE, step)[0]) - ravel(start), 2 * move, rtol=1e-3, atol=1e-6
        )
    assert m.fit(start, (X, Y), HERE, Step(epochs=3))[1]["train_loss"][1] == 99
    mask = {"0.weight": (RNG.random((8, 6)) < 0.5).astype("float32")}
    for optimizer in (m.optimizer, partial(torch.optim.AdamW, lr=0.1, weight_decay=0.5)):
        new, _ = model(plain(), optimizer=optimizer, epochs=2).fit(start, (X, Y), HERE, Step(mask=mask))
        changed = new["0.weight"] != start["0.weight"]
        assert (changed <= (mask["0.weight"] == 1)).all()
        assert changed.any()
        assert (new["2.weight"] != start["2.weight"]).any()


@pytest.mark.parametrize("optimizer", [partial(SGD, lr=0.1), partial(SGD, lr=0.1, momentum=0.5)])
def test_neither_adjust_nor_mask_touches_running_statistics(optimizer):
    m = model(normed(), optimizer=optimizer, batch=33)
    want, _ = m.fit(m.init(HERE), (X, Y), HERE)
    start = m.init(HERE)
    for step in (
        Step(adjust=lambda p, g, s: g + 10.0),
        Step(mask={k: np.zeros_like(v) for k, v in start.items()}),
    ):
        new, _ = m.fit(start, (X, Y), HERE, step)
        np.testing.assert_array_equal(new["1.running_var"], want["1.running_var"])
    same({k: v for k, v in new.items() if k not in m.statistics}, start)


def test_frozen_parameters_do_not_travel_and_tied_ones_travel_once():
    net = plain()
    net[0].weight.requires_grad_(False)
    m = model(net)
    new, _ = m.fit(m.init(HERE), (X, Y), HERE)
    assert set(new) == {"0.bias", "2.weight", "2.bias"}
    tied = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    tied[1].weight = tied[0].weight
    t = model(tied)
    new, _ = t.fit(t.init(HERE), (X, Y), HERE)
    assert set(new) == {"0.bias", "0.weight", "1.bias"}
    same(new, by_hand(tied, t.optimizer), rtol=1e-5, atol=1e-7)


def test_double_precision_stays_double():
    m = model(plain().double())
    new, _ = m.fit(m.init(HERE), (X, Y), HERE)
    assert {v.dtype.name for v in new.values()} == {"float64"}


def test_fingerprint_names_and_shapes_without_values():
    a, b = model(plain(0)).fingerprint(), model(plain(1)).fingerprint()
    assert a == b
    assert a["tensors"]["0.weight"] == ["float32", 8, 6]
    assert a["optimizer"] == "torch.optim.sgd.SGD(lr=0.1)"
    assert a["loss"] == "torch.nn.functional.cross_entropy"
    assert a["batch"] == 8
    wider = model(nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3)), epochs=2).fingerprint()
    assert {k for k in a if a[k] != wider[k]} == {"tensors", "modules", "epochs"}


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (lambda: model(plain(), buffers="mean"), "'buffers'"),
        (lambda: model(plain(), probabilities="logits"), "'probabilities'"),
        (lambda: model(plain(), batch=0), "'batch'"),
        (lambda: model("net"), "nn.Module"),
        (lambda: model(nn.ReLU()).init(HERE), "parameters to train"),
        (lambda: model(plain().half()).init(HERE), "float32"),
        (lambda: model(nn.LazyLinear(3)).init(HERE), "uninitialized"),
        (lambda: model(plain()).fit({"0.bias": np.zeros(8)}, (X, Y), HERE), "must be named"),
        (lambda: model(plain()).fit(model(plain()).init(HERE), (X[:0], Y[:0]), HERE), ">= 1"),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_refusals(bad, words):
    with pytest.raises(ConfigError, match=words):
        bad()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_agrees_with_the_cpu():
    for buffers in ("average", "local"):
        here, there = model(normed(), buffers=buffers), model(normed(), buffers=buffers, device="cuda")
        start = here.init(HERE)
        a, la, ma = here.fit_local(start, {}, (X, Y), HERE)
        b, lb, mb = there.fit_local(start, {}, (X, Y), HERE)
        same(a, b, rtol=1e-3, atol=1e-5)
        same({**la, "x": 0}, {**lb, "x": 0}, rtol=1e-3, atol=1e-5)
        assert ma["train_loss"] == pytest.approx(mb["train_loss"], rel=1e-4)
        np.testing.assert_allclose(here.predict_local(a, la, X), there.predict_local(a, la, X), rtol=1e-3, atol=1e-5)
