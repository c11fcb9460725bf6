"""Torch models through the whole loop: equal to numpy's, and buffers by their policy."""

from functools import partial

import numpy as np
import pytest

import comity as co

torch = pytest.importorskip("torch")


def shards(n=4, rows=40, inputs=6, seed=0):
    rng = np.random.default_rng(seed)
    make = lambda i: (rng.normal(i, 1 + i, (rows, inputs)).astype("float32"), rng.integers(0, 3, rows))  # noqa: E731
    return {f"p{i}": make(i) for i in range(n)}


def normed(buffers):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    optimizer = partial(torch.optim.SGD, lr=0.05)
    return co.TorchModel(net, torch.nn.functional.cross_entropy, optimizer=optimizer, batch=8, buffers=buffers)


def run(model, rounds=3, **changes):
    data = shards()
    sites = {name: co.Trainer(model, shard, test=shard) for name, shard in data.items()}
    return co.Collaboration(co.FedAvg(model), sites, **changes).run(rounds=rounds)


def test_torch_and_numpy_learn_the_same_model_together():
    ours = co.MLP(inputs=6, classes=3, hidden=(8,), rate=0.05, batch=8)
    first = ours.init(co.Round(run="", seed=3))
    net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    loss, optimizer = torch.nn.functional.cross_entropy, partial(torch.optim.SGD, lr=0.05)
    theirs = co.TorchModel(net, loss, optimizer=optimizer, batch=8)
    both = []
    for model in (ours, theirs):
        sites = {name: co.Trainer(model, shard, test=shard) for name, shard in shards().items()}
        both.append(co.Collaboration(co.FedAvg(model, start=first), sites, seed=1).run(rounds=3))
    for name, value in both[0].shared.items():
        np.testing.assert_allclose(value, both[1].shared[name], rtol=1e-4, atol=1e-5)
    assert both[0].metrics["accuracy"] == pytest.approx(both[1].metrics["accuracy"], abs=0.01)


def test_averaged_statistics_are_the_weighted_mean_of_the_sites():
    model = normed("average")
    assert set(model.statistics) == {"1.running_mean", "1.running_var"}
    after = run(model, rounds=1)
    first, here = (
        model.init(co.Round(run="", seed=0)),
        co.Round(run="", seed=0, hub="hub", roster=4, asked=4, expected=4.0),
    )
    from dataclasses import replace

    alone = [model.fit(first, shard, replace(here, me=name))[0] for name, shard in shards().items()]
    for name in model.statistics:
        np.testing.assert_allclose(after.shared[name], np.mean([a[name] for a in alone], axis=0), rtol=1e-4, atol=1e-5)


def test_no_hub_optimizer_steps_statistics():
    model = normed("average")
    plain, adam = run(model, rounds=1), None
    sites = {name: co.Trainer(model, shard) for name, shard in shards().items()}
    adam = co.Collaboration(co.FedAvg(model, co.Adam(rate=0.5)), sites).run(rounds=1)
    for name in model.statistics:
        np.testing.assert_array_equal(plain.shared[name], adam.shared[name])
    assert not np.allclose(plain.shared["0.weight"], adam.shared["0.weight"])


def test_local_statistics_stay_and_differ_from_site_to_site():
    model = normed("local")
    after = run(model)
    assert not any("running" in name for name in after.shared)
    kept = [after.local(f"p{i}")["buffers"] for i in range(4)]
    means = [np.asarray(k["1.running_mean"]) for k in kept]
    assert all(np.abs(a - b).max() > 0.1 for i, a in enumerate(means) for b in means[:i])


def test_reset_statistics_neither_travel_nor_stay():
    model = normed("reset")
    after = run(model)
    assert not any("running" in name for name in after.shared)
    assert not after.local("p0")


def test_local_statistics_survive_a_stop(tmp_path):
    model = normed("local")
    straight = run(model, rounds=4)
    data = shards()
    sites = {name: co.Trainer(model, shard, test=shard) for name, shard in data.items()}
    fed = co.Collaboration(co.FedAvg(model), sites)
    fed.run(rounds=2, folder=tmp_path)
    resumed = fed.run(rounds=4, folder=tmp_path)
    for name, value in straight.shared.items():
        np.testing.assert_array_equal(value, resumed.shared[name])
    for i in range(4):
        for name, value in straight.local(f"p{i}")["buffers"].items():
            np.testing.assert_array_equal(value, resumed.local(f"p{i}")["buffers"][name])


@pytest.mark.parametrize("policy", ["average", "local", "reset"])
def test_the_policy_is_said_and_kept(policy, capsys):
    after = run(normed(policy), rounds=1)
    assert f"1.running_mean {policy}" in capsys.readouterr().err
    assert after.ledger[0].facts["buffers"]["1.running_var"] == policy
