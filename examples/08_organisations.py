"""A hub and two hospitals as three processes that talk over HTTPS: what each of them has, and ledgers that agree.

Hub and hospitals each load their own copy of this file: it is the study, and no code travels. `organisations` types
what an operator and two hospitals would type; docs/guides/organisations.md shows it.
"""

import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer

import comity as co
from comity.service.trial import organisations

title, rounds = "Tumours: benign or malignant", 60
HOSPITALS = {"north": 0.15, "south": 0.85}  # how many of those whom it sees are ill
model = co.Linear(inputs=30, classes=2, rate=1.0)
fed = co.Collaboration(co.FedAvg(model), evaluate=co.every(rounds))


def participant(path: str) -> co.Trainer:
    """What a hospital takes part with; only this is called there, and its file is read there."""
    file = np.load(path)
    return co.Trainer(model, (file["x"], file["y"]), test=(file["test_x"], file["test_y"]))


def cut(at: Path) -> dict[str, Path]:
    (x, y), rng = load_breast_cancer(return_X_y=True), np.random.default_rng(0)
    x, (test, train) = (x / x.max(0)).astype("float32"), np.split(rng.permutation(len(y)), [269])
    for name, ill in HOSPITALS.items():
        rows = train[rng.random(len(train)) < np.where(y[train] == 0, ill, 1 - ill) / 2]
        np.savez(at / f"{name}.npz", x=x[rows], y=y[rows], test_x=x[test], test_y=y[test])
    return {name: at / f"{name}.npz" for name in HOSPITALS}


def main(at: Path) -> None:
    with organisations(at, __file__, data := cut(at)) as trial:
        trial.wait(seconds=50)
    joint = co.load(trial.run, fed.method)
    for name, path in data.items():
        own, (copy,) = participant(str(path)), (at / name).glob("*/ledger.jsonl")
        alone = fed.replace(participants={name: own}).run(rounds).metrics["accuracy"]
        right = (model.predict(joint, own.test[0]).argmax(1) == own.test[1]).mean()
        audit = co.audit(trial.run, against=copy.parent)
        print(f"{name}: {len(own.data[1])} patients, right {alone:.1%} alone, {right:.1%} together;", end=" ")
        print(f"its ledger and the hub's: {audit.entries} entries, {'the same' if audit.ok else audit.faults}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
