"""Crowds made up for tests, and the real ones where they are at hand (COMITY_DATA, by default ../shared/data)."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest

DATA = Path(os.environ.get("COMITY_DATA", "../shared/data")) / "crowd"


def made_up(tasks=120, workers=15, classes=3, each=6, seed=0):
    """Rows (task, worker, label) and the truth; every worker has a confusion matrix of its own."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, tasks)
    errors = np.array([rng.dirichlet(np.ones(classes), classes) + 2 * rng.random() * np.eye(classes)
                       for _ in range(workers)])  # fmt: skip
    errors /= errors.sum(axis=2, keepdims=True)
    rows = [
        (t, int(w), int(rng.choice(classes, p=errors[w, truth[t]])))
        for t in range(tasks)
        for w in rng.choice(workers, each, replace=False)
    ]
    return rows, truth


def real(name):
    """Rows and gold of a real set; the test is skipped where it is not at hand."""
    folder = DATA / name
    if not folder.exists():
        pytest.skip(f"there is no {folder}: set COMITY_DATA")
    with (folder / "answers.csv").open() as file:
        rows = [(int(r["task"]), int(r["worker"]), int(r["label"])) for r in csv.DictReader(file)]
    with (folder / "gold.csv").open() as file:
        return rows, {int(r["task"]): int(r["label"]) for r in csv.DictReader(file)}


def accuracy(labels, gold):
    return 100 * float(np.mean([labels[task] == label for task, label in gold.items() if task in labels]))
