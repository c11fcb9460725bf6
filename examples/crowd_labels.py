"""39 workers tell two kinds of blue birds apart on 108 photographs (Welinder et al., 2010): whom to believe?

As a table, with all answers: majority vote, and Dawid & Skene, who learn from the answers alone how each worker errs.
In the loop, every bird gets about ten answers, the doubtful ones first; what was gathered is a table again.
"""

import csv
import os
import sys
from pathlib import Path

import numpy as np

import comity as co

DATA = Path(os.environ.get("COMITY_DATA", Path(__file__).parents[1] / ".." / "shared" / "data")) / "crowd" / "bluebird"


def rows(name: str) -> list[dict[str, str]]:
    with (DATA / name).open() as file:
        return list(csv.DictReader(file))


def right(labels: dict) -> float:
    """The share of birds with the right label."""
    return float(np.mean([int(labels[task]) == label for task, label in gold.items()]))


if not DATA.exists():
    sys.exit(print(f"skipped: there is no {DATA}; set COMITY_DATA"))

gold = {row["task"]: int(row["label"]) for row in rows("gold.csv")}
said = {(row["worker"], row["task"]): int(row["label"]) for row in rows("answers.csv")}
table = [(task, worker, label) for (worker, task), label in said.items()]
everything = {
    name: right(how.fit_predict(table)) for name, how in {"mv": co.MajorityVote(), "ds": co.DawidSkene()}.items()
}

workers = {w: co.Annotator(lambda task, w=w: said[w, task]) for w in dict.fromkeys(w for w, _ in said)}
birds = co.Labelling({task: task for task in gold}, classes=2, per_round=20, answers=10)
found, sums = {"asked": [], "reputation": [], "mv": [], "ds": []}, 5
for seed in range(sums):
    run = co.Collaboration(birds, workers, evaluate=False, seed=seed).run(rounds=15)
    gathered = birds.table(run.state)
    found["asked"].append(len(gathered["task"]) / len(gold))
    found["reputation"].append(right(dict(zip(gold, run.shared["label"], strict=True))))
    found["mv"].append(right(co.MajorityVote().fit_predict(gathered)))
    found["ds"].append(right(co.DawidSkene().fit_predict(gathered)))
few = {name: np.mean(x) for name, x in found.items()}
print(
    f"all 39 answers a bird: majority {everything['mv']:.1%}, Dawid-Skene {everything['ds']:.1%}; "
    f"{few['asked']:.1f} answers a bird (mean of {sums} runs): majority {few['mv']:.1%}, "
    f"reputation vote {few['reputation']:.1%}, Dawid-Skene {few['ds']:.1%}"
)
