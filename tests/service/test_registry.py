"""Who belongs to a hub: one token, one key; what may be repeated; what a stranger and a thief get."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import comity as co
from comity.ledger.keys import SideSecret
from comity.service.invitations import Invitation
from comity.service.parties import EnrolmentRefused, Rotation
from comity.service.registry import Registry
from comity.service.signatures import Request, SignatureRefused, sign

HUB, ADA, BOB, NEW = (SideSecret(bytes([n]) * 32) for n in range(4))
NONCE = "nonce-of-16-letters"


@pytest.fixture
def clock() -> SimpleNamespace:
    return SimpleNamespace(now=1_700_000_000.0)


@pytest.fixture
def registry(tmp_path: Path, clock: Any) -> Iterator[Registry]:
    with Registry.open(tmp_path, clock=lambda: clock.now) as opened:
        yield opened


def invited(registry: Registry, name: str = "ada", **more: Any) -> bytes:
    return Invitation.read(registry.invite(name, HUB.public_key(), **more)).secret


def joined(registry: Registry, name: str = "ada", secret: SideSecret = ADA) -> None:
    registry.enrol(invited(registry, name), name, secret.public_key())
    registry.approve(name)


def refused(registry: Registry, *args: Any) -> str:
    before = contents(registry)
    with pytest.raises(EnrolmentRefused) as caught:
        registry.enrol(*args)
    assert contents(registry) == before
    return caught.value.reason


def asked(secret: SideSecret = ADA, *, name: str = "ada", at: float = 1_700_000_000, nonce: str = NONCE) -> Request:
    request = Request("POST", "https://hub/v1/reply", {}, b"{}")
    return replace(request, headers=sign(request, secret, keyid=name, created=int(at), nonce=nonce))


def contents(registry: Registry) -> list[Any]:
    with registry.db.reading() as db:
        names = [row[0] for row in db.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return [[tuple(row) for row in db.exec_driver_sql(f"SELECT * FROM {name}")] for name in sorted(names)]


def why(registry: Registry, request: Request, *, write: bool = True) -> str:
    with pytest.raises(SignatureRefused) as caught:
        registry.admit(request, write=write)
    return caught.value.reason


def test_from_invitation_to_removal(registry: Registry) -> None:
    secret = invited(registry, hours=1)
    assert registry.parties()[0].status == "invited"
    assert registry.enrol(secret, "ada", ADA.public_key()).status == "waiting"
    assert registry.key_of("ada") is None
    assert registry.approve("ada").status == "approved"
    assert registry.key_of("ada") == ADA.public_key()
    assert registry.suspend("ada").status == "suspended"
    assert registry.key_of("ada") is None
    assert registry.approve("ada").status == "approved"
    assert registry.remove("ada").key is None
    assert registry.key_of("ada") is None
    assert registry.parties("approved", "waiting") == []
    assert [row[1] for row in registry.audit()] == [
        "invited", "enrolled", "approved", "suspended", "approved", "removed",
    ]  # fmt: skip
    assert registry.audit()[1][3] == sha256(ADA.public_key()).hexdigest()


def test_everything_may_be_repeated(registry: Registry) -> None:
    secret = invited(registry)
    once = registry.enrol(secret, "ada", ADA.public_key())
    before = contents(registry)
    assert registry.enrol(secret, "ada", ADA.public_key()) == once
    assert contents(registry) == before
    for change in (registry.approve, registry.suspend, registry.remove):
        assert change("ada") == change("ada")
    assert len(registry.audit()) == 5


def test_a_token_is_for_one_name_one_key_and_a_time(registry: Registry, clock: Any) -> None:
    secret = invited(registry, hours=2)
    assert refused(registry, os.urandom(32), "ada", ADA.public_key()) == "unknown"
    assert refused(registry, b"", "ada", ADA.public_key()) == "unknown"
    assert refused(registry, secret, "bob", ADA.public_key()) == "unknown"
    assert refused(registry, secret, "ada", b"short") == "key"
    clock.now += 7201
    assert refused(registry, secret, "ada", ADA.public_key()) == "expired"
    clock.now -= 7201
    registry.enrol(secret, "ada", ADA.public_key())
    assert refused(registry, secret, "ada", BOB.public_key()) == "used"
    clock.now += 10**6
    assert registry.enrol(secret, "ada", ADA.public_key()).name == "ada"  # the answer was lost
    assert refused(registry, invited(registry, "bob"), "bob", ADA.public_key()) == "key"


def test_a_new_invitation_takes_the_place_of_the_last(registry: Registry) -> None:
    old, new = invited(registry), invited(registry)
    assert refused(registry, old, "ada", ADA.public_key()) == "unknown"
    registry.enrol(new, "ada", ADA.public_key())
    with pytest.raises(co.ConfigError, match="waiting"):
        registry.invite("ada", HUB.public_key())


def test_a_key_that_was_removed_never_comes_back(registry: Registry) -> None:
    joined(registry)
    registry.remove("ada")
    again = invited(registry)
    assert refused(registry, again, "ada", ADA.public_key()) == "key"
    assert registry.enrol(again, "ada", NEW.public_key()).status == "waiting"


def test_a_removed_party_cannot_use_its_invitation(registry: Registry) -> None:
    secret = invited(registry)
    registry.remove("ada")
    assert refused(registry, secret, "ada", ADA.public_key()) == "unknown"


def test_the_secret_of_a_token_is_stored_nowhere(registry: Registry, tmp_path: Path) -> None:
    text = registry.invite("ada", HUB.public_key())
    secret = Invitation.read(text).secret
    registry.enrol(secret, "ada", ADA.public_key())
    everything = b"".join(p.read_bytes() for p in tmp_path.iterdir())
    assert sha256(secret).hexdigest().encode() in everything
    for form in (secret, secret.hex().encode(), text.encode(), text[7:50].encode()):
        assert form not in everything
    assert text not in repr(registry) + repr(registry.parties()) + repr(registry.audit())


def test_what_an_operator_cannot_do(registry: Registry) -> None:
    joined(registry)
    for wrong in ("", "a\nb", " a", "x" * 256):
        with pytest.raises(co.ConfigError, match="characters"):
            registry.invite(wrong, HUB.public_key())
    for hours in (0, -1, float("nan"), True):
        with pytest.raises(co.ConfigError, match="hours"):
            registry.invite("bob", HUB.public_key(), hours=hours)
    with pytest.raises(co.ConfigError, match="role"):
        registry.invite("bob", HUB.public_key(), role="king")
    for change in (registry.approve, registry.suspend, registry.remove):
        with pytest.raises(co.ConfigError, match="Did you mean 'ada'"):
            change("adda")
    invited(registry, "bob", role="auditor")
    for change in (registry.approve, registry.suspend):
        with pytest.raises(co.ConfigError, match="bob is invited"):
            change("bob")
    assert registry.party("bob").roles == ("auditor",)  # type: ignore[union-attr]


def test_a_key_is_changed_by_the_old_one_and_the_new_one(registry: Registry) -> None:
    joined(registry)
    good = Rotation.of("ada", ADA, NEW)
    before = contents(registry)
    stolen = Rotation("ada", good.old, BOB.public_key(), good.by_old, good.by_new)
    wrong = [
        Rotation("ada", good.old, good.new, b"", good.by_new),
        Rotation("ada", good.old, good.new, good.by_old, good.by_old),
        Rotation("bob", good.old, good.new, good.by_old, good.by_new),
        stolen,
        Rotation.of("ada", BOB, NEW),
        Rotation.of("bob", ADA, NEW),
    ]
    for rotation in wrong:
        with pytest.raises(EnrolmentRefused):
            registry.rotate(rotation)
    assert contents(registry) == before
    assert registry.rotate(good).key == registry.rotate(good).key == registry.key_of("ada") == NEW.public_key()
    assert [row[1] for row in registry.audit()].count("rotated") == 1
    with pytest.raises(EnrolmentRefused):
        registry.rotate(Rotation.of("ada", NEW, ADA))  # what was given up does not come back
    joined(registry, "bob", BOB)
    with pytest.raises(EnrolmentRefused):
        registry.rotate(Rotation.of("bob", BOB, NEW))


def test_a_write_is_admitted_once_and_a_poll_again(registry: Registry, clock: Any, tmp_path: Path) -> None:
    joined(registry)
    poll = asked()
    assert registry.admit(poll, write=False) == registry.admit(poll, write=False)
    assert registry.admit(poll, write=True).keyid == "ada"
    assert why(registry, poll) == "replay"
    with Registry.open(tmp_path, clock=lambda: clock.now) as restarted:
        assert why(restarted, poll) == "replay"
    clock.now += 299
    assert why(registry, poll) == "replay"
    clock.now += 2
    assert why(registry, poll) == "clock"


def test_nonces_are_forgotten_only_when_they_are_too_old(registry: Registry, clock: Any) -> None:
    joined(registry)
    early = asked(at=clock.now + 300, nonce="of-a-clock-that-is-ahead")
    registry.admit(early, write=True)
    for n in range(20):
        clock.now += 40
        registry.admit(asked(at=clock.now, nonce=f"number-of-the-question-{n}"), write=True)
        assert why(registry, early) == ("replay" if clock.now <= 1_700_000_600 else "clock")
    clock.now += 5000
    registry.admit(asked(at=clock.now, nonce="the-last-of-the-nonces"), write=True)
    with registry.db.reading() as db:
        assert db.exec_driver_sql("SELECT count(*) FROM nonces").scalar() == 1


def test_who_may_not_ask(registry: Registry, clock: Any) -> None:
    joined(registry)
    before = contents(registry)
    assert why(registry, asked(name="nobody")) == "unknown"
    assert why(registry, asked(BOB)) == "changed"
    assert why(registry, Request("POST", "https://hub/v1/reply", {}, b"")) == "malformed"
    assert contents(registry) == before
    registry.suspend("ada")
    assert why(registry, asked()) == "suspended"
    assert why(registry, asked(BOB)) == "changed"  # a stranger is not told that it is suspended
    assert registry.admit(asked(), write=False, statuses=("approved", "suspended")).keyid == "ada"
    registry.remove("ada")
    assert why(registry, asked()) == "unknown"


def test_a_party_is_noted_as_heard(registry: Registry, clock: Any) -> None:
    joined(registry)
    assert registry.party("ada").last_seen is None  # type: ignore[union-attr]
    for after, seen in ((0, 0), (4, 0), (7, 7), (8, 7)):
        clock.now = 1_700_000_000.0 + after
        registry.admit(asked(), write=False)
        assert registry.party("ada").last_seen == 1_700_000_000.0 + seen  # type: ignore[union-attr]


ENROL = """
import json, sys
from comity.ledger.keys import SideSecret
from comity.service.parties import EnrolmentRefused
from comity.service.registry import Registry
folder, secret, n = sys.argv[1], bytes.fromhex(sys.argv[2]), int(sys.argv[3])
with Registry.open(folder) as registry:
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        print(registry.enrol(secret, "ada", SideSecret(bytes([n]) * 32).public_key()).key.hex())
    except EnrolmentRefused as error:
        print(error.reason)
