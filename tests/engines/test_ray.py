"""Actors of Ray on this machine: equal to Local to the bit, whoever is lost; and nothing is left running."""

import importlib.util
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import comity as co
from comity.core.contribution import Contribution
from comity.core.envelope import Envelope
from comity.core.parts import Until
from comity.core.round import Round
from comity.core.wire import encode_tree
from comity.engines import ray_team
from comity.engines.ray import BLOCKS, Ray
from comity.engines.ray_cluster import library, places
from comity.engines.ray_team import Run, cut
from comity.loop import fold

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.ray
TOYS = Path(__file__).parents[1] / "scenarios" / "protecting.py"
spec = importlib.util.spec_from_file_location("ray_protecting", TOYS)
toys = sys.modules["ray_protecting"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toys)

RNG = np.random.default_rng(4)
N = 70
DATA = {f"{i:02}": (RNG.normal(size=(6, 3)).astype("float32"), RNG.integers(0, 2, 6)) for i in range(N)}
MODEL = co.Linear(3, 2, rate=0.3, batch=4)
TWO = co.Ray(actors=2, executor="sequential")


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """One Ray of ours for all tests here: others of ours join it, and leave it as it is."""
    held = TWO.connect((), None)
    pickled = (sys.modules[__name__], toys)
    for module in pickled:
        ray.cloudpickle.register_pickle_by_value(module)
    yield held
    for module in pickled:
        ray.cloudpickle.unregister_pickle_by_value(module)
    held.close()
    assert not ray.is_initialized()


@dataclass(frozen=True)
class Remembers:
    """Moves less with every round that it counts; kills its process where it is told to."""

    data: Any = field(metadata={"data": True}, repr=False)
    kill: str = ""

    def contribute(self, shared, local, round, secret):
        c, _ = co.Trainer(MODEL, self.data).contribute(shared, {}, round, secret)
        if shared.kind == "score":
            return c, local
        if self.kill and round.number == 1 and hub_is_elsewhere() and not Path(self.kill).exists():
            Path(self.kill).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        times = local.get("times", 0) + 1
        return replace(c, value={k: x / np.float32(times) for k, x in c.value.items()}), {"times": times}


def hub_is_elsewhere():
    return os.environ.get("RAY_RAYLET_PID") is not None


def trainers(data=DATA):
    return {n: co.Trainer(MODEL, d) for n, d in data.items()}


def rememberers(kill=""):
    return {n: Remembers(d, str(kill) if n == "41" else "") for n, d in DATA.items()}


def collaboration(people, **parts):
    return co.Collaboration(co.FedAvg(MODEL, co.Adam(0.1)), people, **{"evaluate": co.every(2), **parts})


def facts(run):
    """The ledger without times and the engine's own choices."""
    return [
        encode_tree({"kind": e.kind, **{k: v for k, v in e.facts.items() if k != "choice"}})
        for e in run.ledger
        if e.kind != "choice"
    ]


def assert_equal(there, here, *drawers):
    assert encode_tree(there.state) == encode_tree(here.state)
    assert there.metrics == here.metrics
    assert facts(there) == facts(here)
    for name in drawers:
        assert encode_tree(there.local(name)) == encode_tree(here.local(name)) != encode_tree({})


def test_the_laws_of_engines():
    co.testing.check_engine(TWO)


@pytest.mark.parametrize("combine", [co.Mean(), co.Median()], ids=repr)
def test_to_the_bit_what_local_gives(combine):
    fed = collaboration(trainers(), combine=combine, select=co.sample(0.9))
    assert_equal(fed.run(3, engine=TWO), fed.run(3, engine=co.Local("sequential")))


@pytest.mark.parametrize("combine", [co.Mean(), co.Median()], ids=repr)
def test_a_killed_actor_costs_neither_the_round_nor_a_drawer(combine, tmp_path):
    here = collaboration(rememberers(), combine=combine).run(3)
    there = collaboration(rememberers(tmp_path / "killed"), combine=combine).run(3, engine=TWO)
    assert (tmp_path / "killed").exists()
    assert_equal(there, here, "00", "41", "69")


def test_a_masked_sum():
    people = trainers(dict(list(DATA.items())[:9]))
    fed = collaboration(people, **toys.SUMMED, evaluate=False)
    assert encode_tree(fed.run(2, engine=TWO).state) == encode_tree(fed.run(2).state)


