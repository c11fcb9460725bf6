"""Worker processes: the same sums whoever works, drawers that stay at home, deaths, interrupts, and nothing left."""

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import comity as co
from comity.core.errors import ChannelError, ConfigError
from comity.core.parts import Until
from comity.core.wire import encode
from comity.engines.lots import Costs
from comity.engines.workers import Workers

pytest.importorskip("cloudpickle")
pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
sys.path.append(str(Path(__file__).parent))
doors = importlib.import_module("doors")
NAMES, UNTIL = doors.NAMES, Until(1)
RNG = np.random.default_rng(2)
DATA = {f"p{i}": (RNG.normal(size=(9, 4)).astype("float32"), RNG.integers(0, 3, 9)) for i in range(7)}


class Crew:
    """Workers and their door, which begins anew."""

    def __init__(self, workers):
        self.door = doors.Adder()
        self.engine = Workers(NAMES, self.door, workers)

    def ask(self, cohort, said=None, number=0):
        return self.engine.ask(cohort, doors.messages(cohort, said, number), UNTIL)

    def total(self, cohort, said=None):
        return self.engine.total(cohort, doors.task(cohort, said), UNTIL)


@pytest.fixture(scope="module")
def crews():
    made = {n: Crew(n) for n in (1, 2, 3)}
    yield made
    for crew in made.values():
        crew.engine.close()


@pytest.fixture
def two(crews):
    crews[2].door.visit({})
    crews[2].engine._costs = Costs()  # it is cut as if for the first time
    return crews[2]


def wait_for(holds, seconds=10.0):
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


def same(parts, cohort):
    """Is the sum that of one process, to the bit?"""
    want = doors.joined(list(doors.Adder().total(doors.task(cohort))))
    got = doors.joined(parts)
    assert encode(got.sum) == encode(want.sum)
    assert (got.last, len(got.up)) == (want.last, len(cohort))
    return True


def test_the_laws_of_engines_hold():
    class Two:
        choice = {"workers": 2}

        def connect(self, roster, door):
            return Workers(roster, door, 2)

    co.testing.check_engine(Two())


