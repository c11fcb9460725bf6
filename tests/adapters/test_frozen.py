"""Frozen leaves of a torch module: they neither move nor travel, and the recipe holds everybody to their values."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import comity as co
from comity.core.wire import encode_tree

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 6)).astype("float32")
Y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0.5)
HERE = co.Round("frozen", 0)
NORMS = {"batch": nn.BatchNorm1d, "instance": partial(nn.InstanceNorm1d, affine=True, track_running_stats=True)}


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 3))


def frozen(module, *names):
    for name in names:
        module.get_submodule(name).requires_grad_(False)
    return module


def model(module, **settings):
    return co.TorchModel(
        module, nn.functional.cross_entropy, optimizer=partial(torch.optim.SGD, lr=0.1), batch=8, **settings
    )


def collaboration(m, *others):
    models = dict(zip("abc", [*others, m, m, m], strict=False))
    return co.Collaboration(co.FedAvg(m), {n: co.Trainer(own, (X, Y)) for n, own in models.items()}, seed=1)


def test_only_what_is_trained_is_on_the_wire():
    whole = collaboration(model(net())).run(rounds=3)
    part = collaboration(model(frozen(net(), "0"))).run(rounds=3)
    assert sorted(part.shared) == ["2.bias", "2.weight"]
    numbers = 4 * (6 * 64 + 64)
    saved = whole.ledger.bytes_down - part.ledger.bytes_down
    questions = 3 * 3 + 3  # rounds and the scores at the end
    assert questions * numbers < saved < questions * (numbers + 60)
    assert 9 * numbers < whole.ledger.bytes_up - part.ledger.bytes_up < 9 * (numbers + 60)


def test_predictions_use_the_frozen_values():
    module = frozen(net(), "0")
    m = model(module)
    run = collaboration(m).run(rounds=3)
    with torch.no_grad():
        hidden = torch.relu(module[0](torch.from_numpy(X)))
        z = hidden @ torch.from_numpy(run.shared["2.weight"].copy()).T + torch.from_numpy(run.shared["2.bias"].copy())
    np.testing.assert_allclose(m.predict(run.shared, X), z.softmax(1).numpy(), atol=1e-6)
    m.load(module, run.shared)
    assert torch.equal(module[0].weight, net()[0].weight)
    assert not torch.equal(module[2].weight, net()[2].weight)


def test_a_fit_is_that_of_ordinary_torch():
    module = frozen(net(), "0")
    m = model(module, epochs=2)
    new, _ = m.fit(m.init(HERE), (X, Y), HERE)
    own = copy.deepcopy(module)
    sgd = torch.optim.SGD([p for p in own.parameters() if p.requires_grad], lr=0.1)
    for e in range(2):
        for rows in torch.from_numpy(HERE.order(len(X), "shuffle", str(e))).split(8):
            sgd.zero_grad()
            nn.functional.cross_entropy(own(torch.from_numpy(X)[rows]), torch.from_numpy(Y)[rows]).backward()
            sgd.step()
    for name in new:
        np.testing.assert_allclose(new[name], own.get_parameter(name).detach(), atol=1e-6)


@pytest.mark.parametrize("buffers", ["average", "local", "reset"])
@pytest.mark.parametrize("kind", NORMS)
def test_a_frozen_norm_keeps_its_statistics(kind, buffers):
    def build(*still):
        torch.manual_seed(0)
        shape = [nn.Unflatten(1, (8, 1))] if kind == "instance" else []
        module = nn.Sequential(nn.Linear(6, 8), *shape, NORMS[kind](8), nn.Flatten(), nn.Linear(8, 3))
        norm = str(len(shape) + 1)
        module.get_submodule(norm).running_mean.fill_(0.5)
        return frozen(module, *([norm] if still else [])), norm

    if kind == "instance":  # statistics over one value are none: only the frozen one can be trained at all
        with pytest.raises(ValueError, match="more than 1 spatial"):
            model(build()[0]).fit(model(build()[0]).init(HERE), (X, Y), HERE)
    module, norm = build("still")
    m = model(module, buffers=buffers)
    assert {m.buffers_policy()[f"{norm}.{name}"] for name in ("running_mean", "running_var")} == {"frozen"}
    assert m.statistics == ()
    params, local, _ = m.fit_local(m.init(HERE), {}, (X + 3, Y), HERE)
    assert not any("running" in name for name in [*params, *local])
    with torch.no_grad():
        m.load(module, params)
        want = module.eval()(torch.from_numpy(X)).softmax(1).numpy()
    np.testing.assert_allclose(m.predict(params, X), want, atol=1e-6)
    assert f"{norm}.running_mean" in m.frozen


def test_a_frozen_norm_normalises_by_its_statistics_in_training_and_takes_a_row_alone():
    def build():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))

    module = frozen(build(), "1")
    m = model(module)
    params, metrics = m.fit(m.init(HERE), (X[:17], Y[:17]), HERE)
    assert metrics["train_loss"][1] == 17
    own = copy.deepcopy(module).train()
    own[1].eval()
    sgd = torch.optim.SGD([p for p in own.parameters() if p.requires_grad], lr=0.1)
    sizes = []
    for rows in torch.from_numpy(HERE.order(17, "shuffle", "0")).split(8):
        sizes.append(len(rows))
        sgd.zero_grad()
        nn.functional.cross_entropy(own(torch.from_numpy(X)[rows]), torch.from_numpy(Y)[rows]).backward()
        sgd.step()
    assert sizes == [8, 8, 1]
    for name in params:
        np.testing.assert_allclose(params[name], own.get_parameter(name).detach(), atol=1e-6)
    trained, _ = model(build()).fit(model(build()).init(HERE), (X[:17], Y[:17]), HERE)
    assert not np.allclose(trained["2.weight"], params["2.weight"])


def test_the_recipe_says_which_leaves_are_frozen_and_to_which_values():
    one, same, other = (model(frozen(net(seed), "0")) for seed in (0, 0, 1))
    assert sorted(one.fingerprint()["frozen"]) == ["0.bias", "0.weight"]
    assert one.fingerprint() == same.fingerprint()
    a, b = one.fingerprint(), other.fingerprint()
    assert [k for k in a if a[k] != b[k]] == ["frozen"]
    assert model(net(0)).fingerprint() == model(net(1)).fingerprint()
    minus = net()
    with torch.no_grad():
        minus[0].weight[3, 2] *= -1
    assert set(model(frozen(minus, "0")).frozen.items()) ^ set(one.frozen.items()) == {
        ("0.weight", one.frozen["0.weight"]),
        ("0.weight", model(frozen(minus, "0")).frozen["0.weight"]),
    }


def test_a_site_with_other_frozen_values_is_refused_before_anything_moves(tmp_path):
    m, other = model(frozen(net(0), "0")), model(frozen(net(1), "0"))
    events = []
    with pytest.raises(
        co.ConfigError, match=r"participant 'b' must hold the frozen .* Got another '0.bias' and 1 more"
    ):
        collaboration(m, m, other).run(1, folder=tmp_path / "run", listen=events.append)
    assert not events
    assert not (tmp_path / "run").exists()
    with pytest.raises(co.ConfigError, match="participant 'a'"):
        collaboration(m, model(frozen(net(0), "0", "2"))).run(1)
    assert collaboration(m, model(frozen(net(0), "0"))).run(1).ledger.rounds == 1


def test_a_folder_of_a_run_with_other_frozen_values_is_refused(tmp_path):
    collaboration(model(frozen(net(0), "0"))).run(1, folder=tmp_path)
    with pytest.raises(co.ConfigError, match=r"frozen\.0\.weight"):
        collaboration(model(frozen(net(1), "0"))).run(2, folder=tmp_path)


def test_an_ordinary_model_has_nothing_frozen():
    assert not model(net()).frozen
    assert encode_tree(collaboration(model(net()), model(net(1))).run(1).shared)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int8, torch.bool])
def test_frozen_values_of_any_dtype_have_a_hash(dtype):
    class Scaled(nn.Module):
        def __init__(self, first):
            super().__init__()
            self.layer = nn.Linear(6, 3)
            self.held = nn.Parameter(torch.tensor([first, 0, 1, 1], dtype=dtype), requires_grad=False)
            self.lone = nn.Parameter(torch.tensor(1.0), requires_grad=False)

    assert model(Scaled(0)).frozen["held"] != model(Scaled(1)).frozen["held"]
    assert len(model(Scaled(0)).frozen) == 2
