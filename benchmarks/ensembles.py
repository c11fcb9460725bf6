"""Ensembles over skewed parties, students of them, and the bytes of the public inputs.

Unlike scikit-learn models, one at each party, trained and calibrated on its own rows only (Dirichlet label skew);
accuracy on a common test set, mean over seeds. `best single` is chosen by the test set, which flatters it: nobody
could choose it at home. Seeds 10 to 14; nothing was chosen on them. Prints one line for each table and one of JSON.
"""

import json
import os
import sys
import warnings
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import comity as co

SEEDS = [int(s) for s in os.environ.get("COMITY_SEEDS", "10,11,12,13,14").split(",")]
SETS = {
    "digits": (load_digits, 8),
    "breast cancer": (load_breast_cancer, 8),
    "wine": (load_wine, 4),
    "iris": (load_iris, 4),
}
RULES = {
    "majority": co.Vote(),
    "average": co.Average(),
    "log pool": co.LogPool(),
    "count-weighted": co.Average(counts=True),
    "prior-corrected": co.ProductPool(),
}


def member(i: int, seed: int, rows: int) -> Any:
    """Seven sorts of model."""
    sorts = (
        LogisticRegression(max_iter=500),
        RandomForestClassifier(100, random_state=seed),
        SVC(),
        GaussianNB(var_smoothing=1e-2),
        ExtraTreesClassifier(100, random_state=seed),
        LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"),
        KNeighborsClassifier(min(5, rows)),
    )
    return make_pipeline(StandardScaler(), sorts[i % len(sorts)])


