"""FedDF: Algorithm 1 written out, and better than the plain average where the parties' labels differ."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

import comity as co
from comity.core.tree import tree_map
from comity.core.wire import encode_tree

X, Y = load_digits(return_X_y=True)
X = (X / 16).astype("float32")
PUBLIC, TRAIN, TEST = slice(0, 400), slice(400, 1300), slice(1300, None)
CUT = co.dirichlet(Y[TRAIN], 5, alpha=0.1, seed=3)
MODEL = co.MLP(64, 10, hidden=(32,), rate=0.2, batch=16, epochs=5)


def sites(model=MODEL):
    return {n: co.Trainer(model, (X[TRAIN][rows], Y[TRAIN][rows])) for n, rows in CUT.items()}


def accuracy(params, model=MODEL):
    return float((model.predict(params, X[TEST]).argmax(1) == Y[TEST]).mean())


def test_a_round_is_that_of_the_paper():
    fed = co.Collaboration(co.FedDF(MODEL, X[PUBLIC], epochs=2), sites(), evaluate=False, seed=1)
    run = fed.run(rounds=1)
    turn = co.Round(run.recipe[:16], 1, roster=5, asked=5, expected=5.0)
    start = MODEL.init(turn)
    models, weights = [], []
    for name, rows in CUT.items():
        data = X[TRAIN][rows], Y[TRAIN][rows]
        after, _ = MODEL.fit(start, data, co.Round(run.recipe[:16], 1, me=name))
        models.append(after)
        weights.append(len(rows))
    mean = tree_map(lambda *xs: np.average(np.stack(xs), axis=0, weights=weights).astype("float32"), *models)
    logits = sum(np.log(MODEL.predict(m, X[PUBLIC]).astype(float)) for m in models) / len(models)
    soft = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    want, _ = MODEL.fit(mean, (X[PUBLIC], soft.astype("float32")), turn, co.Step(epochs=2))
    assert all(np.allclose(run.shared[k], want[k], atol=2e-5) for k in want)


def test_it_helps_where_labels_differ():
    gains = []
    for seed in range(10, 16):
        cut = co.dirichlet(Y[TRAIN], 5, alpha=0.1, seed=seed)
        people = {n: co.Trainer(MODEL, (X[TRAIN][rows], Y[TRAIN][rows])) for n, rows in cut.items()}
        fused, plain = (
            co.Collaboration(method, people, evaluate=False).run(rounds=1).shared
            for method in (co.FedDF(MODEL, X[PUBLIC]), co.FedAvg(MODEL))
        )
        gains.append(accuracy(fused) - accuracy(plain))
    assert np.mean(gains) > 0.02  # measured: 0.058, standard deviation 0.054


def test_it_keeps_the_laws_of_methods():
    model = co.MLP(64, 10, hidden=(4,), batch=50)
    few = {n: co.Trainer(model, (X[i : i + 40], Y[i : i + 40])) for n, i in (("a", 400), ("b", 500))}
    co.testing.check_method(co.FedDF(model, X[:30]), few)


def test_in_pieces_as_in_one(tmp_path):
    fed = co.Collaboration(co.FedDF(MODEL, X[:50], epochs=1), sites(), evaluate=False, seed=2)
    for rounds in (1, 3):
        run = fed.run(rounds=rounds, folder=tmp_path / "run")
    assert encode_tree(run.shared) == encode_tree(fed.run(rounds=3).shared)


def test_a_torch_module_learns_from_soft_labels():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 10))
    model = co.TorchModel(net, loss=torch.nn.functional.cross_entropy, batch=32)
    run = co.Collaboration(co.FedDF(model, X[PUBLIC]), sites(model), evaluate=False).run(rounds=2)
    assert all(np.isfinite(x).all() for x in run.shared.values())


def test_nobody_with_examples_changes_nothing():
    class Empty:
        def contribute(self, shared, local, round, secret):
            delta = {k: np.ones_like(v) for k, v in shared.value.items()}
            return co.Contribution("delta", delta, 0.0), local

    method = co.FedDF(MODEL, X[:20])
    run = co.Collaboration(method, {"a": Empty()}, evaluate=False).run(rounds=1)
    assert encode_tree(run.shared) == encode_tree(MODEL.init(co.Round("", 0)))


def test_a_model_of_numbers_is_refused():
    with pytest.raises(co.ConfigError, match="must have classes"):
        co.Collaboration(co.FedDF(co.Linear(64, 0), X[:20]), sites(), evaluate=False).run(rounds=1)
