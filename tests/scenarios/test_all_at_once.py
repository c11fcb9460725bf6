"""All in one recipe: a secure sum, noise in shares, few numbers on a shared support, layers that stay at home."""

import numpy as np
import pytest

import comity as co

RNG = np.random.default_rng(3)
MODEL = co.MLP(4, 2, hidden=(16,), rate=0.2)


def data():
    x = RNG.normal(size=(30, 4)).astype("float32")
    return x, (x[:, 0] > 0).astype(int)


DATA = {f"p{i}": data() for i in range(8)}
PROTECTED = {
    "channel": co.SecAgg(threshold=0.9),
    "combine": co.Mean(uniform=True),
    "transforms": [co.DiscreteGaussian(clip=1.0, noise=0.2)],
    "stop": co.Budget(1e4, 1e-5),
}
RECIPES = {
    "shared ticket": (
        co.Tickets(MODEL, 4, density=0.3, bound=4.0),
        lambda d: co.SharedTicketTrainer(MODEL, d),
    ),
    "personal head": (co.FedRep(MODEL, head=("2",), bound=4.0), lambda d: co.FedRepTrainer(MODEL, d)),
    "normal": (co.FedAvg(MODEL, bound=4.0), lambda d: co.Trainer(MODEL, d)),
}


@pytest.mark.parametrize("name", RECIPES)
def test_it_runs_is_charged_and_shows_nobody(name):
    method, who = RECIPES[name]
    sites = {n: who(d) for n, d in DATA.items()}
    run = co.Collaboration(method, sites, **PROTECTED).run(rounds=4)
    plain = co.Collaboration(method, sites, combine=co.Mean(uniform=True), evaluate=False).run(rounds=4)
    assert run.ledger.rounds == 4
    assert not run.metrics
    spends = [e.facts for e in run.ledger if e.kind == "spend"]
    assert [s["mechanism"] for s in spends] == ["discrete-gaussian"] * 4
    assert co.spent(spends, 1e-5)[0].unit == "participant"
    rounds = [e.facts for e in run.ledger if e.kind == "round"]
    assert all(f["accepted"].all() and not f["refused"] and not f["dropped"] for f in rounds)
    if name == "shared ticket":
        a, b = method.params(run.shared), method.params(plain.shared)
        assert sum(int(np.count_nonzero(a[k])) for k in ("0.weight", "2.weight")) == 29
        assert int(rounds[-1]["up"].sum()) < int(rounds[0]["up"].sum())
    else:
        a, b = run.shared, plain.shared
    assert any(not np.array_equal(a[k], b[k]) for k in a)
    assert all(np.isfinite(a[k]).all() for k in a)
