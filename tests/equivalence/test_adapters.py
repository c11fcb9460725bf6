from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from comity.adapters.numpy import MLP, Linear
from comity.adapters.torch.model import TorchModel
from comity.core.parts import Step
from comity.core.round import Round
from comity.core.tree import ravel

HERE = Round("test", seed=4, number=2, me="b")
RNG = np.random.default_rng(1)
X = RNG.normal(size=(205, 12)).astype("float32")
Y = np.digitize(X[:, 0] + X[:, 1] * X[:, 2], [-0.5, 0.5])
Z = X[:, 0] - 2 * X[:, 3] + np.abs(X[:, 1])


def network(*sizes):
    layers = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


CASES = [
    (Linear(12, 3, rate=0.3, batch=16, epochs=3), (12, 3), nn.functional.cross_entropy, Y),
    (MLP(12, 3, hidden=(20,), batch=16, epochs=3), (12, 20, 3), nn.functional.cross_entropy, Y),
    (MLP(12, 3, hidden=(9, 8, 7), momentum=0.9, batch=17, epochs=3), (12, 9, 8, 7, 3), nn.functional.cross_entropy, Y),
    (Linear(12, rate=0.02, batch=16, epochs=3), (12, 1), nn.functional.mse_loss, Z),
    (MLP(12, 0, hidden=(20,), rate=0.02, momentum=0.5, batch=16, epochs=3), (12, 20, 1), nn.functional.mse_loss, Z),
    (
        MLP(12, 3, hidden=(20,), batch=16, epochs=3),
        (12, 20, 3),
        nn.functional.cross_entropy,
        np.eye(3)[Y] * 0.8 + 0.2 / 3,
    ),
]


def pair(case):
    ours, sizes, loss, y = case
    sgd = partial(torch.optim.SGD, lr=ours.rate, momentum=ours.momentum)
    return ours, TorchModel(network(*sizes), loss, optimizer=sgd, batch=ours.batch, epochs=ours.epochs), y


@pytest.mark.parametrize("case", CASES, ids=lambda c: repr(c[0]))
def test_numpy_and_torch_learn_the_same(case):
    ours, theirs, y = pair(case)
    start = theirs.init(HERE)
    assert start.keys() == ours.init(HERE).keys()
    a, ma = ours.fit(start, (X, y), HERE)
    b, mb = theirs.fit(start, (X, y), HERE)
    assert np.abs(ravel(a) - ravel(start)).max() > 0.05
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-4, atol=1e-5)
    assert ma["examples"] == mb["examples"]
    assert ma["train_loss"] == pytest.approx(mb["train_loss"], rel=1e-4)
    np.testing.assert_allclose(ours.predict(a, X), theirs.predict(a, X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES[1:3], ids=lambda c: repr(c[0]))
def test_a_step_means_the_same_in_both(case):
    ours, theirs, y = pair(case)
    start = ours.init(HERE)
    mask = {name: RNG.random(leaf.shape) < 0.7 for name, leaf in start.items()}
    step = Step(adjust=lambda p, g, s: g + 0.3 * (p - s), mask=mask, epochs=1.5)
    a, _ = ours.fit(start, (X, y), HERE, step)
    b, _ = theirs.fit(start, (X, y), HERE, step)
    np.testing.assert_allclose(ravel(a), ravel(b), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        ours.features(a, X, ["hidden0"])["hidden0"], theirs.features(a, X, ["1"])["1"], rtol=1e-4, atol=1e-5
    )
