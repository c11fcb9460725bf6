"""Peers over a hub that cannot read: as in one process, and nobody but the receiver opens a letter."""

import importlib
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import comity as co
from comity.ledger.keys import SideSecret
from comity.service.client import Client
from comity.service.mail import KEPT, Letter, Letters
from comity.service.peers import SealedMail, Session, peer
from comity.service.station import Station

sys.path.append(str(Path(__file__).parent))
made = importlib.import_module("actors")
NAMES = made.NAMES
ROUNDS = 3


class Hiding(co.Plain):
    """Says that it shows sums only."""

    reveals = "sum"


def fed(people: Any = None, **parts: Any) -> co.Collaboration:
    method = co.FedAvg(made.MODEL, send="model")
    return co.Collaboration(method, people or {}, seed=3, **{"select": co.ring(), **parts})


def person(name: str) -> Any:
    return co.Trainer(made.MODEL, made.DATA[name], test=made.DATA[name], send="model")


@pytest.fixture
def station(tmp_path: Path) -> Any:
    settings = co.Network("127.0.0.1:0", tmp_path / "hub", identity=made.HUB, parties=made.KEYS)
    with Station(settings) as open_:
        yield open_


def apart(station: Any, folder: Path, rounds: int = ROUNDS, *, peers: Any = None) -> dict[str, Any]:
    out: dict[str, Any] = {}

    def one(name: str) -> None:
        more = {"identity": made.secret(name), "folder": folder / name}
        try:
            known = (peers or {}).get(name, made.KEYS)
            to = made.pinned(station.url, name)
            out[name] = peer(fed(), to, person(name), session=Session("spring", known, rounds), **more)
        except Exception as error:  # noqa: BLE001  it is looked at
            out[name] = error

    threads = [threading.Thread(target=one, args=(name,), daemon=True) for name in NAMES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return out


def same(a: Any, b: Any) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in b)


def test_the_same_as_in_one_process_and_again_after_a_stop(station: Any, tmp_path: Path) -> None:
    whole = fed({name: person(name) for name in NAMES}).run(ROUNDS + 2)
    first = apart(station, tmp_path)
    assert {name: run.ledger.rounds for name, run in first.items()} == dict.fromkeys(NAMES, ROUNDS)
    found = apart(station, tmp_path, ROUNDS + 2)
    for name in NAMES:
        assert same(found[name].shared, whole.shared[name])


def test_the_hub_holds_no_word_of_what_is_said(station: Any, tmp_path: Path) -> None:
    found = apart(station, tmp_path, 1)
    with station.db.reading() as db:
        rows = db.exec_driver_sql("select number, data from mail").all()
    letters = [row.data for row in rows if row.number >= 0]
    assert len(letters) == 6
    weight = np.asarray(found["ada"].shared["0.weight"]).tobytes()
    for data in letters:
        assert b"sealed" not in data
        assert weight[:8] not in data


def mail(station: Any, name: str, folder: Path, secret: Any = None, session: str = "spring") -> SealedMail:
    line = Client(station.url, name, made.secret(name), "")
    identity = secret or made.secret(name)
    return SealedMail(line, Session(session, made.KEYS, 1), identity=identity, folder=folder / name)


def pair(station: Any, folder: Path) -> tuple[SealedMail, SealedMail]:
    """Two who have met."""
    ada, bob = (mail(station, name, folder) for name in ("ada", "bob"))
    for one, other in ((ada, "bob"), (bob, "ada")):
        one.there([other], 0, 0.0)
    return ada, bob


def test_what_was_sent_first_stays(station: Any, tmp_path: Path) -> None:
    ada, bob = pair(station, tmp_path)
    ada.send("bob", 0, b"first")
    ada.send("bob", 0, b"second")
    assert bob.there(["ada", "cyd"], 0, 0.0) == ["ada"]
    assert bob.fetch("ada", 0) == b"first"
    for one in (ada, bob):
        one.client.close()


def test_a_letter_of_many_pieces(station: Any, tmp_path: Path) -> None:
    ada, bob = pair(station, tmp_path)
    said = np.random.default_rng(0).bytes(9_000_000)
    ada.send("bob", 0, said)
    assert bob.fetch("ada", 0) == said
    for one in (ada, bob):
        one.client.close()


@pytest.mark.parametrize("spoil", ["moved to another round", "changed by a bit", "of another sender"])
def test_a_hub_that_changes_or_moves_letters_is_noticed(station: Any, tmp_path: Path, spoil: str) -> None:
    ada, bob = pair(station, tmp_path)
    cyd = mail(station, "cyd", tmp_path)
    bob.there(["cyd"], 0, 0.0)
    cyd.there(["bob"], 0, 0.0)
    ada.send("bob", 0, b"said")
    cyd.send("bob", 0, b"other")
    change = {
        "moved to another round": "update mail set number = 1 where number = 0 and sender = 'ada'",
        "changed by a bit": "update mail set data = zeroblob(length(data)) where number = 0 and sender = 'ada'",
        "of another sender": "update mail set data = (select data from mail where number = 0 and sender = 'cyd') "
        "where number = 0 and sender = 'ada'",
    }[spoil]
    with station.db.writing() as db:
        db.exec_driver_sql(change)
    with pytest.raises(co.WireError, match="must be sealed by ada for this peer and round"):
        bob.fetch("ada", 1 if "round" in spoil else 0)
    for one in (ada, bob, cyd):
        one.client.close()


