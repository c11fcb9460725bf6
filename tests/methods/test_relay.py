"""Agents that hand on a table: what each is given, what the ledger knows, and that no step is lost or done twice."""

import os
import signal
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import comity as co
from comity.core.errors import ConfigError, ContributionError, LedgerError, TooFewParticipants
from comity.core.wire import decode_tree, encode_tree
from comity.ledger.journal import SqlJournal

STEPS = co.ready({"clean": [], "left": ["clean"], "right": ["clean"], "train": ["left", "right"], "report": ["clean"]})
TABLE = pl.DataFrame({"id": [3, 1, 2, 4], "x": [1.0, None, 3.0, 4.0], "word": ["a", "b", None, "d"]})


def clean(t):
    return t.drop_nulls("x")


def left(t):
    return t.with_columns(double=pl.col("x") * 2).sort("id")


def right(t):
    return t.select("id", "x", square=pl.col("x") ** 2)


def train(t):
    return t.select(pl.col("id"), sum=pl.col("double") + pl.col("square"))


def report(t):
    return t.select(rows=pl.len())


AGENTS = {f.__name__: co.Agent(co.framed(f, on="id")) for f in (clean, left, right, train, report)}


def pipeline(agents=AGENTS, **more):
    relay = co.Relay(co.to_arrow(TABLE), STEPS.before)
    return co.Collaboration(relay, agents, select=STEPS, evaluate=False, **more)


def digest(tree):
    return int(sha256(encode_tree(tree)).hexdigest()[:12], 16)


def numbers(x):
    """Three steps over arrays: cut, in halves side by side, joined."""
    flow = co.turns("cut", ("low", "high"), "join")
    agents = {
        "cut": co.Agent(lambda t: {"x": t["x"][t["x"] > 0]}),
        "low": co.Agent(lambda t: {"x": t["x"][t["x"] < 5]}),
        "high": co.Agent(lambda t: {"x": t["x"][t["x"] >= 5]}),
        "join": co.Agent(lambda both: {"sum": np.array([both["low"]["x"].sum(), both["high"]["x"].sum()])}),
    }
    return flow, agents, co.Relay({"x": x})


def test_a_real_pipeline_branches_and_joins():
    run = pipeline().run(rounds=len(STEPS))
    assert run.shared.keys() == {"train", "report"}
    made = co.from_arrow(run.shared["train"])
    assert made.rows() == [(2, 15.0), (3, 3.0), (4, 24.0)]
    assert co.from_arrow(run.shared["report"])["rows"].item() == 3
    assert [len(e.facts["up"]) for e in run.ledger if e.kind == "round"] == [1, 3, 1]


def test_the_ledger_knows_rows_and_digests():
    run = pipeline().run(rounds=len(STEPS))
    said = {name: run.ledger.metric(name)[0] for step in AGENTS for name in (f"rows.{step}", f"rows_in.{step}")}
    assert (said["rows_in.clean"], said["rows.clean"], said["rows_in.left"], said["rows.report"]) == (4, 3, 3, 1)
    for step in ("left", "right", "report"):
        assert run.ledger.metric(f"digest_in.{step}") == run.ledger.metric("digest.clean")
    assert run.ledger.metric("digest_in.clean") == [digest(co.to_arrow(TABLE))]
    assert run.ledger.metric("digest.train") == [digest(run.shared["train"])]


def test_what_nobody_waits_for_is_not_kept():
    state = pipeline().run(rounds=2).state
    assert state["made"].keys() == {"left", "right", "report"}
    assert state["done"].split("\n") == ["clean", "left", "right", "report"]


def test_a_table_is_kept_until_the_last_who_needs_it():
    flow = co.ready({"a": [], "b": ["a"], "c": ["b"], "d": ["a", "c"]})
    agents = {n: co.Agent(lambda t: {"x": t["x"] + 1.0}) for n in "abc"}
    agents["d"] = co.Agent(lambda t: {"x": t["a"]["x"] * 10 + t["c"]["x"]})
    fed = co.Collaboration(co.Relay({"x": np.zeros(1)}, flow.before), agents, select=flow, evaluate=False)
    assert fed.run(rounds=3).state["made"].keys() == {"a", "c"}
    run = fed.run(rounds=4)
    assert run.shared["x"] == [13.0]
    assert run.state["made"].keys() == {"d"}


def test_too_many_rounds_do_no_step_twice():
    once, more = pipeline().run(rounds=len(STEPS)), pipeline().run(rounds=len(STEPS) + 2)
    assert encode_tree(once.state) == encode_tree(more.state)


def test_turns_over_arrays():
    flow, agents, relay = numbers(np.array([-1.0, 2.0, 3.0, 7.0]))
    run = co.Collaboration(relay, agents, select=flow, evaluate=False).run(rounds=len(flow))
    np.testing.assert_array_equal(run.shared["sum"], [5.0, 7.0])
    assert run.ledger.metric("rows_in.join") == [3.0]


