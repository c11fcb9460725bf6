"""The order of a sparse graph and of groups: committed to before it is known, and no hub's choice."""

from dataclasses import replace

import cohorts
import pytest
from cohorts import Cohort, names, numbers, same

from comity.channels.graph import Graph, Odds, cut, ordered, parameters, plan, tails, whole
from comity.channels.records import bitmap, pack
from comity.channels.secagg import SecAgg
from comity.core.errors import ChannelError, ConfigError

SIXTEEN = numbers(16, 3)
GROUPS = SecAgg(groups=4)


@pytest.fixture(autouse=True, scope="module")
def _forget():
    yield
    cohorts.SAID.clear()


def told(change):
    def lie(kind, name, body):
        return replace(body, value=change(name, dict(body.value))) if kind == "shares" else body

    return lie


def reasons(lie, **more):
    walk = Cohort(GROUPS, SIXTEEN, lie=lie, **more)
    with pytest.raises(ChannelError):
        walk.through()
    return set(walk.refused.values())


def test_a_hub_that_tries_choices_of_nonces():
    """It keeps back as many as it likes, and more than the order may lack are refused."""

    def ground(name, value):
        i, keep = names(16).index(name), 3
        kept = sorted({i, *range(16)} - {j for j in range(16) if j != i} | set(range(16 - keep)) | {i})
        nonces = [value["nonces"][32 * j : 32 * j + 32] for j in kept]
        return {**value, "revealed": bitmap(kept, 16), "nonces": b"".join(nonces)}

    assert any("At most 2 nonces may be missing, so that a hub cannot choose the order. Got 3" in r
               for r in reasons(told(ground)))  # fmt: skip


def test_more_than_may_be_missing_end_the_attempt():
    walk = Cohort(GROUPS, SIXTEEN, gone={"nonce": names(3)})
    with pytest.raises(ChannelError, match=r"At most 2 nonces may be missing"):
        walk.through()
    walk = Cohort(GROUPS, SIXTEEN, gone={"nonce": names(2)})
    assert len(walk.through()) == 3


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda v: {**v, "nonces": bytes(32) + v["nonces"][32:]}, "must be what it committed to|made with the nonce"),
        (lambda v: {**v, "nonces": v["nonces"][:-32]}, "'nonces' must be 512 bytes"),
        (lambda v: {**v, "revealed": v["revealed"] + b"\x01"}, "stranger"),
        (lambda v: {**v, "revealed": bitmap(range(16), 24)}, "stranger"),
        (lambda v: {**v, "commits": bytes(32) + v["commits"][32:]}, "one roster|keys that it made known"),
    ],
)
def test_an_order_that_was_not_committed_to(change, says):
    got = reasons(told(lambda name, value: change(value)))
    assert got
    assert all(any(part in r for part in says.split("|")) for r in got), got


def test_without_ones_own_nonce():
    def mine(name, value):
        i = names(16).index(name)
        rest = value["nonces"][: 32 * i] + value["nonces"][32 * i + 32 :]
        return {**value, "revealed": bitmap(set(range(16)) - {i}, 16), "nonces": rest}

    assert all("must be made with the nonce of" in r for r in reasons(told(mine)))


def test_a_nonce_is_revealed_for_one_roster_only():
    walk = Cohort(GROUPS, SIXTEEN)
    walk.set_up()
    commits = [a.value["advert"][96:128] for kind, _, a in walk.heard if kind == "keys"]
    with pytest.raises(ChannelError, match=r"one roster. Got a second"):
        walk.told("p00", "nonce", names=pack(names(15)), commits=b"".join(commits[:15]))


def test_shares_before_nonces():
    seen = []
    walk = Cohort(GROUPS, SIXTEEN, lie=told(lambda name, value: seen.append((name, value)) or value))
    walk.set_up()
    fresh = Cohort(GROUPS, SIXTEEN)
    with pytest.raises(ChannelError, match=r"Nonces must be asked for before"):
        fresh.told(seen[0][0], "shares", **seen[0][1])


