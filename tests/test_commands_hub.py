"""comity hub, join and rotate: what they print, and what they refuse."""

import io
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from comity.ledger.keys import SideSecret
from comity.service.invitations import Invitation
from comity.service.keys import fingerprint
from comity.service.registry import Registry

INIT = ("--host", "hub.example", "--name", "Registry")


@pytest.fixture
def hub(run: Any, tmp_path: Path) -> Path:
    """The folder of a hub, where ada was invited."""
    assert run("hub", "init", tmp_path / "hub", *INIT).code == 0
    return tmp_path / "hub"


def invited(run: Any, hub: Path, name: str = "ada") -> str:
    ended = run("hub", "invite", hub, name)
    assert (ended.code, ended.err) == (0, "")
    return str(re.search(r"comity-[\w-]+", ended.out.split("comity join")[1])[0])  # type: ignore[index]


def enrolled(run: Any, hub: Path, key: bytes) -> None:
    secret = Invitation.read(invited(run, hub)).secret
    with Registry.open(hub) as registry:
        registry.enrol(secret, "ada", key)


def test_from_init_to_removal(run: Any, hub: Path) -> None:
    key = SideSecret(b"a" * 32).public_key()
    enrolled(run, hub, key)
    waiting = run("hub", "parties", hub).out
    assert re.fullmatch(r"ada +waiting +party +never +[0-9a-f ]{79}\n", waiting)
    assert fingerprint(key) in waiting
    ended = run("hub", "approve", hub, "ada", "--key", fingerprint(key))
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.split()[1] == "approved"
    assert run("hub", "suspend", hub, "ada").out.split()[1] == "suspended"
    assert run("hub", "remove", hub, "ada").out.split()[1] == "removed"
    assert run("hub", "parties", hub).out.endswith("no key\n")


def test_init_may_be_repeated(run: Any, hub: Path) -> None:
    once, again = (run("hub", "init", hub, *INIT).out for _ in range(2))
    assert once == again
    assert "https://hub.example:8443" in once


def test_a_token_is_shown_once_and_is_in_no_file(run: Any, hub: Path) -> None:
    token = invited(run, hub)
    files = b"".join(p.read_bytes() for p in hub.iterdir())
    for form in (token.encode(), token[7:50].encode(), Invitation.read(token).secret):
        assert form not in files
    assert token not in run("hub", "parties", hub).out


def refused(run: Any, *args: object, code: int = 2) -> str:
    ended = run(*args)
    assert (ended.code, ended.out) == (code, "")
    assert ended.err.startswith("error      ")
    assert "Traceback" not in ended.err
    assert "defect" not in ended.err
    return str(ended.err)


def test_another_key_is_not_approved(run: Any, hub: Path) -> None:
    enrolled(run, hub, SideSecret(b"a" * 32).public_key())
    for key in ("", "00", fingerprint(b"other")):
        assert "another" in refused(run, "hub", "approve", hub, "ada", "--key", key)
    assert "waiting" in run("hub", "parties", hub).out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("hub", "init", "NEW", "--name", "x"), "--host"),
        (("hub", "init", "NEW", "--host", "a b", "--name", "x"), "--host"),
        (("hub", "init", "NEW", "--host", "h", "--name", ""), "name"),
        (("hub", "init", "NEW", "--host", "h", "--name", "x", "--port", "0"), "--port"),
        (("hub", "init", "NEW", "--host", "h", "--name", "x", "--port", "web"), "whole number"),
        (("hub", "init", "HUB", "--host", "h", "--name", "x"), "lives there"),
        (("hub", "invite", "NEW", "ada"), "comity hub init"),
        (("hub", "invite", "HUB"), "name"),
        (("hub", "invite", "HUB", ""), "name"),
        (("hub", "invite", "HUB", "ada", "--hours", "0"), "hours"),
        (("hub", "invite", "HUB", "ada", "--role", "king"), "role"),
        (("hub", "parties", "NEW"), "comity hub init"),
        (("hub", "approve", "HUB", "eve"), "no"),
        (("hub", "suspend", "HUB", "eve"), "Invite it first"),
        (("hub", "remove", "HUB"), "name"),
        (("hub", "revoke", "HUB", "ada"), "revoke"),
        (("join", "https://h", "comity-abc", "--identity", "NEW"), "Copy all of it"),
        (("join", "https://h"), "token"),
        (("join", "https://h", "-", "--identity", "NEW"), "Copy all of it"),
        (("rotate", "--identity", "NEW"), "comity join"),
        (("rotate",), "--identity"),
    ],
)
def test_what_is_wrong_is_said(
    run: Any, hub: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], said: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("no token\n"))
    places = {"HUB": str(hub), "NEW": str(hub.parent / "new")}
    assert said in refused(run, *(places.get(arg, arg) for arg in args))
    assert not (hub.parent / "new").exists()


def test_a_hub_elsewhere_is_not_called_without_tls(run: Any, hub: Path) -> None:
    token = invited(run, hub)
    said = refused(run, "join", "http://hub.example", token, "--identity", hub.parent / "k")
    assert "https" in said
    assert token[:40] not in said
    said = refused(run, "join", "https://127.0.0.1:1", token, "--identity", hub.parent / "k", code=1)
    assert "127.0.0.1:1" in said
    assert token[:40] not in said


def test_a_hub_whose_key_others_may_read_invites_nobody(run: Any, hub: Path) -> None:
    (hub / "hub.key").chmod(0o644)
    assert "0644" in refused(run, "hub", "invite", hub, "ada")
