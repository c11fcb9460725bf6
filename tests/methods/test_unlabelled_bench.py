"""Who has labels in benchmarks/unlabelled.py, on images that are made up, and a short run of each row."""

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import comity as co

pytest.importorskip("torch")
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
OURS = ("images", "race", "shots", "unlabelled")


@pytest.fixture
def bench(monkeypatch: Any) -> Iterator[Any]:
    """The benchmark, on images of noise; nothing of it stays behind."""
    sys.path.insert(0, str(BENCHMARKS))
    module, images = import_module("unlabelled"), import_module("images")
    rng, y = np.random.default_rng(0), np.tile(np.arange(10), 60)
    x = rng.random((600, 1, 8, 8), "float32") + y[:, None, None, None].astype("float32")
    made = images.Images((x, y), (x.copy(), y.copy()), 4.5, 3.0)
    monkeypatch.setattr(module, "mnist", lambda: made)
    monkeypatch.setattr(module, "ROWS", 6)
    monkeypatch.setattr(module, "SHOTS", 2)
    monkeypatch.setattr(module, "VALID", 1)
    real = module.Split
    monkeypatch.setattr(module, "Split", lambda **how: real(**{**how, "clients": 5, "test": 4}))
    yield module
    sys.path.remove(str(BENCHMARKS))
    for name in [n for n in sys.modules if n.split(".")[0] in OURS]:
        del sys.modules[name]


def test_only_two_have_labels_and_few(bench: Any) -> None:
    world = bench.World.of(1)
    assert (len(world.clients), world.labelled) == (5, ("c00", "c01"))
    assert {n: len(c.train[1]) for n, c in world.clients.items()} == {
        n: 20 if n in world.labelled else 60 for n in world.clients
    }
    for row, labels in (("tickets-two", 2), ("tickets-pseudo", 2), ("dense-pseudo", 2), ("dense-bound", 5)):
        people = bench.collaboration(bench.ROWS_OF[row], world, 0, 3)[0].participants
        inner = {n: getattr(p, "inner", p) for n, p in people.items()}
        assert sum(p.data is not None for p in inner.values()) == labels
        assert all(p.test is None and p.valid is None for p in inner.values())
        assert len(people) == (2 if row.endswith("two") else 5)


def test_the_labelled_are_always_asked(bench: Any) -> None:
    both, names = bench.Both(("c00", "c01"), 2), [f"c{i:02}" for i in range(6)]
    drawn = [both(names, co.Round("", 0, number=t), None, None)["hub"] for t in range(20)]
    assert all(len(set(d)) == 4 and {"c00", "c01"} <= set(d) for d in drawn)
    assert len({tuple(d) for d in drawn}) > 3


@pytest.mark.slow
def test_each_row_runs(bench: Any) -> None:
    for name in bench.MAIN:
        found = bench.trained(bench.ROWS_OF[name], 0, 2)
        assert (len(found["test"]), len(found["valid"])) == (5, 2)
        assert found["up"] > 0
