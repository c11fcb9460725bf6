"""Normalisation layers with running statistics: which leaves are theirs, and their statistics anew."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import Dataset, Subset, TensorDataset

import comity as co
from comity.adapters.torch.batches import sizes
from comity.adapters.torch.norms import order_of
from comity.core.round import Round
from comity.core.wire import encode_tree

RNG = np.random.default_rng(0)
X = (RNG.normal(size=(33, 4)) * 3 + 1).astype("float32")
PICTURES = (RNG.normal(size=(21, 2, 6, 6)) + 2).astype("float32")
Y = RNG.integers(0, 3, 33)
HERE = Round("norms", 1, me="a")


def dense(*more):
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), *more, nn.ReLU(), nn.Linear(5, 3), nn.BatchNorm1d(3))


def pictures():
    layers = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, affine=False), nn.ReLU(), nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, 3))


class Twice(nn.Module):
    """One normalisation, called two times in a pass and known by two names."""

    def __init__(self):
        super().__init__()
        self.first = self.again = nn.BatchNorm1d(4)
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        return self.out(self.again(3 * self.first(x) + 1))


def model(net, **settings):
    return co.TorchModel(net, nn.functional.cross_entropy, **{"optimizer": partial(torch.optim.SGD, lr=0.1), "batch": 8,
                                                             **settings})  # fmt: skip


def made(build, **settings):
    torch.manual_seed(0)
    return model(build(), **settings)


def taught(m, x=X, y=Y):
    """Parameters that are no longer the first ones."""
    return m.fit(m.init(HERE), (x, y[: len(x)]), HERE, co.Step(epochs=3))[0]


def by_torch(m, params, x):
    """What torch's own update of BatchNorm makes of the same batches, with as many threads: sums depend on them."""
    net, threads = m.module, torch.get_num_threads()
    m.load(net, params)
    rows = torch.from_numpy(x)[torch.from_numpy(order_of(len(x)))]
    torch.set_num_threads(m.threads)
    try:
        update_bn(rows.split(sizes(len(x), m.batch, True)), net)
    finally:
        torch.set_num_threads(threads)
    return {k: v.detach().numpy() for k, v in net.state_dict().items()}


def test_whose_leaves_they_are():
    assert made(dense).norms == (
        *("1.bias", "1.running_mean", "1.running_var", "1.weight"),
        *("4.bias", "4.running_mean", "4.running_var", "4.weight"),
    )
    found = made(pictures).norms
    assert found == ("1.running_mean", "1.running_var", "4.bias", "4.running_mean", "4.running_var", "4.weight")
    assert made(Twice).norms == ("first.bias", "first.running_mean", "first.running_var", "first.weight")
    for policy in ("local", "reset"):
        assert made(dense, buffers=policy).norms == ("1.bias", "1.weight", "4.bias", "4.weight")


