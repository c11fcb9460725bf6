"""Gradient-boosted trees over eight parties, as if their rows lay in one place.

Each party sends sums of gradients by column and bin, level by level; the hub adds them and splits. The trees are the
same to the bit in whatever way the rows are spread. The baselines are scikit-learn's trees: on all rows pooled, and of
each party alone. Data: the census of UCI Adult, where it is at hand; else a set that comes with scikit-learn.
"""

import os
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

import comity as co

DATA = Path(os.environ.get("COMITY_DATA", Path(__file__).parents[1] / ".." / "shared" / "data")) / "adult"
PARTIES, TREES = 8, 60


def rows():
    """X with words as numbers, and y."""
    if not DATA.exists():
        return load_breast_cancer(return_X_y=True)
    table = co.read_table(DATA / "adult.data.gz")
    y = table["Y"].str.strip_chars().str.starts_with(">50K").to_numpy().astype(int)
    columns = [c if c.dtype.is_numeric() else c.rank("dense") for c in table.drop("Y")]
    return np.stack([c.cast(float).to_numpy() for c in columns], axis=1), y


def main() -> None:
    x, y = rows()
    order = np.random.default_rng(0).permutation(len(y))
    test, train = order[: len(y) // 4], order[len(y) // 4 :]
    parts = np.array_split(train, PARTIES)
    method = co.Boosting(x.shape[1], 2, trees=TREES)
    sites = {f"party{i}": co.BoostingTrainer((x[p], y[p])) for i, p in enumerate(parts)}
    run = co.Collaboration(method, sites, stop=method.stop, evaluate=False).run(method.rounds)

    def pooled(p):
        trees = HistGradientBoostingClassifier(max_iter=TREES, early_stopping=False).fit(x[p], y[p])
        return roc_auc_score(y[test], trees.predict_proba(x[test])[:, 1])

    together = roc_auc_score(y[test], method.predict(run.shared, x[test])[:, 1])
    alone = np.mean([pooled(p) for p in parts])
    up, down = (b / 1e6 / PARTIES for b in (run.ledger.bytes_up, run.ledger.bytes_down))
    print(f"ROC AUC: together {together:.4f}, pooled {pooled(train):.4f}, alone {alone:.4f} on average; ", end="")
    print(f"{up:.1f} MB up and {down:.1f} MB down for each party in {run.ledger.rounds} rounds")


if __name__ == "__main__":
    main()
