"""A warm start: from a Tree, from another run, from a folder; a wrong form is refused by the name of the leaf."""

import shutil

import numpy as np
import pytest

import comity as co
from comity import running
from comity.core.tree import tree_map
from comity.core.wire import encode_tree

RNG = np.random.default_rng(2)
DATA = {f"p{i}": (RNG.normal(size=(12, 4)).astype("float32"), RNG.integers(0, 3, 12)) for i in range(3)}
MLP = co.MLP(4, 3, hidden=(5,), rate=0.1, batch=4)
PUBLIC = RNG.normal(size=(6, 4)).astype("float32")
METHODS = {
    "FedAvg": (co.FedAvg, co.Trainer),
    "FedSGD": (co.FedSGD, co.GradientTrainer),
    "Scaffold": (co.Scaffold, co.ScaffoldTrainer),
    "FedDyn": (co.FedDyn, co.FedDynTrainer),
    "QFedAvg": (co.QFedAvg, co.QFedAvgTrainer),
    "FedRep": (lambda model, **more: co.FedRep(model, ("2",), **more), co.FedRepTrainer),
    "IFCA": (co.IFCA, co.IFCATrainer),
    "Distill": (lambda model, **more: co.Distill(model, PUBLIC, 1.0, **more), None),
}


def collaboration(name, model=MLP, select=None, **more):
    hub, who = METHODS[name]
    if who is None:
        params = model.init(co.Round("", 3))
        sites = {n: co.Predictor((model, params)) for n in DATA}
    else:
        batch = co.MLP(4, 3, hidden=(5,), rate=0.1, batch=100) if name == "FedSGD" else model
        sites = {n: who(batch, d) for n, d in DATA.items()}
    parts = {} if select is None else {"select": select}
    return co.Collaboration(hub(model, **more), sites, evaluate=False, **parts)


def bits(tree):
    return encode_tree(tree)


@pytest.mark.parametrize("name", METHODS)
def test_one_run_begins_where_another_ended(name, tmp_path):
    first = collaboration(name).run(rounds=2, folder=tmp_path)
    for start in (first.shared, co.load(tmp_path, collaboration(name).method)):
        assert bits(collaboration(name, start=start).run(rounds=0).shared) == bits(first.shared)


