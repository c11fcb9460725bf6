"""FedMD: unlike models that never travel learn from a consensus on public inputs."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

import comity as co
from comity.core.calibration import tempered
from comity.core.contribution import Contribution
from comity.methods.fedmd import JointLoss

RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(4, 6)) * 2
Y = RNG.integers(0, 4, 400)
X = (CENTRES[Y] + RNG.normal(size=(400, 6))).astype("float32")
PUBLIC, TEST = X[200:300], (X[300:], Y[300:])
SKEW = {"a": (0, 1), "b": (1, 2), "c": (2, 3), "d": (3, 0)}
HERE = co.Round("test", 0)


def net(width: int) -> co.TorchModel:
    torch.manual_seed(width)
    layers = torch.nn.Sequential(torch.nn.Linear(6, width), torch.nn.ReLU(), torch.nn.Linear(width, 4))
    adam = partial(torch.optim.Adam, lr=0.01)
    return co.TorchModel(layers, functional.cross_entropy, optimizer=adam, batch=20, epochs=10)


def own(name: str) -> tuple[Any, Any]:
    rows = np.flatnonzero(np.isin(Y[:200], SKEW[name]))
    return X[rows], Y[rows]


def unlike(**settings: Any) -> dict[str, co.FedMDTrainer]:
    """Three networks of unlike width and a linear model that takes no loss."""
    models = {"a": net(8), "b": net(16), "c": net(24), "d": co.Linear(6, 4, rate=0.3, epochs=10)}
    return {
        name: co.FedMDTrainer(m, own(name), test=TEST, **{"balanced": name != "d", **settings})
        for name, m in models.items()
    }


def ran(people: Any, rounds: int, method: Any = None, **settings: Any) -> co.Run:
    method = method or co.FedMD(PUBLIC, classes=4)
    return co.Collaboration(method, people, quorum=1.0, retries=0, **settings).run(rounds=rounds)


@pytest.mark.parametrize("settings", [{}, {"joint": False, "revisit": 1.0}], ids=["joint", "digest and revisit"])
def test_the_laws_of_methods_hold(settings):
    co.testing.check_method(co.FedMD(PUBLIC, classes=4), lambda: unlike(**settings))


def test_unlike_models_learn_the_classes_that_they_never_had():
    first, last = ran(unlike(), 1), ran(unlike(), 5, transforms=[co.Once(least=512)])
    assert first.metrics["accuracy"] < 0.55
    assert last.metrics["accuracy"] > first.metrics["accuracy"] + 0.2
    assert (last.shared["label"] == Y[200:300]).mean() > 0.8
    assert sorted(last.local("d")["model"]) == ["0.bias", "0.weight"]


def test_nothing_but_class_scores_and_counts_goes_up():
    run = ran(unlike(), 2, evaluate=False)
    up = run.ledger.bytes_up / (2 * 4)
    assert up < PUBLIC.shape[0] * 4 * 4 + 600


def test_the_consensus_is_the_count_weighted_sharpened_mean():
    people, method = unlike(), co.FedMD(PUBLIC, classes=4)
    shared = method.share(method.init(HERE), "a", HERE)
    secret = co.testing.fixed_secret()
    said = [p.contribute(shared, {}, HERE.to(n), secret.side(n))[0].value for n, p in people.items()]
    n, p = np.stack([s["counts"] for s in said]), np.stack([s["proba"] for s in said])
    assert n.tolist() == [np.bincount(own(name)[1], minlength=4).tolist() for name in SKEW]
    mean = (n[:, None] * p).sum(0) / n.sum(0)
    sharp = (mean / mean.sum(1, keepdims=True)) ** 2
    got = ran(people, 1, evaluate=False).shared["proba"]
    np.testing.assert_allclose(got, sharp / sharp.sum(1, keepdims=True), atol=1e-4)


def test_a_row_of_which_nobody_says_anything_is_even():
    method = co.FedMD(PUBLIC[:2], classes=4)
    silent = Contribution("prediction", {"proba": np.zeros((2, 4))})
    assert method.update(method.init(HERE), silent, HERE)["proba"].tolist() == [[0.25] * 4] * 2


def test_the_joint_loss_leaves_alone_what_a_party_never_saw():
    """Own rows: cross-entropy of logits shifted by log shares; a class without examples has no gradient of theirs."""
    shift = tuple(np.log(np.maximum([0.5, 0.25, 0.25, 0.0], 1e-9)).tolist())
    z = torch.tensor(RNG.normal(size=(3, 4)), requires_grad=True)
    targets = torch.tensor(RNG.dirichlet(np.ones(4), 1))
    y = torch.zeros(3, 8, dtype=z.dtype)
    y[0, :4] = targets
    y[1, 4], y[2, 6] = 1, 1
    got = JointLoss(4, shift)(z, {}, (None, y))
    rows = functional.cross_entropy(z[:1], targets) + functional.cross_entropy(
        z[1:] + torch.tensor(shift), torch.tensor([0, 2]), reduction="sum"
    )
    assert got.item() == pytest.approx(2 * rows.item() / 3)
    got.backward()
    assert z.grad[1:, 3].abs().max() < 1e-7
    assert z.grad[0, 3].abs() > 1e-3


def test_own_rows_are_as_many_as_public_ones_and_of_the_own_kind():
    trainer = unlike()["a"]
    targets = tempered(RNG.dirichlet(np.ones(4), 100), 1.0).astype("float32")
    inputs, y = trainer._mixed(PUBLIC, targets, HERE.to("a"))
    assert (inputs.shape, y.shape) == ((200, 6), (200, 8))
    assert np.array_equal(y[:100, :4], targets)
    assert set(y[100:, 4:].argmax(1)) == {0, 1}
    assert not y[:100, 4:].any()
    assert not y[100:, :4].any()
    given = {tuple(row): label for row, label in zip(own("a")[0].tolist(), own("a")[1], strict=True)}
    assert all(
        given[tuple(row)] == label for row, label in zip(inputs[100:].tolist(), y[100:, 4:].argmax(1), strict=True)
    )


def test_a_resumed_run_is_the_run_itself(tmp_path):
    fed = co.Collaboration(co.FedMD(PUBLIC, classes=4), unlike(), transforms=[co.Once(least=512)])
    straight = fed.run(rounds=3)
    fed.run(rounds=2, folder=tmp_path / "run")
    resumed = fed.run(rounds=3, folder=tmp_path / "run")
    assert np.array_equal(straight.shared["proba"], resumed.shared["proba"])
    assert resumed.metrics == straight.metrics


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: co.FedMD(PUBLIC, classes=1), "classes"),
        (lambda: co.FedMD(PUBLIC[0], classes=4), "public_x"),
        (lambda: co.FedMD(PUBLIC, classes=4, sharpen=0.0), "sharpen"),
        (lambda: co.FedMDTrainer(net(8), own("a"), passes=-1.0), "passes"),
        (lambda: co.FedMDTrainer(net(8), own("a"), revisit=np.nan), "revisit"),
        (lambda: ran({"a": co.FedMDTrainer(net(8), (X[:9], Y[:9] + 9))}, 1), "class numbers"),
        (lambda: ran({"a": co.FedMDTrainer(co.Linear(6, 4), own("a"))}, 2), "balanced=False"),
    ],
)
def test_what_does_not_fit_is_refused(make, said):
    with pytest.raises(co.ComityError, match=said):
        make()
