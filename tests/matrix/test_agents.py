"""Who hears whom, steps that hand on a table, and agents that play."""

import numpy as np
import polars as pl
import pytest
from matrix_law import NO_FLAG, NO_WHOLE, NO_WORD, NONE_NUMBERS, NUMBERS, WHOLE, Thing, hold, rows

import comity as co
from comity.ledger.journal import SqlJournal

INF = float("inf")
NO_POSITIVE = (*NONE_NUMBERS, 0, -1, INF)
NOT_NEGATIVE = (*NONE_NUMBERS, -1, INF)
FRAME = pl.DataFrame({"x": [1.0, 2.0]})
TABLE = {"x": np.arange(3.0)}
SAME = co.Agent(lambda t: t)
NO_FUNCTION = (1, "f", [], {}, Thing())
NO_NAMES = (None, 1, True, "", [1], [None], ["a", "a"], ["a", ""], ["a\nb"], [["a"]], Thing(), len)


def hears(select, names=("a", "b", "c")):
    """The members that a selection gives."""
    return select(list(names), co.Round("matrix", 0), None, None)


TOPOLOGY = (
    *rows("ring", "k", co.ring, bad=(*NO_WHOLE, 0, -1), good=(*WHOLE, 10**6)),
    *rows(
        "graph",
        "edges",
        co.graph,
        bad={
            "None": None,
            "number": 3,
            "text": "ab",
            "bytes": b"ab",
            "Thing": Thing(),
            "function": len,
            "none": [],
            "nothing": {},
            "words": ["ab"],
            "numbers": [1, 2],
            "threes": [("a", "b", "c")],
            "one": [("a",)],
            "number name": [("a", 1)],
            "None name": [("a", None)],
            "empty name": [("a", "")],
            "itself": [("a", "a")],
            "one way": {"a": ["b"], "b": []},
            "to nobody": {"a": 5},
            "to None": {"a": None},
            "to number": {"a": [1]},
            "number hears": {1: ["a"]},
            "twice": {"a": ["b", "b"], "b": ["a"]},
        },
        good={
            "pairs": [("a", "b"), ("b", "c")],
            "lists": [["a", "b"]],
            "generator": iter([("a", "b")]),
            "both ways": {"a": ["b"], "b": ["a"]},
            "alone": {"a": []},
            "a name": {"a": "b", "b": "a"},
        },
        says="edge|[Nn]ame|hears",
    ),
    *rows("graph", "directed", lambda v: co.graph([("a", "b")], directed=v), bad=NO_FLAG, good=(True, False)),
    *rows(
        "graph",
        "participants",
        lambda v: hears(co.graph([("a", "b")]), v),
        bad={"more": ("a", "b", "c"), "less": ("a",)},
        good={"same": ("b", "a")},
        says="graph",
    ),
    *rows(
        "turns",
        "stages",
        lambda v: co.turns(*v) if isinstance(v, tuple) else co.turns(v),
        bad={**{repr(i): [x] if isinstance(x, tuple) else x for i, x in enumerate(NO_NAMES)}, "none": ()},
        good={"names": ("a", "b"), "group": (("a", "b"), "c"), "choice": (co.one_of("a", "b"),), "list": ["a", "b"]},
        says="[Nn]ame|stage",
    ),
    *rows(
        "turns",
        "participants",
        lambda v: hears(co.turns("a", ("b", "c")), v),
        bad={"less": ("a", "b")},
        good={"all": ("a", "b", "c")},
        says="turns",
    ),
    *rows(
        "ready",
        "before",
        co.ready,
        bad={
            "None": None,
            "number": 3,
            "text": "ab",
            "list": ["a"],
            "nothing": {},
            "Thing": Thing(),
            "circle": {"a": ["b"], "b": ["a"]},
            "itself": {"a": ["a"]},
            "number before": {"a": 1},
            "None before": {"a": None},
            "numbers before": {"a": [1]},
            "number step": {1: ["a"]},
            "empty step": {"": []},
            "twice": {"a": ["b", "b"]},
        },
        good={"lists": {"a": [], "b": ["a"]}, "a name": {"b": "a"}, "new": {"b": ("a", "c")}},
        says="before|[Nn]ame|circle",
    ),
    *rows(
        "ready",
        "participants",
        lambda v: hears(co.ready({"b": ["a"]}), v),
        bad={"less": ("a",)},
        good={"all": ("a", "b")},
        says="ready",
    ),
    *rows(
        "one_of",
        "names",
        lambda v: co.one_of(*v),
        bad=((), ("a",), ("a", "a"), (1, 2), ("a", None), ("a", ""), (("a", "b"), "c"), ("a", Thing())),
        good=(("a", "b"), ("a", "b", "c")),
        says="[Nn]ame",
    ),
    *rows(
        "one_of",
        "metric",
        lambda v: co.one_of("a", "b", metric=v),
        bad=(None, 1, True, "", b"x", ["quality"], Thing(), "a\nb"),
        good=("speed",),
    ),
    *rows("one_of", "explore", lambda v: co.one_of("a", "b", explore=v), bad=NOT_NEGATIVE, good=(0, *NUMBERS)),
    *rows(
        "Metropolis",
        "neighbours",
        co.Metropolis,
        bad=(
            *(None, 1, "ab", [], {}, Thing(), {"a": 5}, {"a": None}, {"a": "b", "b": "a"}, {"a": ["b"]}, {"a": [1]}),
            *({"a": ["b"], "b": []}, [("a", "b")], len, {"a": [["b"]]}),
        ),
        good=({"a": ["b"], "b": ["a"]}, {"a": ("b",), "b": ("a",)}, {"a": []}),
    ),
    *rows(
        "Metropolis",
        "values",
        lambda v: co.Metropolis({"a": ["b"], "b": ["a"]}).lower(
            [co.Contribution("model", x, sender=n) for n, x in v.items()], None, co.Round("r", 0, hub="a")
        ),
        bad={
            "stranger": {"a": np.zeros(2), "c": np.zeros(2)},
            "names": {"a": {"x": np.zeros(2)}, "b": {"y": np.zeros(2)}},
            "shapes": {"a": np.zeros(2), "b": np.zeros(3)},
            "a text": {"a": np.zeros(2), "b": "x"},
            "only texts": {"a": "x"},
            "a Tree": {"a": np.zeros(2), "b": {"x": np.zeros(2)}},
        },
        good={"both": {"a": np.zeros(2), "b": np.ones(2)}, "neighbour": {"b": np.ones(2)}},
        says="hear|add|numbers",
    ),
)
FLOW = co.ready({"b": ["a"]})
STEPS = {"a": SAME, "b": SAME}


