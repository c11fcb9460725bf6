"""Whoever drops out, whenever: the exact sum of those who sealed, or a refusal by which nothing is revealed."""

from itertools import chain, combinations

import cohorts
import numpy as np
import pytest
from cohorts import Cohort, names, numbers, refused, same

from comity.channels.secagg import SecAgg
from comity.core.errors import TooFewParticipants

EIGHT = numbers(8)
PHASES = ("keys", "shares", "contribute", "survivors", "unmask")


@pytest.fixture(autouse=True, scope="module")
def _forget():
    yield
    cohorts.SAID.clear()


@pytest.mark.parametrize("phase", PHASES)
def test_every_set_of_eight(phase):
    opened, first = 0, Cohort(SecAgg(), EIGHT)
    first.set_up()
    for gone in chain.from_iterable(combinations(names(8), k) for k in range(9)):
        walk = Cohort(SecAgg(), EIGHT, gone={phase: gone})
        walk = walk if phase in ("keys", "shares") else walk.after(first)
        error = refused(walk)
        assert (error is None) == (len(gone) <= 2), (gone, error)
        if error is None:
            opened += 1
            left = 8 - len(gone) * (phase not in ("survivors", "unmask"))
            assert len(walk.sealed) == left
            continue
        assert isinstance(error, TooFewParticipants)
        unmasked = [said for kind, _, said in walk.heard if kind == "unmask"]
        assert len(unmasked) < 6, "Below the threshold no secret can be put together."
        if phase != "unmask":
            assert not unmasked
    assert opened == 1 + 8 + 28


def test_some_at_every_step_of_forty_with_a_sparse_graph():
    channel, cohort, rng = SecAgg(), numbers(40, 11), np.random.default_rng(3)
    graphs = set()
    for _ in range(3):
        gone, left = {}, list(rng.permutation(names(40)))
        gone["nonce"] = [left.pop()]
        for phase in ("shares", "contribute", "survivors"):
            gone[phase] = [left.pop() for _ in range(rng.integers(0, 3))]
        walk = Cohort(channel, cohort, gone=gone)
        (got,) = walk.through()
        assert same(got, walk.survivors())
        graphs.add(walk.session.circles[0].circle.graph.degree)
    assert max(graphs) < 38


def test_groups_of_forty_each_exact():
    walk = Cohort(SecAgg(groups=8), numbers(40), gone={"keys": ["p03"], "contribute": ["p07", "p30"]})
    got = walk.through()
    groups = [[walk.cohort[n] for n in s.circle.names if n in walk.sealed] for s in walk.session.circles]
    assert len(got) == len(groups) == 4
    assert all(same(c, g) for c, g in zip(got, groups, strict=True))
    assert {len(s.circle.names) for s in walk.session.circles} <= set(range(8, 16))


def test_a_group_that_is_too_small_is_left_closed():
    first = Cohort(SecAgg(groups=4), numbers(8))
    first.set_up()
    out = first.session.circles[0].circle.names[:2]
    walk = Cohort(SecAgg(groups=4), numbers(8), gone={"contribute": out})
    (got,) = walk.through()
    assert same(got, [walk.cohort[n] for n in walk.session.circles[1].circle.names if n in walk.sealed])
    assert not {who for kind, who, _ in walk.heard if kind == "unmask"} & set(walk.session.circles[0].circle.names)


@pytest.mark.parametrize("n", [1, 2])
def test_a_cohort_below_the_minimum_is_refused_before_shares(n):
    walk = Cohort(SecAgg(), numbers(8)[:n])
    with pytest.raises(TooFewParticipants, match=f"At least 3 participants must make keys known. Got {n}"):
        walk.through()
    assert {kind for kind, _, _ in walk.heard} == {"keys"}


def test_keys_are_fresh_in_each_round_attempt_hub_and_run():
    seen = []
    for more in ({}, {"turn": (1, 0)}, {"turn": (0, 1)}, {"hub": "other"}, {"run": "another"}):
        walk = Cohort(SecAgg(), EIGHT, **more)
        (got,) = walk.through()
        assert same(got, EIGHT)
        adverts = {a.value["advert"][32:160] for kind, _, a in walk.heard if kind == "keys"}
        seen.append((adverts, {c.value["words"].tobytes() for c in walk.sealed.values()}))
    for i, (adverts, sealed) in enumerate(seen):
        for others, words in seen[:i]:
            assert not adverts & others
            assert not sealed & words