@pytest.mark.parametrize(
    "layer", [nn.LayerNorm(4), nn.GroupNorm(2, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Identity()]
)
def test_layers_without_running_statistics_are_none_of_them(layer):
    m = model(nn.Sequential(layer, nn.Linear(4, 3)))
    assert m.norms == ()
    params = taught(m)
    assert encode_tree(m.recalibrate(params, X)) == encode_tree(params)
    assert encode_tree(m.recalibrate(params, "not looked at")) == encode_tree(params)


def test_frozen_normalisations_are_none_of_them():
    net = dense()
    net[1].requires_grad_(False)
    m = model(net)
    assert {n.split(".")[0] for n in m.norms} == {"4"}
    params = taught(m)
    new = m.recalibrate(params, X)
    assert encode_tree({k: v for k, v in new.items() if not k.startswith("4.running")}) == encode_tree(
        {k: v for k, v in params.items() if not k.startswith("4.running")}
    )
    held = dict(m._flat.module.named_buffers())
    assert torch.equal(held["1.running_mean"], torch.zeros(5))
    assert torch.equal(held["1.running_var"], torch.ones(5))


@pytest.mark.parametrize("batch", [8, 7, 100])
@pytest.mark.parametrize(("build", "x"), [(dense, X), (pictures, PICTURES), (Twice, X)])
def test_statistics_are_those_of_torch_and_nothing_else_moves(build, x, batch):
    """8 leaves one row over, which joins the batch before it; all are equal to the bit."""
    m = made(build, batch=batch)
    params = taught(m, x)
    before = encode_tree(params)
    new = m.recalibrate(params, x)
    assert encode_tree(params) == before
    expected, moved = by_torch(m, params, x), {n for n in m.norms if "running" in n}
    assert new.keys() == params.keys()
    for name, leaf in new.items():
        np.testing.assert_array_equal(leaf, expected[name] if name in moved else params[name], err_msg=name)
    assert all(not np.array_equal(new[n], params[n]) for n in moved)
    assert encode_tree(m.recalibrate(params, x)) == encode_tree(new)


def test_one_batch_by_hand():
    m = made(dense, batch=100)
    params = taught(m)
    new = m.recalibrate(params, X)
    inner = X.astype(float) @ params["0.weight"].T + params["0.bias"]
    np.testing.assert_allclose(new["1.running_mean"], inner.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(new["1.running_var"], inner.var(0, ddof=1), rtol=1e-4)


def test_instance_norm_takes_the_mean_of_its_batches():
    m = model(nn.Sequential(nn.InstanceNorm2d(2, track_running_stats=True), nn.Flatten(), nn.Linear(72, 3)), batch=7)
    params = taught(m, PICTURES)
    new = m.recalibrate(params, PICTURES)
    np.testing.assert_allclose(new["0.running_mean"], PICTURES.mean((0, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(new["0.running_var"], PICTURES.var((2, 3), ddof=1).mean(0), rtol=1e-4)


def test_fits_afterwards_are_as_ever():
    """The layers' momentum is put back, hooks are gone, and dropout drops again."""
    m, other = made(lambda: dense(nn.Dropout(0.5))), made(lambda: dense(nn.Dropout(0.5)))
    params = taught(m)
    m.recalibrate(params, X)
    with pytest.raises(co.ConfigError):
        m.recalibrate(params, X[:, :2])
    assert encode_tree(taught(m)) == encode_tree(taught(other))
    assert not any(layer._forward_pre_hooks for layer in m._flat.module.modules())
    assert {layer.momentum for layer in m._flat.module.modules() if hasattr(layer, "momentum")} == {0.1}


def test_dropout_is_off():
    m = made(lambda: dense(nn.Dropout(0.5)))
    plain = made(dense)
    params = taught(plain)
    found = m.recalibrate({k.replace("4.", "5.").replace("3.", "4."): v for k, v in params.items()}, X)
    np.testing.assert_array_equal(found["5.running_mean"], plain.recalibrate(params, X)["4.running_mean"])


def test_rows_sorted_by_class_give_what_mixed_rows_give():
    """Batches of one class would each vary too little."""
    x = np.repeat(np.arange(8), 16)[:, None] * np.ones((1, 4), "float32")
    m = model(nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3)), batch=16)
    found = m.recalibrate(m.init(HERE), x)["0.running_var"]
    np.testing.assert_allclose(found, x.var(0), rtol=0.25)
    assert np.split(x, 8)[0].var() == 0


def test_whatever_holds_the_rows():
    m = made(dense)
    params = taught(m)
    expected = encode_tree(m.recalibrate(params, X))

    class Rows(Dataset):
        def __len__(self):
            return len(X)

        def __getitem__(self, i):
            return X[i], int(Y[i])

    whole = TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    for rows in (torch.from_numpy(X), X.tolist(), m.ready((X, Y))[0], whole, Subset(whole, range(33)), Rows()):
        assert encode_tree(m.recalibrate(params, rows)) == expected


def test_statistics_that_stay_at_the_site():
    averaged, local = made(dense), made(dense, buffers="local")
    params = taught(averaged)
    own = {**local.local_init(), **{n: params[n] for n in averaged.statistics}}
    rest = {n: v for n, v in params.items() if n not in own}
    new, buffers = local.recalibrate_local(rest, own, X)
    assert not any(buffers.pop(n) for n in list(buffers) if n.endswith("tracked"))
    assert encode_tree(dict(sorted({**new, **buffers}.items()))) == encode_tree(averaged.recalibrate(params, X))
    assert encode_tree(local.recalibrate(rest, X)) == encode_tree(rest)


@pytest.mark.parametrize(
    ("build", "settings", "x", "says"),
    [
        (dense, {}, X[:0], "The x of recalibrate must have rows. Got an array"),
        (dense, {}, np.float32(3), "must have rows"),
        (dense, {}, X[:, :2], r"must take the rows of x. Got rows of which it says: mat1"),
        (dense, {}, X[:1], "Expected more than 1 value per channel"),
        (dense, {"buffers": "reset"}, X, "must keep its running statistics to recalibrate them. Got '1.running_mean'"),
        (dense, {}, np.array([["a"] * 4] * 3), "must be numbers"),
    ],
)
def test_what_is_refused(build, settings, x, says):
    m = made(build, **settings)
    with pytest.raises(co.ConfigError, match=says):
        m.recalibrate(m.init(HERE), x)
