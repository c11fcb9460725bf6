"""DP-SGD with torch: the sum of clipped gradients is that of the rows one by one, whatever the module."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

import comity as co
from comity.adapters.torch import examples, private
from comity.core.round import Round
from comity.core.tree import ravel

HERE = Round("test", seed=1, me="a")
CROSS = nn.functional.cross_entropy
ROWS = 12
IMAGES = torch.randn(ROWS, 2, 9, 9, generator=torch.Generator().manual_seed(0))
PLAIN, LINES = IMAGES[:, 0, 0, :6], IMAGES[:, :, 0]
STEPS, CUBES = IMAGES[:, 0, :5, :6], IMAGES[:, :, :, :].reshape(ROWS, 1, 6, 9, 3)
WORDS = torch.randint(0, 5, (ROWS, 7), generator=torch.Generator().manual_seed(1))
Y = torch.arange(ROWS) % 3


class Pooled(nn.Module):
    """The mean over the steps."""

    def forward(self, x):
        return x.mean(1)


class Tied(nn.Module):
    """Words in and out by one table, which is used outside its own module."""

    def __init__(self):
        super().__init__()
        self.table, self.inner = nn.Embedding(5, 4), nn.Linear(4, 4)

    def forward(self, x):
        return nn.functional.linear(self.inner(self.table(x).mean(1)), self.table.weight)


class Shared(nn.Module):
    """Two layers with one weight."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.c(self.b(self.a(x).tanh()))


