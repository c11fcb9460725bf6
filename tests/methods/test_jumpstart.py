"""Who is asked when; what those who come later are given; and that names stay out of the recipe."""

import json

import numpy as np
import pytest

import comity as co
from comity.methods.sparsity import density

RNG = np.random.default_rng(0)
ROWS = {f"p{i}": (RNG.normal(size=(12, 20)).astype("float32"), RNG.integers(0, 3, 12)) for i in range(6)}
MLP = co.MLP(20, 3, hidden=(100,), rate=0.1, batch=4)
FEW = ("p1", "p4", "p5")


def fed(select, method=None, **more):
    method = method or co.Tickets(MLP, 8, density=0.2, begin=0.5, by=1)
    sites = {name: co.SharedTicketTrainer(MLP, rows) for name, rows in ROWS.items()}
    return co.Collaboration(method, sites, select=select, evaluate=False, **more)


def asked(run):
    return [e.facts["asked"].split("\n") for e in run.ledger if e.kind == "round"]


def test_a_few_first_then_everybody():
    assert asked(fed(co.jumpstart(FEW, 3)).run(5)) == [list(FEW)] * 3 + [list(ROWS)] * 2


def test_samples_of_the_few_and_then_of_all():
    select = co.jumpstart(FEW[::-1], 20, among=co.sample(2), then=co.sample(4))
    rounds = asked(fed(select, co.FedAvg(MLP), quorum=0).replace(participants=trainers()).run(40))
    assert all(len(r) == 2 and set(r) < set(FEW) for r in rounds[:20])
    assert set.union(*map(set, rounds[:20])) == set(FEW)
    assert all(len(r) == 4 for r in rounds[20:])
    assert set.union(*map(set, rounds[20:])) == set(ROWS)
    assert select.expected(6) == 4.0
    assert co.jumpstart(FEW, 1).expected(6) == 6.0


def trainers():
    return {name: co.Trainer(MLP, rows) for name, rows in ROWS.items()}


def test_it_is_the_run_of_the_few_and_then_that_of_all():
    """One run, or two of which the second begins with the state of the first: with full batches, orders are equal."""
    model = co.MLP(20, 3, hidden=(100,), rate=0.1, batch=100)
    method = co.Tickets(model, 8, density=0.2, begin=0.25, by=1)
    sites = {name: co.SharedTicketTrainer(model, rows) for name, rows in ROWS.items()}
    one = co.Collaboration(method, sites, select=co.jumpstart(FEW, 3), evaluate=False).run(8)
    few = co.Collaboration(method, {n: sites[n] for n in FEW}, evaluate=False).run(3)
    two = co.Collaboration(co.Tickets(model, 8, density=0.2, begin=0.25, by=1, start=few.state), sites, evaluate=False)
    found = two.run(5)
    assert found.state["params"]["mask"] == one.state["params"]["mask"]
    for name, leaf in method.params(one.state).items():
        np.testing.assert_allclose(method.params(found.state)[name], leaf, atol=1e-6)


def test_newcomers_begin_with_a_lean_ticket_that_is_not_final():
    method = co.Tickets(MLP, 10, density=0.1, by=0.8)
    run = fed(co.jumpstart(FEW, 4), method, transforms=[co.Once(least=64)]).run(10)
    joined, final = method.density_after(4), method.density_after(10)
    assert final == 0.1 < joined < 0.3
    first = [e.facts for e in run.ledger if e.kind == "round"][4]
    down = dict(zip(first["asked"].split("\n"), first["down"], strict=True))
    dense = sum(leaf.nbytes for leaf in MLP.init(co.Round("", 0)).values())
    assert all(down[n] < 0.45 * dense for n in ROWS)
    assert density(method.mask(run.state)) == pytest.approx(0.1, abs=1e-3)
    late = [sum(f["up"][f["asked"].split("\n").index(n)] for f in facts(run) if n in f["asked"]) for n in ("p0", "p1")]
    assert late[0] < 0.6 * late[1], "newcomers send less"


def facts(run):
    return [e.facts for e in run.ledger if e.kind == "round"]


def test_it_resumes(tmp_path):
    select = co.jumpstart(FEW, 3, among=co.sample(2))
    straight = fed(select).run(6)
    for rounds in (2, 4, 6):
        run = fed(select).run(rounds, folder=tmp_path)
    assert asked(run) == asked(straight)
    assert run.state["params"]["mask"] == straight.state["params"]["mask"]


def test_names_are_not_in_the_recipe():
    one, other = (co.recipe(fed(co.jumpstart(first, 3, then=co.sample(2)))) for first in (FEW, ("p0", "p2", "p3")))
    assert not any(name in json.dumps(one) for name in FEW)
    assert one["hash"] != other["hash"]
    assert co.recipe(fed(co.jumpstart(FEW[::-1], 3, then=co.sample(2)))) == one
    assert co.recipe(fed(co.jumpstart(FEW, 3, then=co.sample(3))))["hash"] != one["hash"]


def test_who_goes_first_must_be_there():
    with pytest.raises(co.ConfigError, match=r"'first' of jumpstart must be participants\. Got 'nobody'"):
        fed(co.jumpstart(("p0", "nobody"), 3)).run(1)


def test_what_either_selection_needs_of_a_cohort():
    assert co.jumpstart(("p0",), 1).quorum == 0.0
    assert co.jumpstart(("p0",), 1, among=co.turns(("p0",))).quorum == 1.0
