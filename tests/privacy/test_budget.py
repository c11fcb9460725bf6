"""A budget ends a run before the round that would pass it, and not a round earlier."""

import time
from dataclasses import asdict, dataclass, replace

import numpy as np
import pytest

import comity as co

SAMPLED = co.Spend("gaussian", 2.0, 0.1, sampling="poisson")
CASES = {
    "gaussian": (2.0, [co.Spend("gaussian", 8.0)]),
    "sampled": (1.5, [SAMPLED]),
    "two kinds": (2.0, [SAMPLED, co.Spend("laplace", 12.0, unit="participant")]),
    "fixed": (2.0, [co.Spend("gaussian", 8.0, 0.2, sampling="fixed")]),
    "local": (4.0, [co.Spend("response", 0.3)]),
    "tree": (1.0, [co.Spend("tree", 8.0)]),
    "ring": (2.0, [replace(SAMPLED, mechanism="skellam")]),
}


def charge(ledger, spends, number=0):
    for spend in spends:
        ledger.append("spend", {**asdict(spend), "round": number, "attempt": 0}, time=0.0)


def rounds(budget, spends, most=400):
    """Rounds before the budget ends the run."""
    ledger = co.Ledger()
    for n in range(most):
        if budget(ledger, spends):
            return n
        charge(ledger, spends, n)
    return most


@pytest.mark.parametrize("case", CASES)
def test_it_stops_exactly_where_one_more_round_would_pass_it(case):
    epsilon, spends = CASES[case]
    for accountant in ("pld", "rdp"):
        found = rounds(co.Budget(epsilon, 1e-5, accountant), spends)

        def worst(n, by=accountant):
            many = [replace(s, count=n) for s in spends]
            return max(p.epsilon for p in co.spent(many, 1e-5, accountant=by))

        tried = range(1, found + 3) if case == "gaussian" else range(found, found + 2)
        assert [n for n in tried if worst(n) <= epsilon][-1] == found > 3


def test_nothing_fits_where_one_round_is_too_much():
    assert co.Budget(0.1, 1e-5)(co.Ledger(), [co.Spend("gaussian", 1.0)]) is True


def test_it_counts_what_others_spent_before():
    ledger, budget = co.Ledger(), co.Budget(2.0, 1e-5)
    charge(ledger, [co.Spend("gaussian", 4.0, count=3)])
    left = 0
    while not budget(ledger, [co.Spend("gaussian", 8.0)]):
        charge(ledger, [co.Spend("gaussian", 8.0)])
        left += 1
    every = rounds(budget, [co.Spend("gaussian", 8.0)])
    assert left == every - 12  # at noise 4 each release weighs as much as four at noise 8
    assert co.spent([e.facts for e in ledger], 1e-5)[0].epsilon <= 2.0


def test_every_unit_and_every_party_has_its_own():
    budget, ledger = co.Budget(2.0, 1e-5), co.Ledger()
    ahead = [co.Spend("gaussian", 8.0), co.Spend("gaussian", 8.0, unit="example")]
    assert rounds(budget, ahead) == rounds(budget, ahead[:1])
    own = co.Spend("gaussian", 8.0, unit="example")
    charge(ledger, [replace(own, who="ada\nbob", count=5), replace(own, who="bob", count=4)])
    most = rounds(budget, [own])
    for _ in range(most - 9):
        assert budget(ledger, [own]) is False
        charge(ledger, [replace(own, who="bob")])
    assert budget(ledger, [own]) is True
    assert budget(ledger, [replace(own, who="ada")]) is False
    assert budget(ledger, [replace(own, unit="party")]) is False


def test_a_release_whose_noise_changes_every_round():
    budget, ledger, spends = co.Budget(1.0, 1e-5), co.Ledger(), []
    for n in range(100):
        spend = co.Spend("gaussian", 10.0 + n / 10)
        (would,) = co.spent([*spends, spend], 1e-5)
        assert budget(ledger, [spend]) is (would.epsilon > 1.0)
        if would.epsilon > 1.0:
            break
        charge(ledger, [spend])
        spends.append(spend)
    assert 5 < n < 50


