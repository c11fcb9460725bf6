"""What the page of a run shows, against what lies in the database and the ledger."""

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scene import BUDGET, NAMES, Scene, Written

import comity as co
from comity.ledger.audit import audit
from comity.service.pages.board import Board, Boards
from comity.service.pages.budget import Budgets, cap_of, compute
from comity.service.pages.front import front
from comity.service.pages.lines import line
from comity.service.pages.reading import Readings
from comity.service.pages.sessions import Who
from comity.service.runs import Offering


@pytest.fixture
def book(scene: Scene) -> Iterator[Written]:
    """A run of a hundred rounds, three of them closed."""
    made = Written(scene.run(stop=BUDGET), spends=True)
    made.round(dropped=[("Zurich", "nothing sent, NaN in layers.1.bias")])
    made.round(seconds=30)
    made.round(dropped=[("Zurich", "Zurich: connection reset")], seconds=40)
    made.save()
    yield made
    made.close()


def board(scene: Scene, run: str = "r1") -> Board:
    row = scene.runs.find(run)
    assert row is not None
    return Boards(scene).of(row)


def test_the_totals_are_those_of_an_audit(scene: Scene, book: Written) -> None:
    read, found = Readings().of(str(book.store.folder)), audit(book.store.folder)
    assert read.fault == ""
    assert read.rounds == found.rounds == 3
    assert read.bytes == found.bytes
    for name, mine in found.parties.items():
        seen = read.heard[name]
        assert (seen.up, seen.down, seen.asked, seen.answered) == (mine.up, mine.down, mine.asked, mine.answered)
    assert read.heard["Zurich"].errors == ("round 3: connection reset", "round 1: nothing sent, NaN in layers.1.bias")
    assert len(read.spends) == 3


def test_a_score_is_of_the_round_after_which_it_was_taken(tmp_path: Path) -> None:
    """As in the history of the run, and in the words for its entries."""
    data, model = (np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])), co.Linear(inputs=4, classes=2)
    people = {name: co.Trainer(model, data, test=data) for name in "ab"}
    run = co.Collaboration(co.FedAvg(model), people, evaluate=co.every(2)).run(rounds=5, folder=tmp_path)
    taken = run.history.drop_nulls("accuracy")["round"].to_list()
    assert taken == [2, 4, 5]
    assert [number for number, _ in Readings().of(str(tmp_path)).metrics["accuracy"]] == taken
    said = [line(entry).what for entry in run.ledger if entry.kind == "score"]
    assert [text.partition(",")[0] for text in said] == [f"after round {n}" for n in taken]


def test_a_ledger_is_read_on_where_it_grew(scene: Scene, book: Written) -> None:
    readings, folder = Readings(), str(book.store.folder)
    before = readings.of(folder)
    assert readings.of(folder) is before
    for _ in range(4):
        book.round()
        book.save()
        on, anew = readings.of(folder), Readings().of(folder)
        assert (on.rounds, on.heard, on.closes, on.metrics, on.last) == (
            anew.rounds, anew.heard, anew.closes, anew.metrics, anew.last,
        )  # fmt: skip
    assert on.rounds == 7
    assert not on.last


def test_a_changed_entry_is_seen_at_once_and_for_good(scene: Scene, book: Written) -> None:
    readings, folder = Readings(), book.store.folder
    assert readings.of(str(folder)).fault == ""
    book.close()
    with sqlite3.connect(folder / "run.db") as db:
        db.execute("UPDATE entries SET time = time + 1 WHERE number = 3")
    db.close()
    assert "entry 3" in Readings().of(str(folder)).fault
    notice = board(scene).notice
    assert notice is not None
    assert notice.head == "The ledger is not whole."
    assert notice.alarm


def test_no_folder_is_an_empty_page(scene: Scene) -> None:
    scene.runs.offer("r2", Offering({"hash": "ab"}, NAMES, minimum=2))
    scene.runs.agree("r2", "Bern", {"recipe": "ab"})
    shown = board(scene, "r2")
    assert (shown.closed, shown.total, shown.curve, shown.entries, shown.score) == (0, 0, None, 0, "–")
    assert shown.title == "Run r2"
    assert shown.summary.startswith("1 of 2 agreed")
    assert {s.name: s.state for s in shown.seats}["Bern"] == "agreed"


def test_the_steps_of_one_comparison_are_one_row(scene: Scene) -> None:
    for i, run in enumerate(("c1", "c2", "c3", "plain", "d1")):
        about = {} if run == "plain" else {"comparison": {"target": "y"}, "id": run[0]}
        scene.runs.offer(run, Offering({"hash": "ab"}, NAMES, f"step {i}", about))
    rows = front(scene, Boards(scene), Who("you", "operator")).runs
    assert [(row.title, row.before) for row in rows] == [("step 4", 0), ("step 3", 0), ("step 2", 2)]


def test_how_each_party_stands(scene: Scene, book: Written) -> None:
    scene.registry.suspend("Lyon")
    turn = scene.ask(3, ["Basel", "Bern"])
    scene.answer(turn, "Basel")
    shown = board(scene)
    states = {s.name: (s.state, s.shape) for s in shown.seats}
    assert states == {
        "Basel": ("answered", "ok"),
        "Bern": ("working", "work"),
        "Lyon": ("suspended", "bad"),
        "Zurich": ("dropped", "bad"),
    }
    assert (shown.open, shown.answered, shown.asked, shown.needs) == (4, 1, 2, 1)
    scene.box.shut(turn)
    assert {s.name: s.state for s in board(scene).seats}["Bern"] == "dropped"
    scene.runs.become("r1", "over")
    assert {s.name: s.state for s in board(scene).seats}["Basel"] == "took part"


