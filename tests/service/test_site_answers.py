"""A site answers each question once, whatever it is asked and however often killed; what it spends it wrote before."""

import importlib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import comity as co
from comity.core.contribution import Contribution
from comity.core.wire import as_tree
from comity.ledger import folder as files
from comity.service.answering import Answering

sys.path.append(str(Path(__file__).parent))
desks = importlib.import_module("desks")
made = desks.made

NOISED = co.PrivateTrainer(made.MODEL, made.DATA["ada"], clip=1.0, noise=2.0, rate=0.5)
PRIVATE = co.Collaboration(co.FedAvg(made.MODEL), seed=3)
START = {"0.weight": np.zeros((3, 2), "float32"), "0.bias": np.zeros(2, "float32")}


def shared(step: float = 0.0, kind: str = "model") -> Contribution:
    """What a hub shares: the parameters, moved a little."""
    init = PRIVATE.method.init(co.Round("", 3))
    told = PRIVATE.method.share(init, "ada", co.Round("", 3, me="ada"))
    value = {k: v + np.float32(step) for k, v in told.value.items()}
    return Contribution(told.kind if kind == "model" else kind, value)


def question(step: float = 0.0, views: Any = None, kind: str = "model") -> Contribution:
    views = {"hub": None} if views is None else views
    told = {"shared": as_tree(shared(step, kind)), "views": views, "public": {}, "idle": False}
    return Contribution("question", told)


def ask(desk: Any, one: Answering, number: int = 0, *, body: Any = None, phase: str = "contribute", **turn: Any) -> Any:
    laid = one.answer(desk.packet(one.name, phase, question() if body is None else body, number=number, **turn))
    return laid, desks.opened(one, laid)


def refused(answer: Any) -> str:
    assert answer.body.kind == "error", answer.body.kind
    return str(answer.body.value["reason"])


@pytest.fixture
def desk() -> Any:
    return desks.Desk(PRIVATE)


def test_the_same_again_is_answered_the_same(desk, tmp_path):
    one = desk.site(tmp_path, NOISED)
    first, said = ask(desk, one)
    assert said.body.kind == "sealed"
    assert ask(desk, one)[0] == first
    assert ask(desk, desk.site(tmp_path, NOISED))[0].body == first.body, "after a restart"
    assert len(one.diary.spent) == 1


def test_something_else_for_the_same_turn_is_refused(desk, tmp_path):
    one = desk.site(tmp_path, NOISED)
    ask(desk, one)
    for turn in ({}, {"hub": "another"}):
        assert "nothing is answered twice" in refused(ask(desk, one, body=question(0.5), **turn)[1])
    one = desk.site(tmp_path, NOISED)
    assert "nothing is answered twice" in refused(ask(desk, one, body=question(0.5))[1])
    assert len(one.diary.spent) == 1


def test_a_turn_that_is_past_is_not_answered_anew(desk, tmp_path):
    one = desk.site(tmp_path, NOISED)
    first = ask(desk, one)[0]
    ask(desk, one, 1)
    assert "no longer kept" in refused(ask(desk, one)[1])
    assert ask(desk, one, 0, attempt=1)[1].body.kind == "sealed", "another attempt is another question"
    assert first.body != ask(desk, one, 0, attempt=1)[0].body
    assert len(one.diary.spent) == 3


def test_noise_is_of_the_folder_and_the_run(desk, tmp_path):
    """The same question under the same name, to a folder that knows nothing of it, is answered with other noise."""
    first = ask(desk, desk.site(tmp_path / "a", NOISED))[0]
    desk.agreements.clear()
    again = ask(desk, desk.site(tmp_path / "b", NOISED))[0]
    other = desks.Desk(PRIVATE, run="run2")
    third = ask(other, other.site(tmp_path / "a", NOISED))[0]
    assert len({first.body, again.body, third.body}) == 3
    assert desk.site(tmp_path / "a", NOISED).site.secret.public_key() == made.KEYS["ada"]


def test_members_of_a_site_have_secrets_of_their_own(desk, tmp_path):
    whole = desk.site(tmp_path, NOISED).site.secret
    north, south = whole.side("north"), whole.side("south")
    assert len({s.key("x") for s in (whole, north, south)}) == 3
    assert north.public_key() == made.secret("ada").side("north").public_key()
    assert north.key("x") == desk.site(tmp_path, NOISED).site.secret.side("north").key("x")


def test_scores_are_not_a_way_around(desk, tmp_path):
    """What is asked as a score is neither noised nor sealed nor charged."""
    one = desk.site(tmp_path, NOISED)
    for number, body in enumerate((shared(kind="score"), question(views={}), question(kind="score"), shared())):
        assert "no scores" in refused(ask(desk, one, number, body=body, phase="score")[1])
    assert "something to learn from" in refused(ask(desk, one, 0, body=question(kind="score"))[1])
    assert "something to learn from" in refused(ask(desk, one, 1, body=shared())[1])
    assert len(one.diary.spent) == 0


def test_a_score_under_a_channel_that_hides_must_be_sealed(tmp_path):
    fed = made.masked().replace(evaluate=True)
    desk = desks.Desk(fed)
    one = desk.site(tmp_path, made.trainer("ada"))
    for number, body in enumerate((shared(kind="score"), question(views={}), question(views={}, kind="score"))):
        assert "sealed where the channel hides" in refused(ask(desk, one, number, body=body, phase="score")[1])
    plain = desks.Desk(made.fedavg())
    one = plain.site(tmp_path / "plain", made.trainer("ada"))
    assert ask(plain, one, 0, body=shared(kind="score"), phase="score")[1].body.kind == "score"
    assert "asked for as one" in refused(ask(plain, one, 1, body=question(views={}), phase="score")[1])


