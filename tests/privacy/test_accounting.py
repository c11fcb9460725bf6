"""Epsilon is that of dp-accounting, of the closed form where there is one, and of two other libraries."""

import math
import random
import subprocess
import sys
from itertools import product

import dp_accounting as dp
import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

import comity as co
from comity.privacy import accountants

RELATION = {"add-remove": dp.NeighboringRelation.ADD_OR_REMOVE_ONE, "replace-one": dp.NeighboringRelation.REPLACE_ONE}

PEERS = [  # opacus 1.6.0 and prv-accountant 0.2.0, each with eps_error=1e-3; add/remove, Poisson
    # rate, noise, rounds, delta, prv_accountant: lower, estimate, upper, opacus: PRV (upper), RDP
    (0.01, 4, 10000, 1e-05, 0.945867, 0.946867, 0.947867, 0.947930, 1.035490),
    (0.02, 2, 1000, 1e-05, 1.328675, 1.329675, 1.330675, 1.330763, 1.458470),
    (0.001, 1, 1000, 1e-06, 0.184516, 0.185516, 0.186516, 0.186533, 0.869708),
    (0.1, 2, 100, 1e-05, 2.336399, 2.337400, 2.338400, 2.338553, 2.580569),
    (0.05, 1.5, 300, 1e-06, 3.292735, 3.293735, 3.294736, 3.294904, 3.582311),
    (0.01, 1, 1000, 1e-05, 1.827237, 1.828237, 1.829237, 1.829369, 2.101365),
    (0.3, 4, 50, 1e-05, 2.259670, 2.260670, 2.261670, 2.261811, 2.473687),
    (0.5, 4, 20, 1e-05, 2.399585, 2.400585, 2.401585, 2.401734, 2.626758),
    (0.004, 0.8, 2000, 1e-06, 2.035641, 2.036641, 2.037641, 2.037812, 2.636965),
    (0.1, 1.1, 200, 1e-05, 8.383597, 8.384597, 8.385598, 8.385668, 9.247333),
    (0.2, 8, 500, 1e-07, 2.851502, 2.852502, 2.853502, 2.853614, 3.036215),
    (0.01, 0.6, 100, 1e-05, 3.814616, 3.815616, 3.816617, 3.817013, 4.830866),
    (1.0, 10, 30, 1e-05, 2.206059, 2.207059, 2.208060, 2.208190, 2.396428),
    (1.0, 1, 1, 1e-05, 4.376178, 4.377178, 4.378178, 4.378412, 4.728507),
]


def gaussian_delta(epsilon, mu):
    """Theorem 8 of Balle and Wang (ICML 2018), of a Gaussian whose means lie mu deviations apart."""
    return norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)


def gaussian_epsilon(delta, mu):
    return brentq(lambda e: gaussian_delta(e, mu) - delta, 0, 60, xtol=1e-13)


def one(*spends, delta=1e-5, **more):
    (found,) = co.spent(spends, None if "epsilon" in more else delta, **more)
    return found


def theirs(accountant, event, count, delta):
    return accountant.compose(event, count).get_epsilon(delta)


@pytest.mark.parametrize("setting", PEERS, ids=lambda s: f"q={s[0]} z={s[1]} T={s[2]}")
def test_epsilon_is_that_of_three_libraries(setting):
    q, z, rounds, delta, lower, estimate, upper, opacus, opacus_rdp = setting
    event = dp.GaussianDpEvent(z) if q == 1 else dp.PoissonSampledDpEvent(q, dp.GaussianDpEvent(z))
    mine = co.epsilon(z, rounds=rounds, delta=delta, sampling=q)
    assert (mine.accountant, mine.delta, mine.unit, mine.adjacency) == ("pld", delta, "participant", "add-remove")
    assert mine.epsilon == pytest.approx(theirs(dp.pld.PLDAccountant(), event, rounds, delta), rel=1e-9)
    assert lower <= mine.epsilon <= upper
    assert mine.epsilon == pytest.approx(estimate, abs=5e-4)
    assert mine.epsilon < opacus
    loose = co.epsilon(z, rounds=rounds, delta=delta, sampling=q, accountant="rdp")
    whole = [a for a in dp.rdp.RdpAccountant().orders if a >= 2 or q == 1]
    assert loose.epsilon == pytest.approx(theirs(dp.rdp.RdpAccountant(whole), event, rounds, delta), rel=1e-9)
    assert loose.epsilon == pytest.approx(opacus_rdp, rel=0.01)  # fractional orders of dp-accounting are looser
    assert loose.accountant == "rdp"
    assert loose.epsilon > mine.epsilon