def test_a_run_in_its_folder_goes_on_with_another_engine(tmp_path):
    fed = collaboration(rememberers())
    fed.run(1, folder=tmp_path / "run", engine=TWO)
    fed.run(2, folder=tmp_path / "run")
    there = fed.run(4, folder=tmp_path / "run", engine=Ray(actors=1, executor="sequential"))
    here = fed.run(4)
    assert encode_tree(there.state) == encode_tree(here.state)
    assert there.local("07") == here.local("07") == {"times": 4}
    first = there.ledger[0].facts["choice"]
    assert (first["engine"], first["workers"], first["ray"]) == ("ray", 2, ray.__version__)


NAMES = tuple(DATA)
TURN = Round("ray", 0, 3, roster=N, asked=N, expected=1.0)


def question(to):
    return Envelope(replace(TURN, me=to), "contribute", "hub", "ab" * 32, Contribution("question", None))


def asked(connected, names=NAMES):
    return connected.ask(names, question, Until(1))


def said(envelope, value):
    return Envelope(envelope.round, envelope.phase, envelope.round.me, envelope.recipe, Contribution("said", value))


@pytest.fixture
def connect():
    """Connects a door, and closes it at the end."""
    held = []

    def connected(door, engine=TWO):
        held.append(engine.connect(NAMES, door))
        return held[-1]

    yield connected
    for one in held:
        one.close()


def _describe(envelope):
    from threadpoolctl import threadpool_info

    threads = max((pool["num_threads"] for pool in threadpool_info()), default=0)
    return said(envelope, {"pid": os.getpid(), "nice": os.nice(0), "threads": threads})


def test_actors_are_as_urgent_as_any_process_and_have_one_thread(connect):
    values = [a.body.value for a in asked(connect(_describe))]
    assert {(v["nice"], v["threads"]) for v in values} == {(os.nice(0), 1)}
    assert os.getpid() not in {v["pid"] for v in values}


def _slow(envelope):
    time.sleep(0.02)
    return said(envelope, {"pid": os.getpid()})


def test_an_actor_that_is_ended_while_it_works_is_replaced(connect):
    connected = connect(_slow)
    answers = asked(connected)
    got = [next(answers)]
    lost = connected._team.slots[1].actor
    ray.kill(lost, no_restart=True)
    got += answers
    again = list(asked(connected))
    assert sorted(a.sender for a in got) == sorted(a.sender for a in again) == list(NAMES)
    assert connected._team.slots[1].actor is not lost


def _deadly(envelope):
    if envelope.round.me == "05":
        os.kill(os.getpid(), signal.SIGKILL)
    return said(envelope, None)


def test_who_kills_every_actor_ends_the_round_with_a_clear_error(connect):
    connected = connect(_deadly)
    with pytest.raises(co.ComityError, match=r"An actor of Ray must last\. Got 3 .* over members \d+ to \d+") as error:
        list(asked(connected))
    assert len(str(error.value)) < 600
    assert len(list(asked(connected, NAMES[6:9]))) == 3


class Odd(Exception):
    def __init__(self, disk, size):
        super().__init__(f"{disk} has {size}")


def _full(envelope):
    raise ValueError(f"no room for {envelope.round.me}")


def _odd(envelope):
    raise Odd("sda", 3)


def _interrupted(envelope):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("door", "kind", "text"),
    [
        (_full, ValueError, "no room for 00"),
        (_odd, co.ComityError, "Odd: sda has 3"),
        (_interrupted, KeyboardInterrupt, None),
    ],
)
def test_what_is_raised_in_an_actor_is_raised_here(door, kind, text, connect):
    with pytest.raises(kind, match=text) as error:
        list(asked(connect(door), NAMES[:1]))
    assert f"in {door.__name__}" in error.value.__notes__[0]


def _stuck(envelope):
    time.sleep(0 if envelope.round.me == "00" else 60)
    return said(envelope, None)


def test_who_stops_listening_need_not_wait_for_what_he_asked(connect):
    connected, start = connect(_stuck), time.monotonic()
    answers = asked(connected, NAMES[:2])
    next(answers)
    answers.close()
    assert len(list(asked(connected, NAMES[:1]))) == 1
    assert time.monotonic() - start < 30


def _strange(envelope):
    return said(envelope, threading.Lock() if envelope.round.me == "03" else None)


def test_an_answer_that_cannot_travel_is_an_error_of_its_sender(connect):
    kinds = {a.sender: a.body.kind for a in asked(connect(_strange), NAMES[:6])}
    assert kinds == dict.fromkeys(NAMES[:6], "said") | {"03": "error"}


class Nowhere:
    def __reduce__(self):
        return importlib.import_module, ("no_such_module",)


