"""Boosting: trees by hand, the same trees whatever the partition, cohorts that change, missing values, patience."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import comity as co
from comity.core.wire import encode_tree
from comity.methods.bins import LOOKS, counts, edges_of, finer, first_cells, keys_of, values_of
from comity.methods.trees import NEVER

SMALL = {"trees": 4, "depth": 3, "rate": 0.3, "bins": 12}
HERE = co.Round("test", 0, me="ann")


def problem(classes, rows=240, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 4))
    x[:, 1] = rng.integers(0, 4, rows)
    x[:, 2] = np.where(rng.random(rows) < 0.7, 0.0, rng.exponential(100, rows))
    score = x[:, 0] + (x[:, 1] == 2) + np.log1p(x[:, 2]) / 3 + 0.3 * rng.normal(size=rows)
    x[rng.random((rows, 4)) < 0.1] = np.nan
    y = score if not classes else np.searchsorted(np.quantile(score, np.arange(1, classes) / classes), score)
    return x, y


def grown(data, parts, method, rounds=None, **more):
    x, y = data
    sites = {f"p{i}": co.BoostingTrainer((x[p], y[p])) for i, p in enumerate(parts)}
    fed = co.Collaboration(method, sites, evaluate=False, stop=method.stop, **more)
    run = fed.run(method.rounds if rounds is None else rounds)
    assert not [*run.ledger.refused, *run.ledger.dropped]
    return run


@pytest.mark.parametrize("classes", [0, 2, 4])
def test_the_trees_are_the_same_to_the_bit_whatever_the_partition(classes):
    x, y = problem(classes)
    everybody, rng = np.arange(len(y)), np.random.default_rng(1)
    method = co.Boosting(4, classes, **SMALL)
    pooled = grown((x, y), [everybody], method).shared
    assert len(pooled["value"]) == 4
    for parts in (
        np.array_split(rng.permutation(everybody), 7),
        np.array_split(y.argsort(kind="stable"), 3),
        [everybody[:1], everybody[1:3], everybody[3:]],
        np.array_split(np.argsort(np.nan_to_num(x[:, 0])), 5),
    ):
        assert encode_tree(grown((x, y), parts, method).shared) == encode_tree(pooled)


def naive(x, y, edges, method):
    """Newton boosting in plain loops, with exact gradients: (rows,) margins of a binary or measured target."""
    first = np.mean(y) if not method.classes else np.log(np.mean(y) / (1 - np.mean(y)))
    margin = np.full(len(y), first)
    for _ in range(method.trees):
        p = margin if not method.classes else 1 / (1 + np.exp(-margin))
        g, h = p - y, np.ones(len(y)) if not method.classes else p * (1 - p)
        step, nodes = np.zeros(len(y)), [np.arange(len(y))]
        for level in range(method.depth + 1):
            after = []
            for rows in nodes:
                split = None if level == method.depth else naive_split(x[rows], g[rows], h[rows], edges, method)
                if split is None:
                    step[rows] = -method.rate * g[rows].sum() / (h[rows].sum() + method.l2)
                else:
                    after += [rows[split], rows[~split]]
            nodes = after
        margin = margin + step
    return margin


def naive_split(x, g, h, edges, method):
    def half(rows):
        return g[rows].sum() ** 2 / (h[rows].sum() + method.l2)

    most, found = 1e-9, None
    for j in range(x.shape[1]):
        for edge in [*edges[j], np.inf]:
            for missing in (False, True):
                left = np.where(np.isnan(x[:, j]), missing, x[:, j] <= edge)
                if min(h[left].sum(), h[~left].sum()) < method.least or not left.any() or left.all():
                    continue
                gain = half(left) + half(~left) - half(np.ones(len(g), bool))
                if gain > most + 1e-6:
                    most, found = gain, left
    return found


@pytest.mark.parametrize("classes", [0, 2])
def test_it_is_newton_boosting_by_hand(classes):
    """Chen and Guestrin, KDD 2016, eq. 5 and 7, algorithm 3: up to the rounding of gradients to 2**-20."""
    x, y = problem(classes, rows=150)
    edges = [np.nanquantile(c, [0.2, 0.4, 0.6, 0.8]).astype("float32") for c in x.T]
    method = co.Boosting(4, classes, **{**SMALL, "edges": edges, "least": 2.0})
    run = grown((x, y), np.array_split(np.arange(150), 4), method)
    margin = naive(x.astype("float32"), y, edges, method)
    said = method.predict(run.shared, x)
    assert_allclose(said if not classes else np.log(said[:, 1] / said[:, 0]), margin, atol=2e-4)
    assert np.std(margin) > 0.2


def test_softmax_of_several_classes_learns():
    data = load()
    method = co.Boosting(64, 10, trees=15, depth=3, rate=0.3, bins=16)
    (x, y), (a, b) = data
    run = grown((x, y), np.array_split(y.argsort(kind="stable"), 6), method)
    p = method.predict(run.shared, a)
    assert_allclose(p.sum(axis=1), 1)
    assert (p.argmax(axis=1) == b).mean() > 0.93


def load():
    x, y = pytest.importorskip("sklearn.datasets").load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    return (x[order[600:]], y[order[600:]]), (x[order[:600]], y[order[:600]])


def test_as_good_as_scikit_learns_pooled_trees_on_breast_cancer():
    datasets, metrics = pytest.importorskip("sklearn.datasets"), pytest.importorskip("sklearn.metrics")
    from sklearn.ensemble import HistGradientBoostingClassifier

    x, y = datasets.load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    train, test = order[:380], order[380:]
    method = co.Boosting(30, 2, trees=40, depth=3)
    run = grown((x[train], y[train]), np.array_split(np.arange(380), 5), method)
    theirs = HistGradientBoostingClassifier(max_iter=40, early_stopping=False).fit(x[train], y[train])
    ours = metrics.roc_auc_score(y[test], method.predict(run.shared, x[test])[:, 1])
    assert ours > metrics.roc_auc_score(y[test], theirs.predict_proba(x[test])[:, 1]) - 0.01


def test_missing_values_go_where_they_belong():
    x = np.array([[1.0], [2.0], [3.0], [4.0], [np.nan], [np.nan]] * 5)
    for y in (np.array([0, 0, 1, 1, 1, 1] * 5), np.array([0, 0, 1, 1, 0, 0] * 5), np.array([0, 0, 0, 0, 1, 1] * 5)):
        method = co.Boosting(1, 2, trees=20, depth=2, rate=0.5, least=0.1)
        run = grown((x, y), [np.arange(9), np.arange(9, 30)], method)
        assert_array_equal(method.predict(run.shared, x).argmax(axis=1), y)


def test_a_value_missing_for_the_first_time_goes_with_the_many():
    x, y = np.arange(40.0)[:, None], (np.arange(40) >= 30).astype(int)
    method = co.Boosting(1, 2, trees=10, depth=1, rate=0.5)
    run = grown((x, y), [np.arange(20), np.arange(20, 40)], method)
    assert method.predict(run.shared, [[np.nan]]).argmax() == 0


@dataclass(frozen=True)
class Fails:
    """Fails to answer in some rounds."""

    inner: Any
    rounds: tuple[int, ...]

    def contribute(self, shared, local, round, secret):
        if round.number in self.rounds and shared.kind != "score":
            raise OSError("no power")
        return self.inner.contribute(shared, local, round, secret)


def test_a_level_that_others_answer_is_asked_in_full():
    """Who is absent at the second level of the first tree: parents less children would be nonsense."""
    x, y = problem(2)
    method = co.Boosting(4, 2, trees=2, depth=3, bins=12)
    parts = np.array_split(np.arange(len(y)), 3)
    sites = {f"p{i}": co.BoostingTrainer((x[p], y[p])) for i, p in enumerate(parts)}
    broken = {**sites, "p2": Fails(sites["p2"], tuple(range(LOOKS + 1, 99)))}
    run = co.Collaboration(method, broken, evaluate=False).run(LOOKS + 4)
    assert (run.state["subtract"], run.state["level"], len(run.state["value"])) == (0, 0, 1)
    two = np.concatenate(parts[:2])
    tree = {k: run.shared[k][0] for k in ("feature", "cut", "left", "value")}
    assert (tree["cut"] != NEVER).sum() > 3
    rows = [leaf(tree, run.shared, r) for r in x[two]]
    p = y.mean()
    for j in set(rows):
        here = two[[r == j for r in rows]]
        value = -0.1 * (p - y[here]).sum() / (p * (1 - p) * len(here) + 1)
        assert_allclose(tree["value"][0, j], value, atol=1e-4)


def leaf(tree, shared, row):
    node, edges = 0, np.split(shared["edges"], np.cumsum(shared["widths"].astype(int) - 1)[:-1])
    for level in range(3):
        at = node + 2**level - 1
        value = np.float32(row[tree["feature"][0, at]])
        right = not np.isnan(value) and (edges[tree["feature"][0, at]] < value).sum() > tree["cut"][0, at]
        right |= bool(np.isnan(value) and not tree["left"][0, at])
        node = 2 * node + int(right and tree["cut"][0, at] != NEVER)
    return node


def test_asking_in_full_or_in_halves_makes_the_same_trees():
    x, y = problem(3)
    method, parts = co.Boosting(4, 3, **SMALL), np.array_split(np.arange(240), 3)

    class Full(co.Boosting):
        def _begun(self, state, sums):
            return {**super()._begun(state, sums), "subtract": 0}

    full = grown((x, y), parts, Full(4, 3, **SMALL))
    halves = grown((x, y), parts, method)
    assert encode_tree(full.shared) == encode_tree(halves.shared)
    assert full.ledger.bytes_up > halves.ledger.bytes_up + 30_000


def test_sampled_cohorts_learn():
    (x, y), (a, b) = load()
    keep, held = y < 2, b < 2
    method = co.Boosting(64, 2, trees=10, depth=2, rate=0.3, bins=8)
    parts = np.array_split(np.arange(keep.sum()), 8)
    run = grown((x[keep], y[keep]), parts, method, method.rounds + 1, select=co.sample(0.5))
    assert (method.predict(run.shared, a[held]).argmax(axis=1) == b[held]).mean() > 0.97


def test_patience_keeps_the_trees_of_the_least_validation_loss(capsys):
    rng = np.random.default_rng(0)
    x, v = rng.normal(size=(60, 3)), rng.normal(size=(200, 3))
    y, w = ((z[:, 0] + 2 * rng.normal(size=len(z)) > 0).astype(int) for z in (x, v))
    method = co.Boosting(3, 2, trees=60, depth=3, rate=0.3, patience=5)
    sites = {f"p{i}": co.BoostingTrainer((x[i::3], y[i::3]), valid=(v[i::3], w[i::3])) for i in range(3)}
    run = co.Collaboration(method, sites, stop=method.stop).run(method.rounds)
    assert run.ledger.rounds < method.rounds
    assert capsys.readouterr().err == "", "no more was to come: nothing to warn of"
    curve = run.ledger.metric("valid_log_loss")
    n = len(run.shared["value"])
    assert len(run.state["value"]) == n + 5 < 60
    losses = [
        -np.log(method.predict(some(run.state, k), v)[np.arange(200), w]).mean() for k in range(len(run.state["value"]))
    ]
    assert np.argmin(losses) == n
    assert_allclose(run.metrics["valid_log_loss"], losses[n], atol=1e-9)
    assert curve
    everything = grown((x, y), [np.arange(60)], replace(method, patience=0))
    assert len(everything.shared["value"]) == 60


def some(state, k):
    return {**state, **{name: state[name][:k] for name in ("feature", "cut", "left", "value")}}


def test_an_answer_depends_on_nothing_but_the_question():
    """Margins that are kept in memory are those of the trees told, whichever were told before."""
    x, y = problem(2)
    edges = [np.nanquantile(c, [0.2, 0.4, 0.6, 0.8]) for c in x.T]
    method = co.Boosting(4, 2, edges=edges, **SMALL)
    other = np.roll(y, 7)
    runs = [grown((x, labels), [np.arange(240)], method, 1 + n) for labels in (y, other) for n in (2, 5, 8)]
    shapes = [(len(run.state["value"]), run.state["level"]) for run in runs]
    assert shapes == 2 * [(0, 2), (1, 2), (2, 2)]
    used = co.BoostingTrainer((x, y), test=(x, y))
    questions = [method.share(run.state, "ann", HERE) for run in runs]
    for i in (0, 1):
        told = questions[i].value
        turned = {**told["tree"], "feature": 3 - told["tree"]["feature"]}
        earlier = {"level": 1, "asked": np.unique(told["asked"] // 2)}
        for change in ({"tree": turned}, earlier):
            questions += [replace(questions[i], value={**told, **change}), questions[i]]
    for i in (0, 3, 2, 5, 1, 4, 0, 2, 0, *range(6, 10), 1, *range(10, 14)):
        shared = questions[i]
        for asked in (shared, replace(shared, kind="score")):
            fresh = co.BoostingTrainer((x, y), test=(x, y))
            got, want = (s.contribute(asked, {}, HERE, None)[0] for s in (used, fresh))
            assert encode_tree(got.value) == encode_tree(want.value)
            assert got.metrics == want.metrics


@pytest.mark.parametrize("classes", [0, 2, 3])
def test_the_laws_of_methods(classes):
    x, y = problem(classes, rows=60)
    sites = {f"p{i}": co.BoostingTrainer((x[i::2], y[i::2]), valid=(x[:9], y[:9])) for i in range(2)}
    co.testing.check_method(co.Boosting(4, classes, patience=2, **SMALL), sites, rounds=LOOKS + 5)


def test_resumed_is_uninterrupted(tmp_path):
    x, y = problem(2)
    method = co.Boosting(4, 2, **SMALL)
    parts = np.array_split(np.arange(240), 3)
    for rounds in (2, LOOKS + 2, LOOKS + 7, method.rounds):
        run = grown((x, y), parts, method, rounds)
        sites = {f"p{i}": co.BoostingTrainer((x[p], y[p])) for i, p in enumerate(parts)}
        fed = co.Collaboration(method, sites, evaluate=False, stop=method.stop)
        again = fed.run(rounds, folder=tmp_path / "run")
        assert encode_tree(again.state) == encode_tree(run.state)


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (np.zeros((4, 2)), [0, 1, 0, 1], "shape .rows, 3"),
        (np.zeros((4, 3)), [0, 1, 0, 2], "from 0 to 1. Got 2"),
        (np.zeros((4, 3)), [0, 1, 0, 0.5], "Got 0.5"),
        (np.zeros((4, 3)), [0, 1, np.nan, 1], "finite"),
        (np.zeros((4, 3)), [0, 1, 1], "one value for each row"),
    ],
)
def test_data_that_do_not_fit_are_refused_by_name(x, y, says):
    sites = {"ann": co.BoostingTrainer((x, np.array(y))), "bob": co.BoostingTrainer((np.eye(3), np.array([0, 1, 1])))}
    with pytest.raises(co.TooFewParticipants, match=f"ann.*{says}"):
        co.Collaboration(co.Boosting(3, 2), sites, quorum=1.0, retries=0).run(1)


def test_sums_that_no_rows_can_give_are_refused():
    x, y = problem(2)
    method = co.Boosting(4, 2, **SMALL)

    @dataclass(frozen=True)
    class Liar:
        inner: Any

        def contribute(self, shared, local, round, secret):
            c, local = self.inner.contribute(shared, local, round, secret)
            worse = {**c.value, "h": -c.value["h"]} if c.kind == "gradient" else c.value
            return replace(c, value=worse), local

    sites = {"ann": co.BoostingTrainer((x[:99], y[:99])), "bob": Liar(co.BoostingTrainer((x[99:], y[99:])))}
    run = co.Collaboration(method, sites, evaluate=False).run(LOOKS + 2)
    assert {who for _, who, _ in run.ledger.refused} == {"bob"}


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2, max_size=30))
def test_keys_order_as_floats_do(values):
    x = np.array(values, np.float32) + np.float32(0)
    keys = keys_of(x)
    assert_array_equal(values_of(keys), x)
    assert_array_equal(np.sign(np.diff(keys)), np.sign(np.diff(x.astype(float))))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 40))
def test_bins_hold_about_as_many_and_keep_values_apart(seed, bins):
    rng = np.random.default_rng(seed)
    heap = np.where(rng.random(500) < 0.6, 0.0, rng.integers(1, 60, 500))
    x = np.stack([rng.normal(size=500) * 10.0 ** rng.integers(-5, 6), heap, rng.integers(0, 4, 500)], axis=1)
    x = x.astype(np.float32)
    cells = first_cells(3)
    for _ in range(LOOKS - 1):
        cells = finer(cells, counts(x, cells))
    edges = edges_of(cells, counts(x, cells), bins)
    assert max(map(len, edges)) < bins
    for column, found in zip(x.T, edges, strict=True):
        assert (np.diff(found) > 0).all()
        held = np.bincount(np.searchsorted(found, column), minlength=len(found) + 1)
        assert (held > 0).all()
    if bins >= 4:
        assert len(edges[2]) == len(set(x[:, 2])) - 1
    assert np.bincount(np.searchsorted(edges[0], x[:, 0])).max() <= 2 * 500 / bins + 2
    if bins > 2:
        zeros = np.searchsorted(edges[1], x[:, 1]) == np.searchsorted(edges[1], [0.0])
        assert_array_equal(zeros, x[:, 1] == 0)


def test_going_on_is_not_having_stopped():
    x, y = problem(3)
    parts = np.array_split(np.arange(240), 3)
    whole = grown((x, y), parts, co.Boosting(4, 3, **SMALL))
    half = grown((x, y), parts, co.Boosting(4, 3, **{**SMALL, "trees": 2}))
    rest = grown((x, y), parts, co.Boosting(4, 3, start=half.shared, **{**SMALL, "trees": 2}))
    assert rest.ledger.rounds == 1 + 2 * 3
    assert encode_tree(rest.shared) == encode_tree(whole.shared)


def test_trees_to_go_on_from_must_fit():
    x, y = problem(2)
    trees = grown((x, y), [np.arange(240)], co.Boosting(4, 2, **SMALL)).shared
    for wrong in ({"depth": 4}, {"inputs": 5}, {"classes": 3}):
        with pytest.raises(co.ConfigError, match="'start' of Boosting must have leaves"):
            co.Boosting(**{"inputs": 4, "classes": 2, "depth": 3, "start": trees, **wrong})
    with pytest.raises(co.ConfigError, match="Got 'x'"):
        co.Boosting(4, 2, start="x")