def test_two_warm_runs_of_fedavg_are_one():
    """FedAvg without momentum keeps nothing else, and rounds are numbered anew: the same shuffles at batch size all."""
    model = co.Linear(4, 3, rate=0.1, batch=100)
    straight = collaboration("FedAvg", model).run(rounds=5).shared
    half = collaboration("FedAvg", model).run(rounds=2).shared
    rest = collaboration("FedAvg", model, start=half).run(rounds=3).shared
    for name in straight:
        np.testing.assert_allclose(rest[name], straight[name], atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_a_start_is_taken_in_the_dtypes_of_the_model(name):
    wide = tree_map(lambda x: (x + 1).astype(float).tolist(), MLP.init(co.Round("", 9)))
    more = {"spread": 0.0} if name == "IFCA" else {}
    shared = collaboration(name, start=wide, **more).run(rounds=1).shared
    for tree in shared.values() if name == "IFCA" else [shared]:
        assert {x.dtype.name for x in tree.values()} == {"float32"}


def wrong(change):
    start = dict(MLP.init(co.Round("", 0)))
    change(start)
    return start


BAD = {
    "no leaf": (wrong(lambda t: t.pop("0.bias")), r"no '0\.bias'"),
    "a leaf too many": (wrong(lambda t: t.update(more=np.zeros(3))), "also 'more'"),
    "a shape": (wrong(lambda t: t.update({"0.weight": np.zeros((4, 5))})), r"'0\.weight' an array of shape \(5, 4"),
    "text": (wrong(lambda t: t.update({"0.bias": "zero"})), r"'0\.bias'"),
    "a Tree for a leaf": (wrong(lambda t: t.update({"0.bias": {"a": 1}})), r"'0\.bias'"),
    "NaN": (wrong(lambda t: t.update({"0.bias": np.full(5, np.nan)})), r"NaN or infinity in '0\.bias'"),
    "too large": (wrong(lambda t: t.update({"0.bias": np.full(5, 1e300)})), r"infinity in '0\.bias'"),
    "several hubs": ({"a": MLP.init(co.Round("", 0)), "b": MLP.init(co.Round("", 0))}, r"no '0\.bias'"),
    "a number": (1.0, "Got 1.0"),
    "a model": (MLP, "Got an? MLP"),
    "a path": ("runs/first", "Got 'runs/first'"),
    "nothing": ({}, r"no '0\.bias'"),
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", METHODS)
def test_a_wrong_form_is_refused_before_anybody_is_asked(name, bad, tmp_path):
    start, says = BAD[bad]
    events = []
    with pytest.raises(co.ConfigError, match=f"'start' must be .*{says}"):
        collaboration(name, start=start).run(1, listen=events.append)
    assert not events


def test_a_start_is_in_the_recipe_as_a_hash():
    a, b = ({"0.weight": np.full((3, 4), v, "float32"), "0.bias": np.zeros(3, "float32")} for v in (1, 2))
    one, other = (co.recipe(collaboration("FedAvg", co.Linear(4, 3), start=t)) for t in (a, b))
    assert one["hash"] != other["hash"]
    assert one["parts"]["method"]["start"]["0.bias"] == other["parts"]["method"]["start"]["0.bias"]


def test_a_start_is_not_changed_by_a_run():
    start = dict(MLP.init(co.Round("", 5)))
    kept = {k: v.copy() for k, v in start.items()}
    collaboration("FedAvg", start=start).run(rounds=2)
    assert all(np.array_equal(start[k], kept[k]) for k in kept)


class TestLoad:
    def test_the_best_and_the_last_differ_and_a_run_may_go_on(self, tmp_path, monkeypatch):
        monkeypatch.setattr(running, "SAVE_SECONDS", 0.0)
        model, valid = co.Linear(4, 3, rate=5.0, batch=4), DATA["p0"]
        sites = {n: co.Trainer(model, d, valid=valid) for n, d in DATA.items()}
        fed = co.Collaboration(co.FedAvg(model), sites, evaluate=co.every(1))
        seen = {}

        def look(event):
            if event.kind == "saved" and event.round.number == 2:
                seen["early"] = co.load(tmp_path, fed.method)

        run = fed.run(rounds=6, folder=tmp_path, listen=look)
        assert bits(co.load(tmp_path, fed.method)) == bits(run.shared)
        assert bits(co.load(tmp_path, fed.method, best=True)) == bits(run.best) != bits(run.shared)
        assert bits(seen["early"]) == bits(fed.run(rounds=2).shared)

    def test_best_is_last_without_validation(self, tmp_path):
        run = collaboration("FedAvg").run(rounds=2, folder=tmp_path)
        assert bits(co.load(str(tmp_path), collaboration("FedAvg").method, best=True)) == bits(run.shared)

    def test_several_hubs(self, tmp_path):
        sites = {n: co.Trainer(MLP, d, send="model") for n, d in DATA.items()}
        fed = co.Collaboration(co.FedAvg(MLP, send="model"), sites, select=co.ring(), evaluate=False)
        run = fed.run(rounds=1, folder=tmp_path)
        found = co.load(tmp_path, fed.method)
        assert found.keys() == set(DATA)
        assert bits(found) == bits(run.shared)

    def test_nothing_is_written(self, tmp_path):
        collaboration("FedAvg").run(rounds=1, folder=tmp_path / "run")
        before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")}
        co.load(tmp_path / "run", co.FedAvg(MLP))
        assert {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")} == before

    def test_what_it_refuses(self, tmp_path):
        collaboration("FedAvg").run(rounds=1, folder=tmp_path / "run")
        with pytest.raises(co.ConfigError, match="must be the folder of a run"):
            co.load(tmp_path, co.FedAvg(MLP))
        with pytest.raises(co.ConfigError, match=r"must be a comity\.methods\.fedavg\.FedAvg, .* Got a .*Scaffold"):
            co.load(tmp_path / "run", co.Scaffold(MLP))
        with pytest.raises(co.ConfigError, match="'best'"):
            co.load(tmp_path / "run", co.FedAvg(MLP), best="yes")
        (state,) = (tmp_path / "run" / "states").iterdir()
        state.write_bytes(state.read_bytes()[:-1] + b"x")
        with pytest.raises(co.LedgerError):
            co.load(tmp_path / "run", co.FedAvg(MLP))
        shutil.rmtree(tmp_path / "run")
        with pytest.raises(co.ConfigError):
            collaboration("FedAvg", co.Linear(5, 3)).run(rounds=1, folder=tmp_path / "none")
        with pytest.raises(co.ConfigError, match=r"must be the folder of a run|was saved"):
            co.load(tmp_path / "none", co.FedAvg(MLP))
