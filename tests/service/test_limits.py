"""A site stays within its limits by its own count, over restarts, and the hub charges what it declared."""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import comity as co
from comity.charging import Charging
from comity.core.contribution import Contribution
from comity.core.envelope import Envelope
from comity.core.round import Round
from comity.service.diary import Asked, Diary
from comity.service.limits import HOUR, Meter, declared

sys.path.append(str(Path(__file__).parent))
desks = importlib.import_module("desks")
made = desks.made

NOISED = {n: co.PrivateTrainer(made.MODEL, made.DATA[n], clip=1.0, noise=2.0, rate=0.5) for n in made.NAMES}
PRIVATE = co.Collaboration(co.FedAvg(made.MODEL), seed=3)
CENTRAL = co.Collaboration(
    co.FedAvg(made.MODEL),
    combine=co.Mean(public=True),
    transforms=[co.Gaussian(clip=1.0, noise=4.0)],
    select=co.poisson(0.5),
    evaluate=False,
)


def asked(number: int, *, phase: str = "contribute", cohort: int = 3, attempt: int = 0, hubs: int = 1) -> Envelope:
    body = Contribution("question", {"views": {str(i): None for i in range(hubs)}})
    turn = Round("run", 3, number=number, attempt=attempt, me="ada", asked=cohort)
    return Envelope(turn, phase, "hub", "", body)


def meter(folder: Path, *, fed: Any = PRIVATE, person: Any = None, now: float = 0.0, **limits: Any) -> Meter:
    person = NOISED["ada"] if person is None else person
    charging = Charging(fed.parts, {"ada": person})
    return Meter(co.Limits(**limits), charging, "ada", diary=Diary.open(folder), elapsed=lambda: now)


def spend(one: Meter, number: int, **more: Any) -> None:
    """Ask, and write it down where it is within the limits."""
    question = asked(number, **more)
    owed = one.owed(question)
    one.check(question, 100, owed)
    one.diary.take(Asked.of(question), "ab", 100, owed)


def lasts(epsilon: float, delta: float, noised: Any, sampling: Any, steps: int) -> int:
    """How many rounds are within it, by the accountant alone."""
    rounds = 0
    while co.epsilon(noised, rounds=(rounds + 1) * steps, delta=delta, sampling=sampling).epsilon <= epsilon:
        rounds += 1
    return rounds


def test_epsilon_ends_where_the_accountant_says(tmp_path):
    want = lasts(4.0, 1e-5, 2.0, 0.5, NOISED["ada"].steps)
    assert want > 3
    for number in range(want):
        spend(meter(tmp_path, epsilon=4.0), number)  # a new process each time
    with pytest.raises(co.ContributionError, match=r"at most ε = 4 at δ = 1e-05"):
        spend(meter(tmp_path, epsilon=4.0), want)
    found = co.spent([e.facts for e in meter(tmp_path).diary.spent], 1e-5)
    assert [g.who for g in found] == ["ada"]
    assert found[0].epsilon <= 4.0


def test_each_attempt_counts_and_each_hub(tmp_path):
    one = meter(tmp_path)
    spend(one, 0)
    spend(one, 0, attempt=1)
    assert [e.facts["attempt"] for e in one.diary.spent] == [0, 1]
    many = meter(tmp_path / "many", fed=CENTRAL, person=made.trainer("ada"))
    many.diary.path.parent.mkdir()
    spend(many, 0, hubs=2)
    assert [e.facts["count"] for e in many.diary.spent] == [2]


def test_where_a_draw_is_credited_rounds_without_this_site_count(tmp_path):
    """Else a draw of one in two would be credited for the rounds in which the site was drawn alone."""
    one = meter(tmp_path, fed=CENTRAL, person=made.trainer("ada"))
    spend(one, 3, attempt=1)
    turns = sorted((e.facts["round"], e.facts["attempt"]) for e in one.diary.spent)
    assert turns == [(0, 0), (1, 0), (2, 0), (3, 0), (3, 1)]
    assert {e.facts["rate"] for e in one.diary.spent} == {0.5}
    spend(meter(tmp_path, fed=CENTRAL, person=made.trainer("ada")), 5)
    assert len(Diary.open(tmp_path).spent) == 7


