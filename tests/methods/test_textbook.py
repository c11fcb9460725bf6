"""Each algorithm of its paper, written out in numpy, against the parts in the loop: on a quadratic, to 1e-6."""

import numpy as np
import pytest
from quadratic import EVERYBODY, SOME, Quadratic, gradient, loss, problem, run

import comity as co

DATA = problem()
N = len(DATA)
RATE, K, ROUNDS = 0.05, 3, 7
MODEL = Quadratic(RATE, K)
W0 = np.array(MODEL.first)
COHORTS = pytest.mark.parametrize("cohorts", [EVERYBODY, SOME], ids=["full", "partial"])


def sites(make, **settings):
    return {name: make(MODEL, data, **settings) for name, data in DATA.items()}


def near(tree, w):
    np.testing.assert_allclose(MODEL.flat(tree), w, atol=1e-6, rtol=0)


def descend(w, data, extra=lambda w: 0.0, steps=K):
    for _ in range(steps):
        w = w - RATE * (gradient(w, data) + extra(w))
    return w


def rounds(cohorts):
    return (cohorts[t % len(cohorts)] for t in range(ROUNDS))


@COHORTS
@pytest.mark.parametrize("hub", [1.0, 0.6])
def test_scaffold(cohorts, hub):
    """Algorithm 1, option II: c_i+ = c_i - c + (x - y)/(K·rate)."""
    x, c, own = W0, np.zeros(5), dict.fromkeys(DATA, np.zeros(5))
    for S in rounds(cohorts):
        dx, dc = [], []
        for i in S:
            y = descend(x, DATA[i], lambda w, i=i, c=c: c - own[i])
            plus = own[i] - c + (x - y) / (K * RATE)
            dx.append(y - x)
            dc.append(plus - own[i])
            own[i] = plus
        x = x + hub * np.mean(dx, 0)
        c = c + len(S) / N * np.mean(dc, 0)
    found = run(co.Scaffold(MODEL, rate=hub), sites(co.ScaffoldTrainer), cohorts, ROUNDS)
    near(found.shared, x)
    near(found.state["control"], c)
    for i in DATA:
        near(found.local(i)["control"], own[i])
    np.testing.assert_allclose(c, np.mean(list(own.values()), 0), atol=1e-12)


@COHORTS
def test_feddyn(cohorts):
    """Algorithm 1, the minimisation by K steps of descent."""
    alpha, w, h, own = 0.7, W0, np.zeros(5), dict.fromkeys(DATA, np.zeros(5))
    for P in rounds(cohorts):
        after = {}
        for i in P:
            after[i] = descend(w, DATA[i], lambda v, i=i, w=w: alpha * (v - w) - own[i])
            own[i] = own[i] - alpha * (after[i] - w)
        h = h - alpha / N * sum(v - w for v in after.values())
        w = np.mean(list(after.values()), 0) - h / alpha
    found = run(co.FedDyn(MODEL, alpha=alpha), sites(co.FedDynTrainer), cohorts, ROUNDS)
    near(found.shared, w)
    near({k: alpha * v for k, v in found.state["h"].items()}, h)
    for i in DATA:
        near(found.local(i)["gradient"], own[i])


@COHORTS
@pytest.mark.parametrize("q", [0.0, 0.5, 2.0])
def test_qfedavg(cohorts, q):
    """Algorithm 2, each party counted once."""
    w, L = W0, 1 / RATE
    for S in rounds(cohorts):
        top, bottom = np.zeros(5), 0.0
        for i in S:
            dw, F = L * (w - descend(w, DATA[i])), loss(w, DATA[i])
            top = top + F**q * dw
            bottom += q * F ** (q - 1) * (dw @ dw) + L * F**q
        w = w - top / bottom
    found = run(
        co.QFedAvg(MODEL, q=q, rate=RATE), sites(co.QFedAvgTrainer), cohorts, ROUNDS, combine=co.Mean(uniform=True)
    )
    near(found.shared, w)


@COHORTS
def test_qfedavg_with_q_0_is_fedavg(cohorts):
    fair = run(co.QFedAvg(MODEL, q=0, rate=0.3), sites(co.QFedAvgTrainer), cohorts, ROUNDS)
    near(fair.shared, MODEL.flat(run(co.FedAvg(MODEL), sites(co.Trainer), cohorts, ROUNDS).shared))


