"""Sites of a script's hub keep its ledger too: they verify it, sign it, and see what is not charged."""

import importlib
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import comity as co
from comity.ledger import copies
from comity.service import posting, site

sys.path.append(str(Path(__file__).parent))
made = importlib.import_module("actors")
RATE = 0.5
FED = made.fedavg().replace(evaluate=False, deadline=10.0, retries=0)
"""A site that sees too little charged leaves: after its last round nothing more is asked."""


def private(name: str) -> co.PrivateTrainer:
    return co.PrivateTrainer(made.MODEL, made.DATA[name], clip=1.0, noise=2.0, rate=RATE)


def carried(folder: Path, rounds: int, person: Any, **more: Any) -> tuple[Any, dict[str, BaseException]]:
    """A run with a hub of its own, and what its sites died of."""
    died: dict[str, BaseException] = {}
    threads: list[threading.Thread] = []
    stop = threading.Event()

    def one(name: str, url: str) -> None:
        settings = {"identity": made.secret(name), "folder": folder / name}
        try:
            runner = site.runner(FED, made.pinned(url, name), person(name), **settings)
            runner.client.stop = stop
            runner.run()
        except BaseException as error:  # noqa: BLE001  it is given to the test
            died[name] = error

    def tell(url: str) -> None:
        for name in made.NAMES:
            threads.append(threading.Thread(target=one, args=(name, url)))
            threads[-1].start()

    hub = made.network(folder, tell=tell, **{"linger": 5.0, **more})
    try:
        return FED.run(rounds=rounds, folder=folder / "run", engine=hub), died
    except BaseException:
        stop.set()
        raise
    finally:
        for thread in threads:
            thread.join(20)
        assert not any(thread.is_alive() for thread in threads)


def test_each_site_has_the_whole_ledger_signed(tmp_path: Path) -> None:
    run, died = carried(tmp_path, 3, made.trainer)
    assert died == {}
    for name in made.NAMES:
        (copy,) = (path.parent for path in (tmp_path / name).glob(f"*/{copies.NAME}"))
        found = co.audit(copy, against=tmp_path / "run")
        assert (found.ok, found.rounds, found.head) == (True, 3, run.ledger.head), found.faults
        assert co.audit(tmp_path / "run", against=copy).ok
        assert copies.seen_in(copy).faults == [], "what it signed is what it holds"
        assert (copy / copies.HEAD).exists()


def test_a_run_that_is_kept_nowhere_has_no_ledger_to_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting.Desk, "kept", lambda *_: pytest.fail("there is no folder"))
    monkeypatch.setattr(co.Collaboration, "run", _without_folder(co.Collaboration.run))
    _, died = carried(tmp_path, 1, made.trainer)
    assert died == {}
    assert not list(tmp_path.rglob(copies.NAME))


def _without_folder(run: Any) -> Any:
    return lambda fed, rounds, folder, engine: run(fed, rounds=rounds, engine=engine)


@pytest.mark.parametrize("charges", [True, False])
def test_what_is_not_charged_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, charges: bool) -> None:
    if not charges:
        monkeypatch.setattr(posting.Desk, "people", lambda _: {})
    run, died = carried(tmp_path, 1, private, minimum=3, linger=5.0 if charges else 1.0)
    assert [e.facts["closed"] for e in run.ledger if e.kind == "round"] == [True]
    assert bool([e for e in run.ledger if e.kind == "spend"]) is charges
    assert sorted(died) == ([] if charges else sorted(made.NAMES))
    for error in died.values():
        assert isinstance(error, co.LedgerError)
        assert "must charge what" in str(error)
