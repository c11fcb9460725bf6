"""Tickets of whole channels and neurons: the mask against a loop that is written out, and what training makes of it."""

from itertools import pairwise

import numpy as np
import pytest

import comity as co
from comity.core.nodes import chained
from comity.core.round import Round
from comity.methods.sparsity import density, everything, kept, node_mask

HERE = Round("nodes", 0)
MLP = co.MLP(12, 4, hidden=(10, 6), rate=0.2, batch=8)
RNG = np.random.default_rng(2)
ROWS = {f"p{i}": (RNG.normal(size=(16, 12)).astype("float32"), RNG.integers(0, 4, 16)) for i in range(4)}


def convolutions(seed):
    """Weights of conv (5, 2, 3, 3), conv (4, 5, 3, 3), linear (6, 4 * 9), linear (3, 6)."""
    rng = np.random.default_rng(seed)
    shapes = {"a": (5, 2, 3, 3), "b": (4, 5, 3, 3), "c": (6, 36), "d": (3, 6)}
    out = {
        f"{k}.weight": rng.normal(size=s) * rng.uniform(0.1, 3, (s[0], *[1] * (len(s) - 1))) for k, s in shapes.items()
    }
    return out, chained([("a", 0), ("b", 1), ("c", 9), ("d", 1)])


def by_loop(params, share, scope, within=None):
    """Node after node; each layer's weights as (outputs, inputs of the layer before, the rest)."""
    names, each = "abcd", {"b": 1, "c": 9, "d": 1}
    mask = {k: np.ones(v.shape, bool) if within is None else within[k].copy() for k, v in params.items()}
    table = []
    for layer in range(3):
        w = params[f"{names[layer]}.weight"]
        mean = np.array([np.mean(row**2) for row in w])
        strength = mean / np.sqrt(np.sum(mean**2))
        order = list(np.argsort(strength))
        for node in order[:-1]:
            table.append((order.index(node) / len(order) if scope == "layer" else strength[node], layer, node))
    for _, layer, node in sorted(table):
        if sum(int(m.sum()) for m in mask.values()) <= share * sum(m.size for m in mask.values()):
            break
        after, n = names[layer + 1], each[names[layer + 1]]
        mask[f"{names[layer]}.weight"][node] = False
        mask[f"{after}.weight"][:, node * n : (node + 1) * n] = False
    return mask


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("share", [1.0, 0.8, 0.5, 0.2, 0.05, 0.0])
@pytest.mark.parametrize("seed", range(4))
def test_the_mask_is_that_of_a_loop(seed, share, scope) -> None:
    params, nodes = convolutions(seed)
    mask, right = node_mask(params, share, nodes, scope=scope), by_loop(params, share, scope)
    assert all(np.array_equal(mask[k], right[k]) for k in right)
    alive = [group.alive(mask).sum() for group in nodes]
    assert min(alive) >= 1
    assert density(mask) <= share or max(alive) == 1
    inside = node_mask(params, 0.4, nodes, scope=scope, within={k: m.copy() for k, m in mask.items()})
    assert all(np.array_equal(inside[k], by_loop(params, 0.4, scope, mask)[k]) for k in right)


def test_it_only_shrinks_and_a_nan_stays() -> None:
    params, nodes = convolutions(0)
    before = node_mask(params, 0.5, nodes)
    other, _ = convolutions(9)
    after = node_mask({k: v * before[k] for k, v in other.items()}, 0.4, nodes, within=before)
    assert all(not (after[k] & ~before[k]).any() for k in after)
    assert kept(after)[0] < kept(before)[0]
    weakest = int(np.argmin(np.square(params["b.weight"]).mean((1, 2, 3))))
    params["b.weight"][weakest, 0, 0, 0] = np.nan
    assert node_mask(params, 0.3, nodes)["b.weight"][weakest].any()
    assert node_mask(params, 0.5, ())["b.weight"].all()