@pytest.mark.parametrize(("z", "rounds", "delta"), [(1, 1, 1e-5), (10, 30, 1e-5), (3, 7, 1e-8), (100, 10_000, 1e-6)])
def test_without_sampling_it_is_the_closed_form(z, rounds, delta):
    mu = math.sqrt(rounds) / z
    assert co.epsilon(z, rounds=rounds, delta=delta).epsilon == pytest.approx(gaussian_epsilon(delta, mu), abs=1e-6)
    release = co.Spend("gaussian", z, count=rounds)
    replaced = one(release, delta=delta, adjacency="replace-one")
    assert replaced.epsilon == pytest.approx(gaussian_epsilon(delta, 2 * mu), abs=1e-6)
    for epsilon in (0.0, 0.5, 2.0):
        assert one(release, epsilon=epsilon).delta == pytest.approx(gaussian_delta(epsilon, mu), rel=1e-4)


def test_unlike_gaussians_without_sampling_are_one():
    spends = [co.Spend("gaussian", 3.0, count=5), co.Spend("gaussian", 7.0, count=11), co.Spend("gaussian", 5.0)]
    mu = math.sqrt(5 / 9 + 11 / 49 + 1 / 25)
    assert one(*spends).epsilon == pytest.approx(gaussian_epsilon(1e-5, mu), abs=1e-6)


@pytest.mark.parametrize(("q", "z", "rounds"), [(0.05, 1.5, 300), (0.1, 2, 100), (1.0, 3, 2)])
def test_delta_at_a_given_epsilon_leads_back(q, z, rounds):
    release = co.Spend("gaussian", z, q, rounds, sampling="poisson")
    for accountant in ("pld", "rdp"):
        epsilon = one(release, accountant=accountant).epsilon
        back = one(release, epsilon=epsilon, accountant=accountant)
        assert back.epsilon == epsilon
        assert back.delta == pytest.approx(1e-5, rel=1e-4)


def test_what_other_mechanisms_are_in_the_library():
    pld, rdp = dp.pld.PLDAccountant, dp.rdp.RdpAccountant
    laplace = dp.LaplaceDpEvent(3.0)
    assert one(co.Spend("laplace", 3.0, count=5)).epsilon == pytest.approx(theirs(pld(), laplace, 5, 1e-5))
    loose = one(co.Spend("laplace", 3.0, count=5), accountant="rdp").epsilon
    assert loose == pytest.approx(theirs(rdp(), laplace, 5, 1e-5))
    sampled = dp.PoissonSampledDpEvent(0.1, laplace)
    found = one(co.Spend("laplace", 3.0, 0.1, 50, sampling="poisson")).epsilon
    assert found == pytest.approx(theirs(pld(), sampled, 50, 1e-5))
    tree = dp.SingleEpochTreeAggregationDpEvent(5.0, 1000)
    special = rdp(neighboring_relation=dp.NeighboringRelation.REPLACE_SPECIAL)
    steps = co.Spend("tree", 5.0, count=1000)
    assert one(steps, accountant="rdp").epsilon == pytest.approx(theirs(special, tree, 1, 1e-5))
    assert one(steps).epsilon == pytest.approx(gaussian_epsilon(1e-5, math.sqrt(10) / 5), abs=1e-6)