def parties(name: str, seed: int, alpha: float = 0.3) -> tuple[dict[str, Any], tuple[Any, Any], int]:
    """Each party's (fit rows, calibration rows); the test set; how many classes."""
    load, n = SETS[name]
    X, y = load(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(y))
    train, test = order[: len(y) * 2 // 3], order[len(y) * 2 // 3 :]
    cut = co.dirichlet(y[train], n, alpha=alpha, seed=seed, min_rows=8)
    out = {}
    for who, rows in cut.items():
        mine = train[rows]
        k = max(2, len(mine) // 4)
        out[who] = (X[mine[k:]], y[mine[k:]]), (X[mine[:k]], y[mine[:k]])
    return out, (X[test], y[test]), int(y.max()) + 1


def jury(rows: dict[str, Any], classes: int, seed: int, weight: Any = 1.0) -> dict[str, co.Predictor]:
    """Fitted members; a party of one class has a constant one."""
    from sklearn.dummy import DummyClassifier

    out = {}
    for i, (who, ((X, y), held)) in enumerate(rows.items()):
        made = DummyClassifier() if len(set(y)) == 1 else member(i, seed, len(y))
        counts = np.bincount(y, minlength=classes)
        out[who] = co.Predictor(
            made.fit(X, y), classes=tuple(range(classes)), calibrate=held, counts=counts, weight=weight
        )
    return out


def asked(members: dict[str, co.Predictor], x: Any, rule: Any) -> Any:
    return co.Collaboration(co.Query(x), members, combine=rule, evaluate=False, quorum=1.0).run(rounds=1).shared


def accuracy(p: Any, y: Any) -> float:
    return 100 * float((np.asarray(p).argmax(1) == y).mean())


def log_loss(p: Any, y: Any) -> float:
    mixed = 0.995 * np.asarray(p) + 0.005 / p.shape[1]
    return float(-np.log(mixed[np.arange(len(y)), y]).mean())


def rules(name: str, seed: int) -> dict[str, tuple[float, float]]:
    rows, (X, y), classes = parties(name, seed)
    members = jury(rows, classes, seed)
    alone = [m.predict(X) for m in members.values()]
    hits = [accuracy(p, y) for p in alone]
    best = int(np.argmax(hits))
    found = {"mean site": (float(np.mean(hits)), float(np.mean([log_loss(p, y) for p in alone])))}
    found["best single"] = hits[best], log_loss(alone[best], y)
    for title, rule in RULES.items():
        p = asked(members, X, rule)["proba"]
        found[title] = accuracy(p, y), log_loss(p, y)
    for weight in ("certainty", "accuracy"):
        p = asked(jury(rows, classes, seed, weight), X, co.Average())["proba"]
        found[f"by {weight}"] = accuracy(p, y), log_loss(p, y)
    return found


def together(name: str, seed: int) -> dict[str, tuple[float, float]]:
    """The same sorts of model in one place, on a few hundred rows: the way chosen with and without the guard."""
    X, y = SETS[name][0](return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(y))
    rows = {"digits": 300, "breast cancer": 300}.get(name, 100)
    train, test = order[:rows], order[rows:]
    members = {str(i): member(i, seed, rows) for i in range(7)}
    found = {}
    for title, settings in {"single": {"strategy": "single"}, "guard 1.5": {}, "guard 0": {"guard": 0.0}}.items():
        p = co.Ensemble(members, seed=seed, **settings).fit(X[train], y[train]).predict_proba(X[test])
        found[title] = accuracy(p, y[test]), -float(np.log(p[np.arange(len(test)), y[test]]).mean())
    return found


def net(width: int) -> Any:
    return torch.nn.Sequential(torch.nn.Linear(64, width), torch.nn.ReLU(), torch.nn.Linear(width, 10))


def model(width: int, epochs: int, seed: int) -> co.TorchModel:
    torch.manual_seed(seed)
    adam = partial(torch.optim.Adam, lr=0.01)
    return co.TorchModel(net(width), torch.nn.functional.cross_entropy, optimizer=adam, batch=50, epochs=epochs)


def distilled(seed: int) -> dict[str, float]:
    """A student of 1,210 parameters and a teacher of 75,010; the transfer inputs are the teacher's own, without labels.

    The teacher gets these right, so its hard labels are the true ones: hard on 100 inputs is alone on 100 labels.
    """
    X, y = load_digits(return_X_y=True)
    X, order = (X / 16).astype("float32"), np.random.default_rng(seed).permutation(len(y))
    train, test = order[:1000], order[1000:]
    here = co.Round("bench", seed)
    big, small = model(1000, 30, seed), model(16, 60, seed)
    teacher, _ = big.fit(big.init(here), (X[train], y[train]), here)
    out = {"teacher": accuracy(big.predict(teacher, X[test]), y[test])}
    jury = {"teacher": co.Predictor((big, teacher))}
    for rows in (1000, 100):
        steps = 60_000 / rows
        pseudo = X[train[:rows]], big.predict(teacher, X[train[:rows]]).argmax(1)
        hot, _ = small.fit(small.init(here), pseudo, here, co.Step(epochs=steps))
        out[f"alone, {rows} hard labels"] = accuracy(small.predict(hot, X[test]), y[test])
        told = co.Distill(small, X[train[:rows]], temperature=2.0, epochs=steps)
        run = co.Collaboration(told, jury, evaluate=False).run(rounds=1)
        out[f"soft, {rows} inputs"] = accuracy(small.predict(run.shared, X[test]), y[test])
    return out


def md(seed: int, rounds: int = 12) -> tuple[dict[str, float], dict[str, int]]:
    """Six unlike networks, Dirichlet 0.1, 400 public inputs; the mean party's accuracy, and bytes down."""
    X, y = load_digits(return_X_y=True)
    X, order = (X / 16).astype("float32"), np.random.default_rng(seed).permutation(len(y))
    private, public, test = order[:997], order[997:1397], order[1397:]
    cut = co.dirichlet(y[private], 6, alpha=0.1, seed=seed, min_rows=8)
    nets = {who: model(w, 25, seed + i) for i, (who, w) in enumerate(zip(cut, (16, 24, 32, 48, 64, 96), strict=True))}
    held, data = (X[test], y[test]), {who: (X[private[rows]], y[private[rows]]) for who, rows in cut.items()}
    sites = {
        "as published": {
            w: co.FedMDTrainer(nets[w], data[w], test=held, joint=False, passes=3, revisit=5) for w in nets
        },
        "joint, balanced": {w: co.FedMDTrainer(nets[w], data[w], test=held, passes=5, revisit=25) for w in nets},
    }
    plain = co.FedMD(X[public], classes=10, sharpen=1.0, combiner=co.Average(counts=False))
    ways = {"as published": plain, "joint, balanced": co.FedMD(X[public], classes=10)}
    out, down, said = {}, {}, []
    for title, method in ways.items():
        fed = co.Collaboration(method, sites[title], evaluate=True)
        if title == "as published":
            out["alone"] = 100 * fed.run(rounds=1).metrics["accuracy"]
        run = fed.run(rounds=rounds)
        out[title] = 100 * run.metrics["accuracy"]
    for title, transforms in {"without Once": [], "with Once": [co.Once()]}.items():
        fed = co.Collaboration(ways["joint, balanced"], sites["joint, balanced"], transforms=transforms, evaluate=False)
        run = fed.run(rounds=rounds)
        down[title] = run.ledger.bytes_down
        said.append(run.shared["proba"])
    assert np.array_equal(*said), "Once must not change a bit of the result."
    return out, down


def shown(title: str, found: list[dict[str, Any]]) -> dict[str, str]:
    out = {}
    for key in found[0]:
        values = np.array([np.atleast_1d(f[key])[0] for f in found])
        losses = [f[key][1] for f in found if isinstance(f[key], tuple)]
        spread = values.std(ddof=min(1, len(values) - 1))
        out[key] = f"{values.mean():.1f} ± {spread:.1f}" + (f" / {np.mean(losses):.3f}" if losses else "")
    print(f"{title:<28}" + " | ".join(f"{k} {v}" for k, v in out.items()), flush=True)
    return out


def main() -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)
    warnings.simplefilter("ignore", UserWarning)
    torch.set_num_threads(1)
    wanted = sys.argv[1:] or [*SETS, "together", "distil", "fedmd"]
    tables: dict[str, Any] = {}
    for name in (n for n in SETS if n in wanted):
        tables[name] = shown(name, [rules(name, seed) for seed in SEEDS])
    for name in SETS if "together" in wanted else ():
        tables[f"{name}, in one place"] = shown(f"{name}, in one place", [together(name, seed) for seed in SEEDS])
    if "distil" in wanted:
        tables["distil"] = shown("distil", [distilled(seed) for seed in SEEDS])
    if "fedmd" in wanted:
        found = [md(seed) for seed in SEEDS]
        tables["fedmd"] = shown("fedmd", [f[0] for f in found])
        tables["bytes down"] = shown("bytes down", [f[1] for f in found])
    print(json.dumps({"seeds": SEEDS, "tables": tables, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
