"""Multi-Krum, Bulyan, centred clipping and the reputation mean, against plain transcriptions of what was published."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import comity as co
from comity import running
from comity.combine import cohort as slices
from comity.core.contribution import Contribution
from comity.core.tree import leaves
from comity.core.wire import decode_tree, encode_tree

TURN = co.Round("", 0)
MORE = [
    co.MultiKrum(),
    co.MultiKrum(f=0, m=3),
    co.MultiKrum(f=2, m=7),
    co.Bulyan(f=0),
    co.Bulyan(),
    co.CenteredClipping(tau=0.5),
    co.CenteredClipping(tau=3, iterations=4),
    co.CenteredClipping(tau=math.inf),
    co.ReputationMean(),
    co.ReputationMean(reach=1, memory=0),
]


def cohort(rows, weights=None):
    """Contributions of weight 1, or lifted ones, with the senders 000, 001, ..."""
    weights = np.ones(len(rows)) if weights is None else weights
    return [
        Contribution("delta", np.asarray(r, float) * w, float(w), {"n": (1.0, 1.0)}, f"{i:03}")
        for i, (r, w) in enumerate(zip(rows, weights, strict=True))
    ]


def lowered(combiner, gathered):
    return combiner.lower(gathered, combiner.init(), TURN)[0]


def at(combiner, rows):
    return lowered(combiner, cohort(rows)).value


def drawn(seed, n, d=3):
    return np.random.default_rng(seed).normal(size=(n, d))


@pytest.mark.parametrize("combiner", MORE, ids=repr)
def test_the_laws_hold(combiner):
    co.testing.check_combiner(combiner)


def krum_scores(rows, places, others):
    """The sum of the squared distances to so many nearest, for each of some places."""
    out = {}
    for i in places:
        squared = sorted(float(((rows[i] - rows[j]) ** 2).sum()) for j in places if j != i)
        out[i] = sum(squared[:others])
    return out


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 2), st.integers(0, 6), st.data())
def test_multi_krum_is_the_papers(seed, f, more, data):
    n = 2 * f + 3 + more
    rows, m = drawn(seed, n), data.draw(st.integers(1, n))
    scores = krum_scores(rows, range(n), n - f - 2)
    ranked = sorted(range(n), key=scores.get)
    assume(m == n or scores[ranked[m]] > scores[ranked[m - 1]] * (1 + 1e-6))
    np.testing.assert_allclose(at(co.MultiKrum(f, m), rows), rows[ranked[:m]].mean(axis=0), rtol=1e-9)
    whole = at(co.MultiKrum(f, n), rows)
    np.testing.assert_allclose(whole, rows.mean(axis=0), rtol=1e-9, atol=1e-12)
    assume(len(set(map(tuple, rows[ranked[:2]]))) == 2 and scores[ranked[1]] > scores[ranked[0]] * (1 + 1e-6))
    np.testing.assert_allclose(at(co.MultiKrum(f, 1), rows), at(co.Krum(f), rows))


def test_m_is_all_that_is_proven_unless_given():
    rows = [*drawn(1, 8), np.full(3, 1e9), np.full(3, -1e9)]
    np.testing.assert_array_equal(at(co.MultiKrum(2), rows), at(co.MultiKrum(2, 6), rows))


def bulyan(rows, f):
    n, left, chosen = len(rows), list(range(len(rows))), []
    while len(chosen) < n - 2 * f:
        scores = krum_scores(rows, left, max(len(left) - f - 2, 1))
        best = min(left, key=lambda i: (round(scores[i], 9), i))
        chosen.append(best)
        left.remove(best)
    out = []
    for column in rows[chosen].T:
        middle = min(column, key=lambda m: (round(sum(abs(column - m)), 9), m))
        near = sorted(column, key=lambda x: (abs(x - middle), x))[: n - 4 * f]
        out.append(sum(near) / len(near))
    return np.array(out)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 2), st.integers(0, 5))
def test_bulyan_is_the_papers(seed, f, more):
    rows = drawn(seed, 4 * f + 3 + more)
    np.testing.assert_allclose(at(co.Bulyan(f), rows), bulyan(rows, f), rtol=1e-9)


LIES = st.lists(st.lists(st.floats(-1e30, 1e30), min_size=3, max_size=3), min_size=2, max_size=2)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), LIES)
def test_no_coordinate_of_bulyan_leaves_the_honest_range(seed, lies):
    honest = drawn(seed, 9)
    got = at(co.Bulyan(f=2), [*lies, *honest])
    assert (got >= honest.min(axis=0) - 1e-9).all()
    assert (got <= honest.max(axis=0) + 1e-9).all()


def test_bulyan_bounds_a_coordinate_that_krum_leaves_open():
    """A lie near all others but for one of many coordinates has the least Krum score (El Mhamdi et al., section 3)."""
    honest = drawn(0, 9, 400)
    lie = np.tile(honest.mean(axis=0), (2, 1))
    lie[:, 7] += 8
    rows = [*lie, *honest]
    assert at(co.Krum(f=2), rows)[7] > 6
    assert abs(at(co.Bulyan(f=2), rows)[7]) < 2


def clipped(rows, v, tau, iterations):
    for _ in range(iterations):
        v = v + np.mean([(x - v) * min(1, tau / max(np.linalg.norm(x - v), 1e-300)) for x in rows], axis=0)
    return v


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.floats(0.01, 10), st.integers(1, 4))
def test_centred_clipping_is_the_papers_round_after_round(seed, n, tau, iterations):
    combiner = co.CenteredClipping(tau, iterations)
    state, v = combiner.init(), None
    for t in range(3):
        rows = drawn(seed + t, n)
        v = np.sort(rows, axis=0)[(n - 1) // 2] if v is None else v
        v = clipped(rows, v, tau, iterations)
        combined, state = combiner.lower(cohort(rows), decode_tree(encode_tree(state)), TURN)
        np.testing.assert_allclose(combined.value, v, rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(state["centre"], combined.value)


def test_a_liar_moves_the_centre_by_tau_over_n_and_what_is_no_number_does_not():
    rows = np.zeros((4, 2))
    combiner, (_, state) = co.CenteredClipping(0.5), co.CenteredClipping(0.5).lower(cohort(rows), {}, TURN)
    for lie, want in ((1e30, 0.1), (-3.0, -0.1), (1e200, 0.0), (math.inf, 0.0), (math.nan, 0.0)):
        got = combiner.lower(cohort([*rows, [lie, 0.0]]), state, TURN)[0].value
        np.testing.assert_allclose(got, [want, 0.0], atol=1e-12)


def test_the_centre_fits_by_name_and_must_fit():
    combiner = co.CenteredClipping(0.5)
    one = {"b": np.array([5.0, 5.0, 5.0]), "a": np.array([1.0])}
    _, state = combiner.lower([Contribution("delta", one, 1.0)], combiner.init(), TURN)
    again, _ = combiner.lower([Contribution("delta", dict(sorted(one.items())), 1.0)], state, TURN)
    assert {k: v.tolist() for k, v in again.value.items()} == {"a": [1.0], "b": [5.0, 5.0, 5.0]}
    for odd in ({"b": np.ones(2), "a": np.ones(1)}, {"b": np.ones(3)}, np.ones(4)):
        with pytest.raises(co.ContributionError, match="last result"):
            combiner.lower([Contribution("delta", odd, 1.0)], state, TURN)


def reputation_mean(rows, names, feedback, reach, memory):
    """Beta reputations as in the docstring, one contribution after the other."""
    middle = np.sort(rows, axis=0)[(len(rows) - 1) // 2]
    away = [float(np.linalg.norm(x - middle)) for x in rows]
    agrees = [d <= reach * sorted(away)[len(away) // 2] * (1 + 1e-9) for d in away]
    top, bottom = 0.0, 0.0
    for x, who, right in zip(rows, names, agrees, strict=True):
        r, s = feedback.get(who, (0.0, 0.0))
        feedback[who] = r, s = (memory * r + right, memory * s + (not right))
        rho = (r + 1) / (r + s + 2)
        top, bottom = top + right * rho * x, bottom + right * rho
    return top / bottom


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.floats(1, 4), st.floats(0, 1))
def test_the_reputation_mean_is_what_it_says_round_after_round(seed, n, reach, memory):
    combiner, feedback = co.ReputationMean(reach, memory), {}
    state, rng = combiner.init(), np.random.default_rng(seed)
    for t in range(4):
        rows = drawn(seed + t, n) * rng.choice([1.0, 5.0], (n, 1))
        names = [f"{i:03}" for i in sorted(rng.choice(12, n, replace=False))]
        gathered = [replace(c, sender=who) for c, who in zip(cohort(rows), names, strict=True)]
        combined, state = combiner.lower(gathered, decode_tree(encode_tree(state)), TURN)
        want = reputation_mean(rows, names, feedback, reach, memory)
        np.testing.assert_allclose(combined.value, want, rtol=1e-9, atol=1e-12)
    rho = {who: (r + 1) / (r + s + 2) for who, (r, s) in feedback.items()}
    assert combiner.reputations(state) == pytest.approx(rho)


def test_who_lied_counts_less_when_it_is_honest_and_is_forgiven_in_time():
    combiner, rows = co.ReputationMean(memory=0.8), np.eye(8)
    state = combiner.init()
    for _ in range(10):
        got, state = combiner.lower(cohort([*rows[:7], np.full(8, 50.0)]), state, TURN)
        np.testing.assert_allclose(got.value, rows[:7].mean(axis=0), atol=1e-12)
    after = combiner.reputations(state)
    assert after["007"] < 0.2 < 0.8 < after["000"]
    share = combiner.lower(cohort(rows), state, TURN)[0].value[7]
    assert share < 0.5 / 8
    assert combiner.lower(cohort(rows), combiner.init(), TURN)[0].value[7] == pytest.approx(1 / 8)
    for _ in range(30):
        got, state = combiner.lower(cohort(rows), state, TURN)
    assert got.value[7] == pytest.approx(1 / 8, rel=1e-2)


def test_weights_and_absence_change_no_reputation():
    combiner = co.ReputationMean()
    rows = drawn(0, 4)
    _, state = combiner.lower(cohort(rows), combiner.init(), TURN)
    heavy = [replace(c, weight=1e6) if c.sender == "003" else c for c in cohort(rows)]
    np.testing.assert_array_equal(lowered(combiner, heavy).value, lowered(combiner, cohort(rows)).value)
    _, after = combiner.lower([*cohort(rows)[:2], replace(cohort(rows)[2], weight=0.0)], state, TURN)
    assert after["feedback"]["003"].tolist() == state["feedback"]["003"].tolist()
    assert after["feedback"]["002"].tolist() == state["feedback"]["002"].tolist()
    assert after["feedback"]["000"].tolist() != state["feedback"]["000"].tolist()


@pytest.mark.parametrize("combiner", MORE, ids=repr)
def test_small_slices_change_nothing(combiner, monkeypatch):
    rng = np.random.default_rng(3)
    value = {"b": rng.normal(size=(9, 4, 5)), "a": {"c": rng.normal(size=(9, 7)), "d": rng.normal(size=9)}}
    gathered = [
        combiner.lift(Contribution("delta", {"b": b.T, "a": {"c": c, "d": d}}, float(w), {}, str(w)))
        for b, c, d, w in zip(value["b"], value["a"]["c"], value["a"]["d"], range(1, 10), strict=True)
    ]
    whole = lowered(combiner, gathered)
    monkeypatch.setattr(slices, "BLOCK", 30)
    for (path, x), (_, y) in zip(leaves(whole.value), leaves(lowered(combiner, gathered).value), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6, err_msg=str(path))


@pytest.mark.parametrize("combiner", [c for c in MORE if c not in (co.ReputationMean(),)], ids=repr)
def test_who_has_no_weight_does_not_count_and_the_rest_is_added(combiner):
    rows = drawn(5, 9)
    spoilt = [*cohort(rows), *(replace(c, weight=0.0, sender=f"x{c.sender}") for c in cohort(rows * 1e6))]
    got = lowered(combiner, spoilt)
    np.testing.assert_allclose(got.value, at(combiner, rows), atol=1e-9)
    assert (got.weight, got.metrics) == (9.0, {"n": (18.0, 18.0)})


@pytest.mark.parametrize("combiner", MORE, ids=repr)
def test_parts_of_vectors_are_refused_by_name(combiner):
    part = Contribution("delta", {"w": np.ones(2)}, {"w": np.array([1.0, 0.0])})
    with pytest.raises(co.ContributionError, match=f"{type(combiner).__name__} compares whole vectors"):
        combiner.lift(part)


TOO_FEW = [(co.MultiKrum(1), 5), (co.MultiKrum(0, 6), 6), (co.Bulyan(1), 7), (co.Bulyan(0), 3)]
TOO_FEW += [(co.CenteredClipping(1.0), 1), (co.ReputationMean(), 1)]


@pytest.mark.parametrize(("combiner", "least"), TOO_FEW, ids=repr)
def test_too_few_is_said(combiner, least):
    assert np.isfinite(at(combiner, drawn(0, least))).all()
    idle = replace(cohort([[1.0, 1.0, 1.0]])[0], weight=0.0)
    for gathered in ([*cohort(drawn(0, least - 1)), idle, idle], []):
        with pytest.raises(co.TooFewParticipants, match=r"Got (\d|none|nothing)\."):
            lowered(combiner, gathered)


@pytest.mark.parametrize("combiner", MORE, ids=repr)
@pytest.mark.parametrize("odd", ["text", None, {"x": 1.0}, np.array(["a"]), np.ones(4)])
def test_what_does_not_fit_is_named(combiner, odd):
    with pytest.raises(co.ContributionError, match="eve"):
        lowered(combiner, [*cohort(drawn(0, 9)), Contribution("delta", odd, 1.0, {}, "eve")])


@pytest.mark.parametrize(
    "make",
    [
        *(lambda f=f, of=of: of(f=f) for f in (-1, 1.0, None, True) for of in (co.MultiKrum, co.Bulyan)),
        *(lambda m=m: co.MultiKrum(1, m) for m in (0, -1, 1.5, "1", True)),
        *(lambda t=t: co.CenteredClipping(t) for t in (0, -1.0, math.nan, None, "1", True)),
        *(lambda i=i: co.CenteredClipping(1.0, i) for i in (0, 1.5, None, True)),
        *(lambda r=r: co.ReputationMean(reach=r) for r in (0.9, math.inf, math.nan, None, "2")),
        *(lambda m=m: co.ReputationMean(memory=m) for m in (-0.1, 1.1, math.nan, None)),
    ],
)
def test_settings_that_make_no_sense(make):
    with pytest.raises(co.ConfigError, match="Got"):
        make()


MODEL = co.Linear(4, 2, rate=0.2, batch=8)


@dataclass(frozen=True)
class Liar:
    """Sends the opposite of what it learnt, ten times as long."""

    honest: co.Trainer

    def contribute(self, shared, local, round, secret):
        c, local = self.honest.contribute(shared, local, round, secret)
        return replace(c, value={name: -10 * x for name, x in c.value.items()}), local


def parties(liars):
    rng, out = np.random.default_rng(0), {}
    for i in range(11):
        x = rng.normal(size=(40, 4)).astype("float32")
        party = co.Trainer(MODEL, (x, (x[:, 0] + x[:, 1] > 0).astype(int)))
        out[f"p{i}"] = Liar(party) if i < liars else party
    return out


def right(params):
    x = np.random.default_rng(1).normal(size=(1000, 4)).astype("float32")
    return float((MODEL.predict(params, x).argmax(axis=1) == (x[:, 0] + x[:, 1] > 0)).mean())


HOLD = [co.MultiKrum(f=2), co.Bulyan(f=2), co.CenteredClipping(tau=0.2), co.ReputationMean()]


@pytest.mark.parametrize("combine", HOLD, ids=repr)
def test_two_liars_of_eleven_and_in_pieces_as_in_one(combine, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "SAVE_SECONDS", 0.0)
    fed = co.Collaboration(co.FedAvg(MODEL), parties(liars=2), combine=combine, evaluate=False)
    straight = fed.run(rounds=8)
    for n in (1, 4, 8):
        pieces = fed.run(rounds=n, folder=tmp_path)
    assert all(np.array_equal(pieces.shared[k], x) for k, x in straight.shared.items())
    clean = co.Collaboration(co.FedAvg(MODEL), parties(liars=0), evaluate=False)
    assert right(straight.shared) > right(clean.run(rounds=8).shared) - 0.02 > 0.9
    assert right(clean.replace(participants=parties(liars=2)).run(rounds=8).shared) < 0.7


def test_a_run_gives_its_reputations():
    X = np.eye(4, dtype="float32")
    model = co.Linear(4, 2, rate=0.5)
    flipped = lambda liar: np.array([1, 1, 0, 0]) if liar else np.array([0, 0, 1, 1])  # noqa: E731
    people = {n: co.Trainer(model, (X, flipped(n == "d"))) for n in "abcd"}
    combine = co.ReputationMean()
    run = co.Collaboration(co.FedAvg(model), people, combine=combine, evaluate=False).run(rounds=4)
    trusted = combine.reputations(run.combiner)
    assert trusted["d"] < min(trusted[n] for n in "abc")
