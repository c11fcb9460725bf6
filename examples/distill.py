"""Four parties teach one small network what they know of public digits; it has no label of its own."""

from functools import partial

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

import comity as co

X, y = load_digits(return_X_y=True)
X = (X / 16).astype("float32")
order = np.random.default_rng(0).permutation(len(y))
private, public, test = order[:800], order[800:1300], order[1300:]
shares = co.dirichlet(y[private], 4, alpha=0.5, seed=0)

models = {"p0": LogisticRegression(max_iter=500), "p1": RandomForestClassifier(100, random_state=0)}
models |= {"p2": SVC(), "p3": ExtraTreesClassifier(100, random_state=0)}
jury = {}
for name, model in models.items():
    rows = private[shares[name]]
    counts = np.bincount(y[rows], minlength=10)
    jury[name] = co.Predictor(model.fit(X[rows], y[rows]), classes=tuple(range(10)), counts=counts)

torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
adam = partial(torch.optim.Adam, lr=0.01)
student = co.TorchModel(net, torch.nn.functional.cross_entropy, optimizer=adam, batch=50, epochs=100)

told = co.Distill(student, X[public], temperature=2.0, counts=True, combiner=co.ProductPool())
run = co.Collaboration(told, jury, transforms=[co.Once()], evaluate=False).run(rounds=2)


def accuracy(p: np.ndarray) -> float:
    return float((p.argmax(1) == y[test]).mean())


here = co.Round("alone", seed=0)
alone = []
for rows in (private[shares[name]] for name in jury):
    params, _ = student.fit(student.init(here), (X[rows], y[rows]), here)
    alone.append(accuracy(student.predict(params, X[test])))
teachers = [accuracy(member.predict(X[test])) for member in jury.values()]
query = co.Collaboration(co.Query(X[test]), jury, combine=co.ProductPool(), evaluate=False).run(rounds=1)
print(
    f"student without labels {accuracy(student.predict(run.shared, X[test])):.1%}; the same network at one party "
    f"alone {np.mean(alone):.1%} (mean); teachers {np.mean(teachers):.1%} (mean), together "
    f"{accuracy(query.shared['proba']):.1%}; {run.ledger.bytes_down / 1e3:.0f} kB down in two rounds"
)
