"""The recipe: the same everywhere, different for every setting, and silent about data, names and source."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest

import comity as co
from comity.core.recipe import describe, differences

CODE = """
import numpy as np, comity as co
X, y = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
model = co.MLP(4, 2, hidden=(8, 4))
sites = {n: co.Trainer(model, (X, y)) for n in "abc"}
start = {k: np.asarray(x, float) for k, x in model.init(co.Round("r", 0)).items()}
method = co.FedAvg(model, start=start)
fed = co.Collaboration(method, sites, select=co.sample(0.5), evaluate=co.every(2))
print(co.recipe(fed)["hash"])
"""


def collaboration(**changes):
    X, y = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
    model = co.MLP(4, 2, hidden=(8, 4))
    sites = {n: co.Trainer(model, (X, y)) for n in "abc"}
    start = {k: np.asarray(x, float) for k, x in model.init(co.Round("r", 0)).items()}
    fed = co.Collaboration(co.FedAvg(model, start=start), sites, select=co.sample(0.5), evaluate=co.every(2))
    return fed.replace(**changes)


def test_the_hash_is_the_same_in_every_process():
    hashes = {co.recipe(collaboration())["hash"]}
    for seed in ("0", "1", "12345"):
        env = os.environ | {"PYTHONHASHSEED": seed}
        run = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, env=env)
        hashes.add(run.stdout.strip())
    assert len(hashes) == 1


MODEL = co.MLP(4, 2, hidden=(8, 4))


def start(model=MODEL, plus=0.0, dtype=float):
    return {k: np.asarray(x + plus, dtype) for k, x in model.init(co.Round("r", 0)).items()}


WIDER = co.MLP(4, 2, hidden=(8, 5))
CHANGES = {
    "model": {"method": co.FedAvg(WIDER, start=start(WIDER))},
    "rate": {"method": co.FedAvg(co.MLP(4, 2, hidden=(8, 4), rate=0.2), start=start())},
    "start": {"method": co.FedAvg(MODEL, start=start(plus=1e-9))},
    "start dtype": {"method": co.FedAvg(MODEL, start=start(dtype="float32"))},
    "server": {"method": co.FedAvg(MODEL, co.Momentum(beta=0.9), start=start())},
    "bound": {"method": co.FedAvg(MODEL, bound=1.0, start=start())},
    "combine": {"combine": co.Mean(uniform=True)},
    "cap": {"combine": co.Mean(cap=5.0)},
    "select": {"select": co.sample(0.25)},
    "sort of select": {"select": co.poisson(0.5)},
    "evaluate": {"evaluate": co.every(3)},
    "quorum": {"quorum": 0.6},
    "retries": {"retries": 3},
    "deadline": {"deadline": 1.0},
    "seed": {"seed": 1},
    "participants": {"participants": {"a": co.Trainer(co.Linear(4, 2), None)}},
}


def test_every_setting_changes_the_hash():
    hashes = {name: co.recipe(collaboration(**change))["hash"] for name, change in CHANGES.items()}
    hashes["nothing"] = co.recipe(collaboration())["hash"]
    assert len(set(hashes.values())) == len(hashes)


def test_what_is_the_default_may_be_left_out():
    assert co.recipe(collaboration(combine=co.Mean()))["hash"] == co.recipe(collaboration())["hash"]


def test_neither_data_nor_names_nor_how_many_there_are():
    X = np.full((3, 4), 12345.678, "float32")
    model = co.Linear(4, 2)
    sites = {"St. Mary": co.Trainer(model, (X, np.array([0, 1, 0]))), "Charity": co.Trainer(model, (X[:1], [1]))}
    fed = co.Collaboration(co.FedAvg(model), sites)
    text = json.dumps(co.recipe(fed))
    for secret in ("Mary", "Charity", "12345", "def "):
        assert secret not in text
    more = sites | {"Third": co.Trainer(model, (X[:2], np.array([1, 1])), test=(X, np.zeros(3)))}
    assert co.recipe(fed.replace(participants=more)) == co.recipe(fed)


def ordinary(x):
    return x


class Plain:
    def __init__(self, depth):
        self.depth, self._cache = depth, 5


def test_functions_enter_by_name_and_what_is_local_says_so():
    def inner():
        return None

    assert describe(ordinary) == {"function": f"{__name__}.ordinary"}
    assert describe(inner)["function"].endswith("(local only)")
    assert describe(lambda: None)["function"].endswith("(local only)")
    assert describe(partial(ordinary, 3)) == {"partial": describe(ordinary), "args": [3], "keywords": {}}
    run = "import comity.core.recipe as r\ndef f(): pass\nprint(r.describe(f)['function'])"
    said = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "__main__.f (local only)"


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ({1, 2}, {1, 3}),
        (frozenset("ab"), frozenset("ac")),
        (b"one", b"two"),
        (np.array([1, "x"], object), np.array([1, "y"], object)),
        (np.array(["2020-01-01"], "M8[D]"), np.array(["2020-01-02"], "M8[D]")),
        (np.float32(1), np.float32(2)),
        (float("inf"), float("nan")),
        (Plain(1), Plain(2)),
        (np.zeros(2), np.zeros((2, 1))),
        ({"a": None}, {"a": False}),
    ],
)
def test_other_settings_are_described_otherwise(a, b):
    assert describe(a) != describe(b)
    assert describe(a) == describe(a)
    json.dumps(describe(a), allow_nan=False)


def test_sets_have_no_order():
    names = [f"n{i}" for i in range(50)]
    assert describe(set(names)) == describe(frozenset(names[::-1]))


@dataclass(frozen=True)
class Member:
    model: Any
    rows: Any = field(default=None, metadata={"data": True})
    depth: int = 1
    title: str = ""

    def contribute(self, shared, local, round, secret):
        raise AssertionError


def kinds(*members):
    fed = collaboration(participants={str(i): m for i, m in enumerate(members)})
    return co.recipe(fed)["parts"]["participants"]


def test_participants_enter_once_for_each_sort():
    model = co.Linear(2, 2)
    assert len(kinds(Member(model, 5), Member(model, [6]), Member(model, title="St. Mary"))) == 1
    assert len(kinds(Member(model), Member(model, depth=2), Member(co.Linear(2, 3)))) == 3


def test_many_participants_describe_their_model_once():
    class Counted:
        asked = 0

        def fingerprint(self):
            Counted.asked += 1
            return {"n": 1}

    model = Counted()
    kinds(*(Member(model) for _ in range(50)))
    assert Counted.asked == 1


def test_differences_are_lines():
    old, new = co.recipe(collaboration()), co.recipe(collaboration(quorum=0.6, select=co.sample(0.25)))
    assert differences(old, new) == ["parts.select.fraction: 0.5 → 0.25", "parts.quorum: 0.5 → 0.6"]
    assert differences(old, old) == []
    assert differences({"a": [1, 2]}, {"a": [1, 3, 4]}) == ["a.1: 2 → 3", "a.2: (absent) → 4"]
    assert differences({"a": 1}, {"a": 1.0}) == ["a: 1 → 1.0"]
    assert differences({"a": True}, {"a": 1}) == ["a: true → 1"]
    assert len(differences({"a": "x" * 99}, {"a": "y"})[0]) < 80
    assert differences({"part": {"hash": 1}}, {"part": {"hash": 2}}) == ["part.hash: 1 → 2"]


def test_a_folder_of_another_recipe_is_refused_with_the_difference(tmp_path):
    model = co.Linear(4, 2)
    sites = {"a": co.Trainer(model, (np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])))}
    fed = co.Collaboration(co.FedAvg(model), sites)
    fed.run(rounds=1, folder=tmp_path)
    with pytest.raises(co.ConfigError) as e:
        fed.replace(seed=3).run(rounds=1, folder=tmp_path)
    assert "parts.seed: 0 → 3" in str(e.value)
    assert fed.run(rounds=2, folder=tmp_path).ledger.rounds == 2
