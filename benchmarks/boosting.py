"""Boosting over eight parties against scikit-learn's pooled trees: ROC AUC, bytes and CPU seconds on real tables.

Adult (48,842 rows) and bank-marketing (45,211 rows) under COMITY_DATA; words are numbered as they come, numbers stay.
80 % of the rows train, 20 % test, drawn anew for each seed; parties by chance ("iid") and sorted by label ("sorted").
Both libraries with their own defaults and 100 trees; nothing is tuned. It asserts first that parties in any partition
grow the same trees as one party, to the bit. Prints one table and one line of JSON.
"""

import json
import os
import platform
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

import comity as co
from comity.core.wire import encode_tree

DATA = Path(os.environ.get("COMITY_DATA", "../shared/data"))
SEEDS = [int(s) for s in os.environ.get("COMITY_SEEDS", "0,1,2,3,4").split(",")]
PARTIES = 8
SETS = {
    "adult": (("adult/adult.data.gz", "adult/adult.test.gz"), "Y", ">50K"),
    "bank-marketing": (("bank-marketing/bank-full.csv.gz",), "y", "yes"),
}


def rows(name: str) -> tuple[Any, Any]:
    """X, words as numbers, and y."""
    import polars as pl

    files, target, positive = SETS[name]
    tables = [co.read_table(DATA / file) for file in files]
    table = pl.concat([t.with_columns(pl.col(pl.String).str.strip_chars().replace("?", None)) for t in tables])
    y = table[target].str.starts_with(positive).to_numpy().astype(int)
    columns = [c if c.dtype.is_numeric() else c.rank("dense") for c in table.drop(target)]
    return np.stack([c.cast(float).fill_null(float("nan")).to_numpy() for c in columns], axis=1), y


def together(method: co.Boosting, x: Any, y: Any, parts: list[Any], **more: Any) -> tuple[Any, float]:
    sites = {f"p{i}": co.BoostingTrainer((x[p], y[p])) for i, p in enumerate(parts)}
    begun = time.process_time()
    run = co.Collaboration(method, sites, evaluate=False, stop=method.stop, quorum=1.0, **more).run(method.rounds)
    return run, time.process_time() - begun


def line(name: str, seed: int) -> dict[str, Any]:
    x, y = rows(name)
    order = np.random.default_rng(seed).permutation(len(y))
    test, train = order[: len(y) // 5], order[len(y) // 5 :]
    method = co.Boosting(x.shape[1], 2)
    run, seconds = together(method, x, y, np.array_split(train, PARTIES))
    if seed == SEEDS[0]:
        for parts in ([train], np.array_split(train[y[train].argsort(kind="stable")], PARTIES)):
            other, _ = together(method, x, y, parts)
            assert encode_tree(other.shared) == encode_tree(run.shared), "the trees depend on the partition"
    once, _ = together(method, x, y, np.array_split(train, PARTIES), transforms=[co.Once(least=512)])
    begun = time.process_time()
    pooled = HistGradientBoostingClassifier(early_stopping=False, random_state=seed).fit(x[train], y[train])
    theirs = time.process_time() - begun
    return {
        "together": roc_auc_score(y[test], method.predict(run.shared, x[test])[:, 1]),
        "pooled": roc_auc_score(y[test], pooled.predict_proba(x[test])[:, 1]),
        "up": run.ledger.bytes_up / PARTIES, "down": run.ledger.bytes_down / PARTIES,
        "down_once": once.ledger.bytes_down / PARTIES, "rounds": run.ledger.rounds,
        "seconds": seconds, "seconds_pooled": theirs,
    }  # fmt: skip


def main() -> None:
    out = {}
    print("                 together  pooled    difference (worst)   MB up  MB down (Once)  rounds  CPU s (pooled)")
    for name, (files, _, _) in SETS.items():
        if not all((DATA / file).exists() for file in files):
            print(f"{name}: skipped, there is no {DATA / files[0]}; set COMITY_DATA")
            continue
        found = [line(name, seed) for seed in SEEDS]
        by: dict[str, Any] = {k: [f[k] for f in found] for k in found[0]}
        off = np.array(by["together"]) - by["pooled"]
        mean = {k: float(np.mean(v)) for k, v in by.items()}
        print(
            f"{name:<16} {mean['together']:.4f}    {mean['pooled']:.4f}    {off.mean():+.4f} ({off.min():+.4f})     "
            f"{mean['up'] / 1e6:5.2f}  {mean['down'] / 1e6:5.2f} ({mean['down_once'] / 1e6:.2f})    "
            f"{mean['rounds']:.0f}   {mean['seconds']:6.2f} ({mean['seconds_pooled']:.2f})",
            flush=True,
        )
        out[name] = by
    versions = {"comity": co.__version__, "numpy": np.__version__, "sklearn": sklearn.__version__}
    versions["python"] = platform.python_version()
    said = {"benchmark": "boosting", "parties": PARTIES, "seeds": SEEDS, "rows": out, "versions": versions}
    print(json.dumps({**said, "date": str(date.today())}))


if __name__ == "__main__":
    main()