"""


def test_of_processes_with_one_token_one_wins(tmp_path: Path) -> None:
    with Registry.open(tmp_path) as registry:
        secret = invited(registry)
        commands = [[sys.executable, "-c", ENROL, str(tmp_path), secret.hex(), str(n)] for n in range(3)]
        pipe = subprocess.PIPE
        crowd = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for command in commands]
        try:
            assert [one.stdout.readline() for one in crowd] == ["ready\n"] * 3  # type: ignore[union-attr]
            for one in crowd:
                one.stdin.write("\n")  # type: ignore[union-attr]
                one.stdin.flush()  # type: ignore[union-attr]
            said = [one.communicate(timeout=60)[0].strip() for one in crowd]
        finally:
            for one in crowd:
                one.kill()
                one.wait(60)
        key = registry.party("ada").key  # type: ignore[union-attr]
        assert sorted(text for text in said if len(text) < 64) == ["used", "used"]
        assert key is not None
        assert key.hex() in said
        assert [row[1] for row in registry.audit()] == ["invited", "enrolled"]


def test_a_database_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(co.ConfigError):
        Registry.open(tmp_path / "file")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "hub.db").write_bytes(b"no database at all" * 300)
    with pytest.raises(co.LedgerError, match="damaged"):
        Registry.open(tmp_path / "bad")
    for url in ("mysql://u:hidden@h/x", "sqlite:///x", "postgresql+nothing://u:hidden@h/x", "://"):
        with pytest.raises(co.ConfigError) as caught:
            Registry.open(url)
        assert "hidden" not in str(caught.value)
