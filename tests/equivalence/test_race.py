"""A race chooses what full runs and a loop by hand would choose, and its winner's run is the one it would be alone."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import comity as co
from comity import running
from comity.core.contribution import Contribution
from comity.core.wire import encode_tree

RNG = np.random.default_rng(5)
X = RNG.normal(size=(90, 6)).astype("float32")
Y = (X @ RNG.normal(size=(6, 3))).argmax(axis=1)
SHARDS = {f"p{i}": (X[i:60:3], Y[i:60:3]) for i in range(3)}
VALID = X[60:], Y[60:]
ENGINE = co.Local(executor="sequential")
CALLS: list[str] = []
"""Who was asked to contribute; the seconds that it takes are in `SLOW`."""
SLOW = [0.0]
STRIKE = [0]


@dataclass(frozen=True)
class Counted:
    """A participant whose work is counted, slowed down and interrupted."""

    inner: Any
    label: str = field(metadata={"data": True})

    def contribute(self, shared, local, round, secret):
        if shared.kind != "score":
            CALLS.append(self.label)
            STRIKE[0] -= 1
            if STRIKE[0] == 0:
                raise KeyboardInterrupt
            time.sleep(SLOW[0])
        return self.inner.contribute(shared, local, round, secret)


def fed(rate=0.1, trainer=co.Trainer, method=co.FedAvg, label="", evaluate=True, **more):
    model = co.MLP(6, 3, hidden=(5,), rate=rate, batch=8)
    sites = {n: Counted(trainer(model, d, valid=VALID), label) for n, d in SHARDS.items()}
    return co.Collaboration(method(model), sites, evaluate=evaluate, seed=2, **more)


def candidates(evaluate=True):
    """Four of which one keeps control variates in drawers, and one is asked in samples."""
    return {
        "slow": fed(0.003, label="slow", evaluate=evaluate),
        "scaffold": fed(0.3, co.ScaffoldTrainer, co.Scaffold, "scaffold", evaluate),
        "fast": fed(1.5, label="fast", evaluate=evaluate),
        "sampled": fed(0.5, label="sampled", evaluate=evaluate, select=co.sample(2)),
    }


def race(feds, rounds, **more):
    return co.race(feds, rounds, engine=ENGINE, **more)


def bits(run):
    facts = {str(i): {"kind": e.kind, "facts": e.facts} for i, e in enumerate(run.ledger)}
    drawers = {n: run.local(n) for n in SHARDS}
    tree = {"state": run.state, "drawers": drawers, "metrics": dict(run.metrics), "facts": facts}
    return {k: hashlib.sha256(encode_tree(v)).hexdigest() for k, v in tree.items()} | {"head": run.ledger.head}


@pytest.fixture(autouse=True)
def no_strike():
    yield
    STRIKE[0] = 0


@pytest.fixture
def no_clock(monkeypatch):
    """Times are in the hashes of a ledger."""
    monkeypatch.setattr(running.time, "time", lambda: 1.0)


@pytest.fixture
def secret(monkeypatch):
    """Folders draw their secrets from the OS; here each new one gets the same."""
    from comity.ledger.store import Store

    monkeypatch.setattr(Store, "secret", lambda self: bytes(range(32)))


@pytest.fixture(scope="module")
def curves():
    """Of full runs: what each candidate scores after each round."""
    runs = {n: f.run(8, engine=ENGINE) for n, f in candidates(co.every(1)).items()}
    names = ("valid_accuracy", "valid_log_loss")
    return {by: {n: run.ledger.metric(by) for n, run in runs.items()} for by in names}


def by_hand(curves, by, stages):
    """Successive halving over full runs."""
    sign, left, table = (1 if by.endswith("loss") else -1), list(candidates()), []
    for stage in stages:
        if len(left) > 1:
            table += [(n, stage, curves[by][n][stage - 1]) for n in left]
            keep = 1 if stage == stages[-1] else (len(left) + 1) // 2
            best = sorted(left, key=lambda n: sign * curves[by][n][stage - 1])[:keep]
            left = [n for n in left if n in best]
    return left[0], table


@pytest.mark.parametrize("by", [None, "valid_log_loss"])
@pytest.mark.parametrize("after", [1, 2, 8, (1, 2), (2, 4), (1, 2, 5), (1, 2, 3, 4)])
def test_the_winner_is_that_of_full_runs_and_a_loop_by_hand(after, by, curves):
    stages = (after,) if isinstance(after, int) else after
    found = race(candidates(), 8, after=after, by=by)
    winner, table = by_hand(curves, by or "valid_accuracy", stages)
    assert (found.winner, [tuple(s) for s in found.table]) == (winner, table)
    assert found.run.ledger.rounds == 8
    assert found.run.metrics["valid_log_loss"] == curves["valid_log_loss"][winner][-1]


def test_not_all_of_these_races_have_one_winner(curves):
    """Or the test above could not fail."""
    won = {by_hand(curves, by, stages)[0] for by in curves for stages in [(1,), (2,), (8,), (2, 4)]}
    assert len(won) > 1


@pytest.mark.parametrize(("after", "kept"), [(2, False), ((2, 4), False), ((2, 4), True)])
def test_the_winners_run_is_what_it_would_be_alone(after, kept, tmp_path, no_clock, secret):
    feds = candidates(co.every(2))
    found = race(feds, 8, after=after, folder=tmp_path / "race" if kept else None)
    assert bits(found.run) == bits(feds[found.winner].run(8, engine=ENGINE))
    found.run.ledger.verify()


@pytest.mark.parametrize("who", ["scaffold", "sampled"])
def test_in_pieces_in_memory_as_in_one(who, no_clock):
    """Whoever wins: the others take no part in it."""
    slow = fed(1e-9, evaluate=co.every(1))
    feds = {who: candidates(co.every(1))[who], "slow": slow, "slower": slow, "slowest": slow}
    found = race(feds, 7, after=(2, 3), by="valid_log_loss")
    assert found.winner == who
    assert bits(found.run) == bits(feds[who].run(7, engine=ENGINE))


def test_without_a_schedule_of_scores_the_state_is_the_same(no_clock):
    feds = candidates()
    found = race(feds, 8, after=(1, 3))
    alone, mine = bits(feds[found.winner].run(8, engine=ENGINE)), bits(found.run)
    assert {k: mine[k] for k in ("state", "drawers", "metrics")} == {
        k: alone[k] for k in ("state", "drawers", "metrics")
    }
    assert mine["facts"] != alone["facts"], "scores of the stages are entries"


@pytest.mark.parametrize("kept", [False, True])
def test_nobody_is_begun_anew_and_the_bytes_are_those_of_all(kept, tmp_path):
    feds = candidates(co.every(1))
    CALLS.clear()
    found = race(feds, 8, after=(1, 3), folder=tmp_path if kept else None)
    reached = {s.name: s.rounds for s in found.table} | {found.winner: 8}
    assert sorted(reached.values()) == [1, 1, 3, 8]
    assert {n: CALLS.count(n) / (2 if n == "sampled" else 3) for n in feds} == reached
    alone = [feds[n].run(rounds, engine=ENGINE).ledger for n, rounds in reached.items()]
    assert found.bytes_up == sum(one.bytes_up for one in alone) > found.run.ledger.bytes_up
    assert found.bytes_down == sum(one.bytes_down for one in alone)


@pytest.mark.parametrize(("strikes", "saving"), [((4, 9), 0.0), ((13,), 1e9), ((36,), 0.0)])
def test_interrupted_and_begun_again_as_in_one(strikes, saving, tmp_path, no_clock, secret, monkeypatch):
    monkeypatch.setattr(running, "SAVE_SECONDS", saving)
    feds = candidates(co.every(2))
    straight = race(feds, 6, after=(2, 4), folder=tmp_path / "straight")
    for strike in strikes:
        STRIKE[0] = strike
        with pytest.raises(KeyboardInterrupt):
            race(feds, 6, after=(2, 4), folder=tmp_path / "broken")
    found = race(feds, 6, after=(2, 4), folder=tmp_path / "broken")
    assert same(found, straight)
    again = race(feds, 6, after=(2, 4), folder=tmp_path / "broken")
    assert same(again, straight), "a race that is over stays as it is"


def same(a, b):
    facts = [(r.winner, r.by, r.table, r.bytes_up, r.bytes_down, bits(r.run)) for r in (a, b)]
    return facts[0] == facts[1]


CHILD = """
import sys
sys.path.insert(0, {here!r})
import test_race as t
from comity import running
running.SAVE_SECONDS, running.time.time, t.SLOW[0] = 0.0, lambda: 1.0, 0.003
print("ready", flush=True)
found = t.race(t.candidates(), 20, after=(4, 8), folder={folder!r})
import json
print(json.dumps([found.winner, found.table, found.bytes_up, found.bytes_down, t.bits(found.run)]), flush=True)
"""


def child(folder):
    code = CHILD.format(here=str(Path(__file__).parent), folder=str(folder))
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, text=True, env=env)


@pytest.mark.slow
def test_killed_and_begun_again_as_in_one(tmp_path):
    alone = child(tmp_path / "straight")
    for seconds in (0.15, 0.4):
        process = child(tmp_path / "broken")
        process.stdout.readline()
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
    last = child(tmp_path / "broken")
    (want, _), (got, _) = alone.communicate(timeout=60), last.communicate(timeout=60)
    assert json.loads(got.splitlines()[-1]) == json.loads(want.splitlines()[-1])


def test_a_race_goes_on_to_more_rounds_and_other_stages_want_another_folder(tmp_path):
    feds = candidates()
    first = race(feds, 5, after=2, folder=tmp_path)
    more = race(feds, 9, after=2, folder=tmp_path)
    assert (more.winner, more.table, more.run.ledger.rounds) == (first.winner, first.table, 9)
    with pytest.raises(co.ConfigError, match=f"Candidate '{first.winner}': Scores must .* after 3 rounds.* new folder"):
        race(feds, 9, after=3, folder=tmp_path)


@pytest.mark.slow
def test_several_processes_in_memory():
    sites = {n: co.ScaffoldTrainer(co.MLP(6, 3, hidden=(5,)), d, valid=VALID) for n, d in SHARDS.items()}
    feds = {n: co.Collaboration(co.Scaffold(sites["p0"].model), sites, seed=i) for i, n in enumerate("ab")}
    two = co.race(feds, 5, after=2, engine=co.Local(executor="sequential", workers=2))
    one = race(feds, 5, after=2)
    assert encode_tree(two.run.state) == encode_tree(one.run.state)
    assert two.winner == one.winner


class Said:
    """Says what it scores, whatever is learnt; what is missing is said by nobody."""

    def __init__(self, **metrics: Any) -> None:
        self.metrics = {k: (float(v), 1.0) for k, v in metrics.items()}

    def contribute(self, shared, local, round, secret):
        if shared.kind == "score":
            return Contribution("score", None, metrics=self.metrics), {}
        return Contribution("delta", {k: np.zeros_like(v) for k, v in shared.value.items()}), {}


MODEL = co.Linear(2, 2)


def says(**metrics):
    return several(metrics)


def several(*each, **more):
    return co.Collaboration(co.FedAvg(MODEL), {f"p{i}": Said(**m) for i, m in enumerate(each)}, **more)


def winner(rounds=4, after=2, by=None, **feds):
    return race(feds, rounds, after=after, by=by).winner


def test_which_metric_and_which_way():
    assert winner(a=says(valid_accuracy=0.5, valid_log_loss=1), b=says(valid_accuracy=0.6, valid_log_loss=2)) == "b"
    assert winner(a=says(valid_log_loss=1, valid_mse=2), b=says(valid_accuracy=1, valid_log_loss=2, valid_mse=1)) == "a"
    assert winner(a=says(valid_mse=2, valid_mae=1), b=says(valid_mse=1, valid_mae=2)) == "b"
    assert winner(a=says(valid_mse=2, valid_mae=1), b=says(valid_mse=1, valid_mae=2), by="valid_mae") == "a"
    assert winner(a=says(valid_norms_accuracy=0.1), b=says(valid_norms_accuracy=0.2), by="valid_norms_accuracy") == "b"
    assert winner(a=says(valid_auc=0.1), b=says(valid_auc=0.2), by="valid_auc") == "b"


def test_test_scores_never_decide():
    a, b = says(accuracy=0.9, valid_accuracy=0.1), says(accuracy=0.1, valid_accuracy=0.2)
    assert winner(a=a, b=b) == "b"
    with pytest.raises(co.ConfigError, match=r"Candidate 'a': Validation scores .* Give them valid="):
        winner(a=says(accuracy=0.9, train_accuracy=1), b=b)


def test_a_score_is_the_mean_of_all_participants():
    a, b = several({"valid_mse": 1}, {"valid_mse": 5}), several({"valid_mse": 2}, {"valid_mse": 3})
    found = race({"a": a, "b": b}, 2, after=1)
    assert [(s.name, s.score) for s in found.table] == [("a", 3.0), ("b", 2.5)]
    assert found.winner == "b"


def test_the_first_of_equals_wins():
    same = says(valid_accuracy=0.5)
    assert winner(z=same, a=same, b=same) == "z"
    assert winner(x=says(valid_accuracy=0.4), z=same, a=same, b=same, after=(1, 2)) == "z"


def test_a_half_is_rounded_up():
    found = race({n: says(valid_mse=i) for i, n in enumerate("abcde")}, 4, after=(1, 2, 3))
    assert "".join(s.name for s in found.table) == "abcde" + "abc" + "ab"


NAN = float("nan")


def test_what_is_no_number_loses():
    good = says(valid_mse=9)
    assert winner(a=says(valid_mse=NAN), b=good) == "b"
    assert winner(a=several({"valid_mse": 1}, {"valid_mse": NAN}), b=good) == "b", "one of its participants"
    found = race({"a": says(valid_mse=NAN), "b": good, "c": says(valid_mse=NAN), "d": good}, 4, after=(1, 2))
    assert [(s.name, s.rounds) for s in found.table] == [(n, 1) for n in "abcd"] + [(n, 2) for n in "bd"]
    assert [s.score == s.score for s in found.table] == [False, True, False, True, True, True]
    found = race({"a": says(valid_mse=NAN), "b": good, "c": says(valid_mse=NAN)}, 4, after=(1, 2))
    assert [s.name for s in found.table] == ["a", "b", "c"], "what is no number never stays"
    with pytest.raises(co.ConfigError, match=r"must be finite.* \(a: p0: Metric 'valid_mse' must be"):
        winner(a=says(valid_mse=NAN), b=says(valid_mse=float("inf")))


def test_a_metric_that_not_all_have():
    a, b = says(valid_accuracy=0.5), says(valid_mse=0.5)
    with pytest.raises(co.ConfigError, match=r"in common\. Got a: valid_accuracy; b: valid_mse"):
        winner(a=a, b=b)
    with pytest.raises(co.ConfigError, match=r"Got 'valid_mse', which 'a' has not. It has valid_accuracy"):
        winner(a=a, b=b, by="valid_mse")


def test_who_is_ended_by_its_own_stop_is_judged_there():
    short = several({"valid_mse": 1}, stop=lambda past, ahead: past.rounds >= 2)
    found = race({"long": says(valid_mse=2), "short": short}, 6, after=(3, 5))
    assert (found.winner, found.run.ledger.rounds) == ("short", 2)
    assert [tuple(s) for s in found.table] == [("long", 3, 2.0), ("short", 2, 1.0)]
    never = several({"valid_mse": 1}, stop=lambda past, ahead: True)
    with pytest.raises(co.ConfigError, match="Candidate 'never': Scores must have been taken after 0 rounds"):
        winner(good=says(valid_mse=2), never=never)


class Broken:
    def contribute(self, shared, local, round, secret):
        raise OSError("no disk")


def test_whose_fault_it_is():
    bad = co.Collaboration(co.FedAvg(MODEL), {"p": Broken()}, retries=0)
    with pytest.raises(co.TooFewParticipants, match=r"Candidate 'bad': Round 1 needs 1; .*no disk"):
        winner(good=says(valid_mse=2), bad=bad)

    def stop(past, ahead):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as raised:
        winner(good=says(valid_mse=2), worse=several({"valid_mse": 1}, stop=stop))
    assert raised.value.__notes__ == ["Raised in the run of the candidate 'worse' of a race."]


def test_any_name_has_a_folder_of_its_own(tmp_path):
    names = ["a/b", "..", "rate=0.1, wide", "ü", "%2E."]
    found = race({n: says(valid_mse=i) for i, n in enumerate(names)}, 2, after=1, folder=tmp_path / "new")
    assert found.winner == "a/b"
    made = sorted(p.name for p in (tmp_path / "new").iterdir())
    assert made == ["%252E.", "%2E.", "%C3%BC", "a%2Fb", "rate=0.1, wide"]
    assert [p.name for p in tmp_path.iterdir()] == ["new"]


def test_printed():
    found = race({"a": says(valid_mse=1), "much longer name": says(valid_mse=12)}, 3, after=(2, 3))
    up, down = found.bytes_up, found.bytes_down
    assert str(found).splitlines() == [
        "candidate         rounds  valid_mse",
        "a                      2     1.0000",
        "much longer name       2    12.0000",
        f"a won and has 3 rounds. All together: {up:,} bytes up, {down:,} down.",
    ]


def test_the_function_and_its_module_have_different_names():
    assert co.race.__module__ == "comity.racing"