def relay(v, **agents):
    """The two steps of a relay, with agents of one's own."""
    made = co.Relay(v, FLOW.before)
    return co.Collaboration(made, {**STEPS, **agents}, select=FLOW, evaluate=False, retries=0).run(len(FLOW))


def carried(name):
    """All steps done in this process."""

    def go(v):
        with SqlJournal.open("journal") as journal:
            given = {"journal": journal, "relay": co.Relay(TABLE, FLOW.before), "agents": STEPS, "run": "r", "who": "w"}
            given |= {"lease": 60.0, name: v}
            more = {k: given.pop(k) for k in ("run", "who", "lease")}
            return co.carry_out(*given.values(), **more)

    return go


def refused_step(v):
    return co.Agent(lambda t: t, measure=v)


HANDS = (
    *rows(
        "Relay",
        "before",
        lambda v: co.Relay(TABLE, v),
        bad=(
            *(1, "ab", [], ["a"], Thing(), len, {"a": "b", "b": ""}, {"a": ["b"]}, {"a": 5}, {"a": None}, {"a": [1]}),
            *({"a": [["b"]]}, {"a": {}}),
        ),
        good=(None, {"a": []}, {"a": [], "b": ["a"]}, FLOW.before),
    ),
    *rows(
        "Relay",
        "table",
        relay,
        bad={"Thing": Thing(), "function": len, "list": [1, 2], "set": {1}, "frame": FRAME, "complex": np.ones(2) * 1j},
        good={"arrays": TABLE, "arrow": co.to_arrow(FRAME), "text": "x", "None": None, "number": 1.5},
        says="table",
    ),
    *rows("Agent", "work", co.Agent, bad=(None, *NO_FUNCTION), good=(len, co.framed(lambda t: t))),
    *rows("Agent", "measure", refused_step, bad=NO_FUNCTION, good=(None, lambda given, made: {})),
    *rows(
        "Agent",
        "work",
        lambda v: relay(TABLE, a=co.Agent(v)),
        bad={
            "Thing": lambda t: Thing(),
            "list": lambda t: [1],
            "NaN": lambda t: np.full(2, np.nan),
            "frame": lambda t: FRAME,
        },
        good={"nothing": lambda t: None, "text": lambda t: "done"},
        says="work|NaN",
    ),
    *rows(
        "Agent",
        "measure",
        lambda v: relay(TABLE, a=refused_step(v)),
        bad={
            "None": lambda given, made: None,
            "number": lambda given, made: 1.0,
            "text": lambda given, made: {"quality": "good"},
            "number name": lambda given, made: {1: 1.0},
            "flag": lambda given, made: {"quality": True},
        },
        good={"quality": lambda given, made: {"quality": 0.5}, "numpy": lambda given, made: {"q": np.float32(1)}},
    ),
    *rows("framed", "work", co.framed, bad=(None, *NO_FUNCTION), good=(len,)),
    *rows("framed", "on", lambda v: co.framed(len, v), bad=([1], [None], [Thing()]), good=("id", ["id", "day"], ())),
    *rows(
        "to_arrow",
        "frame",
        co.to_arrow,
        bad=(None, 1, "x", [], {}, {"x": [1]}, FRAME["x"], FRAME.lazy(), pl.DataFrame, np.ones((2, 2)), Thing()),
        good=(FRAME, pl.DataFrame(), FRAME.clear()),
    ),
    *rows("to_arrow", "objects", co.to_arrow, bad={"objects": pl.DataFrame({"x": [Thing()]})}, says="objects"),
    *rows(
        "from_arrow",
        "table",
        co.from_arrow,
        bad=(None, 1, "x", [], {}, FRAME, b"ab", {"arrow": None}, {"arrow": "x"}, {"arrow": b""}, {"arrow": b"abc"}),
        good=(co.to_arrow(FRAME),),
    ),
    *rows("carry_out", "journal", carried("journal"), bad=(None, 1, "journal", [], {}, Thing(), SqlJournal, len)),
    *rows(
        "carry_out",
        "relay",
        carried("relay"),
        bad=(None, 1, "relay", [], {}, Thing(), co.Relay, len),
        good=(co.Relay(TABLE, FLOW.before),),
    ),
    *rows("carry_out", "relay", carried("relay"), bad={"without before": co.Relay(TABLE)}, says="before"),
    *rows(
        "carry_out",
        "agents",
        carried("agents"),
        bad=(None, 1, "a", [SAME], {"a": len, "b": SAME}, {"a": None, "b": SAME}, Thing(), {"a": co.Agent, "b": SAME}),
        good=({"a": SAME, "b": SAME}, {"a": SAME, "b": SAME, "c": SAME}),
    ),
    *rows("carry_out", "agents", carried("agents"), bad=({}, {"a": SAME}), says="agent"),
    *rows("carry_out", "run", carried("run"), bad=(None, 1, "", True, b"x", [], Thing(), "a\nb"), good=("again",)),
    *rows("carry_out", "who", carried("who"), bad=(None, 1, "", True, b"x", [], Thing(), "a\nb"), good=("me",)),
    *rows("carry_out", "lease", carried("lease"), bad=NO_POSITIVE, good=(1, 60.0, np.float32(5))),
)


