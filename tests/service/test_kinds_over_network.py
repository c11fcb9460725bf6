"""Every kind of collaboration over HTTP: the parts run unchanged, and come to the bits of one process."""

import importlib
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import comity as co
from comity.service import site

HERE = Path(__file__).parent
for place in (HERE, HERE.parent / "chaos"):
    sys.path.append(str(place))
made, kinds = importlib.import_module("actors"), importlib.import_module("kinds")


QUICK = (
    "FedAvg, torch", "Scaffold", "Query, Vote", "FedMD, Once", "ring", "Relay, ready", "Tickets", "PrivateTrainer",
    "FedAvg, SecAgg", "FedAvg, Gaussian", "Boosting", "Ridge",
)  # fmt: skip
ALL = [pytest.param(kind, marks=() if kind in QUICK else pytest.mark.slow) for kind in kinds.KINDS]
DRAWN = ("FedAvg, Adam",)
"""Who is asked is drawn from the hub's secret, which is another in each run."""


def everybody(fed: co.Collaboration) -> Mapping[str, Any]:
    people: Any = fed.participants
    return {n: people.find(n) for n in people.names} if isinstance(people, co.Population) else people


def apart(fed: co.Collaboration, rounds: int, folder: Path) -> Any:
    """A hub, and a site for each participant, in threads of their own."""
    people, hub, out = everybody(fed), fed.replace(participants={}), {}
    keys = {name: made.secret(name).public_key() for name in people}
    ended, threads, stops = threading.Event(), [], []

    def guarded(name: str, work: Any) -> None:
        try:
            out[name] = work()
        except BaseException as error:  # noqa: BLE001  it is raised below
            out[name] = error
        if name == "the hub" or out[name] is not None:
            ended.set()

    def begin(name: str, work: Any) -> None:
        threads.append(threading.Thread(target=guarded, args=(name, work), daemon=True))
        threads[-1].start()

    def tell(url: str) -> None:
        for name, person in people.items():
            settings = {"identity": made.secret(name), "folder": folder / name}
            runner = site.runner(hub, made.pinned(url, name), person, **settings)
            stops.append(runner.client.stop)
            begin(name, runner.run)

    given: Any = {"identity": made.HUB, "parties": keys, "tell": tell, "linger": 20.0, "minimum": len(keys)}
    engine: Any = co.Network("127.0.0.1:0", folder / "hub", **given)
    begin("the hub", lambda: hub.run(rounds=rounds, folder=folder / "run", engine=engine))
    assert ended.wait(60)
    if not isinstance(out.get("the hub"), co.Run):
        for stop in stops:
            stop.set()
        raise next(error for error in out.values() if isinstance(error, BaseException))
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    return out["the hub"]


def counted(run: co.Run) -> list[Any]:
    return [(e.facts["asked"], e.facts["accepted"].tolist()) for e in run.ledger if e.kind == "round"]


def spent(run: co.Run) -> list[Any]:
    return [e.facts for e in run.ledger if e.kind == "spend"]


@pytest.mark.parametrize("kind", ALL)
def test_it_runs_unchanged(kind: str, tmp_path: Path) -> None:
    make, rounds = kinds.KINDS[kind]
    want, got = make().run(rounds=rounds), apart(make(), rounds, tmp_path)
    assert got.ledger.rounds == want.ledger.rounds
    assert (got.ledger.refused, got.ledger.dropped) == (want.ledger.refused, want.ledger.dropped)
    if kind in DRAWN:
        return
    assert counted(got) == counted(want)
    if spent(want):  # the noise is of secrets that differ
        assert spent(got) == spent(want)
        return
    assert made.bits(got.state) == made.bits(want.state)
    assert got.metrics == want.metrics
