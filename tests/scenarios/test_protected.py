"""One federated method under what may protect, compress or spoil its contributions; and what does not go together."""

import numpy as np
import pytest
import scenario_collaborations as chaos
import scenario_protecting as toys
import scenario_shards as s

import comity as co
from comity.core.tree import tree_map

SUMMED, PRIVATE = toys.SUMMED, toys.PRIVATE
LOST = toys.Post(frozenset({("p03", "contribute")}))


@pytest.fixture(scope="module")
def plain():
    return s.fed().run(s.ROUNDS)


@pytest.fixture(scope="module")
def alone():
    return float(np.mean(s.alone()))


def test_learning_together_is_worth_it(plain, alone):
    assert s.accuracy(plain.shared) > 0.96 > alone + 0.06


def test_a_masked_sum_is_the_sum(plain):
    masked = s.fed(**SUMMED).run(s.ROUNDS)
    assert s.furthest(masked.shared, plain.shared) < 1e-5
    assert masked.ledger.dropped == masked.ledger.refused == []


def test_a_masked_sum_without_who_is_lost_is_the_sum_of_the_others(plain):
    """Its masks are in the others' contributions; they take them out."""
    seen, masked = (s.fed(**parts).run(s.ROUNDS, engine=LOST) for parts in ({}, SUMMED))
    assert s.furthest(seen.shared, masked.shared) < 1e-5 < 1e-2 < s.furthest(seen.shared, plain.shared)
    for run in (seen, masked):
        absent = [n for n in s.DATA if not all(n in accepted(e.facts) for e in run.ledger if e.kind == "round")]
        assert absent == ["p03"]


def accepted(facts):
    return [who for who, ok in zip(facts["asked"].split("\n"), facts["accepted"], strict=True) if ok]


def test_noise_on_a_masked_sum_with_one_lost_within_a_budget(alone, tmp_path):
    """The folder's secret is known, so that the noise is; the other run has a secret of its own."""
    fed = s.fed(**PRIVATE, stop=toys.Budget(s.ROUNDS))
    run, other = (fed.run(99, engine=LOST, folder=folder) for folder in (chaos.fresh(tmp_path / "run"), None))
    assert run.ledger.rounds == s.ROUNDS
    assert s.accuracy(run.shared) > alone + 0.04
    assert s.furthest(run.shared, other.shared) > 0.01, "noise is not of the public seed"


def test_a_tenth_of_the_coordinates_with_the_rest_held_back(plain, alone):
    sparse = s.fed(transforms=[chaos.TopK(0.1)]).run(s.ROUNDS)
    assert s.accuracy(sparse.shared) > alone + 0.05
    assert sparse.ledger.bytes_up < 0.85 * plain.ledger.bytes_up


def test_tickets_of_ones_own_through_a_masked_sum(alone):
    run = toys.tickets(s).run(s.ROUNDS)
    masks = {n: run.local(n)["mask"] for n in s.DATA}
    assert all(m["0.weight"].mean() == 0.25 for m in masks.values())
    assert len({m["0.weight"].tobytes() for m in masks.values()}) > 5
    own = [s.accuracy(tree_map(np.multiply, run.shared, m)) for m in masks.values()]
    assert np.mean(own) > alone + 0.04


@pytest.mark.parametrize(
    "combine",
    [
        co.Median(),
        co.TrimmedMean(3),
        co.Krum(3),
        co.MultiKrum(3),
        co.GeometricMedian(),
        co.CenteredClipping(tau=0.5),
        co.ReputationMean(),
    ],
    ids=lambda c: type(c).__name__,
)
def test_three_of_ten_learn_from_flipped_labels(combine, mean_of_ten):
    robust = s.fed(sites=poisoned(), combine=combine).run(s.ROUNDS)
    assert s.accuracy(robust.shared) > mean_of_ten + 0.03


@pytest.fixture(scope="module")
def mean_of_ten(plain):
    """What the plain mean makes of it."""
    spoilt = s.accuracy(s.fed(sites=poisoned()).run(s.ROUNDS).shared)
    assert spoilt < s.accuracy(plain.shared) - 0.05
    return spoilt


def poisoned():
    return s.trainers(data={n: (x, 1 - y if n < "p03" else y) for n, (x, y) in s.DATA.items()})


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({**SUMMED, "combine": co.Median()}, "Median needs each contribution; Masked reveals only their sum"),
        ({**SUMMED, "combine": co.Collect()}, "Collect needs each contribution; Masked reveals only their sum"),
        ({"channel": toys.Masked(), "transforms": [chaos.TopK()]}, "TopK is decoded one by one; Masked reveals only"),
        ({"transforms": [toys.Noise(1.0, 1.0)], "combine": co.Median()}, "Noise acts on the sum; Median makes no sum"),
        ({"transforms": [chaos.TopK(), toys.Noise(1.0, 1.0)]}, "Put Noise first"),
        ({"transforms": [toys.Noise(1.0, 1.0), chaos.TopK()]}, "TopK may raise the norm after Noise has bounded it"),
        ({"transforms": [toys.Noise(1.0, 1.0)]}, "with weights by data size"),
        ({"channel": toys.Masked()}, "a weight without a cap"),
        ({"channel": toys.Masked(), "combine": co.Mean(uniform=True)}, "what FedAvg sends has no bound"),
        ({**SUMMED, "combine": co.Mean()}, "a weight without a cap could overflow"),
        ({"select": co.ring()}, "FedAvg sends deltas; peers mix whole models"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_moves(parts, says):
    with pytest.raises(co.ConfigError, match=says):
        s.fed(**parts)


def test_the_toys_keep_the_laws_of_transforms():
    co.testing.check_transform(toys.FixedPoint())
    co.testing.check_transform(toys.Noise(1.0, 0.5))