def test_a_hub_that_stands_between_two_peers_is_noticed(station: Any, tmp_path: Path) -> None:
    ada = mail(station, "ada", tmp_path)
    with mail_as("ada", station, tmp_path) as between:
        between.there(["bob"], 0, 0.0)
    bob = mail(station, "bob", tmp_path)
    bob.there(["ada"], 0, 0.0)
    with pytest.raises(co.ChannelError, match="must be signed by the identity"):
        bob.send("ada", 0, b"said")
    for one in (ada, bob):
        one.client.close()


class mail_as:  # noqa: N801  it reads like one
    """Somebody who can speak for a peer to the hub (the hub itself, for one) but has not its identity."""

    def __init__(self, name: str, station: Any, folder: Path) -> None:
        self.mail = mail(station, name, folder / "between", SideSecret(bytes(32)))

    def __enter__(self) -> SealedMail:
        return self.mail

    def __exit__(self, *_: object) -> None:
        self.mail.client.close()


def test_nobody_reads_or_uses_up_the_mail_of_another(station: Any, tmp_path: Path) -> None:
    ada, bob = pair(station, tmp_path)
    ada.send("bob", 0, b"said")
    cyd = Client(station.url, "cyd", made.secret("cyd"), "")
    assert cyd.ask("GET", "/v1/letter?session=spring&round=0&from=ada&piece=0").status == 404
    assert cyd.ask("GET", "/v1/mail?session=spring&round=50&from=ada&wait=0").told == {"there": []}
    assert bob.fetch("ada", 0) == b"said"
    for line in (ada.client, bob.client, cyd):
        line.close()


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"", 422), (b"[]", 422), (b"{}", 422), (b'{"session": 1}', 422), (b"\xff", 422), (b"[" * 1000, 422),
        (b'{"session": "s", "to": "bob", "round": -2, "piece": 0, "pieces": 1}', 422),
        (b'{"session": "s", "to": "bob", "round": 0, "piece": 1, "pieces": 1}', 422),
        (b'{"session": "s", "to": "bob", "round": true, "piece": 0, "pieces": 1}', 422),
        (b'{"session": "s", "to": "zoe", "round": 0, "piece": 0, "pieces": 1}', 404),
        (b'{"session": "s", "to": "bob", "round": 0, "piece": 0, "pieces": 1}', 200),
    ],
)  # fmt: skip
def test_wrong_letters(station: Any, line: bytes, status: int) -> None:
    client = Client(station.url, "ada", made.secret("ada"), "")
    assert client.ask("POST", "/v1/mail", line + b"\nbytes").status == status
    client.close()


@pytest.mark.parametrize(
    "query", ["", "session=s", "session=s&round=x&from=ada", "session=s&round=0", "round=0&from=a"]
)
def test_wrong_looks(station: Any, query: str) -> None:
    client = Client(station.url, "ada", made.secret("ada"), "")
    assert client.ask("GET", f"/v1/mail?{query}").status == 422
    client.close()


def test_letters_go_when_their_receiver_has_gone_on(station: Any) -> None:
    letters = Letters(station.db)
    for number in range(-1, 4):
        letters.put(Letter("s", "ada", "bob", number), b"said")
    letters.used("s", "bob", 3)
    left = [n for n in range(-1, 4) if letters.there("s", "bob", n, ["ada"])]
    assert left == [-1, *range(3 - KEPT + 1, 4)]


def test_too_much_mail_for_one_receiver_is_refused(station: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comity.service.mail.PAIR", 10)
    monkeypatch.setattr("comity.service.mail.ROW", 0)
    letters = Letters(station.db)
    assert letters.put(Letter("s", "ada", "bob", 0), b"12345678")
    assert not letters.put(Letter("s", "ada", "bob", 1), b"123")
    assert letters.put(Letter("s", "ada", "cyd", 1), b"123")


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"select": co.sample(2)}, "must make each peer its own hub. Got Sample"),
        ({"channel": Hiding()}, "A peer sees what each neighbour sends. Hiding hides"),
        ({"peers": {"bob": bytes(32)}}, "must hold 'ada' with this identity's public key"),
        ({"peers": {}}, "names with Ed25519 public keys of 32 bytes"),
        ({"peers": {"ada": b"short"}}, "names with Ed25519 public keys of 32 bytes"),
        ({"session": ""}, "a word that all peers use"),
    ],
)
def test_what_cannot_be_is_refused(parts: Any, said: str, tmp_path: Path) -> None:
    known, called = parts.pop("peers", made.KEYS), parts.pop("session", "s")
    to, more = made.pinned("http://127.0.0.1:9", "ada"), {"identity": made.secret("ada"), "folder": tmp_path}
    given = fed(**parts)
    with pytest.raises(co.ConfigError, match=said):
        peer(given, to, person("ada"), session=Session(called, known, 1), **more)