def test_a_sample_of_fixed_size():
    release = co.Spend("gaussian", 4.0, 0.1, 20, sampling="fixed")
    event = dp.SampledWithoutReplacementDpEvent(1000, 100, dp.GaussianDpEvent(2.0))
    library = theirs(dp.rdp.RdpAccountant(neighboring_relation=RELATION["replace-one"]), event, 20, 1e-5)
    credited = one(release, adjacency="replace-one", accountant="rdp")
    assert credited.epsilon == pytest.approx(library, rel=1e-6)
    assert credited.sampling == "fixed-size sampling at rate 0.1 credited"
    half = dp.PoissonSampledDpEvent(0.1, dp.GaussianDpEvent(2.0))
    more_or_less = one(release)
    assert more_or_less.epsilon == pytest.approx(theirs(dp.pld.PLDAccountant(), half, 20, 1e-5))
    assert more_or_less.epsilon > one(co.Spend("gaussian", 4.0, 0.1, 20, sampling="poisson")).epsilon
    local = one(co.Spend("laplace", 4.0, 0.1, 2, sampling="fixed"), adjacency="replace-one")
    assert local.sampling == "fixed-size sampling at rate 0.1 not credited"
    assert local.epsilon == one(co.Spend("laplace", 4.0, 1.0, 2), adjacency="replace-one").epsilon


def test_poisson_sampling_where_one_is_replaced():
    release = co.Spend("gaussian", 4.0, 0.1, 20, sampling="poisson")
    event = dp.PoissonSampledDpEvent(0.1, dp.GaussianDpEvent(4.0))
    library = theirs(dp.pld.PLDAccountant(RELATION["replace-one"]), event, 20, 1e-5)
    assert one(release, adjacency="replace-one").epsilon == pytest.approx(library)
    plain = one(release, adjacency="replace-one", accountant="rdp")
    assert plain.sampling == "Poisson sampling at rate 0.1 not credited"
    assert plain.epsilon > library > one(release).epsilon


@pytest.mark.parametrize("answers", [2, 5, 20])
def test_the_epsilon_of_randomised_response(answers):
    epsilon = 1.3
    truth = math.exp(epsilon) / (math.exp(epsilon) + answers - 1)
    other = (1 - truth) / (answers - 1)
    told = math.log(truth / other)
    assert one(co.Spend("response", told), delta=0).epsilon == pytest.approx(epsilon)
    assert one(co.Spend("response", told, count=4), delta=0).epsilon == pytest.approx(4 * epsilon)
    for accountant in ("pld", "rdp"):
        found = one(co.Spend("response", told), delta=1e-6, accountant=accountant)
        delta = max(truth - math.exp(found.epsilon) * other, 0.0)  # of one answer: an exact count of its loss
        assert delta <= 1e-6 * (1 + 1e-6)
        assert found.epsilon <= epsilon + 0.01
        assert found.adjacency == "replace-one"
    assert one(co.Spend("response", told), delta=1e-6).epsilon >= epsilon - 1e-4
    assert one(co.Spend("response", 0.0), co.Spend("response", told), delta=0).epsilon == pytest.approx(epsilon)


def test_pure_epsilons_add_up_at_delta_0():
    spends = co.Spend("laplace", 2.0, count=3), co.Spend("laplace", 1.0, 0.1, 2, sampling="poisson")
    found = one(*spends, delta=0)
    assert found.epsilon == pytest.approx(1.5 + 2 * math.log(1 + 0.1 * (math.e - 1)))
    assert found.accountant == "pure"
    assert one(*spends, co.Spend("gaussian", 5.0), delta=0).epsilon == math.inf


MIXED = [
    co.Spend("gaussian", 2.0, 0.1, 30, sampling="poisson"),
    co.Spend("gaussian", 6.0, count=4),
    co.Spend("laplace", 8.0, count=3),
    co.Spend("gaussian", 3.0, 0.02, 60, sampling="poisson"),
    co.Spend("tree", 9.0, count=16),
]