def test_it_warns_when_nobody_may_drop_any_more(scene: Scene, book: Written) -> None:
    scene.runs.start("r1", NAMES)
    scene.ask(3, ["Basel", "Bern", "Lyon"])
    assert board(scene).notice is None
    row = scene.runs.find("r1")
    assert row is not None
    tight = {**row.recipe, "parts": {"quorum": 1.0}}
    with scene.registry.db.writing() as db:
        import json

        from comity.service.runs import RUNS

        db.execute(RUNS.update(), {"recipe": json.dumps(tight)})
    notice = board(scene).notice
    assert notice is not None
    assert notice.head == "No spare party."
    assert "round 4 cannot close" in notice.text


@pytest.mark.parametrize(
    ("state", "wish", "head"),
    [("failed", "go", "The run failed."), ("paused", "pause", "Paused."), ("running", "pause", "It pauses"),
     ("running", "stop", "It stops after"), ("running", "stop now", "It stops now"), ("stopped", "stop", "Stopped.")],
)  # fmt: skip
def test_the_state_is_said(scene: Scene, book: Written, state: Any, wish: Any, head: str) -> None:
    if wish != "go":
        scene.runs.wish("r1", wish, "Keller")
    scene.runs.become("r1", state, "a reason" if state == "failed" else "")
    notice = board(scene).notice
    assert notice is not None
    assert notice.head.startswith(head)
    assert state != "failed" or notice.text == "a reason"


def test_a_forecast_after_three_rounds(scene: Scene, book: Written) -> None:
    shown = board(scene)
    assert shown.left == "56 min 35 s"
    assert shown.left_range.startswith("(")
    assert shown.total == 100
    assert shown.done == 3.0


def test_the_budget_is_computed_beside_the_page(scene: Scene, book: Written) -> None:
    budgets, row = Budgets(), scene.runs.find("r1")
    assert row is not None
    spends = Readings().of(row.folder).spends
    ends, found = time.monotonic() + 30, budgets.of("r1", row.recipe, spends, 3, 100)
    while found.epsilon is None and time.monotonic() < ends:
        time.sleep(0.02)
        found = budgets.of("r1", row.recipe, spends, 3, 100)
    told = audit(book.store.folder)
    assert found.epsilon == pytest.approx(told.epsilon, abs=1e-12)
    assert found.unit == "example"
    assert found.ends is not None
    assert 3 < found.ends < 100


def test_the_last_round_that_fits_is_the_last(scene: Scene, book: Written) -> None:
    row = scene.runs.find("r1")
    assert row is not None
    spends, cap = Readings().of(row.folder).spends, cap_of(row.recipe)
    ends = compute(cap, spends, 3, 100).ends
    assert ends is not None

    def after(rounds: int) -> float:
        more = [{**spends[-1], "round": r} for r in range(3, rounds)]
        found = compute(type(cap)(float("inf"), cap.delta, "rdp"), [*spends, *more], rounds, 100).epsilon
        assert found is not None
        return found

    assert after(ends) <= cap.epsilon < after(ends + 1)
    assert compute(cap, spends, 3, ends).ends is None


def test_copies_of_parties_are_compared(scene: Scene, book: Written) -> None:
    entries = list(book.ledger)
    scene.runs.note("r1", "Basel", 4, entries[3].hash, {})
    assert board(scene).holds == "1 party holds a copy that fits"
    scene.runs.note("r1", "Bern", 4, "0" * 64, {})
    assert board(scene).holds == "Bern holds another ledger than this one"


def test_the_ledger_is_given_as_sites_keep_it(scene: Scene, book: Written, ask: Any, tmp_path: Path) -> None:
    from comity.ledger import copies
    from comity.ledger.record import check_chain

    got = ask("/runs/r1/ledger.jsonl", scene.logged_in("Basel", "party"))
    (tmp_path / copies.NAME).write_bytes(got.content)
    entries = copies.read(tmp_path)
    check_chain(entries, book.ledger.head)
    assert len(entries) == len(book.ledger)


def test_the_model_is_the_state_of_the_last_round(scene: Scene, book: Written, ask: Any) -> None:
    from comity.core.wire import decode_tree

    tree: Any = decode_tree(ask("/runs/r1/state/last", scene.logged_in()).content)
    assert tree["w"].tolist() == [3.0, 4.0, 5.0, 6.0]


def test_long_ledgers_are_turned_page_by_page(scene: Scene, book: Written, ask: Any) -> None:
    import re

    for _ in range(120):
        book.round()
    book.save()
    who, seen, path = scene.logged_in(), list[int](), "/runs/r1/entries"
    while path:
        text = ask(path, who).text
        seen += [int(n) for n in re.findall(r"<tr[^>]*><td>(\d+)</td>", text)]
        older = re.search(r'href="([^"]+)">Older', text)
        path = older.group(1) if older else ""
    assert seen == list(range(len(book.ledger), 0, -1))
    assert ask("/runs/r1/entries?before=-1", who).status_code == 200
    assert ask("/runs/r1/entries?before=1e9", who).status_code == 200


def test_a_page_of_a_thousand_rounds_and_a_hundred_parties_is_quick(scene: Scene, ask: Any) -> None:
    names = [f"hospital {i:03}" for i in range(100)]
    book = Written(scene.run("long", names, about={"rounds": 2000}), names)
    for _ in range(1000):
        book.round()
    book.save()
    scene.ask(1000, names, "long")
    who = scene.logged_in()
    first = ask("/runs/long", who)
    assert first.text.count('scope="row"') > 100
    times = []
    for again in range(7):
        if again % 2:  # with a round more, without
            book.round()
            book.save()
        begun = time.perf_counter()
        page = ask("/runs/long", who)
        times.append(time.perf_counter() - begun)
    book.close()
    assert "1,003" in page.text
    assert sorted(times)[3] < 0.1, times
