"""How a model chooses between one after the other and many at once, and what the traced steps must not get wrong."""

import copy
import pickle
from dataclasses import replace
from functools import partial
from unittest import mock

import numpy as np
import pytest

import comity as co
from comity.core.round import Round, Turns
from comity.core.together import Plan, Wish

torch = pytest.importorskip("torch")
choosing = pytest.importorskip("comity.adapters.torch.choosing")
many = pytest.importorskip("comity.adapters.torch.many")
packing = pytest.importorskip("comity.adapters.torch.packing")
nn, F = torch.nn, torch.nn.functional
HERE = Round("batched", seed=5, number=1)
LONG = Wish(None, ahead=10**6)
SIZES = (20, 7, 33, 1, 16)


def data_of(sizes=SIZES, columns=4):
    rng = np.random.default_rng(0)
    return [(rng.normal(size=(n, columns)).astype("float32"), rng.integers(0, 3, n)) for n in sizes]


def model_of(net=None, **settings):
    torch.manual_seed(0)
    net = net or nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    sgd = partial(torch.optim.SGD, lr=0.1)
    return co.TorchModel(net, **{"loss": F.cross_entropy, "optimizer": sgd, "batch": 8, **settings})


def group(model, data):
    return [model.init(HERE)] * len(data), [{}] * len(data), data, Turns(HERE, [f"p{i}" for i in range(len(data))])


@pytest.fixture
def clock(monkeypatch):
    """Each piece of work takes the time it is told to: {"one_by_one": seconds, chunk: seconds}."""
    times = {}

    def timed(work, clock, tries=1):
        work()
        return times["one_by_one"] if not isinstance(work, partial) else times[work.args[1]]

    monkeypatch.setattr(choosing, "_timed", timed)
    return times


def test_the_fastest_is_kept(clock):
    model = model_of()
    clock |= {"one_by_one": 0.001, 4: 0.0005, 8: 0.0002}
    plan = model.plan(*group(model, data_of()), LONG)
    assert plan == Plan("batched", 8, 1, "8 at once take 0.20 of the time", True)
    clock |= {8: 0.0008}
    assert model.plan(*group(model, data_of()), LONG).chunk == 4


def test_where_there_is_little_to_gain_all_stays_sequential(clock):
    model = model_of()
    clock |= {"one_by_one": 0.001, 4: 0.00095, 8: 0.002}
    plan = model.plan(*group(model, data_of()), LONG)
    assert plan == Plan("sequential", 0, 1, "4 at once take 0.95 times as long", True)
    assert model.plan(*group(model, data_of()), Wish("batched")).executor == "batched"


def test_heavy_steps_try_small_chunks_first_and_give_up_soon(clock):
    model, tried = model_of(), []
    clock |= {"one_by_one": 1.0, **dict.fromkeys((1, 2), 2.0)}
    run = model._engine.run

    def noted(work, chunk, form):
        tried.append(chunk)
        return run(work, chunk, form)

    with mock.patch.object(model._engine, "run", noted):
        plan = model.plan(*group(model, data_of((9,) * 20)), LONG)
    assert (plan.executor, plan.reason) == ("sequential", "2 at once take 2.00 times as long")
    assert tried[1:] == [2, 1]


