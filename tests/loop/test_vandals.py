"""Whoever writes into what it was given, or into what it gave, corrupts nothing."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

import comity as co
from comity.core.contribution import Contribution
from comity.core.spec import Spec, like


class Vandal:
    """Writes into whatever it gets, and into what it gave."""

    def __init__(self, mutate):
        self.mutate, self.kept = mutate, np.ones(2)

    def contribute(self, shared, local, round, secret):
        if shared.kind != "score":
            self.mutate(self, shared, local)
        return Contribution("delta", {"w": self.kept}), {"mine": self.kept, "n": np.zeros(1)}


def _names(self, shared, local):
    shared.value["w"] = np.full(2, 99.0)
    shared.value["deep"]["x"] = "gone"
    shared.value["new"] = 1
    shared.metrics["new"] = (1.0, 1.0)
    local["n"] = "gone"


def _own(self, shared, local):
    self.kept += 1


def _array(self, shared, local):
    shared.value["w"][0] = 99.0


def _local(self, shared, local):
    if local:
        local["n"][0] = 99.0


VANDALS = {"names": _names, "its own": _own, "shared": _array, "local": _local}


@dataclass(frozen=True)
class Watch:
    """Shares one Tree with all, and keeps what came."""

    combiner: ClassVar = co.Collect()
    tree: dict

    def init(self, round):
        return {"told": self.tree, "got": {}}

    def share(self, state, to, round):
        return Contribution("model", state["told"])

    def expect(self, state, to, round):
        return Spec(like({"w": np.zeros(2)}))

    def update(self, state, combined, round):
        return {**state, "got": combined.value}


@pytest.mark.parametrize("how", VANDALS)
def test_who_writes_in_place_corrupts_nothing(how):
    class Honest:
        def contribute(self, shared, local, round, secret):
            w = shared.value["w"] + 0
            assert w.tolist() == [1, 2]
            assert shared.value["deep"] == {"x": "text"}
            assert "new" not in shared.value
            return Contribution("delta", {"w": w}), local

    told = {"w": np.array([1.0, 2.0]), "deep": {"x": "text"}}
    sites = {"a": Honest(), "b": Vandal(VANDALS[how]), "c": Honest()}
    run = co.Collaboration(Watch(told), sites, evaluate=False, quorum=0.3).run(rounds=3)
    assert told["w"].tolist() == [1, 2]
    assert run.state["told"]["w"].tolist() == [1, 2]
    assert run.state["got"]["c"]["w"].tolist() == [1, 2]
    refused = {who for _, who, _ in run.ledger.dropped}
    assert refused <= {"b"}
    assert ("b" in refused) == (how in ("shared", "local"))


def test_a_reused_buffer_does_not_change_what_was_sent_or_kept():
    buffer = np.zeros(2)

    class Reuses:
        def contribute(self, shared, local, round, secret):
            buffer[...] += 1
            return Contribution("delta", {"w": buffer}), {"was": buffer}

    fed = co.Collaboration(Watch({"w": np.zeros(2)}), {"a": Reuses(), "b": Reuses()}, evaluate=False)
    run = fed.run(rounds=1)
    assert run.state["got"]["a"]["w"].tolist() == [1, 1]
    assert run.state["got"]["b"]["w"].tolist() == [2, 2]
    assert run.local("a")["was"].tolist() == [1, 1]
