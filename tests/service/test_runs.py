"""The runs of a hub: what is offered, agreed to, pinned and wished, by several at once."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import comity as co
from comity.service.database import Database
from comity.service.runs import SCHEMA, Offering, Runs

SAID = {"recipe": "ab", "limits": {"rounds": 3}, "spends": [], "time": 1.0, "proof": {"by": "x"}}
SPEND = {"mechanism": "gaussian", "noise": 1.0}


@pytest.fixture(params=["sqlite", "postgresql"])
def db(request: Any, tmp_path: Path) -> Iterator[Database]:
    where = tmp_path if request.param == "sqlite" else request.getfixturevalue("postgres").url()
    made = Database.open(where, SCHEMA)
    yield made
    made.close()


def offered(runs: Runs, run: str = "r", **more: Any) -> Any:
    settings = {"title": "t", "recipe": {"hash": "ab"}, "about": {"a": 1}, "folder": "f", "minimum": 2}
    return runs.offer(run, Offering(**{**settings, "invited": ["bob", "ada"], **more}))


def test_a_run_is_offered_started_and_over(db):
    times = iter(range(100))
    runs = Runs(db, lambda: float(next(times)))
    row = offered(runs)
    assert (row.state, row.roster, row.invited, row.begun, row.wish) == ("gathering", (), ("ada", "bob"), 0.0, "go")
    assert offered(runs, title="u", minimum=1).title == "u"
    assert runs.start("r", ["ada"]) == ("ada",)
    assert runs.start("r", ["ada", "bob"]) == ("ada",)
    again = offered(runs, title="v", minimum=7, invited=["eve"])
    assert (again.title, again.minimum, again.invited, again.state) == ("u", 1, ("ada", "bob"), "running")
    runs.become("r", "over")
    assert runs.find("r").ended is not None
    assert (offered(runs).state, runs.find("r").ended) == ("running", None)
    assert runs.find("nothing") is None


def test_one_that_failed_before_it_began_gathers_again(db):
    runs = Runs(db)
    offered(runs)
    runs.wish("r", "stop", "olga")
    runs.become("r", "failed", "no room")
    assert runs.find("r").why == "no room"
    row = offered(runs)
    assert (row.state, row.wish, row.why) == ("gathering", "go", "")


def test_the_first_agreement_counts_once_the_run_has_started(db):
    runs = Runs(db)
    offered(runs)
    assert runs.agree("r", "ada", SAID)
    assert not runs.agree("r", "ada", {**SAID, "time": 2.0, "proof": {}}), "the same, said later"
    assert runs.agree("r", "ada", {**SAID, "limits": {"rounds": 4}})
    assert runs.agreements("r")["ada"]["limits"] == {"rounds": 4}
    runs.start("r", ["ada", "bob"])
    assert not runs.agree("r", "ada", SAID)
    assert runs.agreements("r")["ada"]["limits"] == {"rounds": 4}
    assert runs.agree("r", "bob", SAID)
    with pytest.raises(co.ConfigError, match="invited"):
        runs.agree("r", "eve", SAID)
    with pytest.raises(co.ConfigError, match="invited"):
        runs.agree("other", "ada", SAID)


def test_who_spends_must_agree_before_the_start(db):
    """Else its spends would be charged to nobody."""
    runs = Runs(db)
    offered(runs)
    runs.start("r", ["ada", "bob"])
    with pytest.raises(co.ConfigError, match="before the run starts"):
        runs.agree("r", "ada", {**SAID, "spends": [SPEND]})
    assert runs.agreements("r") == {}


def test_which_run_wants_something(db):
    runs = Runs(db)
    offered(runs, "one", invited=["ada"])
    offered(runs, "two", invited=["ada", "bob"])
    assert (runs.current("ada").run, runs.current("bob").run, runs.current("eve")) == ("one", "two", None)
    assert runs.current("ada", ("one",)).run == "two"
    runs.start("two", ["ada"])
    assert runs.current("bob") is None, "it did not agree in time"
    runs.become("one", "failed")
    assert runs.current("ada").run == "two"
    assert [row.run for row in runs.all()] == ["two", "one"]
    assert runs.marks() == [("two", "running", "go")]


def test_wishes_are_audited_once(db):
    from comity.service.registry import Registry

    runs = Runs(db)
    offered(runs)
    for _ in range(2):
        assert runs.wish("r", "pause", "olga").wish == "pause"
    assert [(what, who) for _, what, who, _ in Registry(db).audit()] == [("pause r", "olga")]
    for what, error in (("halt", "one of"), ("go", "")):
        if error:
            with pytest.raises(co.ConfigError, match=error):
                runs.wish("r", what, "olga")
    runs.become("r", "over")
    with pytest.raises(co.ConfigError, match="is over"):
        runs.wish("r", "stop", "olga")
    with pytest.raises(co.ConfigError, match="There is none"):
        runs.wish("s", "stop", "olga")


def test_heads_only_grow(db):
    runs = Runs(db)
    assert runs.note("r", "ada", 5, "ab", {"by": "x"})
    assert not runs.note("r", "ada", 5, "cd", {})
    assert not runs.note("r", "ada", 4, "cd", {})
    assert runs.note("r", "ada", 6, "ef", {"by": "y"})
    assert {n: h[:2] for n, h in runs.heads("r").items()} == {"ada": (6, "ef")}
    assert runs.heads("r")["ada"].proof == {"by": "y"}


def test_many_at_once_pin_one_roster(db):
    runs, got = Runs(db), []
    offered(runs)
    names = [["ada"], ["bob"], ["ada", "bob"]] * 4
    threads = [threading.Thread(target=lambda who=who: got.append(runs.start("r", who))) for who in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(got) == len(names)
    assert set(got) == {runs.find("r").roster}


def test_what_is_announced_is_heard_after_it_was_committed(db):
    runs, heard = Runs(db), []
    db.hear(lambda what: heard.append((what, len(runs.all()))))
    offered(runs)
    assert heard == [("run", 1)]

    def broken() -> None:
        with db.writing() as on:
            db.announce(on, "task")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    with db.writing() as on:
        on.exec_driver_sql("SELECT 1")
    assert heard == [("run", 1)]
