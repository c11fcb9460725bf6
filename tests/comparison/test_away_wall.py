"""A comparison between organisations: a hub that serves, and parties that dial it, against one process."""

import hashlib
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest

from comity.cli.away import _taken
from comity.comparison.agenda import Agenda
from comity.comparison.away import conduct
from comity.comparison.compare import Comparison, compare
from comity.comparison.saved import read
from comity.comparison.settings import Settings
from comity.comparison.terms import Terms
from comity.ledger.keys import SideSecret
from comity.service.joining import Pinned
from comity.service.network import Network
from comity.service.runs import Offering
from comity.service.site import TakingPart
from comity.service.station import Station

NAMES = ("Ayr", "Bern", "Cork")
FAST: dict[str, Any] = {"model": "linear", "rounds": 2, "repeats": 1}


def tables(n: int = 60) -> dict[str, polars.DataFrame]:
    rng, out = np.random.default_rng(2), {}
    for shift, name in enumerate(NAMES):
        x = rng.normal(size=(n, 2)) + 0.3 * shift
        y = x @ [1.0, -1.0] + rng.normal(size=n) > 0
        words = rng.choice(["red", "green"], n)
        out[name] = polars.DataFrame({"u": x[:, 0], "v": x[:, 1], "colour": words, "y": y.astype(int)})
    return out


def secret(name: str) -> SideSecret:
    return SideSecret(hashlib.sha256(name.encode()).digest())


HUB = secret("the hub")


class Parties:
    """Sites in threads, each with its own table."""

    def __init__(self, folder: Path, at: Station, terms: Terms, parts: Mapping[str, Any]) -> None:
        self.at = at
        self.stop, self.errors = threading.Event(), {}  # type: threading.Event, dict[str, BaseException]
        self.agendas = {name: Agenda(name, table, terms, folder / name, take=_taken) for name, table in parts.items()}
        self.threads = [
            threading.Thread(target=self._run, args=(name, folder, at.url), name=name) for name in self.agendas
        ]
        for thread in self.threads:
            thread.start()

    def _run(self, name: str, folder: Path, url: str) -> None:
        to = Pinned(url, "hub", name, HUB.public_key(), "")
        one = TakingPart(self.agendas[name], to, secret(name), folder / name / "site")
        one.watched_by(self.stop)
        try:
            one.run()
        except Exception as error:  # noqa: BLE001  the test tells it
            self.errors[name] = error
            self.at.ending = True

    def join(self, seconds: float = 20.0) -> None:
        for thread in self.threads:
            thread.join(seconds)
        self.stop.set()
        for thread in self.threads:
            thread.join(20.0)
        assert not any(thread.is_alive() for thread in self.threads)


def station(folder: Path) -> Station:
    keys = {name: secret(name).public_key() for name in NAMES}
    return Station(Network("127.0.0.1:0", folder / "station", identity=HUB, parties=keys, linger=1.0))


def over_http(
    folder: Path, parts: Mapping[str, Any], *, tell: Any = None, **settings: Any
) -> tuple[Comparison, Parties]:
    terms = Terms(Settings("y", **{**FAST, **settings}))
    with station(folder) as at:
        parties = Parties(folder, at, terms, parts)
        late = threading.Timer(90.0, setattr, (at, "ending", True))  # else a fault would hang
        late.start()
        try:
            answer = conduct(at, terms, folder=folder / "hub", tell=tell)
        except BaseException:
            parties.stop.set()
            raise
        finally:
            late.cancel()
            parties.join()
            assert not parties.errors, [f"{name}: {error!r}" for name, error in parties.errors.items()]
    return answer, parties


def core(results: Mapping[str, Any]) -> dict[str, Any]:
    """Everything but names, times, and bytes."""
    kept = {k: v for k, v in results.items() if k not in ("title", "seconds", "cost", "bytes")}
    kept["settings"] = {k: v for k, v in kept["settings"].items() if k not in ("date", "recipe", "command", "cores")}
    return kept


def test_over_http_it_is_the_same_to_the_bit(tmp_path: Path) -> None:
    answer, parties = over_http(tmp_path, tables())
    here = compare(tables(), "y", pooled=False, **FAST)
    assert core(answer.results) == core(here.results)
    for name, agenda in parties.agendas.items():
        assert agenda.answer().results == json.loads(json.dumps(answer.results))
        assert set(read(tmp_path / name / "outcome").personal) == {name}


class Ended(Exception):
    """The hub's process ends here."""


def test_a_hub_and_sites_that_begin_anew_go_on(tmp_path: Path) -> None:
    """The hub ends in the middle, and leaves a step open as a kill does; then all begin anew from their folders."""
    more: dict[str, Any] = {"unseen": False}

    def tell(what: str, done: float) -> None:
        if "personal" in what:
            raise Ended

    with pytest.raises(Ended):
        over_http(tmp_path, tables(), tell=tell, **more)
    steps = sorted((tmp_path / "hub" / "steps").iterdir())
    with station(tmp_path) as at:
        known = at.runs.all()
        row = known[0]
        at.runs.offer("open", Offering(dict(row.recipe), NAMES, "", dict(row.about), minimum=3))
        at.runs.start("open", NAMES)
    answer, _ = over_http(tmp_path, tables(), **more)
    assert core(answer.results) == core(compare(tables(), "y", pooled=False, **{**FAST, **more}).results)
    assert sorted((tmp_path / "hub" / "steps").iterdir())[: len(steps)] == steps
    with station(tmp_path) as at:
        assert [r.state for r in at.runs.all() if r.run == "open"] == ["failed"]
        assert {r.state for r in at.runs.all() if r.run != "open"} == {"over"}
        asked = [r.about["step"] for r in at.runs.all()]
    assert asked.count("describe") == 1, "what was answered is not asked again"


@pytest.mark.slow
def test_a_private_model_is_charged_by_what_parties_declare(tmp_path: Path) -> None:
    pytest.importorskip("dp_accounting")
    from comity.privacy.budget import Budget

    more: dict[str, Any] = {"unseen": False, "private": Budget(8.0, 1e-3)}
    answer, _ = over_http(tmp_path, tables(), **more)
    here = compare(tables(), "y", pooled=False, **{**FAST, **more})
    for key in ("epsilon", "delta", "unit", "spent", "guarantee", "how", "together"):
        assert answer.results["private"][key] == here.results["private"][key], key
