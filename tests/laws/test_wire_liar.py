"""One member of a cohort answers with mutated messages: the round closes with the others, whatever it says."""

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from wire_mutants import changed, mutant, tree

import comity as co
from comity.core import wire
from comity.core.contribution import Contribution
from comity.core.envelope import Envelope
from comity.core.errors import ContributionError, WireError
from comity.core.round import Round
from comity.core.rules import Parts
from comity.core.spec import Leaf, Spec, check
from comity.core.tree import leaves
from comity.ledger.record import Ledger
from comity.loop.asking import Asking
from comity.loop.fold import Fold
from comity.loop.rounds import Rounds
from comity.loop.site import EMPTY, Site

MODEL = co.Linear(inputs=3, classes=2, rate=0.1)
X = np.random.default_rng(1).normal(size=(6, 3)).astype("float32")
DATA = (X, (X[:, 0] > 0).astype(int))
SECRET = co.testing.fixed_secret()


class Says:
    """Answers a query with its label."""

    def contribute(self, shared, local, round, secret):
        return Contribution("label", {"a": np.ones(2)}, 1.0), local


FED = co.FedAvg(MODEL)
TRAINER = co.Trainer(MODEL, DATA, valid=DATA)
WORDS = Spec({"a": Leaf(low=0.0, high=1.0)}, kind="label", weights="any")
COHORTS = {
    "mean": (FED, co.Mean(), TRAINER),
    "uniform": (FED, co.Mean(uniform=True), TRAINER),
    "bounded": (co.FedAvg(MODEL, bound=0.1), co.Mean(cap=50.0), TRAINER),
    "median": (FED, co.Median(), TRAINER),
    "collect": (co.Query({"x": 1.0}), co.Collect(), Says()),
    "query": (co.Query({"x": 1.0}, WORDS, co.Collect()), co.Collect(), Says()),
}


class Cohort:
    """An engine: the first member lies, then come two that do not."""

    def __init__(self, parts, participant, rng):
        self.sites = {n: Site(n, participant, parts, SECRET) for n in ("p01", "p02", "p03")}
        self.rng, self.said = rng, Counter()

    def roster(self):
        return list(self.sites)

    def ask(self, cohort, message, until):
        for name in cohort:
            answer = self.sites[name].answer(message(name), EMPTY)[0]
            yield self.lie(answer) if name == "p01" else answer

    def lie(self, honest):
        """What the honest answer becomes: what it seals changed, or any of its bytes; the engine knows who sent it."""
        if self.rng.random() < 0.5 and honest.phase == "contribute":
            body = replace(honest.body, value={"hub": tree(honest.body.value["hub"], self.rng)})
            return replace(honest, body=body)
        for _ in range(100):
            try:
                m = wire.decode(mutant([honest], self.rng)) if self.rng.random() < 0.5 else changed(honest, self.rng)
            except WireError:
                continue
            if isinstance(m, Envelope):
                return replace(m, sender="p01")
        raise AssertionError("all mutants were refused")


def closed(cohort, rng):
    """One round and its scores, the first member lying in both."""
    method, combiner, participant = COHORTS[cohort]
    parts = Parts(method, combiner, (), co.Plain(), co.everyone(), retries=0)
    events = []
    asking = Asking(parts, Cohort(parts, participant, rng), "cd" * 32)
    rounds = Rounds(asking, Round("ab" * 8, 0), secret=SECRET, past=Ledger(), listen=events.append)
    states = rounds.round(rounds.start(), 0)
    metrics = rounds.score(states, 1, co.everyone())
    return states["hub"].method, metrics, [event.heard["hub"] for event in events if event.kind != "begin"]


def lied(cohort, count, seed):
    rng, seen = random.Random(seed), Counter()
    for n in range(count):
        try:
            state, metrics, (heard, scored) = closed(cohort, rng)
        except Exception as error:
            raise AssertionError(f"lie {n} of seed {seed} ends the round") from error
        assert {"p02", "p03"} <= heard.accepted, (n, heard.refused, heard.dropped)
        for path, x in leaves(state):
            assert np.asarray(x).dtype.kind not in "fiu" or np.isfinite(x).all(), (n, path)
        assert all(np.isfinite(pair).all() for pair in metrics.values()), (n, metrics)
        assert scored.accepted >= ({"p02", "p03"} if cohort in ("mean", "median") else set())
        for who, why in (*heard.refused, *heard.dropped):
            assert who == "p01", (n, why)
        seen["accepted" if "p01" in heard.accepted else "refused" if heard.refused else "dropped"] += 1
    return seen


@pytest.mark.parametrize("weight", [6, True, np.array(6.0), np.array(6), np.int64(6), np.float32(6)], ids=repr)
def test_who_comes_first_does_not_say_what_sort_of_number_a_weight_is(weight):
    fold = Fold(3)
    for n, w in enumerate((weight, 2.0, 3.0)):
        fold.add(n, Contribution("delta", {"w": np.ones(2)}, w))
    total = fold.total()
    assert (total.weight, total.value["w"].tolist()) == (float(weight) + 5, [3.0, 3.0])


@pytest.mark.parametrize(
    ("spec", "c"),
    [
        (Spec({"w": Leaf((2,), None, -1.0, 1.0)}), Contribution("delta", {"w": np.full(2, 9.0)}, 0.0)),
        (Spec({"w": Leaf(low=0.0)}), Contribution("delta", {"w": "many"})),
        (Spec({"w": Leaf(low=0.0)}), Contribution("delta", {"w": None})),
        (Spec({"w": Leaf(low=0.0)}), Contribution("delta", {"w": {"a": 1.0}})),
        (Spec({"w": Leaf(())}), Contribution("delta", {"w": {"a": 1.0}})),
    ],
    ids=[
        "no weight, beyond the bound",
        "text for a number",
        "nothing for a number",
        "a Tree for one",
        "a Tree for a leaf",
    ],
)
def test_what_the_check_once_choked_on_is_refused(spec, c):
    for lifted in (False, True):
        with pytest.raises(ContributionError, match=r"^w must"):
            check(c, spec, lifted=lifted)


@pytest.mark.parametrize("cohort", COHORTS)
def test_a_liar_ends_no_round(cohort):
    seen = lied(cohort, 80, 5)
    assert seen["refused"] > 10, seen


@pytest.mark.slow
@pytest.mark.parametrize("cohort", COHORTS)
def test_a_liar_ends_none_of_two_thousand_rounds(cohort):
    seen = lied(cohort, 2_000, 6)
    assert min(seen["refused"], seen["accepted"], seen["dropped"]) > 10, seen