def test_the_order_and_the_portions_of_spends_make_no_difference():
    shuffled = [s for s in MIXED for _ in range(s.count)]
    shuffled = [co.Spend(s.mechanism, s.noise, s.rate, 1, s.unit, s.sampling) for s in shuffled]
    random.Random(3).shuffle(shuffled)
    for accountant in ("pld", "rdp"):
        assert one(*MIXED, accountant=accountant) == one(*shuffled, accountant=accountant)


@pytest.mark.parametrize("adjacency", ["add-remove", "replace-one"])
def test_a_bound_is_never_below_the_tight_one(adjacency):
    tight = one(*MIXED, adjacency=adjacency)
    assert tight.accountant == "pld"
    assert tight.epsilon < one(*MIXED, adjacency=adjacency, accountant="rdp").epsilon
    assert tight.epsilon > max(one(s, adjacency=adjacency).epsilon for s in MIXED)
    for kind in ("skellam", "discrete-gaussian"):
        ringed = one(co.Spend(kind, 2.0, 0.1, 30, sampling="poisson"), adjacency=adjacency)
        assert ringed.accountant == "rdp"
        assert ringed.epsilon >= one(MIXED[0], adjacency=adjacency, accountant="rdp").epsilon - 1e-9


def test_the_better_of_two_bounds_is_told():
    grid = co.epsilon(20.0, rounds=10_000, delta=1e-5, sampling=1e-3)
    event = dp.PoissonSampledDpEvent(1e-3, dp.GaussianDpEvent(20.0))
    assert grid.epsilon < theirs(dp.pld.PLDAccountant(), event, 10_000, 1e-5) * 0.8  # a finer grid than the usual
    assert grid.epsilon < co.epsilon(20.0, rounds=10_000, delta=1e-5, sampling=1e-3, accountant="rdp").epsilon
    large = co.epsilon(0.05, rounds=3, delta=1e-5)
    assert (large.accountant, large.epsilon > 600) == ("rdp", True)


def test_units_and_parties_are_never_added():
    shared, own = co.Spend("gaussian", 4.0, count=3), co.Spend("gaussian", 3.0, unit="example", who="ada\nbob")
    more = co.Spend("gaussian", 5.0, unit="example", who="bob")
    found = co.spent([shared, own, more, co.Spend("gaussian", 7.0, who="cyd")], 1e-5)
    assert [(p.unit, p.who) for p in found] == [
        ("example", "ada"), ("example", "bob"), ("participant", ""), ("participant", "cyd")
    ]  # fmt: skip
    mus = [1 / 3, math.sqrt(1 / 9 + 1 / 25), math.sqrt(3) / 4, math.sqrt(3 / 16 + 1 / 49)]
    assert [p.epsilon for p in found] == pytest.approx([gaussian_epsilon(1e-5, mu) for mu in mus], abs=1e-6)
    assert co.spent([], 1e-5) == ()


def test_facts_of_a_ledger_are_spends():
    facts = {"mechanism": "gaussian", "noise": np.float64(4.0), "rate": 0.2, "count": np.int64(3), "unit": "party"}
    facts |= {"sampling": "poisson", "who": "", "round": 7, "attempt": 0}
    assert co.spent([facts], 1e-5) == co.spent(co.Spend("gaussian", 4.0, 0.2, 3, "party", "poisson"), 1e-5)


def test_a_rate_without_a_named_sampling_is_not_credited():
    assert one(co.Spend("gaussian", 4.0, rate=0.01)) == one(co.Spend("gaussian", 4.0))
    assert one(co.Spend("gaussian", 4.0, rate=0.01)).sampling == "no sampling"