@pytest.mark.parametrize(
    ("door", "text"),
    [(threading.Lock(), r"pickled.*cannot pickle '_thread.lock'"), (Nowhere(), r"No module named 'no_such_module'")],
    ids=["cannot be sent", "cannot be loaded"],
)
def test_participants_that_do_not_reach_an_actor(door, text, connect):
    with pytest.raises(co.ConfigError, match=text):
        list(asked(connect(door), NAMES[:2]))


def test_whoever_closes_leaves_it_to_the_others(connect, cluster):
    one, other = connect(_slow), connect(_slow)
    assert len(list(asked(one, NAMES[:2]))) == len(list(asked(other, NAMES[:2]))) == 2
    one.close()
    one.close()
    assert len(list(asked(other, NAMES[:2]))) == 2
    assert len(list(asked(one, NAMES[:2]))) == 2, "it may be asked again"


def test_it_is_reached_from_nowhere_else():
    assert [n["NodeManagerAddress"] for n in ray.nodes()] == ["127.0.0.1"]


def test_one_actor_per_core_and_no_gpu_where_there_is_none():
    assert places(None, None) == ([ray.nodes()[0]["NodeID"]] * 2, 0.0)
    assert Ray().choice["workers"] == 2
    with pytest.raises(co.ConfigError, match=r"'gpus' of Ray must be there\. Got 0.5 for each of 3"):
        places(3, 0.5)


def test_nodes_in_turn_and_gpus_before_cores(monkeypatch):
    nodes = [
        {"NodeID": "a", "Alive": True, "Resources": {"CPU": 8.0}},
        {"NodeID": "b", "Alive": True, "Resources": {"CPU": 2.0, "GPU": 2.0}},
        {"NodeID": "c", "Alive": False, "Resources": {"CPU": 8.0, "GPU": 8.0}},
        {"NodeID": "d", "Alive": True, "Resources": {"CPU": 2.0, "GPU": 1.0}},
    ]
    monkeypatch.setattr(library(), "nodes", lambda: nodes)
    assert places(None, None) == (["b", "d", "b"], 1.0)
    assert places(None, 0.5) == (["b", "d"] * 2 + ["b", "b"], 0.5)
    assert places(5, 0.0) == (["a", "b", "d", "a", "b"], 0.0)


@pytest.mark.parametrize("paces", [[None], [None, None], [1.0, 3.0, None], [0.01] * 4, [1e-9] * 2])
@pytest.mark.parametrize(("members", "block"), [(1, 1), (2, 1), (64, 1), (150, 3), (4000, 63)])
def test_every_block_is_in_one_run(members, block, paces):
    shares, rest = cut(members, block, paces, most=5, whole=True)
    runs = sorted([*(run for share in shares for run in share), *rest])
    assert [p for run in runs for p in range(run.start, run.end)] == list(range(members))
    assert all(run.start % block == 0 and run.end - run.start <= 5 * block for run in runs if run.start)


def test_the_fast_get_more_and_the_last_fifth_is_for_whoever_is_free():
    shares, rest = cut(1000, 10, [1.0, 3.0], most=64, whole=False)
    assert [[*share] for share in shares] == [[Run(0, 600)], [Run(600, 800)]]
    assert [run.end - run.start for run in rest] == [20] * 10
    shares, rest = cut(1000, 10, [1e-6, 1e-6], most=64, whole=False)
    assert [[*share] for share in shares] == [[Run(0, 500)], [Run(500, 1000)]]
    assert not rest, "what takes no time is not worth a tail"


def test_blocks_are_those_of_the_fold():
    assert BLOCKS == fold.BLOCKS


def test_no_room_for_an_actor_is_said(connect, monkeypatch):
    monkeypatch.setattr(ray_team, "PATIENCE", 0.01)
    with pytest.raises(co.ConfigError, match=r"must have room for an actor\. Got none"):
        list(asked(connect(_slow)))


@pytest.mark.parametrize(
    "settings",
    [{"address": 3}, {"address": ""}, {"actors": 0}, {"actors": 1.5}, {"actors": True}, {"gpus": -1}, {"gpus": "1"},
     {"gpus": float("nan")}, {"executor": "fast"}],
)  # fmt: skip
def test_what_no_setting_is(settings):
    (name,) = settings
    with pytest.raises(co.ConfigError, match=rf"The '{name}' of Ray must be .* Got"):
        Ray(**settings)


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(co.ConfigError, match=r"ray is needed .* pip install 'comity\[ray\]'"):
        TWO.connect((), None)