def test_of_another_run_seed_recipe_or_hub(desk, tmp_path):
    one = desk.site(tmp_path, NOISED)
    good = desk.packet("ada", "contribute", question())
    one.check(good)
    other = desks.Desk(made.fedavg())
    for wrong, why in (
        (desk.packet("ada", "contribute", question(), run="run2"), "of the run"),
        (desk.packet("ada", "contribute", question(), seed=9), "under the recipe"),
        (other.packet("ada", "contribute", question()), "under the recipe"),
        (desk.packet("bob", "contribute", question()), "for this site"),
        (good._replace(said=replace(good.said, phase="score")), "signed by the hub"),
    ):
        with pytest.raises(co.ChannelError, match=why):
            one.check(wrong)


class Killed(BaseException):
    """As kill -9: nothing after it runs."""


@pytest.mark.parametrize("work", ["noise", "memory"])
def test_killed_at_any_write(work, tmp_path, monkeypatch):
    """At the n-th write to the disk, for every n: what was sent is one answer a question, and was charged before."""
    fed, person = (PRIVATE, NOISED) if work == "noise" else (made.memory(), made.ditto("ada"))
    strikes = 0
    for n in range(1, 60):
        desk, sent = desks.Desk(fed, run=f"run{n}"), {}
        count = Count(monkeypatch, n)
        for number in range(2):
            for _ in range(3):  # killed, taken up, and once more
                try:
                    one = desk.site(tmp_path, person)
                    body = question(number / 4)
                    laid = one.answer(desk.packet("ada", "contribute", body, number=number))
                    sent.setdefault(number, set()).add(laid.body)
                except Killed:
                    continue
                assert _charged(tmp_path / f"run{n}") >= (len(sent) if work == "noise" else 0)
        count.undo()
        assert {k: len(v) for k, v in sent.items()} == {0: 1, 1: 1}, n
        assert all(desks.opened(one, one.answer(desk.packet("ada", "contribute", question(0.25), number=1)))
                   .body.kind == "sealed" for _ in "1")  # fmt: skip
        strikes += count.struck
        if not count.struck:
            break
    assert strikes > 5
    assert not count.struck, "it must have been killed at every write"


class Count:
    """Kills at the n-th step of writing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, n: int) -> None:
        self.left, self.struck, self._patch = n, 0, monkeypatch.context()
        patch = self._patch.__enter__()
        for where, name in ((os, "fsync"), (Path, "replace"), (os, "truncate")):
            patch.setattr(where, name, self._counted(getattr(where, name)))

    def _counted(self, real: Any) -> Any:
        def counted(*given: Any, **more: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                self.struck = 1
                raise Killed
            return real(*given, **more)

        return counted

    def undo(self) -> None:
        self._patch.__exit__(None, None, None)


def _charged(place: Path) -> int:
    path = place / "spends.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return sum(len(line.get("spends", ())) for line in lines)


def test_a_line_that_was_cut_is_of_no_answer(desk, tmp_path):
    one = desk.site(tmp_path, NOISED)
    ask(desk, one)
    path = tmp_path / "run1" / "spends.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"number": 1, "spe')
    assert len(desk.site(tmp_path, NOISED).diary.spent) == 1
    assert path.read_bytes() == whole
    path.write_bytes(b"junk\n" + whole)
    with pytest.raises(co.LedgerError, match="must hold what this site has spent"):
        desk.site(tmp_path, NOISED)


def test_a_folder_that_forgot_is_refused(desk, tmp_path):
    desk.site(tmp_path / "a", NOISED)
    one = desk.site(tmp_path / "b", NOISED)
    assert one.said["time"] == desk.agreements["ada"]["time"], "nothing was asked yet"
    desk.began = True
    desk.site(tmp_path / "b", NOISED)
    for _ in range(2):
        with pytest.raises(co.ConfigError, match="the folder with which ada began"):
            desk.site(tmp_path / "c", NOISED)


def test_who_spends_otherwise_than_it_agreed_is_refused(desk, tmp_path):
    desk.site(tmp_path, NOISED)
    with pytest.raises(co.ConfigError, match="must spend what this site declared"):
        desk.site(tmp_path, co.PrivateTrainer(made.MODEL, made.DATA["ada"], clip=1.0, noise=1.0, rate=0.5))


def test_files_are_the_owners_alone(desk, tmp_path):
    ask(desk, desk.site(tmp_path, NOISED))
    for name in ("secret", "run1/spends.jsonl", "run1/said", "run1/agreed.json"):
        assert (tmp_path / name).stat().st_mode & 0o077 == 0, name
    assert "SideSecret(...)" in repr(desk.site(tmp_path, NOISED).site.secret)
    assert files  # the module that is struck above


def test_a_large_answer_is_kept_and_given_again(tmp_path):
    """Scores change no drawer, and lie in a file of their own; so does what a participant without a drawer says."""
    size = 90_000
    fed = co.Collaboration(co.Query({"step": "all"}), combine=co.Collect(), seed=3, evaluate=False)
    desk, person = desks.Desk(fed), Talker(np.arange(size, dtype="float64"))
    one = desk.site(tmp_path, person)
    told = {"shared": as_tree(Contribution("query", {"step": "all"})), "views": {"hub": None}, "public": {}}
    body = Contribution("question", {**told, "idle": False})
    first = ask(desk, one, body=body)[0]
    assert first.ref.size > 8 * size
    again = desk.site(tmp_path, Talker(np.zeros(size)))
    assert ask(desk, again, body=body)[0] == first
    assert again.diary.bytes == one.diary.bytes


class Talker:
    """Says one thing."""

    def __init__(self, what: Any) -> None:
        self.what = what

    def contribute(self, shared: Any, local: Any, round: Any, secret: Any) -> Any:
        return Contribution("answer", {"x": self.what}), local