def test_the_order_changes_with_every_attempt():
    orders = set()
    for attempt in range(4):
        walk = Cohort(GROUPS, SIXTEEN, turn=(0, attempt))
        walk.set_up()
        orders.add(tuple(s.circle.names for s in walk.session.circles))
    assert len(orders) == 4


@pytest.mark.parametrize("n", [5, 29, 30, 31, 100])
def test_a_graph_is_mutual_and_its_places_differ(n):
    graph = plan(n, 0.7, Odds())
    for i in range(n):
        holders = graph.holders(i)
        assert len(set(holders)) == graph.degree + 1 == len({graph.x(i, h) for h in holders})
        assert all(i in graph.neighbours(j) for j in graph.neighbours(i))
        assert 0 not in {graph.x(i, h) for h in holders}
    assert graph.complete == (n < 30)


def test_parameters_hold_by_a_count():
    """The least threshold for which a sum over all drawings of neighbours stays below the bound."""
    for n, odds in ((30, Odds(0.1, 0.1)), (60, Odds(0.05, 0.1)), (100, Odds(0.1, 0.1, False))):
        k, t = parameters(n, odds)
        liars = odds.liars(n)
        slack = 2.0**-40 / n
        if odds.malicious:
            assert sum(p(n, liars, k, c) for c in range(liars + 1) if 2 * t <= k + 1 + c) <= slack
            assert sum(p(n, liars, k // 2, c) for c in range(liars + 1) if t <= k // 2 + 1 + c) <= slack
        else:
            assert sum(p(n, liars, k, c) for c in range(liars + 1) if t <= c) <= slack


def p(n, marked, drawn, c):
    """P(c of those drawn of n - 1 are marked), counted."""
    from math import comb

    return comb(marked, c) * comb(n - 1 - marked, drawn - c) / comb(n - 1, drawn) if drawn >= c else 0.0


def test_tails_are_those_of_the_hypergeometric_distribution():
    stats = pytest.importorskip("scipy.stats")
    for n, marked, drawn in ((10, 3, 4), (99, 10, 44), (999, 100, 222), (50, 49, 20)):
        want = stats.hypergeom.sf(range(-1, drawn), n, marked, drawn)
        assert tails(n, marked, drawn) == pytest.approx(list(want), rel=1e-9, abs=1e-300)


def test_a_degree_that_is_not_enough():
    with pytest.raises(ConfigError, match=r"Got 20. Use degree=44"):
        plan(100, 0.7, Odds(), 20)
    with pytest.raises(ConfigError, match=r"degree=None for the complete graph"):
        plan(40, 0.9, Odds(0.5), 4)
    assert plan(100, 0.7, Odds(0.02, 0.05), 20) == Graph(100, 20, 14)
    assert plan(100, 0.7, Odds(), 120).complete


def test_a_complete_threshold_cannot_give_both_secrets():
    for n in range(2, 60):
        for malicious in (True, False):
            odds = Odds(0.1, 0.1, malicious)
            t = whole(n, 0.7, odds)
            assert t == n or (2 * t > n + odds.liars(n) if malicious else t > odds.liars(n))
            assert t >= min(n, 0.7 * n)


def test_cuts_are_even():
    for n in range(4, 60):
        sizes = [len(g) for g in cut(names(n), 4)]
        assert sum(sizes) == n
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) >= 4
        assert max(sizes) <= 7
    assert ordered(["a", "b", "c"], b"1") != ordered(["a", "b", "c"], b"4") or ordered(["a"], b"") == ("a",)


def test_a_sparse_round_with_liars_and_drop_outs_is_exact():
    walk = Cohort(SecAgg(), numbers(40, 3), gone={"nonce": ["p01"], "contribute": ["p02", "p33"], "survivors": ["p05"]})
    (got,) = walk.through()
    assert same(got, walk.survivors())