def test_what_is_not_measured():
    model, data = model_of(epochs=3), data_of()
    with mock.patch.object(choosing, "form_of", side_effect=AssertionError):
        assert model.plan(*group(model, data), Wish("sequential", 10**6)) == Plan(
            "sequential", threads=1, reason="asked for"
        )
        few = model.plan(*group(model, data), Wish(None, choosing.STEPS // 8))
        assert few == Plan("sequential", threads=1, reason="too little work for measuring to pay")
        alone = model.plan(*group(model, data[:1]), Wish("batched", 10**6))
        assert alone == Plan("sequential", threads=1, reason="one fit alone")
        assert model.plan(*group(model, data), Wish(None, choosing.STEPS // 6)).reason == "AssertionError"


def test_who_has_one_row_or_a_wrong_label_breaks_no_plan():
    norm = nn.Sequential(nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.Linear(6, 3))
    model, data = model_of(norm), data_of((20, 1, 12))
    assert model.plan(*group(model, data), Wish("batched")).reason.startswith("Expected more than 1 value")
    model, data = model_of(), data_of()
    data[2] = (data[2][0], data[2][1] + 7)
    assert "out of bounds" in model.plan(*group(model, data), Wish("batched")).reason


def test_measuring_changes_nothing():
    model, twin, data = model_of(), model_of(), data_of()
    before = torch.get_rng_state()
    given = group(model, data)
    start = copy.deepcopy(given[0][0])
    model.plan(*given, Wish("batched"))
    assert torch.equal(before, torch.get_rng_state())
    assert all(np.array_equal(start[k], given[0][0][k]) for k in start)
    assert np.array_equal(model.fit_many(*given).rows, twin.fit_many(*group(twin, data)).rows)


def test_a_plan_from_elsewhere_is_tried_before_it_is_trusted():
    """A worker, or a run taken up again, is given the plan; the model over there was never measured."""
    model = model_of(nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 3)))
    given = group(model, data_of())
    assert np.array_equal(model.fit_many(*given, Plan("batched", 4)).rows, model.fit_many(*given).rows)


def test_models_travel_without_their_graphs():
    model, data = model_of(), data_of()
    batched = model.fit_many(*group(model, data), Plan("batched", 4)).rows
    twin = pickle.loads(pickle.dumps(model))
    assert np.array_equal(twin.fit_many(*group(twin, data), Plan("batched", 4)).rows, batched)
    assert np.array_equal(copy.deepcopy(model).fit_many(*group(model, data), Plan("batched", 4)).rows, batched)


class Writes(nn.Module):
    """Writes into what it is given, into a buffer, and leaves one parameter out."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.unused = nn.Linear(4, 6), nn.Linear(6, 3), nn.Parameter(torch.ones(2))
        self.register_buffer("mean", torch.zeros(6))
        self.register_buffer("still", torch.linspace(0, 1, 6))

    def forward(self, x):
        h = self.a(x.mul_(1.5)).relu_()
        h = (h * 2).add_(1)
        self.mean = 0.9 * self.mean + 0.1 * self.a.bias.detach()
        return self.b(h + self.still + self.mean) + 0 * self.a.weight.sum()


class Tied(nn.Module):
    """One weight forward and back, and gradients that are views of parameters."""

    def __init__(self):
        super().__init__()
        self.a, self.u, self.v = nn.Linear(4, 3), nn.Parameter(torch.ones(3)), nn.Parameter(torch.full((3,), 0.5))

    def forward(self, x):
        return self.a(F.linear(self.a(x), self.a.weight.T)) + (self.u * self.v).sum()


@pytest.mark.parametrize("net", [Writes, Tied])
@pytest.mark.parametrize(
    "optimizer", [partial(torch.optim.SGD, lr=0.1), partial(torch.optim.SGD, lr=0.1, momentum=0.5, weight_decay=0.1)]
)
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)])
def test_modules_that_write_and_share(net, optimizer, dtype):
    model = model_of(net().to(dtype), optimizer=optimizer, epochs=2, loss=lambda z, y: F.cross_entropy(z, y))
    given = group(model, data_of())
    with mock.patch.object(many, "one_by_one", side_effect=AssertionError):
        found = model.fit_many(*given, Plan("batched", 4))
    expected = model.fit_many(*given)
    assert found.rows.dtype == expected.rows.dtype
    np.testing.assert_allclose(found.rows, expected.rows, rtol=1e-4, atol=1e-5)


class Crossed(nn.Module):
    """The gradient of each parameter is the other one itself."""

    def __init__(self):
        super().__init__()
        self.u, self.v = nn.Parameter(torch.ones(3)), nn.Parameter(torch.full((3,), 0.5))

    def forward(self, x):
        return self.u * self.v


def test_a_gradient_that_is_a_parameter_is_read_before_that_one_moves():
    model = model_of(Crossed(), loss=lambda outputs, _: outputs.sum())
    given = group(model, data_of())
    with mock.patch.object(many, "one_by_one", side_effect=AssertionError):
        found = model.fit_many(*given, Plan("batched", 4))
    np.testing.assert_allclose(found.rows, model.fit_many(*given).rows, rtol=1e-6)
    assert set(model._engine.proven.values()) == {"exact"}


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize(("batch", "epochs"), [(4, 1), (4, 2.3), (1, 1.5), (50, 2)])
def test_the_batches_are_those_of_one_alone(batch, epochs, pairs):
    from comity.adapters.common import epochs_of
    from comity.adapters.torch.batches import sizes

    turns, many_rows = Turns(HERE, ["a", "b", "c", "d", "e"]), [21, 17, 8, 5, 2]
    found = packing.laid(many_rows, batch, epochs, turns, pairs)
    for i, n in enumerate(many_rows):
        expected = []
        for order in epochs_of(n, epochs, turns[i]):
            expected += np.split(order, np.cumsum(sizes(len(order), batch, pairs))[:-1])
        counts = found.counts[i][: len(expected)].tolist()
        assert counts == [len(e) for e in expected]
        assert not found.counts[i][len(expected) :].any()
        for step, rows in enumerate(expected):
            assert found.index[i, step, : len(rows)].tolist() == rows.tolist()


def test_large_groups_are_laid_out_chunk_by_chunk_and_gathered_in_parts(monkeypatch):
    from comity.adapters.torch import batched, chunks

    model, data = model_of(epochs=2), data_of()
    whole = model.fit_many(*group(model, data), Plan("batched", 2)).rows
    monkeypatch.setattr(batched, "AT_ONCE", 1)
    monkeypatch.setattr(chunks, "BYTES_AHEAD", 1)
    assert np.array_equal(model.fit_many(*group(model, data), Plan("batched", 2)).rows, whole)


def test_a_new_shape_is_a_new_question():
    model = model_of(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)))
    flat = group(model, data_of())
    square = group(model, [(x.reshape(-1, 2, 2), y) for x, y in data_of()])
    a, b = (model.fit_many(*given, Plan("batched", 4)).rows for given in (flat, square))
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert len(model._engine.proven) == 2
    mixed = replace(model)
    rows = mixed.fit_many(*group(mixed, [flat[2][0], *square[2][1:]]), Plan("batched", 4)).rows
    np.testing.assert_allclose(rows, a, rtol=1e-4, atol=1e-5)
