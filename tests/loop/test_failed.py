"""A round that channel or combiner can make nothing of is tried again, told in the ledger, and loses nothing."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest

import comity as co
from comity.core.contribution import Contribution

RNG = np.random.default_rng(0)
DATA = {n: (RNG.normal(size=(8, 3)).astype("float32"), RNG.integers(0, 2, 8)) for n in "abcd"}
MODEL = co.Linear(3, 2, batch=8)


@dataclass(frozen=True)
class Fails:
    """A mean that fails the first few times."""

    error: type
    left: list = field(default_factory=lambda: [1])
    needs: ClassVar = "sum"

    def init(self):
        return None

    def lift(self, c):
        return co.Mean().lift(c)

    def lower(self, gathered, state, round):
        self.left[0] -= 1
        if self.left[0] >= 0:
            raise self.error("The shares of b do not fit.")
        return co.Mean().lower(gathered, state, round)


@dataclass(frozen=True)
class Shut:
    """A channel that cannot agree on anything before the question."""

    error: type = co.ChannelError
    reveals: ClassVar = "each"

    def setup(self, cohort, ask, round):
        raise self.error("Nobody sent a key.")

    def answer(self, message, memory, round, secret):
        raise NotImplementedError

    def seal(self, c, view, memory, round, secret):
        return c, memory

    def open(self, sealed, session, ask, until):
        return sealed


@dataclass(frozen=True)
class Counter:
    """Counts in its drawer how often it was accepted."""

    data: object = field(metadata={"data": True})

    def contribute(self, shared, local, round, secret):
        c, _ = co.Trainer(MODEL, self.data).contribute(shared, {}, round, secret)
        return (c, local) if shared.kind == "score" else (c, {"n": local.get("n", 0) + 1})


def collaboration(**parts):
    return co.Collaboration(co.FedAvg(MODEL), {n: Counter(d) for n, d in DATA.items()}, evaluate=False, **parts)


@pytest.mark.parametrize("error", [co.ChannelError, co.TooFewParticipants, co.BadShare, co.ContributionError])
def test_it_is_tried_again_and_the_ledger_says_why(error):
    run = collaboration(combine=Fails(error)).run(rounds=2)
    plain = collaboration().run(rounds=2)
    assert [e.facts["closed"] for e in run.ledger if e.kind == "round"] == [False, True, True]
    assert run.ledger[1].facts["failed"] == "The shares of b do not fit."
    assert all("failed" not in e.facts for e in plain.ledger)
    assert {n: run.local(n) for n in DATA} == {n: {"n": 2} for n in DATA}
    assert all((run.shared[k] == plain.shared[k]).all() for k in plain.shared)


def test_after_every_retry_the_run_stops_and_says_why(tmp_path):
    fed = collaboration(combine=Fails(co.BadShare, [9]), retries=1)
    with pytest.raises(co.TooFewParticipants, match=r"Round 1 could not be combined\. The shares of b do not fit\."):
        fed.run(rounds=2, folder=tmp_path / "run")
    assert [e.facts["attempt"] for e in co.Ledger.restore(_entries(tmp_path / "run")) if e.kind == "round"] == [0, 1]


def _entries(folder):
    from comity.ledger.peek import peek

    return peek(folder).entries


def test_a_channel_that_finds_no_keys():
    with pytest.raises(co.TooFewParticipants, match="Nobody sent a key"):
        collaboration(channel=Shut(), retries=0).run(rounds=1)


def test_other_errors_are_defects_and_go_through():
    with pytest.raises(ZeroDivisionError):
        collaboration(combine=Fails(ZeroDivisionError)).run(rounds=1)


def test_too_few_for_a_trimmed_mean_is_no_crash():
    with pytest.raises(co.TooFewParticipants, match="could not be combined"):
        collaboration(combine=co.TrimmedMean(f=2)).run(rounds=1)


def test_values_that_do_not_fit_each_other_are_told():
    @dataclass(frozen=True)
    class Says:
        value: object

        def contribute(self, shared, local, round, secret):
            return Contribution("prediction", {"x": np.ones(self.value)}), local

    ask = co.Query({"question": "x"})
    with pytest.raises(co.ComityError):
        co.Collaboration(ask, {"a": Says(2), "b": Says(3)}, combine=co.Median(), evaluate=False).run(rounds=1)
