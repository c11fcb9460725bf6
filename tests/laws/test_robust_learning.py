"""Liars in a run: the mean falls, the robust combiners hold, and too few contributors can be resumed."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

import comity as co
from comity.core.contribution import Contribution
from comity.core.tree import tree_map

MODEL = co.Linear(64, 10, rate=0.1, batch=32, epochs=2)


@dataclass(frozen=True)
class SignFlip:
    """Sends the opposite of what it learnt, many times over."""

    data: Any = field(metadata={"data": True}, repr=False)

    def lie(self, c, round):
        return replace(c, value=tree_map(lambda x: x * np.float32(-10), c.value))

    def contribute(self, shared, local, round, secret):
        c, local = co.Trainer(MODEL, self.data).contribute(shared, local, round, secret)
        return (c if shared.kind == "score" else self.lie(c, round)), local


class Noise(SignFlip):
    """Sends large noise."""

    def lie(self, c, round):
        rng = round.mine("lie")
        return replace(c, value=tree_map(lambda x: rng.normal(scale=5, size=x.shape).astype(x.dtype), c.value))


@pytest.fixture(scope="module")
def digits():
    data = pytest.importorskip("sklearn.datasets").load_digits()
    x, y = (data.data / 16).astype("float32"), data.target
    train, test = np.arange(len(y)) % 4 != 0, np.arange(len(y)) % 4 == 0
    parts = co.iid(int(train.sum()), 13, seed=0)
    return {p: (x[train][rows], y[train][rows]) for p, rows in parts.items()}, (x[test], y[test])


def accuracy(digits, combine, liar):
    shards, (x, y) = digits
    names = list(shards)
    sites = {n: (co.Trainer(MODEL, shards[n]) if i < 10 else liar(shards[n])) for i, n in enumerate(names)}
    run = co.Collaboration(co.FedAvg(MODEL), sites, combine=combine, evaluate=False, seed=0).run(rounds=20)
    return float((MODEL.predict(run.shared, x).argmax(axis=1) == y).mean())


HOLD = [co.Median(), co.TrimmedMean(f=3), co.TrimmedMean(trim=0.25), co.Krum(f=3), co.GeometricMedian()]


@pytest.mark.parametrize("liar", [SignFlip, Noise])
def test_three_liars_of_thirteen_spoil_the_mean_and_nothing_else(digits, liar):
    honest = accuracy(digits, co.Mean(), lambda d: co.Trainer(MODEL, d))
    assert honest > 0.85
    assert accuracy(digits, co.Mean(), liar) < 0.6
    for combine in HOLD:
        assert accuracy(digits, combine, liar) > honest - 0.1, combine


@dataclass(frozen=True)
class Away:
    """Answers once it is here."""

    me: str
    here: Any

    def contribute(self, shared, local, round, secret):
        if self.me not in self.here:
            raise RuntimeError("away")
        x = np.eye(4, 64, dtype="float32")
        return co.Trainer(MODEL, (x, np.arange(4))).contribute(shared, local, round, secret)


@pytest.mark.parametrize("combine", [co.TrimmedMean(f=1), co.Krum(f=0)], ids=repr)
def test_a_run_survives_a_round_with_too_few(combine, tmp_path):
    here = {"a", "b", "c"}
    fed = co.Collaboration(
        co.FedAvg(MODEL), {n: Away(n, here) for n in "abc"}, combine=combine, quorum=0.1, evaluate=False
    )
    fed.run(rounds=2, folder=tmp_path)
    here -= {"b", "c"}
    with pytest.raises(co.TooFewParticipants):
        fed.run(rounds=4, folder=tmp_path)
    here |= {"b", "c"}
    run = fed.run(rounds=4, folder=tmp_path)
    assert run.ledger.rounds == 4
    run.ledger.verify()
    straight = fed.run(rounds=4)
    assert all(np.array_equal(run.shared[k], straight.shared[k]) for k in straight.shared)


def test_sums_of_groups_are_combined_like_contributions():
    rng = np.random.default_rng(0)
    groups = [rng.normal(size=(4, 3)) for _ in range(5)]
    weights = [rng.uniform(1, 9, 4) for _ in groups]
    sums = [Contribution("delta", (w[:, None] * g).sum(axis=0), w.sum()) for g, w in zip(groups, weights, strict=True)]
    means = [np.average(g, axis=0, weights=w) for g, w in zip(groups, weights, strict=True)]
    got = co.TrimmedMean(f=1).lower(sums, None, co.Round("", 0))[0]
    np.testing.assert_allclose(got.value, np.sort(means, axis=0)[1:4].mean(axis=0))
    chosen = co.Krum(f=1).lower(sums, None, co.Round("", 0))[0].value
    assert np.abs(chosen - np.array(means)).sum(axis=1).min() < 1e-12
