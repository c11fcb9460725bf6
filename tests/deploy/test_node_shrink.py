"""Nodes of which nothing is kept are taken out of a network, and its outputs stay."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

import comity as co
from comity.methods.sparsity import everything, magnitude_mask, masked, node_mask

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

spec = importlib.util.spec_from_file_location("node_nets", Path(__file__).with_name("test_shrink.py"))
nets = sys.modules["node_nets"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(nets)
HERE = co.Round("deploy", 0)


class Turned(nn.Module):
    """Before the first layer, without parameters: it may be anything."""

    def forward(self, x):
        return 1 - torch.sigmoid(x)


def networks():
    deep = nets.moved(nets.cnn(), (8, 1, 12, 12))
    flat = nets.moved(
        nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.BatchNorm1d(6 * 16), nn.Linear(6 * 16, 5)),
        (8, 1, 6, 6),
    )
    wide = nets.moved(
        nn.Sequential(
            Turned(), nn.Flatten(), nn.Linear(9, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 8), nn.Tanh(),
            nn.Linear(8, 2), nn.Softmax(1),
        ),
        (8, 1, 3, 3),
    )  # fmt: skip
    return {"deep": (deep, (5, 1, 12, 12)), "flat": (flat, (5, 1, 6, 6)), "wide": (wide, (5, 1, 3, 3))}


def put(net, share):
    """The network with its weakest nodes at 0, and their mask."""
    model = co.TorchModel(net, nets.LOSS)
    params = model.init(HERE)
    mask = node_mask(params, share, model.nodes)
    model.load(net, masked(params, mask))
    return mask, [int(group.alive(mask).sum()) for group in model.nodes]


@pytest.mark.parametrize("share", [0.7, 0.4, 0.1, 0.0])
@pytest.mark.parametrize("name", ["deep", "flat", "wide"])
def test_the_small_network_computes_what_the_masked_one_does(name, share) -> None:
    net, shape = networks()[name]
    mask, left = put(net, share)
    x = torch.randn(shape)
    for given in (mask, {k: p.detach().numpy() for k, p in net.named_parameters()}):
        small = co.shrink(net, mask=given)
        nets.close(small, net, x, rtol=1e-6, atol=1e-6)
        layers = [m for m in small.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        assert [len(m.weight) for m in layers[:-1]] == left
        assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in net.parameters())
    whole = co.shrink(net, mask={})
    assert sum(p.numel() for p in whole.parameters()) == sum(p.numel() for p in net.parameters())


def test_only_what_is_gone_altogether_is_taken() -> None:
    """A neuron that nothing leads to still puts out its bias; one that nothing reads may be trained to be read."""
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        net[0].weight[1], net[2].weight[:, 2] = 0, 0
        net[0].weight[3], net[2].weight[:, 3] = 0, 0
    small = co.shrink(net, mask={k: p.detach().numpy() for k, p in net.named_parameters()})
    assert torch.equal(small[0].weight, net[0].weight[:3])
    nets.close(small, net, torch.randn(5, 3), rtol=1e-6, atol=1e-6)
    with torch.no_grad():
        net[2].weight.zero_()
        net[0].weight.zero_()
    assert (
        co.shrink(net, mask={"0.weight": net[0].weight.detach(), "2.weight": np.zeros((2, 4))})[0].out_features
    ) == 1


def test_masks_of_single_weights_change_nothing() -> None:
    net, shape = networks()["deep"]
    model = co.TorchModel(net, nets.LOSS)
    mask = magnitude_mask(model.init(HERE), 0.3)
    model.load(net, masked(model.init(HERE), mask))
    nets.close(co.shrink(net, mask=mask), net, torch.randn(shape), rtol=1e-6, atol=1e-6)


def test_a_ticket_is_shrunk() -> None:
    """From training to a file to a small network."""
    net, x = networks()["wide"][0], np.random.default_rng(0).normal(size=(24, 1, 3, 3)).astype("float32")
    model = co.TorchModel(net[:-1], nets.LOSS, batch=8)
    method = co.Tickets(model, 4, density=0.4, by=0.5, prune="nodes")
    sites = {n: co.SharedTicketTrainer(model, (x, np.arange(24) % 2)) for n in "ab"}
    shared = co.Collaboration(method, sites).run(4).shared
    ticket = co.Ticket.of(method.params(shared), method.mask(shared), model=model)
    small = co.shrink(ticket.densify(net[:-1]), mask=ticket.mask)
    assert small[2].out_features < 20
    with torch.no_grad():
        found = small(torch.from_numpy(x)).softmax(1).numpy()
    np.testing.assert_allclose(found, model.predict(method.params(shared), x), rtol=1e-5, atol=1e-6)


def test_the_nodes_of_a_chain() -> None:
    found = co.TorchModel(nets.cnn(), nets.LOSS).nodes
    assert [(n.into, n.out) for n in found] == [
        (("0.0.weight", 0), (("0.4.weight", 1, 1),)),
        (("0.4.weight", 0), (("0.8.weight", 1, 1),)),
        (("0.8.weight", 0), (("2.0.weight", 1, 1),)),
        (("2.0.weight", 0), (("2.4.weight", 1, 1),)),
    ]
    flat = networks()["flat"][0]
    assert co.TorchModel(flat, nets.LOSS).nodes[0].out == (("4.weight", 1, 16),)
    mlp, chain = co.MLP(3, 2, hidden=(5, 4)), nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU())
    assert mlp.nodes == co.TorchModel(nn.Sequential(*chain, nn.Linear(4, 2)), nets.LOSS).nodes
    assert everything(mlp.init(HERE)).keys() == {leaf for group in mlp.nodes for leaf, _, _ in group.places}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"9.weight": np.ones((2, 2), bool)}, r"names of the net's parameters. Got '9\.weight'"),
        ({"0.weight": np.ones((4, 4), bool)}, r"'0\.weight' of shape \(4, 3\).*Got an array of bool"),
        ([1], "{name of a parameter: array}"),
    ],
)
def test_a_mask_of_another_network_is_refused(given, says) -> None:
    with pytest.raises(co.ConfigError, match=says):
        co.shrink(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), mask=given)