def test_the_laws_hold():
    agents = {name: co.Agent(lambda t: {"x": np.array([1.0])}) for name in ("a", "b")}
    co.testing.check_method(co.Relay({"x": np.arange(3.0)}), agents)


class Once:
    """Fails the first `fails` times."""

    def __init__(self, fails):
        self._fails, self._calls = fails, 0

    def __call__(self, t):
        self._calls += 1
        if self._calls <= self._fails:
            raise RuntimeError("no disk")
        return {"x": t["x"] + 1}


def test_a_failing_agent_is_asked_again_and_loses_nothing(tmp_path):
    first, second = Once(0), Once(4)
    agents = {"a": co.Agent(first), "b": co.Agent(second)}
    flow, relay = co.turns("a", "b"), co.Relay({"x": np.zeros(2)})
    fed = co.Collaboration(relay, agents, select=flow, evaluate=False, retries=2)
    with pytest.raises(TooFewParticipants, match="b: RuntimeError: no disk"):
        fed.run(rounds=2, folder=tmp_path / "run")
    run = fed.run(rounds=2, folder=tmp_path / "run")
    np.testing.assert_array_equal(run.shared["x"], [2.0, 2.0])
    assert (first._calls, second._calls) == (1, 5)


def test_a_turn_that_fails_goes_to_another_able_agent_and_the_better_one_is_learnt():
    good = {"ann": 0.2, "bob": 0.9}

    def measured(name):
        return co.Agent(lambda t: t, measure=lambda given, made: {"quality": good[name]})

    agents = {name: measured(name) for name in good} | {"end": co.Agent(lambda t: t)}
    flow = co.turns(co.one_of("ann", "bob", explore=0.3), "end")
    run = co.Collaboration(co.Relay({"x": np.ones(1)}), agents, select=flow, evaluate=False).run(rounds=40)
    asked = [e.facts["asked"] for e in run.ledger if e.kind == "round"][::2]
    assert asked.count("bob") > 14
    agents["bob"] = co.Agent(Once(99))
    run = co.Collaboration(co.Relay({"x": np.ones(1)}), agents, select=flow, evaluate=False).run(rounds=4)
    assert [e.facts["asked"] for e in run.ledger if e.kind == "round" and e.facts["closed"]][::2] == ["ann", "ann"]


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
import comity as co
from comity import running

running.SAVE_SECONDS = 0.0
folder, fatal = Path(sys.argv[1]), sys.argv[2]

def step(name):
    def work(t):
        with open(folder / "log", "a") as log:
            log.write(name + "\\n")
        if name == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"x": t["x"] * 2 + len(name)}
    return work

names = ("a", "bb", "ccc", "dddd")
fed = co.Collaboration(co.Relay({"x": np.ones(1)}), {n: co.Agent(step(n)) for n in names},
                       select=co.turns(*names), evaluate=False)
print(fed.run(rounds=4, folder=folder / "run").shared["x"][0])
"""


def test_a_killed_run_goes_on_at_the_step(tmp_path):
    def started(fatal):
        done = subprocess.run([sys.executable, "-c", KILLED, tmp_path, fatal], capture_output=True, timeout=60)
        return done.returncode, done.stdout.decode().strip()

    assert started("ccc") == (-signal.SIGKILL, "")
    assert started("none") == (0, "42.0")
    assert (tmp_path / "log").read_text().split() == ["a", "bb", "ccc", "ccc", "dddd"]


WORKER = """
import os, random, signal, sys
from pathlib import Path
import numpy as np
import comity as co
from comity.ledger.journal import SqlJournal

folder = Path(sys.argv[1])
before = {f"s{i}": tuple(f"s{j}" for j in range(i) if (i * 7 + j * 3) % 4 == 0) for i in range(16)}

def die(step, now):
    # the first who comes here with this step is killed
    if now and not (folder / f"fatal-{step}").exists():
        os.open(folder / f"fatal-{step}", os.O_CREAT | os.O_EXCL)
        os.kill(os.getpid(), signal.SIGKILL)

def work(who, rng):
    def of(step):
        def made(given):
            fate = int(step[1:]) % 3
            die(step, fate == 0)
            with open(folder / f"log-{who}", "a") as log:
                log.write(step + "\\n")
            tables = given.values() if "x" not in given else [given]
            out = {"x": sum(t["x"] for t in tables) + len(step), "luck": np.array([rng.random()])}
            die(step, fate == 1)
            return out
        return made
    agents = {step: co.Agent(of(step)) for step in before}
    with SqlJournal.open(folder) as journal:
        found = co.carry_out(journal, co.Relay({"x": np.ones(1)}, before), agents, run="r", who=who, lease=0.2)
    from comity.core.wire import encode_tree
    (folder / f"end-{who}").write_bytes(encode_tree(found))

def born(who, life):
    child = os.fork()
    if child:
        return child
    try:
        work(who, random.Random(f"{who} {life}"))
        os._exit(0)
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)

