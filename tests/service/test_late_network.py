"""Late answers over HTTP: nobody waits for a slow site, and it counts once, in the round in which it comes."""

import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import comity as co
from comity.core.contribution import Contribution
from comity.service import site

sys.path.append(str(Path(__file__).parent))
import importlib

made = importlib.import_module("actors")

NUMBERS = {"ada": 1.0, "bob": 4.0, "cyd": 10.0}
PATIENCE = 60.0


@dataclass(frozen=True)
class Says:
    """Sends one number; whoever is slow waits for its gate first."""

    number: float
    gate: Any = None

    def contribute(self, shared: Any, local: Any, round: Any, secret: Any) -> tuple[Contribution, Any]:
        if shared.kind == "score":
            return Contribution("score", {}, metrics={"heard": (float(local.get("heard", 0)), 1.0)}), local
        if self.gate is not None:
            assert self.gate.wait(PATIENCE)
        value = {k: np.full_like(v, self.number) for k, v in shared.value.items()}
        return Contribution("delta", value, 1.0), {"heard": local.get("heard", 0) + 1}


def apart(fed: co.Collaboration, people: Any, rounds: int, folder: Path, listen: Any) -> Any:
    """A hub, and a site for each, in threads."""
    keys = {name: made.secret(name).public_key() for name in people}
    out: dict[str, Any] = {}
    threads: list[threading.Thread] = []
    stops: list[Any] = []

    def begin(name: str, work: Any) -> None:
        def guarded() -> None:
            try:
                out[name] = work()
            except BaseException as error:  # noqa: BLE001  it is raised below
                out[name] = error

        threads.append(threading.Thread(target=guarded, daemon=True))
        threads[-1].start()

    def tell(url: str) -> None:
        for name, person in people.items():
            where = {"identity": made.secret(name), "folder": folder / name}
            runner = site.runner(fed, made.pinned(url, name), person, **where)
            stops.append(runner.client.stop)
            begin(name, runner.run)

    engine: Any = co.Network("127.0.0.1:0", folder / "hub", identity=made.HUB, parties=keys, tell=tell, linger=20.0)
    begin("the hub", lambda: fed.run(rounds=rounds, folder=folder / "run", engine=engine, listen=listen))
    hub = threads[0]
    hub.join(PATIENCE)
    for stop in stops if not isinstance(out.get("the hub"), co.Run) else ():
        stop.set()
    for thread in threads[1:]:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads), out
    for error in out.values():
        if isinstance(error, BaseException):
            raise error
    return out["the hub"]


def by_hand(rounds: list[Any], staleness: float) -> float:
    """What the first bias must be, by what the ledger says."""
    total = 0.0
    for f in rounds:
        names, late = f["asked"].split("\n"), f.get("late", {"round": []})
        ages = [0] * (len(names) - len(late["round"])) + [f["round"] - n for n in late["round"]]
        here = [NUMBERS[n] * (1.0 + a) ** -staleness for n, a, ok in zip(names, ages, f["accepted"], strict=True) if ok]
        total += sum(here) / len(here)
    return total


@pytest.mark.parametrize("evaluate", [False, co.every(1)])
def test_a_slow_site_counts_when_it_comes(evaluate: Any, tmp_path: Path) -> None:
    gate = threading.Event()
    people = {n: Says(x, gate if n == "cyd" else None) for n, x in NUMBERS.items()}
    fed = co.Collaboration(co.FedAvg(made.MODEL), evaluate=evaluate, deadline=1.0, late="next", seed=1, quorum=0.6)

    def listen(event: Any) -> None:
        if event.kind == "round" and event.round.number == 2:
            gate.set()
            came.wait(0.5)

    came = threading.Event()
    run = apart(fed, people, 12, tmp_path, listen)
    rounds = [e.facts for e in run.ledger if e.kind == "round"]
    assert [f["closed"] for f in rounds] == [True] * 12
    taken = [(f["round"], n) for f in rounds for n, ok in zip(f["asked"].split("\n"), f["accepted"], strict=True) if ok]
    late = [f for f in rounds if "late" in f and f["accepted"][-1]]
    assert late, "cyd was late, and is heard"
    assert late[0]["late"]["round"].tolist() == [0]
    assert late[0]["round"] >= 3
    assert sum(n == "ada" for _, n in taken) == 12
    assert float(run.shared["0.bias"][0]) - float(start(fed)) == pytest.approx(by_hand(rounds, 0.5), rel=1e-5)
    assert not run.ledger.refused


@dataclass(frozen=True)
class Only:
    """Asks nobody but one."""

    name: str

    def __call__(self, roster: Any, round: Any, past: Any, secret: Any) -> Any:
        return {"hub": [self.name]}

    def expected(self, roster: int) -> float:
        return 1.0


def test_rounds_in_which_nobody_is_asked_keep_the_question_open(tmp_path: Path) -> None:
    """Scores are asked of others meanwhile."""
    gate = threading.Event()
    people = {n: Says(NUMBERS[n], gate if n == "cyd" else None) for n in ("ada", "cyd")}
    late: Any = {"late": "next", "quorum": 0.0, "deadline": 0.4, "select": Only("cyd")}
    fed = co.Collaboration(co.FedAvg(made.MODEL), evaluate=co.every(1), seed=1, **late)

    def listen(event: Any) -> None:
        if event.kind == "score" and event.round.number == 3:
            gate.set()

    run = apart(fed, people, 6, tmp_path, listen)
    rounds = [e.facts for e in run.ledger if e.kind == "round"]
    heard = [f for f in rounds if f["accepted"].any()]
    assert heard[0]["late"]["round"].tolist() == [0]
    assert [e.facts["asked"] for e in run.ledger if e.kind == "score"][:2] == ["ada", "ada"]


def start(fed: co.Collaboration) -> float:
    """The first bias before the first round."""
    return made.MODEL.init(co.Round("", 1))["0.bias"][0]
