"""Making the joint model one's own: Ditto's formula by hand, the head alone, nothing where nothing helps."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from comity.adapters.numpy import MLP, Linear
from comity.comparison import tuning
from comity.comparison.families import Rows, improved
from comity.comparison.tuning import personalised
from comity.core.parts import Step
from comity.core.round import Round
from comity.core.tree import leaves, norm, tree_map

HERE = Round("", seed=0, me="here")


def rows(n: int, seed: int, *, flip: bool = False, number: bool = False) -> Rows:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4)).astype(np.float32)
    z = (x[:, 0] - x[:, 1] + 0.3 * rng.normal(size=n)) * (-1 if flip else 1)
    y = z.astype(np.float32) if number else (z > 0).astype(int)
    return Rows(x, x, y, y)


def joint_of(model: Any, data: Rows, epochs: int = 20) -> Any:
    return model.fit(model.init(HERE), (data.x, data.fitted), HERE, Step(epochs=epochs))[0]


def away(a: Any, b: Any) -> float:
    return norm(tree_map(lambda x, y: x.astype(float) - y, a, b))


def equal(a: Any, b: Any) -> bool:
    return all(np.array_equal(x, y) for (_, x), (_, y) in zip(leaves(a), leaves(b), strict=True))


def test_one_step_of_ditto_by_hand() -> None:
    """Li et al. (2021), eq. 2: v ← v - rate·(∇F(v) + λ·(v - w)), full batch, softmax with one input, begun off w."""
    x = np.array([[1.0], [2.0], [-1.0], [0.5]], np.float32)
    y = np.array([1, 0, 0, 1])
    model = Linear(1, 2, rate=0.1, batch=4)
    joint = {"0.weight": np.array([[0.2], [-0.4]], np.float32), "0.bias": np.array([0.1, 0.3], np.float32)}
    start = {"0.weight": np.array([[-0.5], [0.6]], np.float32), "0.bias": np.array([0.0, -0.2], np.float32)}
    z = x @ start["0.weight"].T + start["0.bias"]
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    off = (p - np.eye(2)[y]) / 4
    for lam in (0.0, 0.1, 1.0, 3.0):
        step = replace(tuning._ditto(joint, lam), epochs=1)
        got, _ = model.fit(start, (x, y), HERE, step)
        slope = {"0.weight": off.T @ x, "0.bias": off.sum(axis=0)}
        for name in joint:
            pull = lam * (start[name] - joint[name])
            np.testing.assert_allclose(got[name], start[name] - 0.1 * (slope[name] + pull), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("model", [Linear(4, 2, rate=0.05), MLP(4, 2, hidden=(8,), rate=0.05, momentum=0.9)])
def test_ditto_pulls_towards_the_joint_parameters(model: Any) -> None:
    """However long it trains: the anchor stays the joint model, though training is cut into chunks."""
    joint, home = joint_of(model, rows(300, 0)), rows(120, 1, flip=True)
    found = []
    for lam in (0.0, 0.1, 1.0, 5.0):
        params = joint
        for at in range(0, 20, 2):
            step = replace(tuning._ditto(joint, lam), epochs=2)
            params, _ = model.fit(params, (home.x, home.fitted), replace(HERE, number=at), step)
        found.append(away(params, joint))
    assert found == sorted(found, reverse=True)
    assert found[3] < 0.5 * found[0]
    ordinary, _ = model.fit(joint, (home.x, home.fitted), HERE, Step(epochs=2))
    free, _ = model.fit(joint, (home.x, home.fitted), HERE, replace(tuning._ditto(joint, 0.0), epochs=2))
    assert equal(free, ordinary)


@pytest.mark.parametrize("classes", [0, 2])
def test_the_head_alone_moves(classes: int) -> None:
    model = MLP(4, classes, hidden=(8, 6), rate=0.03, momentum=0.9, decay=1e-2, batch=16)
    joint = joint_of(model, rows(200, 0, number=not classes))
    home = rows(80, 1, flip=True, number=not classes)
    step = tuning._steps(joint)["head"]
    got, _ = model.fit(joint, (home.x, home.fitted), HERE, replace(step, epochs=4))
    for name in joint:
        assert np.array_equal(got[name], joint[name]) == (not name.startswith("4.")), name


def test_the_last_layer_is_the_last_by_number() -> None:
    """Layer "10" comes after layer "8", though not as a word."""
    model = MLP(4, 2, hidden=(3,) * 5)
    head = tuning._head(model.init(HERE))
    assert {name for name, mask in head.items() if mask.all()} == {"10.weight", "10.bias"}
    assert not any(mask.any() for name, mask in head.items() if not name.startswith("10."))


def test_a_linear_model_has_no_head_of_its_own() -> None:
    assert set(tuning._steps(Linear(4, 2).init(HERE))) == {"all", "ditto 0.1", "ditto 1"}
    assert set(tuning._steps(MLP(4, 2).init(HERE))) == {"all", "ditto 0.1", "ditto 1", "head"}


@pytest.mark.parametrize("model", [Linear(4, 2, rate=0.03, batch=16), MLP(4, 2, hidden=(8,), rate=0.03, batch=16)])
def test_what_does_best_on_the_own_validation_rows_is_taken(model: Any) -> None:
    joint = joint_of(model, rows(300, 0))
    own = rows(90, 1, flip=True), rows(60, 2, flip=True)
    how, params = personalised(model, joint, own, HERE)
    each = {n: improved(model, joint, own, HERE, tuning.EPOCHS, s) for n, s in tuning._steps(joint).items()}
    assert each[how][1] == min(loss for _, loss in each.values())
    assert equal(params, each[how][0])
    assert not equal(params, joint)


@pytest.mark.parametrize("rate", [0.03, 1e6])
def test_none_where_tuning_does_not_help(rate: float) -> None:
    """Own training rows that teach the opposite of the own validation rows, and training that blows up."""
    model = Linear(4, 2, rate=0.03, batch=16)
    joint = joint_of(model, rows(300, 0))
    own = (rows(90, 1, flip=True) if rate < 1 else rows(90, 1)), rows(60, 2)
    how, params = personalised(replace(model, rate=rate), joint, own, HERE)
    assert how == "none"
    assert params is joint


def test_the_joint_parameters_are_not_changed() -> None:
    for model in (Linear(4, 2, rate=0.03), MLP(4, 2, hidden=(8,), rate=0.03)):
        joint = joint_of(model, rows(300, 0))
        before = tree_map(np.copy, joint)
        how, params = personalised(model, joint, (rows(90, 1, flip=True), rows(60, 2, flip=True)), HERE)
        assert how != "none"
        assert equal(joint, before)
        assert not any(np.shares_memory(params[name], joint[name]) for name in joint)


def test_test_rows_are_not_asked_for() -> None:
    """The signature says it; and the validation rows decide: others, another choice of parameters."""
    model = Linear(4, 2, rate=0.03, batch=16)
    joint = joint_of(model, rows(300, 0), epochs=1)
    train = rows(90, 1, flip=True)
    once, again = (personalised(model, joint, (train, rows(60, s, flip=True)), HERE)[1] for s in (2, 2))
    assert equal(once, again)
    agrees, differs = (personalised(model, joint, (train, rows(60, 3, flip=f)), HERE)[0] for f in (True, False))
    assert (agrees != "none", differs) == (True, "none")