def fed(method, data=ROWS, test=None, **more):
    sites = {n: co.SharedTicketTrainer(method.model, rows, test=test) for n, rows in data.items()}
    return co.Collaboration(method, sites, **more)


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_in_every_round_whole_nodes_go_and_none_comes_back(scope) -> None:
    method = co.Tickets(MLP, 6, density=0.25, by=0.7, prune="nodes", scope=scope)
    sites = {name: co.SharedTicketTrainer(MLP, rows) for name, rows in ROWS.items()}
    state, masks = method.init(HERE), []
    for t in range(6):
        turn = Round("walk", 0, number=t)
        shared = method.share(state, "", turn)
        sent = [method.combiner.lift(s.contribute(shared, {}, turn, None)[0]) for s in sites.values()]
        total, _ = method.combiner.lower(sum_of(sent), None, turn)
        state = method.update(state, total, turn)
        masks.append(method.mask(state))
        assert density(masks[-1]) <= method.density_after(t + 1)
    for before, after in pairwise(masks):
        assert all(not (after[k] & ~before[k]).any() for k in after)
    whole = everything(MLP.init(HERE))
    for group in MLP.nodes:
        group.cut(whole, ~group.alive(masks[-1]))
    assert all(np.array_equal(whole[k], masks[-1][k]) for k in whole)
    assert all(not v[~masks[-1][k]].any() for k, v in method.params(state).items() if k in masks[-1])


def sum_of(lifted):
    from comity.core.tree import tree_map

    first, *others = lifted
    value, weight = first.value, first.weight
    for c in others:
        value, weight = tree_map(np.add, value, c.value), weight + c.weight
    return co.Contribution(first.kind, value, weight)


def test_a_node_that_is_gone_has_no_influence() -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    layers = (torch.nn.Linear(12, 10), torch.nn.BatchNorm1d(10), torch.nn.ReLU(), torch.nn.Linear(10, 4))
    model = co.TorchModel(torch.nn.Sequential(*layers), torch.nn.functional.cross_entropy, batch=8)
    method = co.Tickets(model, 4, density=0.4, by=0.5, prune="nodes")
    run = fed(method).run(4)
    params = {k: v.copy() for k, v in method.params(run.shared).items()}
    gone = ~model.nodes[0].alive(method.mask(run.shared))
    assert 5 <= gone.sum() < 10
    before = model.predict(params, ROWS["p0"][0])
    for name in ("0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"):
        params[name][gone] += 7.0
    assert np.array_equal(model.predict(params, ROWS["p0"][0]), before)


def test_digits_are_learnt_with_few_neurons() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = datasets.load_digits(return_X_y=True)
    x, order = (x / 16).astype("float32"), np.random.default_rng(0).permutation(len(y))
    test, parts = (x[order[:450]], y[order[:450]]), np.array_split(order[450:], 6)
    model = co.MLP(64, 10, hidden=(64, 32), rate=0.2, batch=16)
    method = co.Tickets(model, 20, density=0.3, prune="nodes")
    run = fed(method, {f"p{i}": (x[p], y[p]) for i, p in enumerate(parts)}, test).run(20)
    mask = method.mask(run.shared)
    assert density(mask) <= 0.3
    left = [int(group.alive(mask).sum()) for group in model.nodes]
    assert left[0] < 40
    assert left[1] <= 32
    assert run.metrics["accuracy"] > 0.94


def test_where_there_are_no_nodes_it_is_said() -> None:
    with pytest.raises(co.ConfigError, match=r"hidden nodes for prune='nodes'.*Got a Linear.*Use prune='weights'"):
        co.Tickets(co.Linear(4, 2), 4, prune="nodes")
    with pytest.raises(co.ConfigError, match="hidden nodes"):
        co.Tickets(co.MLP(4, 2, hidden=()), 4, prune="nodes")
    with pytest.raises(co.ConfigError, match=r"'density' of Tickets must be >= 0\.\d+, so that a node of each layer"):
        co.Tickets(MLP, 4, density=0.05, prune="nodes")
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Sigmoid(), torch.nn.Linear(3, 2))
    model = co.TorchModel(net, torch.nn.functional.cross_entropy)
    assert co.Tickets(model, 4).prune == "weights"
    with pytest.raises(co.ConfigError, match=r"chain of layers.*'1'.*Sigmoid"):
        co.Tickets(model, 4, prune="nodes")
    frozen = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    frozen[0].weight.requires_grad_(False)
    with pytest.raises(co.ConfigError, match="hidden nodes"):
        co.Tickets(co.TorchModel(frozen, torch.nn.functional.cross_entropy), 4, prune="nodes")
