"""PrivateTrainer: what it sends, what it spends, and where its noise comes from."""

from functools import partial

import numpy as np
import pytest
import torch

import comity as co
from comity.core.contribution import Contribution
from comity.core.tree import fingerprint, ravel

RNG = np.random.default_rng(6)
DATA = [(RNG.normal(size=(n, 4)).astype("float32"), RNG.integers(0, 3, n)) for n in (20, 33)]
HELD = RNG.normal(size=(9, 4)).astype("float32"), np.arange(9) % 3
HERE = co.Round("private", seed=1, me="p0", hub="hub", number=2)
LINEAR = co.Linear(4, 3, rate=0.5)
SECRET = co.testing.fixed_secret(3)
USUAL = {"clip": 1.0, "noise": 1.0, "rate": 0.25}


def torch_model():
    net = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.GroupNorm(1, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
    sgd = partial(torch.optim.SGD, lr=0.5, momentum=0.9)
    return co.TorchModel(net, torch.nn.functional.cross_entropy, optimizer=sgd)


def trainer(model=LINEAR, data=DATA[0], **settings):
    return co.PrivateTrainer(model, data, **{**USUAL, **settings})


def delta(who, round=HERE, secret=SECRET):
    c, local = who.contribute(Contribution("model", who.model.init(round)), {}, round, secret)
    assert local == {}
    return c


@pytest.mark.parametrize("make", [lambda: LINEAR, lambda: co.MLP(4, 3, hidden=(5,)), torch_model])
def test_the_laws_of_methods_hold(make):
    model = make()
    sites = {f"p{i}": co.PrivateTrainer(model, d, **USUAL, test=HELD) for i, d in enumerate(DATA)}
    co.testing.check_method(co.FedAvg(model), sites)


@pytest.mark.parametrize("model", [LINEAR, torch_model()])
def test_it_sends_nothing_but_its_delta(model):
    for data in DATA:
        c = delta(trainer(model, data))
        assert (c.kind, c.weight, c.metrics) == ("delta", 1.0, {})
        assert ravel(c.value).any()


def test_it_trains_as_the_model_does_with_these_settings():
    who = trainer(epochs=2)
    start = LINEAR.init(HERE)
    step = co.Step(
        private=co.Private(1.0, 1.0, SECRET.stream("dp-sgd", "2", "0", "hub", fingerprint(start)), 0.25), epochs=2
    )
    wanted, _ = LINEAR.fit(start, DATA[0], HERE, step)
    np.testing.assert_array_equal(ravel(delta(who).value), ravel(wanted) - ravel(start))


def test_noise_is_that_of_the_secret_round_attempt_and_hub():
    who, first = trainer(), delta(trainer())
    np.testing.assert_array_equal(ravel(first.value), ravel(delta(who).value))
    others = [
        delta(who, co.Round("private", seed=1, me="p0", hub="hub", number=3)),
        delta(who, co.Round("private", seed=1, me="p0", hub="hub", number=2, attempt=1)),
        delta(who, co.Round("private", seed=1, me="p0", hub="north", number=2)),
        delta(who, secret=co.testing.fixed_secret(4)),
    ]
    for other in others:
        assert (ravel(other.value) != ravel(first.value)).all()
    seeded = delta(who, co.Round("private", seed=2, me="p1", hub="hub", number=2))
    np.testing.assert_array_equal(ravel(seeded.value), ravel(first.value))


def test_one_example_more_moves_a_step_by_no_more_than_the_clip():
    """Noise taken out by a noise of almost nothing: sums of one step differ by the clip at most."""
    x, y = DATA[0]
    settings = {"clip": 0.1, "noise": 1e-9, "rate": 1.0}
    with_all, without = (
        -n * ravel(delta(trainer(data=(x[:n], y[:n]), **settings)).value) / LINEAR.rate for n in (20, 19)
    )
    assert np.linalg.norm(with_all - without) == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize(("rate", "epochs", "count"), [(0.25, 1, 4), (0.1, 2.5, 25), (1.0, 3, 3), (0.3, 1, 3)])
def test_it_says_what_it_spends(rate, epochs, count):
    spend = trainer(rate=rate, epochs=epochs).spend(HERE)
    assert spend == co.Spend("gaussian", 1.0, rate=rate, count=count, unit="example", sampling="poisson")
    seen = []

    class Counted(co.Linear):
        def fit(self, params, data, round, step):
            counted = co.Step(private=step.private, epochs=step.epochs, adjust=lambda p, g, s: seen.append(1) or g)
            return super().fit(params, data, round, counted)

    delta(trainer(Counted(4, 3), rate=rate, epochs=epochs))
    assert len(seen) == count


def test_a_run_charges_each_participant_and_takes_no_scores():
    sites = {"ann": trainer(data=DATA[0]), "bob": trainer(data=DATA[1], noise=2.0)}
    run = co.Collaboration(co.FedAvg(LINEAR), sites, seed=2).run(rounds=2)
    spends = [e.facts for e in run.ledger if e.kind == "spend"]
    assert [(s["who"], s["noise"], s["count"], s["unit"]) for s in spends] == [
        ("ann", 1.0, 4, "example"),
        ("bob", 2.0, 4, "example"),
    ] * 2
    assert not [e for e in run.ledger if e.kind == "score"]
    assert not run.metrics


def test_scores_are_of_held_out_rows_and_never_of_those_it_learns_from():
    ask = Contribution("score", LINEAR.init(HERE))
    assert trainer().contribute(ask, {}, HERE, SECRET)[0].metrics == {}
    found = trainer(test=HELD, valid=HELD).contribute(ask, {}, HERE, SECRET)[0]
    assert found.kind == "score"
    assert {"accuracy", "valid_accuracy"} <= set(found.metrics)
    assert not [name for name in found.metrics if name.startswith("train_")]


def test_it_learns():
    x = RNG.normal(size=(600, 4)).astype("float32")
    y = (x @ RNG.normal(size=(4, 3))).argmax(1)
    sites = {f"p{i}": trainer(data=(x[i::3], y[i::3]), epochs=2, rate=0.1) for i in range(3)}
    run = co.Collaboration(co.FedAvg(LINEAR), sites, seed=2).run(rounds=5)
    assert (LINEAR.predict(run.shared, x).argmax(1) == y).mean() > 0.85


def normed(**settings):
    net = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 3))
    return co.TorchModel(net, torch.nn.functional.cross_entropy, **settings)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (normed(), "Use nn.GroupNorm or nn.LayerNorm"),
        (normed(buffers="local"), "Use nn.GroupNorm or nn.LayerNorm"),
        (co.SklearnModel.__new__(co.SklearnModel), "Use co.TorchModel"),
    ],
)
def test_a_model_that_cannot_be_private_is_refused_at_once(model, says):
    with pytest.raises(co.ConfigError, match=says):
        trainer(model)
