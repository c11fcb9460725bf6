"""Networks put to use: tickets in modules, BatchNorm folded, channels taken out, and what the exporter makes of it."""

import copy
import time
import warnings

import numpy as np
import pytest

import comity as co

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from comity.adapters.torch.shrink import nodes  # noqa: E402

LOSS = nn.functional.cross_entropy
HERE = co.Round("deploy", 0)


def cnn(width: int = 8, side: int = 12) -> nn.Sequential:
    """Nested, with BatchNorm of both kinds, a bias beside one, pooling, dropout and Flatten; its statistics are set."""
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.LeakyReLU(), nn.AvgPool2d(2),
        nn.Conv2d(2 * width, width, 3), nn.SiLU(),
    )  # fmt: skip
    flat = width * (side // 4 - 2) ** 2
    head = nn.Sequential(nn.Linear(flat, 16, bias=False), nn.BatchNorm1d(16), nn.Tanh(), nn.Dropout(), nn.Linear(16, 4))
    net = nn.Sequential(body, nn.Flatten(), head)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return net


def masked(net: nn.Module, left: dict[str, torch.Tensor]) -> nn.Module:
    """The same network with what leads to the channels that go, and their BatchNorm, at zero."""
    out = copy.deepcopy(net)
    names = [n for n, m in out.named_modules() if not isinstance(m, nn.Sequential)]
    with torch.no_grad():
        for name, kept in left.items():
            after = out.get_submodule(names[names.index(name) + 1])
            norm = [after] if isinstance(after, nn.BatchNorm1d | nn.BatchNorm2d) else []
            for module in (out.get_submodule(name), *norm):
                for p in module.parameters(recurse=False):
                    gone = torch.ones(len(p), dtype=bool)
                    gone[kept] = False
                    p[gone] = 0
    return out


def close(a: nn.Module, b: nn.Module, x: torch.Tensor, **within: float) -> None:
    with torch.no_grad():
        torch.testing.assert_close(a.eval()(x), b.eval()(x), **within)


def test_channels_that_were_flattened_are_several_inputs() -> None:
    """A BatchNorm right after Flatten has a number for each place of each channel."""
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 6), nn.Linear(6, 2)
    )
    small = co.shrink(moved(net, (8, 1, 4, 4)), {"0": 0.5})
    assert (small[3].num_features, small[4].in_features, small[4].out_features) == (8, 8, 6)
    kept = nodes(net, {"0": 0.5})["0"]
    gone = torch.ones(16, dtype=bool)
    gone[(kept[:, None] * 4 + torch.arange(4)).ravel()] = False
    zeroed = copy.deepcopy(net)
    with torch.no_grad():
        zeroed[4].weight[:, gone] = 0
    close(small, zeroed, torch.randn(3, 1, 4, 4))


@pytest.mark.parametrize("by", ["weights", "scale"])
@pytest.mark.parametrize(
    "keep", [0.5, 0.01, 0.8, 1, {"0.4": 0.3}, {"0.8": 0.5, "2.0": 0.5}, {"0.0": 0.25, "0.8": 0.25}], ids=str
)
def test_a_shrunken_network_computes_what_the_masked_one_does(keep, by: str) -> None:
    net, x = cnn().double(), torch.randn(5, 1, 12, 12, dtype=torch.float64)
    left, small = nodes(net, keep, by=by), co.shrink(net, keep, by=by)
    close(small, masked(net, left), x, rtol=1e-12, atol=1e-12)
    if keep != 1:
        assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in net.parameters())
        assert not torch.allclose(small(x), net.eval()(x))
    assert list(small.state_dict()) == list(net.state_dict())


def test_it_is_exact_where_arithmetic_is() -> None:
    """Whole numbers add without rounding, so that no order of sums can hide a wrong channel."""
    torch.manual_seed(1)
    layers = (
        nn.Conv2d(2, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 5, 2), nn.ReLU(), nn.Flatten(),
        nn.Linear(5 * 4, 7), nn.ReLU(), nn.Linear(7, 3),
    )  # fmt: skip
    net = nn.Sequential(*layers)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randint(-3, 4, p.shape))
    x = torch.randint(-3, 4, (4, 2, 8, 8)).float()
    left = nodes(net, 0.5)
    assert {name: len(kept) for name, kept in left.items()} == {"0": 3, "3": 2, "6": 4}
    assert torch.equal(co.shrink(net, 0.5)(x), masked(net, left)(x))


def test_the_strongest_stay() -> None:
    net = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 1.0], [-3.0, 3.0], [0.0, 5.0], [0.0, 0.0]]))
        net[1].weight.copy_(torch.tensor([-9.0, 1.0, 2.0, 8.0]))
    assert nodes(net, 0.5)["0"].tolist() == [1, 2]
    assert nodes(net, 0.5, by="scale")["0"].tolist() == [0, 3]
    before = copy.deepcopy(net.state_dict())
    small = co.shrink(net, 0.5)
    assert small[0].weight.tolist() == [[-3.0, 3.0], [0.0, 5.0]]
    assert all(torch.equal(net.state_dict()[n], v) for n, v in before.items())
    assert (small[1].num_features, small[3].in_features) == (2, 2)