class Walk:
    """A world of one agent, three cells long; what it gives may be wrong."""

    possible_agents = ("a",)

    def __init__(self, first=({"a": 0}, {}), after=({"a": 1}, {"a": 1.0}, {"a": True}, {"a": False}, {"a": {}})):
        self.first, self.after, self.agents = first, after, []

    def reset(self, seed=None):
        self.agents = ["a"]
        return self.first

    def step(self, actions):
        self.agents = []
        return self.after


class Deaf(Walk):
    """A world that nobody can act in."""

    step = None


Q, AC = co.QLearning(inputs=3, actions=2), co.ActorCritic(inputs=3, actions=2)
NO_WORLD = (None, 1, "world", [], {}, Thing(), Walk, Deaf(), len)
NO_LEARNER = (None, 1, "q", [], {}, Thing(), co.QLearning, len, co.Linear(3, 2))


def learner(kind, name):
    return lambda v: getattr(co, kind)(**{"inputs": 3, "actions": 2, name: v})


def player(kind, name):
    return lambda v: getattr(co, kind)(**{"world": Walk(), "learner": Q, name: v})


def play(v):
    """A round of a player in a world."""
    co.Collaboration(co.Pool(Q), {"ann": co.Player(v, Q, steps=2)}, evaluate=False).run(1)