lives, kills = {f"w{n}": 0 for n in range(3)}, 0
children = {born(who, 0): who for who in lives}
while children:
    child, status = os.wait()
    who = children.pop(child)
    if os.WIFSIGNALED(status):
        kills, lives[who] = kills + 1, lives[who] + 1
        children[born(who, lives[who])] = who
    else:
        assert os.WEXITSTATUS(status) == 0
print(kills)
"""


def test_workers_that_are_killed_do_every_step_of_the_graph_exactly_once(tmp_path):
    """Three processes, 16 steps, 11 of which kill who does them first, before the work or after it."""
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, timeout=100, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr.decode()
    assert int(done.stdout) == 11
    ends = {(tmp_path / f"end-w{n}").read_bytes() for n in range(3)}
    assert len(ends) == 1
    began = [step for n in range(3) for step in lines(tmp_path / f"log-w{n}")]
    assert {f"s{i}" for i in range(16)} == set(began)
    assert len(began) >= 16 + 5
    with SqlJournal.open(tmp_path) as journal:
        assert journal.waiting("r") == []
        kept = {i: journal.read(("r", 0, 0, "step", f"s{i}")) for i in range(16)}
    made = {i: decode_tree(data) for i, data in kept.items()}
    for i in range(16):
        first = [j for j in range(i) if (i * 7 + j * 3) % 4 == 0]
        want = sum(made[j]["x"] for j in first) if first else 1.0
        np.testing.assert_array_equal(made[i]["x"], want + len(f"s{i}"))


def lines(path: Path):
    return path.read_text().split() if path.exists() else []


def test_carry_out_says_what_is_lacking(tmp_path):
    with SqlJournal.open(tmp_path) as journal:
        with pytest.raises(ConfigError, match="Got none for `before`"):
            co.carry_out(journal, co.Relay("x"), {}, run="r", who="w")
        with pytest.raises(ConfigError, match="Got none for b"):
            co.carry_out(journal, co.Relay("x", {"b": ()}), {}, run="r", who="w")
        journal.offer(("r", 0, 0, "step", "b"), {"step": "another"})
        with pytest.raises(LedgerError, match="offered with one spec"):
            co.carry_out(journal, co.Relay("x", {"b": ()}), {"b": co.Agent(str)}, run="r", who="w")


def test_carry_out_equals_the_loop(tmp_path):
    looped = pipeline().run(rounds=len(STEPS)).shared
    with SqlJournal.open(tmp_path) as journal:
        relay = co.Relay(co.to_arrow(TABLE), STEPS.before)
        found = [co.carry_out(journal, relay, AGENTS, run="r", who=who) for who in ("w0", "w1")]
    assert encode_tree(found[0]) == encode_tree(found[1]) == encode_tree(looped)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: co.Agent(3), "'work' of Agent must be a function"),
        (lambda: co.Agent(str, measure=3), "'measure' of Agent"),
        (lambda: co.Relay("x", {"a": "b"}), "'before' of Relay"),
        (lambda: co.Relay("x", {"a": ("b",)}), "'before' of Relay"),
        (lambda: co.framed(3), "'work' of framed"),
        (lambda: co.framed(str, on=(3,)), "'on' of framed"),
        (lambda: co.to_arrow([1]), "'frame' of to_arrow"),
        (lambda: co.to_arrow(pl.DataFrame({"o": [object()]})), "Column 'o' holds Python objects"),
        (lambda: co.from_arrow({"arrow": b"nothing"}), "must be an Arrow stream"),
        (lambda: co.from_arrow({"x": 1}), "must be {'arrow': bytes"),
    ],
)
def test_what_is_refused(make, says):
    with pytest.raises((ConfigError, ContributionError), match=says):
        make()


def test_steps_are_asked_in_their_order():
    relay = co.Relay("x", {"a": (), "b": ("a",)})
    fed = co.Collaboration(relay, {"a": co.Agent(str), "b": co.Agent(str)}, select=co.turns("b", "a"), evaluate=False)
    with pytest.raises(ConfigError, match="'b' must wait for a"):
        fed.run(rounds=1)
    with pytest.raises(ConfigError, match="'a' was done before"):
        fed.replace(select=co.turns("a")).run(rounds=2)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"id": [1, 2], "x": [5.0, 6.0]}, "'a' and 'b' made column 'x' unlike"),
        ({"id": [1, 1], "y": [5.0, 6.0]}, "cannot be joined on id"),
        ({"key": [1, 2]}, "cannot be joined on id"),
    ],
)
def test_tables_that_do_not_join(other, says):
    tables = {"a": co.to_arrow(pl.DataFrame({"id": [1, 2], "x": [1.0, 2.0]})), "b": co.to_arrow(pl.DataFrame(other))}
    with pytest.raises(ContributionError, match=says):
        co.framed(lambda t: t, on="id")(tables)
    with pytest.raises(ConfigError, match="Use framed"):
        co.framed(lambda t: t)(tables)