def test_it_can_be_trained_on() -> None:
    small = co.shrink(cnn(), 0.5)
    small[0][0].weight.requires_grad_(True)
    model = co.TorchModel(small, LOSS)
    data = np.random.default_rng(0).normal(size=(12, 1, 12, 12)).astype("float32"), np.arange(12) % 4
    params, metrics = model.fit(model.init(HERE), data, HERE)
    assert np.isfinite(metrics["train_loss"]).all()
    assert params["0.0.weight"].shape == (4, 1, 3, 3)
    frozen = cnn().requires_grad_(False)
    assert not any(p.requires_grad for p in co.shrink(frozen, 0.5).parameters())


class Own(nn.Conv2d):
    """May do anything."""


CONV, LAST = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 2, 1)
SHARED = nn.Linear(4, 4)


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ((CONV, nn.Sigmoid(), LAST), "'1'.*Sigmoid"),
        ((CONV, nn.Softmax(1), LAST), "'1'.*Softmax"),
        ((CONV, nn.LayerNorm(4), LAST), "'1'.*LayerNorm"),
        ((CONV, nn.GroupNorm(2, 4), LAST), "'1'.*GroupNorm"),
        ((CONV, nn.Conv2d(4, 4, 1, groups=4), LAST), "'1'.*4 groups"),
        ((CONV, nn.Sequential(nn.ConvTranspose2d(4, 4, 1)), LAST), r"'1\.0'.*ConvTranspose2d"),
        ((CONV, nn.BatchNorm2d(4, affine=False), LAST), "'1'.*without weights"),
        ((CONV, nn.BatchNorm2d(4, track_running_stats=False), LAST), "'1'.*running statistics"),
        ((CONV, nn.MaxPool2d(2, return_indices=True), LAST), "'1'.*indices"),
        ((CONV, nn.Flatten(2), LAST), "'1'.*from axis 2"),
        ((CONV, nn.Linear(4, 2)), "'1'.*rows.*Flatten"),
        ((CONV, nn.BatchNorm1d(4), LAST), "'1'.*rows"),
        ((CONV, nn.ReLU(), nn.Conv2d(5, 2, 1)), "'2'.*4 channels"),
        ((CONV, nn.Flatten(), nn.Linear(6, 2)), "'2'.*4 channels"),
        ((SHARED, nn.ReLU(), SHARED), "once"),
        ((Own(2, 4, 1), LAST), "'0'.*Own"),
        ((CONV,), "hidden layer"),
        ((nn.ReLU(),), "Conv2d or Linear"),
        ((), "once|Conv2d"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_what_it_does_not_understand_is_refused_by_name(layers, says: str) -> None:
    with pytest.raises(co.ConfigError, match=says):
        co.shrink(nn.Sequential(*layers), 0.5)


def test_after_the_last_layer_anything_may_follow() -> None:
    net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4), nn.LayerNorm(4), nn.Softmax(1))
    x = torch.randn(5, 3)
    close(co.shrink(net, 0.5), masked(net, nodes(net, 0.5)), x)