PLAY = [
    *(
        row
        for kind in ("QLearning", "ActorCritic")
        for row in (
            *rows(kind, "inputs", learner(kind, "inputs"), bad=(*NO_WHOLE, 0, -1), good=WHOLE),
            *rows(kind, "actions", learner(kind, "actions"), bad=(*NO_WHOLE, 1, -1), good=(2, np.int64(3))),
            *rows(kind, "discount", learner(kind, "discount"), bad=(*NONE_NUMBERS, 1, -1), good=(0, 0.9)),
        )
    ),
    *rows("QLearning", "rate", learner("QLearning", "rate"), bad=(*NONE_NUMBERS, 0, 1.1), good=NUMBERS),
    *rows("QLearning", "temperature", learner("QLearning", "temperature"), bad=NO_POSITIVE, good=NUMBERS),
    *rows("QLearning", "passes", learner("QLearning", "passes"), bad=(*NO_WHOLE, 0, -1), good=WHOLE),
    *rows("ActorCritic", "rate", learner("ActorCritic", "rate"), bad=NO_POSITIVE, good=NUMBERS),
    *rows("ActorCritic", "value_rate", learner("ActorCritic", "value_rate"), bad=(*NONE_NUMBERS, 0, 1.1), good=NUMBERS),
    *rows("ActorCritic", "entropy", learner("ActorCritic", "entropy"), bad=NOT_NEGATIVE, good=(0, *NUMBERS)),
    *rows("ActorCritic", "clip", learner("ActorCritic", "clip"), bad=(*NONE_NUMBERS, 0, -1), good=(*NUMBERS, INF)),
    *rows("Pool", "learner", co.Pool, bad=NO_LEARNER, good=(Q, AC)),
    *rows("Pool", "keep", lambda v: co.Pool(Q, keep=v), bad=(*NO_WHOLE, -1), good=(0, *WHOLE)),
    *(
        row
        for kind in ("Arena", "Player")
        for row in (
            *rows(kind, "world", player(kind, "world"), bad=NO_WORLD, good=(Walk(),)),
            *rows(kind, "learner", player(kind, "learner"), bad=NO_LEARNER, good=(Q, AC)),
            *rows(kind, "steps", player(kind, "steps"), bad=(*NO_WHOLE, 0, -1), good=WHOLE),
            *rows(kind, "episodes", player(kind, "episodes"), bad=(*NO_WHOLE, 0, -1), good=WHOLE),
        )
    ),
    *rows("Player", "send", player("Player", "send"), bad=NO_WORD, good=("experience", "delta")),
    *rows("Player", "share", player("Player", "share"), bad=(*NONE_NUMBERS, 0, 1.1, -1), good=(0.1, 1)),
    *rows(
        "Player",
        "world",
        play,
        bad={
            "observations alone": Walk(first={"a": 0}),
            "None": Walk(first=None),
            "too wide": Walk(first=({"a": np.zeros(5)}, {})),
            "beyond": Walk(first=({"a": 3}, {})),
            "texts": Walk(first=({"a": "abc"}, {})),
            "nobody": Walk(first=({}, {})),
            "reward missing": Walk(after=({"a": 1}, {}, {"a": True}, {}, {})),
            "end missing": Walk(after=({"a": 1}, {"a": 1.0}, {}, {}, {})),
            "three": Walk(after=({"a": 1}, {"a": 1.0})),
            "nothing": Walk(after=None),
            "reward text": Walk(after=({"a": 1}, {"a": "high"}, {"a": True}, {"a": False}, {})),
            "reward NaN": Walk(after=({"a": 1}, {"a": float("nan")}, {"a": True}, {"a": False}, {})),
        },
        good={"walk": Walk(), "one-hot": Walk(first=({"a": np.eye(3)[0]}, {}))},
        says="[Ww]orld|[Oo]bservation|reward",
    ),
    *rows(
        "Arena",
        "policies",
        lambda v: co.Collaboration(co.Query(v), {"arena": co.Arena(Walk(), Q, steps=2)}, evaluate=False).run(1),
        bad={"None": None, "number": 1.0, "text": "x", "array": np.zeros(3),
             "of nobody": {"policies": {"b": Q.init(None)}}, "another": AC.init(None), "wide": {"q": np.zeros((5, 2))}},
        good={"one": Q.init(None), "by name": {"policies": {"a": Q.init(None)}}},
        says="polic",
    ),
]  # fmt: skip


@pytest.mark.parametrize("row", [*TOPOLOGY, *HANDS, *PLAY], ids=str)
def test_agents(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if row.name == "carry_out":
        SqlJournal.open("journal").close()
    hold(row, tmp_path)