def test_epsilon_wants_noise(tmp_path):
    with pytest.raises(co.ConfigError, match="wants something that adds noise"):
        meter(tmp_path, person=made.trainer("ada"), epsilon=1.0)


def test_bytes_hours_cohort_and_rounds(tmp_path):
    one = meter(tmp_path, bytes=250)
    spend(one, 0)
    one.diary.say(Asked.of(asked(0)), "cd", 100)
    again = meter(tmp_path, bytes=250)
    assert again.diary.bytes == 200
    with pytest.raises(co.ContributionError, match="at most 250 bytes"):
        spend(again, 1)
    spend(meter(tmp_path, hours=1.0, now=HOUR - 1), 2)
    with pytest.raises(co.ContributionError, match="at most 1 hours"):
        spend(meter(tmp_path, hours=1.0, now=HOUR + 1), 3)
    with pytest.raises(co.ContributionError, match="cohorts of at least 4"):
        spend(meter(tmp_path, cohort=4), 4)
    one = meter(tmp_path, rounds=5)
    spend(one, 4)
    spend(one, 5, phase="score")
    with pytest.raises(co.ContributionError, match="at most 5 rounds"):
        spend(one, 5)


def test_what_is_declared_is_the_same_in_every_round():
    said = declared(NOISED["ada"], "run", 3, "ada")
    assert said == [
        {"mechanism": "gaussian", "noise": 2.0, "rate": 0.5, "count": NOISED["ada"].steps, "unit": "example"}
        | {"sampling": "poisson", "who": ""}
    ]
    assert declared(made.trainer("ada"), "run", 3, "ada") == []
    growing: Any = SimpleNamespace(spend=lambda turn: co.Spend("gaussian", 1.0 + turn.number))
    with pytest.raises(co.ConfigError, match="must be the same in every round"):
        declared(growing, "run", 3, "ada")
    odd: Any = SimpleNamespace(spend=lambda turn: co.Spend("magic", 1.0))
    with pytest.raises(co.ConfigError, match="mechanism"):
        declared(odd, "run", 3, "ada")


def over_lines(folder: Path, rounds: int, **limits: Any) -> tuple[Any, Any]:
    """A whole run: the hub's loop, three sites that declared what they spend."""
    desk = desks.Desk(PRIVATE)
    sites = {n: desk.site(folder / n, NOISED[n], name=n, **limits) for n in made.NAMES}
    return desk, PRIVATE.run(rounds=rounds, folder=folder / "hub", engine=desks.Direct(desk, sites))


def test_the_hub_charges_what_was_declared(tmp_path):
    _, run = over_lines(tmp_path, 3)
    here = PRIVATE.replace(participants=NOISED).run(rounds=3, folder=tmp_path / "here")
    spends = [[e.facts for e in one.ledger if e.kind == "spend"] for one in (run, here)]
    assert len(spends[0]) == 3
    keys = ("round", "attempt", "mechanism", "noise", "count", "rate", "unit", "sampling", "who")
    assert [[s[k] for k in keys] for s in spends[0]] == [[s[k] for k in keys] for s in spends[1]]
    there, at_home = co.audit(tmp_path / "hub"), co.audit(tmp_path / "here")
    assert there.epsilon == at_home.epsilon < float("inf")
    mine = [e.facts for e in Diary.open(tmp_path / "ada" / "run1").spent]
    assert co.spent(mine, 1e-5)[0].epsilon == there.epsilon, "and so does each site for itself"


def test_a_run_goes_on_without_who_reached_its_limit(tmp_path, capsys):
    each = co.epsilon(2.0, rounds=NOISED["ada"].steps, delta=1e-5, sampling=0.5).epsilon
    with pytest.raises(co.TooFewParticipants, match="at most ε"):
        over_lines(tmp_path, 6, epsilon=each * 2)
    assert "This site spends at most" in capsys.readouterr().err
    assert co.audit(tmp_path / "hub").rounds >= 1