class Residual(nn.Module):
    """Not a chain: the first BatchNorm folds, one is read twice, one comes before its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.na = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.b, self.nb = nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.BatchNorm2d(4)
        self.first, self.up = nn.BatchNorm2d(2), nn.ConvTranspose2d(4, 6, 2, groups=2)
        self.nu, self.out, self.no = nn.BatchNorm2d(6), nn.Linear(6, 3), nn.BatchNorm1d(3, affine=False)

    def forward(self, x):
        x = torch.relu(self.na(self.a(self.first(x))))
        y = self.b(x)
        return self.no(self.out(self.nu(self.up(x + y + self.nb(y))).mean((2, 3))))


def moved(net: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """With running statistics that are not those of the beginning."""
    torch.manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn(p.shape) * 0.3)
        for _ in range(3):
            net.train()(torch.randn(shape) * 2 + 1)
    return net.eval()


def test_batchnorm_is_folded_and_outputs_stay() -> None:
    net, x = moved(cnn(), (8, 1, 12, 12)), torch.randn(5, 1, 12, 12)
    small = co.fold(net)
    assert not any("BatchNorm" in type(m).__name__ for m in small.modules())
    assert not small.training
    close(small, net, x, rtol=1e-4, atol=1e-5)
    close(co.fold(net.double()), net.double(), x.double(), rtol=1e-12, atol=1e-12)
    pruned = copy.deepcopy(net)
    with torch.no_grad():
        pruned[0][4].weight[:, ::2] = 0
    assert not co.fold(pruned)[0][4].weight[:, ::2].any()


def test_only_what_can_be_folded_is() -> None:
    net = moved(Residual(), (8, 2, 5, 5)).double()
    small = co.fold(net)
    stay = {n for n, m in small.named_modules() if "BatchNorm" in type(m).__name__}
    assert stay == {"first", "nb"}
    close(small, net, torch.randn(5, 2, 5, 5, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    twice = nn.Linear(3, 3)
    again = moved(nn.Sequential(twice, nn.BatchNorm1d(3), twice, nn.BatchNorm1d(3)), (8, 3))
    assert [type(m).__name__ for m in co.fold(again)] == ["Linear", "BatchNorm1d", "Linear", "BatchNorm1d"]
    unseen = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, track_running_stats=False))
    assert isinstance(co.fold(unseen)[1], nn.BatchNorm1d)


def test_what_cannot_be_followed_is_refused() -> None:
    class Looks(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(co.ConfigError, match=r"torch\.fx can follow.*Looks"):
        co.fold(Looks())


def test_a_ticket_in_a_module(tmp_path) -> None:
    net = moved(cnn(), (8, 1, 12, 12))
    model = co.TorchModel(net, LOSS)
    params = dict(model.init(HERE))
    for name in ("0.4.weight", "2.0.weight"):
        params[name] = np.where(np.abs(params[name]) > np.quantile(np.abs(params[name]), 0.8), params[name], 0)
    ticket = co.Ticket.of(params, model=model)
    ticket.save(tmp_path / "t", "float32")
    dense = co.Ticket.load(tmp_path / "t").densify(cnn())
    assert (not dense.training, float(dense[2][0].weight.ne(0).float().mean())) == (True, pytest.approx(0.2, abs=0.02))
    x = np.random.default_rng(0).normal(size=(5, 1, 12, 12)).astype("float32")
    with torch.no_grad():
        np.testing.assert_allclose(dense(torch.tensor(x)).softmax(1), model.predict(params, x), rtol=1e-5)
    assert torch.equal(net[2][0].weight, cnn()[2][0].weight) is False
    for other in (cnn(4), nn.Sequential(*[copy.deepcopy(m) for m in net[:2]], net[2], nn.ReLU())):
        with pytest.raises(co.ConfigError, match="Got"):
            ticket.densify(other)
    shared = {n: x for n, x in params.items() if "running" not in n}
    with pytest.raises(co.ConfigError, match=r"'0\.1\.running_mean' only in the net.*beside what was shared"):
        co.Ticket.of(shared).densify(net)
    leaky = cnn()
    leaky[0][6] = nn.ReLU()
    with pytest.raises(co.ConfigError, match="layers of the network that the ticket is of"):
        ticket.densify(leaky)
    assert isinstance(co.Ticket.of(params).densify(leaky)[0][6], nn.ReLU)


def test_a_folded_ticket_is_smaller(tmp_path) -> None:
    net = moved(cnn(), (8, 1, 12, 12))
    folded = co.fold(net)
    sizes = [co.Ticket.of(co.TorchModel(n, LOSS).init(HERE)).save(tmp_path / "t") for n in (net, folded)]
    assert sizes[1] < sizes[0]
    assert co.Ticket.load(tmp_path / "t").densify(folded)[2][0].bias.shape == (16,)


def test_what_was_made_is_exported(tmp_path) -> None:
    net, x = moved(cnn(), (8, 1, 12, 12)), torch.randn(2, 1, 12, 12)
    co.Ticket.of(co.TorchModel(net, LOSS).init(HERE)).save(tmp_path / "t", "float32")
    dense = co.Ticket.load(tmp_path / "t").densify(net)
    for made in (dense, co.fold(dense), co.shrink(dense, 0.5).eval()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch says of itself
            program = torch.export.export(made, (x,))
        with torch.no_grad():
            torch.testing.assert_close(program.module()(x), made(x))


@pytest.mark.filterwarnings("ignore")  # what torch says of its exporters
def test_onnx_takes_it_with_the_same_answers(tmp_path) -> None:
    reference = pytest.importorskip("onnx.reference")
    small, x = co.fold(co.shrink(cnn(), 0.5)).eval(), torch.randn(1, 1, 12, 12)
    torch.onnx.export(small, (x,), tmp_path / "net.onnx", dynamo=False, input_names=["x"])
    (answer,) = reference.ReferenceEvaluator(str(tmp_path / "net.onnx")).run(None, {"x": x.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(answer), small(x))


@pytest.mark.slow
def test_fewer_channels_take_less_time() -> None:
    """On one core, the least of several: half the channels and BatchNorm folded against dense."""
    net, x = cnn(48, 24).eval(), torch.randn(16, 1, 24, 24)
    small = co.fold(co.shrink(net, 0.5))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = {"dense": [], "small": []}
        with torch.no_grad():
            for _ in range(15):
                for name, made in (("dense", net), ("small", small)):
                    start = time.perf_counter()
                    made(x)
                    times[name].append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
    assert min(times["dense"]) > 1.5 * min(times["small"])
