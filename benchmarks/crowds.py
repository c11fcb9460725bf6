"""Labels from twelve real crowds: accuracy and CPU seconds of each aggregator, beside crowd-kit 1.4.2.

Needs the crowd sets (COMITY_DATA, by default ../shared/data). Repeated answers of one worker to one task count, as they
do in crowd-kit. Its figures are those of its defaults as measured once; "at its steps" is our result after as many
iterations as it made: it counts the class prior once for each answer, not for each task, so that its loss may rise, and
then it stops. Our own runs go on until they converge. Equality is asserted before anything is timed.
Prints one table, and one JSON line for machines.
"""

import csv
import json
import os
import platform
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np

import comity as co

DATA = Path(os.environ.get("COMITY_DATA", Path(__file__).parents[2] / "shared" / "data")) / "crowd"

# percent right of majority vote; of Dawid-Skene and one-coin Dawid-Skene with their iterations
PEER: dict[str, tuple[float, tuple[float, int], tuple[float, int]]] = {
    "bluebird": (75.9, (88.9, 2), (58.3, 19)),
    "rte": (87.5, (92.8, 9), (92.5, 10)),
    "web": (68.8, (82.9, 37), (74.9, 2)),
    "trec": (66.1, (70.2, 3), (56.0, 19)),
    "cf": (88.0, (83.0, 5), (88.7, 6)),
    "cf_amt": (84.7, (84.0, 2), (86.0, 5)),
    "zencrowd_us": (86.8, (82.9, 3), (90.4, 6)),
    "zencrowd_in": (73.7, (75.6, 4), (79.3, 26)),
    "zencrowd_all": (82.5, (80.2, 3), (86.2, 2)),
    "relevance": (53.6, (61.7, 22), (25.8, 100)),
    "adult": (76.3, (76.6, 2), (70.9, 32)),
    "mozafari": (69.6, (70.9, 3), (66.8, 72)),
}
WAYS: dict[str, Any] = {
    "votes": co.MajorityVote("all"),
    "matrix": co.DawidSkene(repeated="all"),
    "one-coin": co.DawidSkene("one-coin", repeated="all"),
    "GLAD": co.GLAD(repeated="all"),
}


def read(name: str) -> tuple[list[tuple[int, int, int]], dict[int, int]]:
    with (DATA / name / "answers.csv").open() as file:
        rows = [(int(r["task"]), int(r["worker"]), int(r["label"])) for r in csv.DictReader(file)]
    with (DATA / name / "gold.csv").open() as file:
        return rows, {int(r["task"]): int(r["label"]) for r in csv.DictReader(file)}


def percent(labels: dict[int, int], gold: dict[int, int]) -> float:
    return 100 * float(np.mean([labels[task] == label for task, label in gold.items() if task in labels]))


def main() -> None:
    if not DATA.exists():
        print(f"skipped: there is no {DATA}; set COMITY_DATA")
        return
    found: dict[str, dict[str, float]] = {}
    print(f"{'':<13}{'majority':>14}{'Dawid-Skene':>26}{'one-coin':>26}{'GLAD':>7}{'seconds':>29}")
    print(
        f"{'':<13}{'ours':>7}{'peer':>7}" + f"{'ours':>8}{'at its steps':>13}{'peer':>5}" * 2 + f"{'ours':>7}   ", *WAYS
    )
    for name, (votes, matrix, coin) in PEER.items():
        rows, gold = read(name)
        line = {}
        for way, (accuracy, steps) in {"confusion": matrix, "one-coin": coin}.items():
            same = co.DawidSkene(way, n_iter=steps, tol=0, smoothing=1e-10, repeated="all")
            line[f"{way} at its steps"] = percent(same.fit_predict(rows), gold)
            assert abs(line[f"{way} at its steps"] - accuracy) <= 0.5, (name, way)
        for way, how in WAYS.items():
            start = time.process_time()
            labels = how.fit_predict(rows)
            line[f"{way} s"] = time.process_time() - start
            line[way] = percent(labels, gold)
        assert abs(line["votes"] - votes) <= 0.5, name
        found[name] = line
        both = (("matrix", "confusion", matrix[0]), ("one-coin", "one-coin", coin[0]))
        middle = "".join(f"{line[w]:>8.1f}{line[f'{form} at its steps']:>13.1f}{p:>5.1f}" for w, form, p in both)
        seconds = "".join(f"{line[f'{way} s']:>7.2f}" for way in WAYS)
        print(f"{name:<13}{line['votes']:>7.1f}{votes:>7.1f}{middle}{line['GLAD']:>7.1f} {seconds}")
    mean = {way: float(np.mean([line[way] for line in found.values()])) for way in WAYS}
    total = {f"{way} s": float(sum(line[f"{way} s"] for line in found.values())) for way in WAYS}
    print("mean " + ", ".join(f"{way} {x:.2f}" for way, x in mean.items()))
    print("seconds for all " + ", ".join(f"{way} {x:.2f}" for way, x in total.items()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    about = {"python": platform.python_version(), "numpy": np.__version__, "comity": co.__version__}
    print(
        json.dumps({"mean": mean, **total, "sets": found, "peak_mb": peak, "date": time.strftime("%Y-%m-%d"), **about})
    )


if __name__ == "__main__":
    main()