@COHORTS
def test_fedrep(cohorts):
    """Algorithm 1: several steps on the head under the body, then some on the body under the new head."""
    body, heads = W0[:3], dict.fromkeys(DATA, W0[3:])
    for S in rounds(cohorts):
        bodies = []
        for i in S:
            w = np.concatenate([body, heads[i]])
            for _ in range(4):
                w = w - RATE * np.r_[np.zeros(3), gradient(w, DATA[i])[3:]]
            for _ in range(2):
                w = w - RATE * np.r_[gradient(w, DATA[i])[:3], np.zeros(2)]
            heads[i] = w[3:]
            bodies.append(w[:3])
        body = np.mean(bodies, 0)
    found = run(co.FedRep(MODEL, head=("head",)), sites(co.FedRepTrainer, head_epochs=4, epochs=2), cohorts, ROUNDS)
    assert list(found.shared) == ["body"]
    np.testing.assert_allclose(found.shared["body"], body, atol=1e-6)
    for i in DATA:
        np.testing.assert_allclose(found.local(i)["head"]["head"], heads[i], atol=1e-6)


@COHORTS
@pytest.mark.parametrize("eta", [0.0, 0.02])
def test_apfl(cohorts, eta):
    """Algorithm 1 step by step; alpha moves by eq. 10 at a round's first step, and v begins at the first w seen."""
    w, own, alphas = W0, {}, dict.fromkeys(DATA, 0.4)
    for U in rounds(cohorts):
        after = []
        for i in U:
            wi, v, a = w, own.get(i, w), alphas[i]
            mixed = a * v + (1 - a) * wi
            slope = (v - wi) @ gradient(mixed, DATA[i])
            for _ in range(K):
                wi = wi - RATE * gradient(wi, DATA[i])
                v = v - RATE * a * gradient(mixed, DATA[i])
                mixed = a * v + (1 - a) * wi
            own[i], alphas[i] = v, float(np.clip(a - eta * slope, 0, 1))
            after.append(wi)
        w = np.mean(after, 0)
    who = sites(co.APFL, alpha=0.4, rate=eta)
    found = run(co.FedAvg(MODEL), who, cohorts, ROUNDS, combine=co.Mean(uniform=True))
    near(found.shared, w)
    assert eta == 0 or len(set(alphas.values())) > 1
    for i in DATA:
        near(found.local(i)["personal"], own[i])
        assert abs(found.local(i)["alpha"] - alphas[i]) < 1e-6


@COHORTS
def test_ifca(cohorts):
    """Algorithm 1, option II: each trains the model of the lowest loss, and each model is averaged over its own."""
    starts = [np.ones(5), -np.ones(5), np.full(5, 50.0)]
    models = [w.copy() for w in starts]
    picks = {}
    for S in rounds(cohorts):
        after = {j: [] for j in range(3)}
        for i in S:
            picks[i] = int(np.argmin([loss(w, DATA[i]) for w in models]))
            after[picks[i]].append(descend(models[picks[i]], DATA[i]))
        models = [np.mean(after[j], 0) if after[j] else models[j] for j in range(3)]
    start = {str(j): MODEL.tree(w) for j, w in enumerate(starts)}
    method = co.IFCA(MODEL, clusters=3, start=start)
    found = run(method, sites(co.IFCATrainer), cohorts, ROUNDS, combine=co.Mean(uniform=True))
    assert set(picks.values()) == {0, 1}
    for j, w in enumerate(models):
        near(found.shared[str(j)], w)
    assert {i: found.local(i)["cluster"] for i in DATA} == picks


def test_ifca_weighs_by_examples():
    """The ordinary Mean: in a cluster of two, sums of n·delta over sums of n."""
    w = np.zeros(5)
    start = {"0": MODEL.tree(w), "1": MODEL.tree(w + 99)}
    pair = {name: DATA[name] for name in ("p0", "p3")}
    who = {name: co.IFCATrainer(MODEL, data) for name, data in pair.items()}
    found = run(co.IFCA(MODEL, start=start), who, (("p0", "p3"),), 1)
    sizes = [len(y) for _, y in pair.values()]
    near(found.shared["0"], np.average([descend(w, d) for d in pair.values()], 0, sizes))
    near(found.shared["1"], w + 99)


def test_scaffold_and_feddyn_find_the_optimum_that_fedavg_misses():
    """Unlike data, many local steps: FedAvg's fixed point is not the minimum of the mean loss."""
    best = np.linalg.solve(*(sum(part) for part in zip(*(normal(d) for d in DATA.values()), strict=True)))
    far = {}
    for name, method, make, more in (
        ("FedAvg", co.FedAvg(MODEL), co.Trainer, {"combine": co.Mean(uniform=True)}),
        ("Scaffold", co.Scaffold(MODEL), co.ScaffoldTrainer, {}),
        ("FedDyn", co.FedDyn(MODEL, alpha=1.0), co.FedDynTrainer, {}),
    ):
        found = run(method, sites(make), EVERYBODY, 250, **more)
        far[name] = np.abs(MODEL.flat(found.shared) - best).max()
    assert far["Scaffold"] < 1e-6 > far["FedDyn"]
    assert far["FedAvg"] > 1e-2


def normal(data):
    x, y = data
    return x.T @ x / len(y), x.T @ y / len(y)
