"""Distillation: the loss is the paper's, targets are kept, and a student learns what its teachers know."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

import comity as co
from comity.core.calibration import tempered
from comity.methods.distill import SoftLoss, _map

RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 5)).astype("float32")
TRUTH = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0.3)
PUBLIC = RNG.normal(size=(60, 5)).astype("float32")
HERE = co.Round("test", 0)


def net(width: int = 8, **settings: Any) -> co.TorchModel:
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Linear(5, width), torch.nn.ReLU(), torch.nn.Linear(width, 3))
    adam = partial(torch.optim.Adam, lr=0.02)
    return co.TorchModel(layers, functional.cross_entropy, **{"optimizer": adam, "batch": 20, "epochs": 30, **settings})


@pytest.fixture(scope="module")
def teachers() -> dict[str, co.Predictor]:
    out = {}
    for i, width in enumerate((12, 24)):
        model = net(width)
        params, _ = model.fit(model.init(HERE), (X[i::2], TRUTH[i::2]), HERE)
        counts = np.bincount(TRUTH[i::2], minlength=3)
        out[f"t{i}"] = co.Predictor((model, params), counts=counts, test=(X[:9], TRUTH[:9]))
    return out


def ran(method: co.Distill, people: Any, rounds: int = 1, **settings: Any) -> co.Run:
    return co.Collaboration(method, people, evaluate=False, quorum=1.0, retries=0, **settings).run(rounds=rounds)


def agreement(model: Any, params: Any, people: Any) -> float:
    teacher = np.mean([m.predict(X) for m in people.values()], axis=0)
    return float((model.predict(params, X).argmax(1) == teacher.argmax(1)).mean())


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_the_loss_is_hintons(temperature):
    """T² times the cross-entropy of softmax(z / T) with softmax(v / T), whose gradient the paper gives."""
    z = torch.tensor(RNG.normal(size=(7, 3)), requires_grad=True)
    v = torch.tensor(RNG.normal(size=(7, 3)))
    soft = tempered(v.softmax(1).numpy(), temperature)
    y = torch.tensor(np.hstack([soft, np.zeros((7, 3))]))
    SoftLoss(3, temperature)(z, {}, (None, y)).backward()
    want = temperature * ((z / temperature).softmax(1) - (v / temperature).softmax(1)) / 7
    torch.testing.assert_close(z.grad, want.detach())


def test_hard_labels_and_hints_are_added():
    z, inner = torch.tensor(RNG.normal(size=(4, 3))), torch.tensor(RNG.normal(size=(4, 2)))
    hot, hint, turn = torch.eye(3)[[0, 1, 2, 0]] * 0.4, torch.tensor(RNG.normal(size=(4, 5))), RNG.normal(size=(2, 5))
    y = torch.hstack([torch.zeros(4, 3), hot, hint])
    got = SoftLoss(3, 3.0, ("inner",), 0.5, turn)(z, {"inner": inner}, (None, y))
    want = 0.4 * functional.cross_entropy(z, torch.tensor([0, 1, 2, 0])) + 0.5 * functional.mse_loss(
        inner @ torch.tensor(turn), hint
    )
    assert got.item() == pytest.approx(want.item(), rel=1e-5)


def test_the_laws_of_methods_hold(teachers):
    for method in (
        co.Distill(net(), PUBLIC, epochs=1, batch=25),
        co.Distill(net(), PUBLIC, epochs=1, counts=True, combiner=co.ProductPool()),
        co.Distill(co.Linear(5, 3), PUBLIC, temperature=1.0, combiner=co.LogPool()),
        co.Distill(co.Linear(5, 3), PUBLIC, temperature=1.0, combiner=co.Vote()),
    ):
        co.testing.check_method(method, teachers)


@pytest.mark.parametrize(
    "student", [(net(), 3.0), (co.MLP(5, 3, rate=0.3, epochs=40), 1.0)], ids=["torch, T=3", "numpy, T=1"]
)
def test_a_student_learns_without_a_label(teachers, student):
    model, temperature = student
    run = ran(co.Distill(model, PUBLIC, temperature, epochs=120), teachers)
    start = agreement(model, model.init(HERE), teachers)
    assert agreement(model, run.shared, teachers) > 0.85 > start + 0.2


def test_targets_are_what_the_teachers_said_row_by_row(teachers):
    method = co.Distill(net(), PUBLIC, epochs=0.1, batch=25)
    want = np.mean([m.predict(PUBLIC) for m in teachers.values()], axis=0)
    for rounds, known in ((1, 25), (2, 50), (3, 60)):
        targets = ran(method, teachers, rounds).state["targets"]
        np.testing.assert_allclose(targets[:known], want[:known], atol=1e-6)
        assert not targets[known:].any()


def test_soft_labels_for_a_models_own_loss_are_mixed_with_hard_ones():
    labels = np.array([2, -1, 0])
    method = co.Distill(co.Linear(5, 3), PUBLIC[:3], temperature=1.0, labels=labels, hard=0.25)
    p = np.array([[0.2, 0.2, 0.6]] * 3)
    got = method._targets(p, np.arange(3))
    np.testing.assert_allclose(got, [[0.15, 0.15, 0.7], [0.2, 0.2, 0.6], [0.4, 0.15, 0.45]], atol=1e-6)


def test_labels_of_its_own_change_what_a_student_learns(teachers):
    wrong = np.full(60, 2)
    run = ran(co.Distill(net(), PUBLIC, 2.0, labels=wrong, hard=1.0), teachers)
    assert (net().predict(run.shared, X).argmax(1) == 2).mean() > 0.95


@pytest.mark.parametrize("width", [12, 5])
def test_a_hint_draws_the_inner_representation_near(teachers, width):
    model, teacher = net(width), {"t0": teachers["t0"]}
    there = teacher["t0"].estimator
    aim = there[0].features(there[1], PUBLIC, ["1"])["1"]

    def distance(params: Any) -> float:
        inner = model.features(params, PUBLIC, ["1"])["1"]
        turn = _map(inner, aim)
        return float(np.square((inner if turn is None else inner @ turn) - aim).mean())

    plain = ran(co.Distill(model, PUBLIC, 2.0), teacher, rounds=2)
    drawn = ran(co.Distill(model, PUBLIC, 2.0, hint=("1", "1"), pull=5.0), teacher, rounds=2)
    assert distance(drawn.shared) < 0.7 * distance(plain.shared)


def test_what_the_hub_asks_for_is_all_that_it_accepts(teachers):
    got = ran(co.Distill(net(), PUBLIC, epochs=0), teachers).ledger
    assert not got.refused
    silent = {"a": co.Predictor(teachers["t0"].estimator)}
    with pytest.raises(co.TooFewParticipants, match="missing counts"):
        ran(co.Distill(net(), PUBLIC, counts=True, combiner=co.Average()), silent)
    model = co.Linear(5, 2)
    other = {"a": co.Predictor((model, model.init(HERE)))}
    with pytest.raises(co.TooFewParticipants, match="proba must have shape"):
        ran(co.Distill(net(), PUBLIC), other)


def test_the_public_inputs_go_down_once(teachers):
    wide = RNG.normal(size=(400, 5)).astype("float32")
    method = co.Distill(net(), wide, epochs=0.1)
    plain, once = (ran(method, teachers, 4, transforms=t) for t in ((), [co.Once()]))
    assert plain.ledger.bytes_down - once.ledger.bytes_down > 3 * 2 * (wide.nbytes - 300)
    assert all(np.array_equal(plain.shared[k], once.shared[k]) for k in plain.shared)


def test_a_resumed_run_is_the_run_itself(teachers, tmp_path):
    method = co.Distill(net(), PUBLIC, epochs=2, batch=25)
    fed = co.Collaboration(method, teachers, transforms=[co.Once(least=64)], evaluate=False)
    straight = fed.run(rounds=3)
    fed.run(rounds=1, folder=tmp_path / "run")
    resumed = fed.run(rounds=3, folder=tmp_path / "run")
    assert all(np.array_equal(straight.shared[k], resumed.shared[k]) for k in straight.shared)
    assert resumed.ledger.bytes_down == straight.ledger.bytes_down


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: co.Distill(net(), PUBLIC, temperature=0.0), "temperature"),
        (lambda: co.Distill(net(), PUBLIC, batch=0), "batch"),
        (lambda: co.Distill(net(), PUBLIC, hard=1.5), "hard"),
        (lambda: co.Distill(net(), PUBLIC, hint="1"), "hint"),
        (lambda: co.Distill(net(), PUBLIC, labels=[0, 1]), "labels"),
        (lambda: co.Distill(net(), ["a", "b"]), "public_x"),
        (lambda: co.Distill(net(), np.zeros((0, 5))), "public_x"),
    ],
)
def test_settings_that_do_not_fit_are_refused(make, said):
    with pytest.raises(co.ConfigError, match=said):
        make()


def test_a_model_that_cannot_be_told_the_loss_says_so_before_anybody_is_asked(teachers):
    with pytest.raises(co.ConfigError, match=r"must take Step\(loss=...\).*temperature=1.0"):
        ran(co.Distill(co.MLP(5, 3), PUBLIC), teachers)
    with pytest.raises(co.ConfigError, match="must have classes"):
        ran(co.Distill(co.Linear(5), PUBLIC), teachers)
    one = torch.nn.Sequential(torch.nn.Linear(5, 1))
    with pytest.raises(co.ConfigError, match="one logit for each"):
        ran(co.Distill(co.TorchModel(one, functional.binary_cross_entropy_with_logits), PUBLIC), teachers)