def test_the_sentence_says_unit_and_adjacency():
    said = str(co.epsilon(4.0, rounds=100, delta=1e-5, sampling=co.poisson(0.01), unit="example"))
    assert said.endswith(" at δ = 1e-05 for one example added or removed (PLD; Poisson sampling at rate 0.01 credited)")
    epsilon = co.epsilon(3.0, rounds=1, delta=1e-5)
    assert float(str(epsilon).split()[2]) >= float(epsilon) > float(str(epsilon).split()[2]) - 1e-3
    owned = {"example": "one example of ada", "participant": "the participant ada", "party": "the party ada"}
    for unit, words in owned.items():
        assert f" for {words} added or removed " in str(one(co.Spend("gaussian", 4.0, unit=unit, who="ada")))
    assert " for one participant replaced by another " in str(one(co.Spend("response", 1.0)))
    bare = one(co.Spend("gaussian", 0.0))
    assert str(bare) == (
        "no guarantee at δ = 1e-05 for one participant added or removed: something was released with too little noise"
    )


@pytest.mark.parametrize(
    ("epsilon", "settings"),
    [
        (2.0, {"rounds": 100}),
        pytest.param(1.0, {"rounds": 100, "sampling": 0.1}, marks=pytest.mark.slow),
        (4.0, {"rounds": 300, "sampling": 0.05, "accountant": "rdp"}),
        pytest.param(3.0, {"rounds": 64, "mechanism": "tree"}, marks=pytest.mark.slow),
        (1.0, {"rounds": 3, "mechanism": "laplace"}),
        (6.0, {"rounds": 50, "sampling": 0.2, "mechanism": "skellam"}),
    ],
)
def test_the_noise_that_is_found_is_the_smallest(epsilon, settings):
    noise = co.calibrate(epsilon, 1e-5, **settings)
    q, kind = settings.get("sampling", 1.0), "poisson" if "sampling" in settings else "none"

    def at(z):
        release = co.Spend(settings.get("mechanism", "gaussian"), z, q, settings["rounds"], sampling=kind)
        return one(release, accountant=settings.get("accountant", "pld")).epsilon

    assert at(noise) <= epsilon < at(noise / (1 + 3e-4))
    if settings == {"rounds": 100}:
        assert gaussian_epsilon(1e-5, 10 / noise) == pytest.approx(epsilon, rel=1e-3)


def test_many_equal_rounds_are_composed_at_once(monkeypatch):
    calls = []
    loss = accountants._loss
    monkeypatch.setattr(accountants, "_loss", lambda *a: calls.append(a) or loss(*a))
    rounds = [{"mechanism": "gaussian", "noise": 4.001, "rate": 0.01, "sampling": "poisson"}] * 10_000
    assert one(*rounds).epsilon == pytest.approx(co.epsilon(4.001, rounds=10_000, delta=1e-5, sampling=0.01).epsilon)
    assert len(calls) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("q", "z", "rounds"), list(product((0.005, 0.05, 0.3), (0.7, 1.0, 3.0), (10, 2000))))
def test_many_more_settings(q, z, rounds):
    event = dp.PoissonSampledDpEvent(q, dp.GaussianDpEvent(z))
    mine = co.epsilon(z, rounds=rounds, delta=1e-6, sampling=q)
    if mine.accountant == "pld":
        assert mine.epsilon == pytest.approx(theirs(dp.pld.PLDAccountant(), event, rounds, 1e-6), rel=1e-9)
    else:
        assert mine.epsilon > 64


def test_nothing_heavy_is_loaded_before_a_figure_is_asked_for():
    code = "import comity as co, sys; co.Budget(1.0, 1e-5), co.Privacy, co.epsilon, co.audit; "
    code += "print([m for m in ('dp_accounting', 'scipy') if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout == "[]\n"


def test_without_the_library_it_says_how_to_install_it(monkeypatch):
    accountants.library.cache_clear()
    accountants._answer.cache_clear()
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    try:
        with pytest.raises(co.ConfigError, match=r"pip install comity\[privacy\]"):
            co.epsilon(1.0, rounds=1, delta=1e-5)
    finally:
        monkeypatch.undo()
        accountants.library.cache_clear()