def test_without_an_end_it_never_stops():
    assert co.Budget(float("inf"), 1e-5)(co.Ledger(), [co.Spend("gaussian", 0.0)]) is False
    assert co.Budget(float("inf"), 1e-5)(co.Ledger(), []) is False


def test_a_budget_where_nothing_adds_noise_is_refused():
    budget, ledger = co.Budget(1.0, 1e-5), co.Ledger()
    with pytest.raises(co.ConfigError, match=r"wants something that adds noise\. Got no spend"):
        budget(ledger, [])
    with pytest.raises(co.ConfigError, match=r"wants noise > 0\. Got a spend of 'gaussian' with noise 0"):
        budget(ledger, [co.Spend("gaussian", 0.0)])
    with pytest.raises(co.ConfigError, match="'past' of Budget must be a ledger"):
        budget(3, [SAMPLED])
    charge(ledger, [co.Spend("gaussian", 1.0, count=50)])
    assert budget(ledger, []) is False


def test_pure_budgets():
    assert rounds(co.Budget(2.0, 0.0), [co.Spend("laplace", 4.0)]) == 8
    assert rounds(co.Budget(2.0, 0), [co.Spend("gaussian", 400.0)]) == 0


@dataclass
class Entries:
    """A past that can only be walked through."""

    entries: list

    def __iter__(self):
        return iter(self.entries)


def test_two_ledgers_are_never_mixed_up():
    budget = co.Budget(2.0, 1e-5)
    full, empty = co.Ledger(), co.Ledger()
    charge(full, [co.Spend("gaussian", 8.0, count=1000)])
    assert (budget(full, [SAMPLED]), budget(empty, [SAMPLED])) == (True, False)
    assert (budget(Entries(list(full)), [SAMPLED]), budget(Entries(list(empty)), [SAMPLED])) == (True, False)
    restored = co.Ledger.restore(list(full))
    assert budget(restored, [SAMPLED]) is True


def test_ten_thousand_rounds_are_quick():
    spend = co.Spend("gaussian", 4.0, 0.01, sampling="poisson")
    most = co.epsilon(4.0, rounds=10_000, delta=1e-5, sampling=0.01)
    budget, ledger, begun, answers = co.Budget(most.epsilon, 1e-5), co.Ledger(), time.process_time(), 0.0
    for n in range(10_001):
        begun = time.process_time()
        stopped = budget(ledger, [spend])
        answers += time.process_time() - begun
        if stopped:
            break
        charge(ledger, [spend], n)
    assert n == 10_000
    assert answers / n < 0.005


@pytest.fixture
def fed():
    model = co.Linear(inputs=4, classes=2)
    data = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
    return co.Collaboration(co.FedAvg(model), {n: co.Trainer(model, data) for n in "abcdefgh"}, evaluate=False)


def test_it_ends_a_run_of_a_collaboration(fed, tmp_path):
    private = fed.replace(
        combine=co.Mean(public=True),
        select=co.poisson(0.5),
        transforms=[co.Gaussian(clip=1.0, noise=4.0)],
        stop=co.Budget(2.0, 1e-5),
    )
    run = private.run(100, folder=tmp_path / "run")
    found = co.audit(tmp_path / "run")
    assert found.rounds == run.ledger.rounds == len(found.spends) > 3
    assert found.epsilon == co.epsilon(4.0, rounds=found.rounds, delta=1e-5, sampling=0.5).epsilon <= 2.0
    assert co.epsilon(4.0, rounds=found.rounds + 1, delta=1e-5, sampling=0.5).epsilon > 2.0
    assert private.run(100, folder=tmp_path / "run").ledger.rounds == found.rounds


def test_a_run_without_noise_is_refused_and_the_recipe_tells_budgets_apart(fed):
    with pytest.raises(co.ConfigError, match="adds noise"):
        fed.replace(stop=co.Budget(1.0, 1e-5)).run(3)
    one, two = (co.recipe(fed.replace(stop=co.Budget(e, 1e-5)))["hash"] for e in (1.0, 2.0))
    assert one != two
