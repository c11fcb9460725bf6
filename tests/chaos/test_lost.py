"""Replies and questions that are lost, repeated or late: hub and site agree, and nothing held back is lost."""

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import comity as co
from comity import running

sys.path.append(str(Path(__file__).parent))
made = importlib.import_module("collaborations")
NAMES, Faulty = made.NAMES, made.Faulty

ROUNDS = 15
WELL = Faulty(("",) * 5)
HEARD = ("", "twice", "asked")
ENGINES = {
    "every fifth reply": Faulty(("reply", "", "", "", "")),
    "every fifth question": Faulty(("", "question", "", "", "")),
    "every fifth twice": Faulty(("", "", "twice", "", "")),
    "every fifth asked twice": Faulty(("", "", "", "asked", "")),
    "every fifth late": Faulty(("", "", "", "", "late"), ever=True),
    "most replies": Faulty(("reply", "reply", "reply", "", "")),
    "most questions": Faulty(("question", "question", "", "question", "")),
    "replies and questions": Faulty(("reply", "question", "", "", "")),
    "all": Faulty(made.MIXED),
    "all, and late ones whenever": Faulty(made.MIXED, ever=True),
}


RARE = ("every fifth question", "all")


@pytest.fixture(autouse=True)
def _rarely(monkeypatch):
    monkeypatch.setattr(running, "SAVE_SECONDS", 1e9)


def run(folder: Path, engine: Any, rounds: int = ROUNDS, fed: Any = None) -> Any:
    folder = folder if folder.exists() else made.fresh(folder)
    (fed or made.lossy()).run(rounds=rounds, folder=folder, engine=engine)
    return made.kept(folder)


def fates(engine: Any, found: Any) -> dict[tuple[str, int, int], str]:
    """What met each question of the closed rounds."""
    closed = [e.facts for e in found.entries if e.kind == "round" and e.facts["closed"]]
    turns = [(who, f["round"], f["attempt"]) for f in closed for who in NAMES]
    return {(w, n, a): engine.fate(co.Round("", 0, number=n, attempt=a, me=w)) for w, n, a in turns}


def refusals(found: Any) -> list[str]:
    return [why["reason"] for e in found.entries if e.kind == "round" for why in e.facts["refused"].values()]


@pytest.mark.parametrize("name", ENGINES)
def test_nothing_of_the_residual_is_lost(name, tmp_path, monkeypatch):
    """What was accepted and what is held back is, bit for bit, what was meant in the contributions that count.

    The ledger says who counts, and it is right: those and only those whose reply arrived. What they meant is
    noted outside of the run.
    """
    monkeypatch.setattr(made.Exact, "meant", noted := {})
    engine = ENGINES[name]
    found = run(tmp_path / "run", engine)
    met = fates(engine, found)
    assert set(found.accepted()) == {turn for turn, fate in met.items() if fate in HEARD}
    assert (set(engine.fates), len(met)) == (set(met.values()), ROUNDS * 6)
    assert made.disagreements(found) == []
    meant: dict[str, Any] = {}
    held: dict[str, Any] = {}
    for who, number, attempt in found.accepted():
        meant = made.plus(meant, noted[number, attempt, who])
    for who in {who for who, *_ in found.accepted()}:
        held = made.plus(held, found.drawer(who)["transforms.0"]["held"])
    assert made.same(made.plus(held, found.hub()["combiner"]["accepted"]), meant)
    assert all(np.abs(x).sum() > 0 for x in held.values())


@pytest.mark.parametrize("name", ["every fifth twice", "every fifth asked twice"])
def test_a_repetition_changes_nothing(name, tmp_path):
    a, b = run(tmp_path / "a", ENGINES[name]), run(tmp_path / "b", co.Local())
    assert (a.states, a.drawers) == (b.states, b.drawers)
    repeated = list(fates(ENGINES[name], a).values()).count("twice")
    assert [reason.split(" ", 1)[1] for reason in refusals(a)] == ["answered twice."] * repeated


def test_a_late_reply_is_refused_and_its_sender_is_heard_all_the_same(tmp_path):
    """In the next attempt, in the next round, and where a score is late: the one that is asked for still counts."""
    found = run(tmp_path / "run", Faulty(("late", "reply", "question", "", ""), ever=True))
    counted, heard = set(found.accepted()), 0
    for e in found.entries:
        if e.kind == "round":
            late = [w["sender"] for w in e.facts["refused"].values() if "answered for round" in w["reason"]]
            heard += sum((who, e.facts["round"], e.facts["attempt"]) in counted for who in late)
    assert any("attempt 2." in reason for reason in refusals(found))
    assert any("to 'score' of recipe" in reason for reason in refusals(found))
    assert heard > 3
    assert made.disagreements(found) == []


@dataclass(frozen=True)
class Reached:
    """Asks only those whose reply will arrive."""

    engine: Any

    def __call__(self, roster: Any, round: co.Round, past: Any, secret: Any) -> Mapping[str, list[str]]:
        return {"hub": [n for n in NAMES if not self.engine.fate(round.to(n))]}

    def expected(self, roster: int) -> float:
        return 4.0


@pytest.mark.parametrize("name", ["every fifth reply", "every fifth question", "replies and questions"])
@pytest.mark.parametrize("work", ["feedback", "ditto", "fedavg"])
def test_lost_is_as_never_asked(name, work, tmp_path):
    """The states of the hub and what each site has for good are those of a run that asked only who was heard."""
    engine = ENGINES[name]
    fed = made.WORKS[work][0]().replace(select=co.everyone(), evaluate=False, quorum=0.3)
    lost = run(tmp_path / "lost", engine, fed=fed)
    never = run(tmp_path / "never", WELL, fed=fed.replace(select=Reached(engine)))
    assert lost.states == never.states
    assert lost.accepted() == never.accepted()
    assert len(lost.accepted()) < ROUNDS * 6 * 0.81
    for who in NAMES:
        assert made.same(lost.drawer(who), never.drawer(who))


@pytest.mark.parametrize("name", RARE)
def test_in_pieces_as_in_one(name, tmp_path):
    engine = made.replace(ENGINES[name], ever=False)
    straight = run(tmp_path / "straight", engine, 12)
    for rounds in (2, 6, 12):
        found = run(tmp_path / "pieces", engine, rounds)
        assert made.disagreements(found) == []
    assert found.bits() == straight.bits()


@pytest.mark.parametrize("fate", ["reply", "question", "late"])
def test_all_lost_until_the_run_stops_and_then_well_again(fate, tmp_path):
    """A run that stopped for lack of answers goes on as if nothing had been: sites drop what never arrived."""
    straight = run(tmp_path / "straight", WELL, 8)
    run(tmp_path / "run", WELL, 4)
    for _ in range(2):
        with pytest.raises(co.TooFewParticipants):
            run(tmp_path / "run", Faulty((fate,) * 5), 8)
        assert made.disagreements(made.kept(tmp_path / "run")) == []
    found = run(tmp_path / "run", WELL, 8)
    assert made.disagreements(found) == []
    assert (found.states, found.drawers) == (straight.states, straight.drawers)


def test_what_a_run_shows_of_a_drawer_is_what_counts(tmp_path):
    fed = made.lossy()
    got = fed.run(rounds=9, folder=made.fresh(tmp_path / "run"), engine=ENGINES["replies and questions"])
    found = made.kept(tmp_path / "run")
    for who in NAMES:
        assert made.same(got.local(who), found.drawer(who)["participant"])
