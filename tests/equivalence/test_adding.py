"""Contributions added near the work: every bit, byte and fact as when the hub sees each."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

import comity as co
from comity.core.contribution import Contribution
from comity.core.together import Stack, Task, Together
from comity.core.tree import Layout, tree_map
from comity.core.wire import encode_tree
from comity.engines.local import Local
from comity.loop.adding import Adding

MODEL = co.Linear(3, 2, rate=0.3, batch=4)
RNG = np.random.default_rng(0)


class Each:
    """`Local`, but the hub hears each answer."""

    choice = Local().choice

    def connect(self, roster, answer):
        return _Each(Local().connect(roster, answer))


@dataclass
class _Each:
    inner: object

    def roster(self):
        return self.inner.roster()

    def ask(self, cohort, message, until):
        return self.inner.ask(cohort, message, until)


@dataclass(frozen=True)
class Drawn:
    """Sends what its name and the round say: with others of its kind in one stack, or alone."""

    name: str
    kind: str = "good"
    model: object = None
    memory: bool = False

    @property
    def alike(self):
        return None if self.kind == "alone" else "drawn"

    def contribute(self, shared, local, round, secret):
        if shared.kind == "score":
            return Contribution("score", None, metrics={"hits": (1.0, 2.0)}), local
        rows, weight, metrics = _drawn([self.name], round)
        if self.kind == "fails":
            raise RuntimeError("away")
        value = {"b": rows[0, :2], "w": rows[0, 2:].reshape(2, 3)}
        if self.kind == "nan":
            value["w"] = np.where(value["w"] > 0, value["w"], np.float32(np.nan))
        if self.kind == "shape":
            value["b"] = np.zeros(3, "float32")
        weight = {"heavy": 1e12, "negative": -1.0}.get(self.kind, float(weight[0]))
        if self.kind == "metric":
            metrics = {"loss": np.array([[np.inf, 1.0]])}
        after = {"times": local.get("times", 0) + 1} if self.memory else local
        return Contribution("delta", value, weight, {k: tuple(map(float, v[0])) for k, v in metrics.items()}), after

    def contribute_many(self, works, plan):
        pairs = [p.contribute(s, m, r, z) for p, s, m, r, z in
                 zip(works.who, works.shared, works.local, works.rounds, works.secrets, strict=True)]  # fmt: skip
        layout = Layout.of(pairs[0][0].value)
        rows = np.stack([np.concatenate([c.value["b"].ravel(), c.value["w"].ravel()]) for c, _ in pairs])
        weight = np.array([c.weight for c, _ in pairs])
        metrics = {"loss": np.array([c.metrics["loss"] for c, _ in pairs])}
        return Together(Stack("delta", rows, layout, weight, metrics), [local for _, local in pairs])


def _drawn(names, round):
    rng = np.random.default_rng([round.number, *map(ord, "".join(names))])
    rows = (rng.normal(size=(len(names), 8)) * 10.0 ** rng.integers(-3, 4, (len(names), 1))).astype("float32")
    return rows, rng.integers(0, 50, len(names)).astype(float), {"loss": rng.random((len(names), 2))}


@dataclass(frozen=True)
class Model:
    statistics = ()

    def init(self, round):
        return {"b": np.zeros(2, "float32"), "w": np.zeros((2, 3), "float32")}


def bits(run):
    drawers = {n: run.local(n) for n in run._sites._drawers}
    facts = {str(i): e.facts for i, e in enumerate(run.ledger)}
    return encode_tree({"state": run.state, "metrics": dict(run.metrics), "facts": facts, "drawers": drawers})


@pytest.fixture
def joint(monkeypatch):
    """The sizes of the groups that did their work together."""
    seen, plain = [], Adding._joint

    def counted(self, at, names, people):
        otherwise = plain(self, at, names, people)
        seen.append((len(names), otherwise is None))
        return otherwise

    monkeypatch.setattr(Adding, "_joint", counted)
    return seen


def collaboration(people, **parts):
    return co.Collaboration(co.FedAvg(Model()), people, **{"quorum": 0.1, "seed": 3, **parts})


@pytest.mark.parametrize("size", [1, 2, 7, 63, 64, 65, 128, 150])
@pytest.mark.parametrize("combine", [co.Mean(), co.Mean(uniform=True), co.Mean(public=True), co.Mean(cap=9.0)])
def test_the_sum_near_the_work_is_the_sum_at_the_hub(size, combine, joint):
    fed = collaboration({f"p{i:03}": Drawn(f"p{i:03}") for i in range(size)}, combine=combine)
    near = bits(fed.run(rounds=2))
    assert near == bits(fed.run(rounds=2, engine=Each()))
    assert sum(n for n, done in joint if done) == (2 * size if size > 1 else 0)


@pytest.mark.parametrize("kind", ["fails", "nan", "shape", "heavy", "negative", "metric", "alone"])
@pytest.mark.parametrize("where", [{0}, {3}, {69}, {2, 3, 40, 66}])
def test_whoever_is_unlike_is_named_and_left_out(kind, where):
    people = {f"p{i:03}": Drawn(f"p{i:03}", kind if i in where else "good") for i in range(70)}
    fed = collaboration(people)
    near, each = fed.run(rounds=2), fed.run(rounds=2, engine=Each())
    assert bits(near) == bits(each)
    left = {r.sender for r in [*near.ledger.refused, *near.ledger.dropped] if r.round == 0}
    assert left == (set() if kind == "alone" else {f"p{i:03}" for i in where})


def test_those_who_keep_something_are_asked_as_ever():
    people = {f"p{i}": Drawn(f"p{i}", memory=i % 3 == 0) for i in range(9)}
    fed = collaboration(people)
    near = fed.run(rounds=3)
    assert bits(near) == bits(fed.run(rounds=3, engine=Each()))
    assert near.local("p3") == {"times": 3}
    assert near.local("p1") == {}


@dataclass(frozen=True)
class Clip:
    """Shortens what is longer than `most`."""

    most: float = 1.0
    decodes = "sum"
    contracts = True
    stack: bool = True

    def __post_init__(self):
        if self.stack:
            object.__setattr__(self, "encode_many", self._many)

    def init(self):
        return None

    def encode(self, c, public, local, round, secret):
        norm = np.sqrt(sum(np.vdot(x, x) for x in (c.value["b"], c.value["w"])))
        by = np.float32(min(1.0, self.most / max(norm, 1e-9)))
        return replace(c, value=tree_map(lambda x: x * by, c.value)), local

    def _many(self, stack, public, works):
        for i in range(len(stack)):
            c, _ = self.encode(stack.one(i), public, {}, None, None)
            stack.rows[i] = np.concatenate([c.value["b"], c.value["w"].ravel()])
        return Together(stack, [{}] * len(stack))

    def decode(self, c, state, round, secret):
        return c, state


@pytest.mark.parametrize("stack", [True, False])
def test_transforms_take_the_rows(stack, joint):
    people = {f"p{i:02}": Drawn(f"p{i:02}") for i in range(40)}
    fed = collaboration(people, transforms=[Clip(stack=stack)], combine=co.Mean(uniform=True))
    assert bits(fed.run(rounds=2)) == bits(fed.run(rounds=2, engine=Each()))
    assert [done for _, done in joint] == ([True, True] if stack else [])


def test_a_population_is_made_once_for_each_question():
    made = []

    def make(number):
        made.append(number)
        return Drawn(str(number), "alone" if number % 5 == 0 else "good", memory=number % 7 == 0)

    fed = collaboration(co.Population(40, make), evaluate=False)
    fed.run(rounds=2)
    assert sorted(made) == sorted([*range(40), *range(40), 0, 0]), (
        "the first also before the run: do data fit, does it spend?"
    )


def test_unlike_stacks_are_each_heard():
    """Two kinds whose values differ in form, where anything is expected: the first sets the form."""

    @dataclass(frozen=True)
    class Open(co.FedAvg):
        def expect(self, state, to, round):
            return co.Spec(co.Leaf(), kind="delta")

    @dataclass(frozen=True)
    class Longer(Drawn):
        extra: int = 1

        @property
        def alike(self):
            return "longer"

        def contribute(self, *asked):
            c, local = Drawn.contribute(self, *asked)
            return (
                (c, local)
                if c.kind == "score"
                else (replace(c, value={**c.value, "w": np.ones((1, 3), "float32")}), local)
            )

    people = {f"p{i}": (Longer if i in (3, 4, 5) else Drawn)(f"p{i}") for i in range(8)}
    fed = co.Collaboration(Open(Model()), people, quorum=0.1)
    near = fed.run(rounds=1)
    assert bits(near) == bits(fed.run(rounds=1, engine=Each()))
    assert {r.sender for r in near.ledger.refused} == {"p3", "p4", "p5"}


@pytest.mark.parametrize("cuts", [(70,), (2, 70), (20, 64, 70), tuple(range(2, 71, 2))])
def test_runs_of_blocks_come_to_the_same(cuts):
    """A cohort that is cut into runs of whole blocks, answered in any order."""
    fed = collaboration({f"p{i:03}": Drawn(f"p{i:03}", "nan" if i == 33 else "good") for i in range(70)})
    assert bits(fed.run(rounds=2)) == bits(fed.run(rounds=2, engine=_Cut(cuts)))


@dataclass(frozen=True)
class _Cut:
    cuts: tuple
    choice: dict = field(default_factory=lambda: dict(Local().choice))

    def connect(self, roster, answer):
        return _Runs(Local().connect(roster, answer), answer, self.cuts)


@dataclass
class _Runs(_Each):
    door: object
    cuts: tuple

    def total(self, cohort, task: Task, until):
        runs = [self.door.total(task.run(a, b)) for a, b in zip((0, *self.cuts), self.cuts, strict=False)]
        for run in reversed(runs):
            yield from run


def test_a_channel_that_hides_is_not_passed_by():
    class Hidden(co.Plain):
        transparent = False

    people = {f"p{i}": Drawn(f"p{i}") for i in range(5)}
    seen = collaboration(people).run(rounds=1, engine=_Refusing())
    assert seen.ledger.rounds == 1
    with pytest.raises(AssertionError, match="each"):
        collaboration(people, channel=Hidden()).run(rounds=1, engine=_Refusing())


class _Refusing:
    """Scores apart, it can only add."""

    choice = Local().choice

    def connect(self, roster, answer):
        inner = Local().connect(roster, answer)

        def ask(cohort, message, until):
            answers = list(inner.ask(cohort, message, until))
            assert all(a.phase == "score" for a in answers), "each was asked for"
            return iter(answers)

        plain = _Each(inner)
        plain.ask, plain.total = ask, inner.total
        return plain


def test_whoever_inherits_and_changes_is_asked_as_it_is(joint):
    """A second method made for another first one is not used; nor is what was said of methods that changed."""

    class Half(co.Mean):
        def lift(self, c):
            return super().lift(replace(c, weight=c.weight / 2))

    class Told(co.FedAvg):
        def share(self, state, to, round):
            shared = super().share(state, to, round)
            return replace(shared, metrics={"to": (float(to == "p1"), 1.0)})

    people = {f"p{i}": Drawn(f"p{i}") for i in range(5)}
    halved = collaboration(people, combine=Half())
    assert bits(halved.run(rounds=1)) == bits(halved.run(rounds=1, engine=Each()))
    assert not any(done for _, done in joint)
    assert (co.FedAvg(Model()).tells, Told(Model()).tells) == ("all", "each")
    del joint[:]
    co.Collaboration(Told(Model()), people).run(rounds=1)
    assert joint == []


def test_a_member_that_is_drawn_twice_counts_once():
    class Twice:
        def __call__(self, roster, round, past, secret):
            return {"hub": [*(roster[i] for i in range(len(roster))), roster[1]]}

        def expected(self, roster):
            return float(roster + 1)

    fed = collaboration({f"p{i}": Drawn(f"p{i}") for i in range(5)}, select=Twice())
    run = fed.run(rounds=1)
    once = fed.replace(select=co.everyone()).run(rounds=1)
    assert all(np.allclose(run.shared[k], once.shared[k]) for k in run.shared)
    assert bits(run) == bits(fed.run(rounds=1, engine=Each()))


@pytest.mark.parametrize("wrong", ["rows", "weight", "metrics", "fewer"])
def test_a_stack_that_does_not_fit_together_is_asked_for_one_by_one(wrong, joint):
    @dataclass(frozen=True)
    class Torn(Drawn):
        def contribute_many(self, works, plan):
            both = Drawn.contribute_many(self, works, plan)
            change = {
                "rows": {"rows": both.stack.rows[:, 1:]},
                "weight": {"weight": both.stack.weight[1:]},
                "metrics": {"metrics": {"loss": np.ones(len(works))}},
                "fewer": {"rows": both.stack.rows[1:], "weight": both.stack.weight[1:], "metrics": {}},
            }[wrong]
            return Together(replace(both.stack, **change), both.local)

    fed = collaboration({f"p{i}": Torn(f"p{i}") for i in range(5)})
    assert bits(fed.run(rounds=1)) == bits(fed.run(rounds=1, engine=Each()))
    assert [done for _, done in joint][:1] == [False]