class Recurrent(nn.Module):
    """What vmap has no form of."""

    def __init__(self):
        super().__init__()
        self.inner, self.out = nn.LSTM(6, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.out(self.inner(x)[0][:, -1])


class Attends(nn.Module):
    """A head of attention made of linear layers, with a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.out = (
            nn.Linear(6, 4),
            nn.Linear(6, 4),
            nn.Linear(6, 4, bias=False),
            nn.Linear(4, 3),
        )
        self.scale = nn.PReLU()

    def forward(self, x):
        weights = (self.q(x) @ self.k(x).mT).softmax(-1)
        return self.out(self.scale(weights @ self.v(x)).mean(1))


def twice():
    layer = nn.Linear(6, 6)
    return nn.Sequential(layer, nn.Tanh(), layer, nn.Tanh(), nn.Linear(6, 3))


def half_frozen():
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))
    net[0].weight.requires_grad_(False)
    net[1].requires_grad_(False)
    return net


CASES = {
    "mlp": (lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 3)), PLAIN, "Ghost"),
    "cnn": (
        lambda: nn.Sequential(
            *(nn.Conv2d(2, 4, (3, 4), (2, 1), padding=(1, 2)), nn.GroupNorm(2, 4), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(4, 6, 2, groups=2, bias=False), nn.Flatten(), nn.Linear(24, 3)),
        ),
        IMAGES,
        "Ghost",
    ),
    "dilated": (
        lambda: nn.Sequential(nn.Conv2d(2, 400, 3, 3, dilation=2), nn.Flatten(), nn.Linear(1600, 3)),
        IMAGES,
        "Ghost",
    ),
    "reflected": (
        lambda: nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), nn.Flatten(), nn.Linear(243, 3)),
        IMAGES,
        "Ghost",
    ),
    "lines": (
        lambda: nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(36, 3)),
        LINES,
        "Ghost",
    ),
    "cubes": (
        lambda: nn.Sequential(nn.Conv3d(1, 2, (2, 3, 3), (1, 2, 1)), nn.Flatten(), nn.Linear(40, 3)),
        CUBES,
        "Ghost",
    ),
    "words": (
        lambda: nn.Sequential(
            nn.Embedding(5, 4, padding_idx=1), nn.Linear(4, 30), nn.LayerNorm(30), Pooled(), nn.Linear(30, 3)
        ),
        WORDS,
        "Ghost",
    ),
    "wide": (
        lambda: nn.Sequential(nn.Linear(6, 40), nn.Tanh(), nn.Linear(40, 60), nn.Tanh(), nn.Linear(60, 3), Pooled()),
        STEPS[:, :2],
        "Ghost",
    ),
    "many steps": (lambda: nn.Sequential(nn.Linear(6, 3), nn.LayerNorm((5, 3)), Pooled()), STEPS, "Ghost"),
    "other layers": (
        lambda: nn.Sequential(nn.Linear(6, 8), nn.PReLU(8), nn.RMSNorm(8), nn.Linear(8, 3)),
        PLAIN,
        "Ghost",
    ),
    "attention": (Attends, STEPS, "Ghost"),
    "half frozen": (half_frozen, PLAIN, "Ghost"),
    "float64": (lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double(), PLAIN.double(), "Ghost"),
    "tied": (Tied, WORDS, "Whole"),
    "shared": (Shared, PLAIN, "Whole"),
    "twice": (twice, PLAIN, "Whole"),
    "encoder": (
        lambda: nn.Sequential(
            nn.TransformerEncoderLayer(6, 2, 12, dropout=0.0, batch_first=True), Pooled(), nn.Linear(6, 3)
        ),
        STEPS,
        "Whole",
    ),
    "recurrent": (Recurrent, STEPS, "Alone"),
}


def model(net, **settings):
    return co.TorchModel(net, **{"loss": CROSS, "optimizer": partial(torch.optim.SGD, lr=1.0), "batch": 5, **settings})


def stream(name="test"):
    return co.testing.fixed_secret().stream(name)


def moved(m, data, clip, noise=0.0, rate=1.0, **more):
    """What a private fit changes, as one vector, and where it began."""
    start = m.init(HERE)
    step = co.Step(private=co.Private(clip, noise, more.pop("stream", None) or stream(), rate), **more)
    new, metrics = m.fit(start, data, HERE, step)
    assert metrics == {}
    return ravel(new) - ravel(start)


def one_by_one(m, x, y, clip):
    """Plain torch: each row's gradient, scaled to the clip where it is longer, added up; and the norms."""
    net, total, norms = m.module.train(), 0, []
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.eval()
    named = sorted((n, p) for n, p in net.named_parameters() if p.requires_grad)
    for i in range(len(x)):
        found = torch.autograd.grad(m.loss(net(x[i : i + 1]), y[i : i + 1]), [p for _, p in named])
        row = torch.cat([g.flatten() for g in found]).double()
        norms.append(float(row.norm()))
        total = total + row * min(1.0, clip / norms[-1])
    return total.numpy(), norms


def agrees(m, x, y, clip):
    wanted, norms = one_by_one(m, x, y, clip)
    assert min(norms) < clip < max(norms), "The clip must touch some rows and not others."
    np.testing.assert_allclose(-len(x) * moved(m, (x, y), clip), wanted, rtol=1e-5, atol=1e-5)


def typical(m, x, y):
    return float(np.median(one_by_one(m, x, y, 1.0)[1]))


def made(name, **settings):
    build, x, way = CASES[name]
    torch.manual_seed(3)
    return model(build(), **settings), x, WORDS[:, 0] if name == "tied" else Y, way


@pytest.mark.parametrize("name", CASES)
def test_the_clipped_sum_is_that_of_the_rows_one_by_one(name):
    m, x, y, _ = made(name)
    agrees(m, x, y, typical(m, x, y))


@pytest.mark.parametrize("name", CASES)
def test_the_quickest_way_that_is_right_is_taken(name):
    m, x, y, way = made(name)
    m._flat.put(m.init(HERE))
    m._flat.train()
    before = m._flat.vector.clone()
    assert type(examples.way_of(m._flat, CROSS, x[:4], y[:4], 5)).__name__ == way
    assert torch.equal(before, m._flat.vector)


@pytest.mark.parametrize("lie", [0.0, 0.25, 4.0])
def test_a_clip_by_wrong_norms_is_found_out(monkeypatch, lie):
    """The comparison itself: clipped by other norms, or not at all, it fails."""
    m, x, y, _ = made("mlp")
    clip, honest = typical(m, x, y), examples.Ghost.__call__
    agrees(m, x, y, clip)
    monkeypatch.setattr(private, "way_of", lambda flat, loss, x, y, rows: examples.Ghost(flat, loss, rows))
    monkeypatch.setattr(
        examples.Ghost,
        "__call__",
        lambda self, x, y: (found := honest(self, x, y))._replace(squares=found.squares * lie),
    )
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        agrees(m, x, y, clip)


@pytest.mark.parametrize("name", ["mlp", "cnn", "words", "attention", "tied"])
def test_no_row_adds_more_than_the_clip(name):
    m, x, y, _ = made(name)
    clip = 0.3 * min(one_by_one(m, x, y, 1.0)[1])
    whole = -ROWS * moved(m, (x, y), clip)
    for i in range(ROWS):
        rest = torch.arange(ROWS) != i
        without = -(ROWS - 1) * moved(m, (x[rest], y[rest]), clip)
        assert np.linalg.norm(whole - without) == pytest.approx(clip, rel=1e-4)
        assert np.linalg.norm(moved(m, (x[i : i + 1], y[i : i + 1]), clip)) <= clip * (1 + 1e-5)


def test_a_row_with_no_finite_gradient_adds_nothing():
    m, x, y, _ = made("mlp")
    spoilt = x.clone()
    spoilt[[2, 7]] = torch.tensor([[np.inf], [np.nan]])
    kept = torch.tensor([i not in (2, 7) for i in range(ROWS)])
    wanted, _ = one_by_one(m, x[kept], y[kept], 0.5)
    np.testing.assert_allclose(-ROWS * moved(m, (spoilt, y), 0.5), wanted, rtol=1e-5, atol=1e-5)
    assert not moved(m, (spoilt[[2]], y[[2]]), 0.5).any()


def test_the_same_stream_gives_the_same_bits_and_another_does_not():
    m, x, y, _ = made("cnn", epochs=2)
    first, again, other = (moved(m, (x, y), 0.5, 1.0, 0.25, stream=stream(s)) for s in ("a", "a", "b"))
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()


def test_batches_come_from_the_stream_and_not_from_the_seed():
    m, x, y, _ = made("mlp", epochs=3)
    start, step = m.init(HERE), lambda: co.Step(private=co.Private(0.5, 0.0, stream(), 0.25))
    here, there = (m.fit(start, (x, y), Round("test", seed=s), step())[0] for s in (1, 2))
    np.testing.assert_array_equal(ravel(here), ravel(there))
    other = co.Step(private=co.Private(0.5, 0.0, stream("other"), 0.25))
    assert (ravel(m.fit(start, (x, y), HERE, other)[0]) != ravel(here)).any()


class Never:
    """A stream by which no row is drawn, and the noise is that of another."""

    def __init__(self):
        self.noise, self.begun = stream(), False

    def take(self, size):
        first, self.begun = not self.begun, True
        return np.full(size, 255, np.uint8) if first else self.noise.take(size)


def test_an_empty_batch_is_a_step_with_noise_only():
    m, x, y, _ = made("mlp")
    assert not moved(m, (x, y), 1.0, 0.0, 0.5, stream=Never(), epochs=0.5).any()
    assert moved(m, (x, y), 1.0, 1.0, 0.5, stream=Never(), epochs=0.5).all()


@pytest.mark.parametrize(
    ("epochs", "rate", "steps"), [(1, 0.25, 4), (2.5, 0.1, 25), (0.25, 0.5, 0), (1, 1.0, 1), (1, 0.3, 3)]
)
def test_so_many_steps_are_made(epochs, rate, steps):
    m, x, y, _ = made("mlp")
    seen = []
    moved(m, (x, y), 1.0, 1.0, rate, epochs=epochs, adjust=lambda p, g, s: seen.append(1) or g)
    assert len(seen) == steps


@pytest.mark.parametrize("name", ["mlp", "tied", "recurrent"])
def test_no_more_rows_are_held_than_a_batch(name, monkeypatch):
    m, x, y, _ = made(name)
    held, honest = [], private.add_clipped
    monkeypatch.setattr(private, "add_clipped", lambda way, x, *a, **k: held.append(len(x)) or honest(way, x, *a, **k))
    moved(m, (x, y), 1.0)
    assert sum(held) == ROWS
    assert max(held) == (1 if name == "recurrent" else 4)


def test_adjust_and_mask_act_on_what_was_noised():
    m, x, y, _ = made("mlp")
    plain = moved(m, (x, y), 0.5, 1.0)
    np.testing.assert_allclose(
        moved(m, (x, y), 0.5, 1.0, adjust=lambda p, g, s: 2 * g), 2 * plain, rtol=1e-3, atol=1e-6
    )
    masked = moved(m, (x, y), 0.5, 1.0, mask={"0.weight": np.zeros((8, 6))})
    still = ravel({**{k: np.ones_like(v) for k, v in m.init(HERE).items()}, "0.weight": np.zeros((8, 6))}).astype(bool)
    np.testing.assert_array_equal(masked, np.where(still, plain, 0))


def test_dropout_and_any_optimizer_will_do():
    net = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    m = model(net, optimizer=partial(torch.optim.Adam, lr=0.01), epochs=3)
    np.testing.assert_array_equal(*(moved(m, (PLAIN, Y), 0.5, 1.0, 0.25) for _ in range(2)))


class Rows(Dataset):
    """Rows one by one."""

    def __len__(self):
        return ROWS

    def __getitem__(self, i):
        return PLAIN[i], Y[i]


def test_a_dataset_gives_what_its_arrays_give():
    m = made("mlp")[0]
    here, there = (moved(m, data, 0.5, 1.0, 0.5) for data in (Rows(), (PLAIN, Y)))
    np.testing.assert_allclose(here, there, rtol=1e-5, atol=1e-7)


class Counting(nn.Module):
    """Keeps a mean of what it saw."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 3)
        self.register_buffer("mean", torch.zeros(6), persistent=False)

    def forward(self, x):
        if self.training:
            self.mean += x.detach().mean(0)
        return self.inner(x)


def contrast(outputs, y):
    return CROSS(outputs @ outputs.T, torch.arange(len(y)))


@pytest.mark.parametrize(
    ("net", "loss", "says"),
    [
        (nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)), CROSS, "Use nn.GroupNorm or nn.LayerNorm"),
        (nn.Linear(6, 3), contrast, "a loss that is their mean"),
        (Counting(), CROSS, "Got 'mean', which moves in training"),
        (nn.Linear(6, 3), nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0])), "class weights"),
        (nn.Linear(6, 3), lambda o, y: CROSS(o - o.mean(0), y), "look at each row alone"),
        (nn.Linear(6, 3), nn.CrossEntropyLoss(reduction="sum"), "a loss that is their mean"),
        (nn.Linear(6, 3), nn.CrossEntropyLoss(ignore_index=1), "a loss that is their mean"),
    ],
)
def test_what_mixes_rows_is_refused(net, loss, says):
    with pytest.raises(co.ConfigError, match=says):
        moved(model(net, loss=loss), (PLAIN, Y), 1.0)


def test_words_that_are_counted_or_rescaled_and_averaged_buffers_are_refused():
    for more in ({"max_norm": 1.0}, {"scale_grad_by_freq": True}):
        net = nn.Sequential(nn.Embedding(5, 3, **more), Pooled())
        with pytest.raises(co.ConfigError, match="Leave these out"):
            moved(model(net), (WORDS, Y), 1.0)
    net = nn.Linear(6, 3)
    net.register_buffer("constant", torch.ones(2))
    with pytest.raises(co.ConfigError, match="reset"):
        moved(model(net), (PLAIN, Y), 1.0)
    assert moved(model(net, buffers="reset"), (PLAIN, Y), 1.0).any()


def test_a_loss_of_the_step_is_refused():
    with pytest.raises(co.ConfigError, match=r"Step\(loss"):
        moved(model(nn.Linear(6, 3)), (PLAIN, Y), 1.0, loss=lambda o, f, b: o.mean())
