"""An audit says what was spent, of which unit, and of a party over several runs."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import comity as co
from comity.cli.commands import app  # noqa: F401  the command is loaded before a test takes its streams
from comity.ledger.store import Generation, Store


def spent_in(folder: Path, *spends: Any) -> Path:
    """The folder of a run in which this was spent, by ada and bob."""
    ledger = co.Ledger()
    heard = {"round": 0, "asked": "ada\nbob", "accepted": np.array([True, True]), "closed": True}
    ledger.append("round", heard, time=0.0)
    for spend in spends:
        facts = spend if isinstance(spend, dict) else asdict(spend)
        ledger.append("spend", {**facts, "round": 0, "attempt": 0}, time=0.0)
    with Store.open(folder, "{}") as store:
        store.save(Generation(ledger.since(0)))
    return folder


OURS = co.Spend("gaussian", 4.0, 0.1, 50, sampling="poisson")
ADAS = co.Spend("gaussian", 2.0, unit="example", who="ada")
BOTH = co.Spend("gaussian", 3.0, unit="example", who="ada\nbob")


def test_epsilon_is_of_what_the_ledger_holds(tmp_path: Path) -> None:
    found = co.audit(spent_in(tmp_path / "run", OURS, ADAS))
    assert found.guarantees == co.spent([OURS, ADAS], 1e-5)
    assert found.epsilon == max(p.epsilon for p in found.guarantees)
    assert found.privacy == "2 spends recorded"
    finer = co.audit(tmp_path / "run", delta=1e-8)
    assert (finer.delta, finer.epsilon > found.epsilon) == (1e-8, True)


def test_without_spends_there_is_no_guarantee(tmp_path: Path) -> None:
    found = co.audit(spent_in(tmp_path / "run"))
    assert (found.guarantees, found.epsilon) == ((), math.inf)


def test_the_command_says_it_for_each_unit(run: Any, tmp_path: Path) -> None:
    ended = run("audit", spent_in(tmp_path / "run", OURS, ADAS), "--delta", "1e-6")
    assert ended.err == ""
    lines = [line.strip() for line in ended.out.splitlines()]
    for privacy in co.spent([OURS, ADAS], 1e-6):
        assert str(privacy) in lines
    assert "party      " not in ended.out


def test_the_command_sums_a_party_over_runs(run: Any, tmp_path: Path) -> None:
    one, two = spent_in(tmp_path / "one", OURS, ADAS), spent_in(tmp_path / "two", OURS, BOTH)
    ended = run("audit", one, two, "--party", "bob")
    assert f"run        {one}\n" in ended.out
    assert f"run        {two}\n" in ended.out
    last = ended.out[ended.out.index("party      bob, over 2 runs\n") :].splitlines()[1:]
    example, participant = (line.strip() for line in last)
    assert example.replace(" of bob", "") == str(co.spent(co.Spend("gaussian", 3.0, unit="example"), 1e-5)[0])
    assert participant.replace("the participant bob", "one participant") == str(co.spent([OURS, OURS], 1e-5)[0])
    other = run("audit", one, two, "--party", "ada").out
    both = co.spent([ADAS, BOTH], 1e-5)[0]
    assert both.who == "ada"
    assert str(both) in other


def test_what_the_command_refuses(run: Any, tmp_path: Path) -> None:
    one, two = spent_in(tmp_path / "one", OURS), spent_in(tmp_path / "two", OURS)
    for args, says in (
        ((one, "--party", "abba"), "Got 'abba', which is none of them. They have ada, bob."),
        ((one, "--party", "Bob"), "Did you mean 'bob'?"),
        ((one, "--delta", "2"), "The 'delta' of audit must be a number in [0, 1). Got 2.0."),
        ((one, "--delta", "x"), "It must be a number. Got 'x'."),
        ((one, two, one, "--party", "bob"), "Each run must be named once"),
        ((one, two, "--against", two), "--against must be of one run. Got 2 folders."),
    ):
        ended = run("audit", *args)
        assert (ended.code, ended.out) == (2, "")
        assert says in ended.err


@pytest.mark.parametrize("facts", [{"noise": 1.1}, {"mechanism": "magic", "noise": 1.0}])
def test_a_spend_that_is_not_understood_is_said_to_be_so(run: Any, tmp_path: Path, facts: Any) -> None:
    ended = run("audit", spent_in(tmp_path / "run", facts))
    assert "privacy    1 spend recorded\n           epsilon cannot be computed: The '" in ended.out
    with pytest.raises(co.ConfigError):
        assert co.audit(tmp_path / "run").epsilon