@pytest.mark.parametrize("asked", [1, 5, 64, 65, 200])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_total_is_that_of_one_process_to_the_bit(crews, workers, asked):
    cohort = tuple(reversed(NAMES[:asked]))
    for _ in range(2):  # the second time it is cut by what was measured
        parts = list(crews[workers].total(cohort))
        assert same(parts, cohort)
        assert sorted(n for p in parts for n in range(p.first, p.last + 1)) == list(range(-(-asked // -(-asked // 64))))
        assert all(p.first in (0, p.last) for p in parts)


def test_no_more_sums_of_a_large_model_wait_than_there_is_room_for(two, monkeypatch):
    monkeypatch.setattr("comity.engines.lots.WAITING", 1)
    parts = list(two.total(NAMES, doors.body("doze", NAMES[0])))
    assert same(parts, NAMES)
    came = [p.first for p in parts]
    assert sorted(came) == list(range(50))
    assert 0 < came.index(0) <= 4, "the first is the slowest; twice the workers may wait for it"


def test_an_empty_cohort_is_nothing(two):
    assert list(two.total(())) == list(two.ask(())) == []


def test_a_plain_function_has_no_total():
    assert Workers(NAMES, lambda asked: asked, 2).total is None


def test_drawers_are_lent_and_come_back(two):
    for n in range(1, 4):
        answers = list(two.ask(NAMES[:30], number=n))
        assert {a.sender: a.body.value["times"] for a in answers} == dict.fromkeys(NAMES[:30], n)
        assert all(a.body.value["heard"] == doors.body().value["x"].sum() for a in answers)
    list(two.total(NAMES[10:40]))
    assert two.door.drawers == dict.fromkeys(NAMES[:10], 3) | dict.fromkeys(NAMES[10:30], 4) | dict.fromkeys(
        NAMES[30:40], 1
    )
    assert sorted(two.door.touched()) == list(NAMES[:40])


@pytest.mark.parametrize("how", ["ask", "total"])
def test_a_worker_that_is_killed_is_replaced_and_its_part_redone(two, tmp_path, how):
    cohort, said = NAMES[:70], doors.body("die once", NAMES[37], tmp_path / "flag")
    came = list(getattr(two, how)(cohort, said))
    assert (tmp_path / "flag").exists()
    assert same(came, cohort) if how == "total" else sorted(a.sender for a in came) == list(cohort)
    assert two.door.drawers == dict.fromkeys(cohort, 1), "who was asked again was asked with the drawer before it"


@pytest.mark.parametrize("how", ["ask", "total"])
def test_who_ends_every_worker_is_named(two, tmp_path, how):
    said = doors.body("die", NAMES[2], tmp_path / "flag")
    with pytest.raises(ChannelError, match=r"3 that ended \(killed by signal 9\) while asking .*p00.*workers=1"):
        list(getattr(two, how)(NAMES[:3], said))
    assert len(list(two.ask(NAMES[:3]))) == 3


@pytest.mark.parametrize("how", ["ask", "total"])
def test_what_is_raised_passes_through(two, how):
    with pytest.raises(KeyboardInterrupt):
        list(getattr(two, how)(NAMES[:20], doors.body("interrupt", NAMES[7])))
    with pytest.raises(ZeroDivisionError, match="p007") as caught:
        list(getattr(two, how)(NAMES[:20], doors.body("raise", NAMES[7])))
    assert "doors.py" in caught.value.__notes__[0]
    assert same(list(two.total(NAMES[:20])), NAMES[:20])


@pytest.mark.parametrize("how", ["ask", "total"])
def test_who_stops_listening_leaves_nothing_behind(two, tmp_path, how):
    flag = tmp_path / "flag"
    answers = getattr(two, how)(NAMES[:40], doors.body("sleep", NAMES[16], flag))
    next(answers)
    wait_for(lambda: (two.engine._crew.pump(wait=False), flag.exists() and flag.read_text())[1])
    answers.close()
    wait_for(lambda: not Path(f"/proc/{flag.read_text()}").exists())
    heard = [(a.round.number, a.body.value["heard"]) for a in two.ask(NAMES[:9], doors.body(floats=5), 8)]
    assert heard == [(8, 10.0)] * 9


def test_one_question_may_be_asked_within_another(two):
    outer = two.ask(NAMES[:40], doors.body("doze", NAMES[12], floats=50_000), 1)
    first = next(outer)
    inner = list(two.ask(NAMES[100:140], doors.body(floats=60_000), 2))
    rest = list(outer)
    for answers, n, asked, floats in (([first, *rest], 1, NAMES[:40], 50_000), (inner, 2, NAMES[100:140], 60_000)):
        assert sorted(a.sender for a in answers) == list(asked)
        assert {(a.round.number, a.body.value["heard"]) for a in answers} == {
            (n, doors.body(floats=floats).value["x"].sum())
        }


def test_each_message_is_made_once_in_order_and_no_earlier_than_it_is_needed(two):
    made = []

    def message(name):
        made.append(name)
        return doors.messages(NAMES)(name)

    answers = two.engine.ask(NAMES, message, UNTIL)
    next(answers)
    assert len(made) < 180
    assert len(list(answers)) == 199
    assert made == list(NAMES)


def test_data_in_a_file_is_mapped_again_and_data_in_memory_is_shared(tmp_path):
    whole = np.memmap(tmp_path / "x.bin", "float32", "w+", shape=(50_000, 4))
    whole[:] = np.arange(200_000).reshape(-1, 4)
    whole.flush()
    kept = [whole[10:20_000], np.asarray(whole)[30_000:40_000], whole[:, 1], np.arange(9.0), np.arange(0)]
    kept[3].flags.writeable = False

    def door(asked):
        said = [(type(x).__name__, x.sum(dtype=float), x.flags.writeable) for x in kept]
        where = sum("x.bin" in line for line in open("/proc/self/maps"))  # noqa: SIM115
        return type(asked)(asked.round, "", "p000", "", co.Contribution("said", {"said": said, "where": where}))

    engine = Workers(NAMES, door, 2)
    said = next(engine.ask(NAMES[:1], doors.messages(NAMES[:1]), UNTIL)).body.value
    engine.close()
    assert [x[1] for x in said["said"]] == [x.sum(dtype=float) for x in kept]
    assert [x[2] for x in said["said"]] == [True, True, True, False, True]
    assert said["where"] == 2, "those that are whole pieces of the file; the column is a copy"


def test_what_is_shared_cannot_be_written_into(two):
    with pytest.raises(ValueError, match="read-only"):
        list(two.ask(NAMES[:2], doors.body("write", NAMES[1])))


def test_an_answer_that_cannot_leave_is_an_error_of_that_member(two):
    answers = {a.sender: a.body for a in two.ask(NAMES[:4], doors.body("odd", NAMES[1]))}
    assert {who: c.kind for who, c in answers.items()} == {n: "error" if n == "p001" else "said" for n in NAMES[:4]}
    assert "p001" in answers["p001"].value["reason"]


@pytest.mark.parametrize("how", ["ask", "total"])
def test_a_stranger_is_a_config_error(two, how):
    with pytest.raises(ConfigError, match="'nobody'"):
        list(getattr(two, how)(("p001", "nobody")))


class Holds:
    def __init__(self, data):
        self.data = data


def test_what_cannot_be_pickled_is_named():
    people = {"ann": Holds(1), "bob": Holds(i for i in range(3))}
    with pytest.raises(ConfigError, match=r"\['bob'\]\.data, a generator.*workers=1"):
        next(Workers(["ann", "bob"], people.__getitem__, 2).ask(["ann"], doors.messages(["ann"]), UNTIL))


def test_what_does_not_load_over_there_is_said(tmp_path, monkeypatch):
    (tmp_path / "vanished.py").write_text("def door(asked):\n    return asked\n")
    monkeypatch.syspath_prepend(tmp_path)
    door = importlib.import_module("vanished").door
    monkeypatch.undo()
    with pytest.raises(ConfigError, match=r"No module named 'vanished'.*workers=1"):
        next(Workers(NAMES, door, 2).ask(NAMES[:1], doors.messages(NAMES[:1]), UNTIL))


def test_without_cloudpickle_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(ConfigError, match=r"pip install 'comity\[processes\]'"):
        next(Workers(NAMES, doors.Adder(), 2).ask(NAMES[:1], doors.messages(NAMES[:1]), UNTIL))


def test_nothing_is_left_after_it(two):
    before, memory = set(doors.children()), sorted(os.listdir("/dev/shm"))
    for end in (lambda crew: crew.engine.close(), lambda crew: crew.__dict__.clear()):
        crew = Crew(2)
        list(crew.ask(NAMES))
        assert len(set(doors.children()) - before) == 2
        end(crew)
        assert set(doors.children()) <= before
    assert sorted(os.listdir("/dev/shm")) == memory
    assert len(list(two.ask(NAMES[:3]))) == 3


def test_after_close_it_begins_anew():
    crew = Crew(2)
    for _ in range(2):
        assert len(list(crew.ask(NAMES[:9]))) == 9
        crew.engine.close()


SCRIPT = """
import os, sys, time
import numpy as np
import comity as co

class Mine:
    def __init__(self, scale):
        self.f = lambda x: scale * x
    def contribute(self, shared, local, round, secret):
        sys.stdout.write(f"loud {os.getpid()}\\n")
        if SLOW and round.me == "p3":
            time.sleep(60)
        return co.Contribution("delta", {k: self.f(np.ones_like(x)) for k, x in shared.value.items()}, 2.0), local

SLOW = len(sys.argv) > 1
fed = co.Collaboration(co.FedAvg(co.Linear(3, 2)), {f"p{i}": Mine(i) for i in range(8)}, evaluate=False)
run = fed.run(rounds=2, engine=co.Local(workers=2))
print(sum(x.sum() for x in run.shared.values()))
"""


def script(tmp_path, *words):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, str(path), *words], start_new_session=True, **pipes)


def workers_of(process, err):
    """The processes that said something loud."""
    while len(said := {int(line.split()[1]) for line in err if line.startswith("loud")}) < 2:
        line = process.stderr.readline()
        assert line
        err.append(line)
    return said


def test_a_script_needs_no_guard_and_lambdas_will_do(tmp_path):
    out, err = script(tmp_path).communicate(timeout=30)
    assert out == "56.0\n", err
    assert len({line for line in err.splitlines() if line.startswith("loud")}) == 2


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_process_that_started_them(tmp_path, how):
    process = script(tmp_path, "slow")
    err = []
    pids = workers_of(process, err)
    if how == signal.SIGINT:
        os.killpg(process.pid, how)  # as a terminal does: the workers hear it as well
    else:
        process.kill()
    _, rest = process.communicate(timeout=20)
    assert process.returncode == -how
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    assert rest.count("Traceback") == (how == signal.SIGINT), rest
