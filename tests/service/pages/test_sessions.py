"""Logging in: links that work once, sessions that end, and what is kept of them."""

import sqlite3
from typing import Any

import pytest
from scene import Scene, secret

from comity.core.errors import ConfigError
from comity.service.pages.sessions import LINK, SESSION, Sessions


class Clock:
    now = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(scene: Scene) -> Clock:
    made = Clock()
    scene.sessions = Sessions(scene.registry, made)
    return made


def test_a_link_logs_in_once(scene: Scene) -> None:
    link = scene.sessions.link("Keller", "operator")
    cookie = scene.sessions.redeem(link)
    assert cookie
    assert scene.sessions.redeem(link) is None
    assert scene.sessions.redeem("x" * 43) is None
    assert scene.sessions.find("x" * 43) is None
    assert scene.sessions.find("") is None


def test_a_link_and_a_session_expire(scene: Scene, clock: Clock) -> None:
    link, other = (scene.sessions.link("Keller", "operator") for _ in range(2))
    clock.now += LINK - 1
    cookie = scene.sessions.redeem(link)
    clock.now += 2
    assert scene.sessions.offered(other) is None
    assert scene.sessions.redeem(other) is None
    assert cookie
    assert scene.sessions.find(cookie) is not None
    clock.now += SESSION
    assert scene.sessions.find(cookie) is None


def test_looking_at_a_link_does_not_use_it_up(ask: Any, scene: Scene) -> None:
    link = scene.sessions.link("Keller", "operator")
    for _ in range(3):
        assert "Log in as Keller" in ask(f"/login/{link}").text
    got = ask("/login", link=link)
    assert (got.status_code, got.headers["location"]) == (303, "/")
    assert ask(f"/login/{link}").status_code == 410
    assert ask("/login", link=link).status_code == 410


def test_the_cookie_is_for_this_hub_alone(ask: Any, scene: Scene) -> None:
    got = ask("/login", link=scene.sessions.link("Keller", "operator"))
    said = got.headers["set-cookie"].lower()
    assert all(word in said for word in ("httponly", "samesite=strict", "path=/", "max-age=43200"))
    assert "secure" not in said
    assert "domain" not in said


def test_under_tls_the_cookie_is_secure(scene: Scene) -> None:
    from starlette.responses import Response

    from comity.service.pages.guard import remember

    answer = Response()
    remember(answer, "https://hub.example", "abc")
    said = answer.headers["set-cookie"]
    assert said.startswith("__Host-comity=abc;")
    assert "Secure" in said
    assert "Path=/" in said


def test_nothing_that_lets_in_is_kept(scene: Scene) -> None:
    link, used = (scene.sessions.link("Keller", "operator") for _ in range(2))
    cookie = scene.sessions.redeem(used)
    assert cookie
    who = scene.sessions.find(cookie)
    assert who
    assert cookie not in repr(who)
    assert who.token not in repr(who)
    with sqlite3.connect(scene.folder / "hub" / "hub.db") as db:
        rows = "".join(db.iterdump())
    db.close()
    assert "logged in as operator" in rows
    assert not any(text in rows for text in (link, used, cookie, who.token))


@pytest.mark.parametrize("change", ["suspend", "remove"])
def test_the_session_of_a_party_ends_with_its_approval(scene: Scene, ask: Any, change: str) -> None:
    who = scene.logged_in("Basel", "party", "key")
    assert ask("/", who).status_code == 200
    getattr(scene.registry, change)("Basel")
    got = ask("/", who)
    assert (got.status_code, got.headers["location"]) == (303, "/login")


def test_a_link_made_before_the_party_was_removed_logs_nobody_in(scene: Scene) -> None:
    link = scene.sessions.link("Basel", "party", source="key")
    scene.registry.remove("Basel")
    cookie = scene.sessions.redeem(link)
    assert cookie is None or scene.sessions.find(cookie) is None


def test_a_party_is_what_the_registry_says(scene: Scene) -> None:
    scene.party("Audit AG", role="auditor")
    scene.logged_in("Audit AG", "auditor", "key")
    for name, role, source in (
        ("Basel", "operator", "key"),
        ("Basel", "auditor", "key"),
        ("Nobody", "party", "folder"),
    ):
        with pytest.raises(ConfigError, match="approved"):
            scene.sessions.link(name, role, source=source)
    with pytest.raises(ConfigError, match="role"):
        scene.sessions.link("Basel", "king")


def test_everybody_can_be_logged_out(scene: Scene, ask: Any) -> None:
    first, second = scene.logged_in(), scene.logged_in()
    link = scene.sessions.link("Keller", "operator")
    other = scene.logged_in("Meier", "auditor")
    assert scene.sessions.end_all("Keller") == 3
    assert scene.sessions.redeem(link) is None
    assert [ask("/", who).status_code for who in (first, second, other)] == [303, 303, 200]


def test_logging_out_ends_the_session_and_no_other_site_can(scene: Scene, ask: Any) -> None:
    who = scene.logged_in()
    assert ask("/logout", who, headers={"Origin": "https://evil.example"}).status_code == 403
    ask("/logout", (who[0], "wrong"), headers={})
    assert ask("/", who).status_code == 200
    assert ask("/logout", who, headers={}).headers["location"] == "/login"
    assert ask("/", who).status_code == 303


def test_the_key_of_a_party_gives_a_link(scene: Scene, line: Any) -> None:
    """POST /v1/login, signed."""
    import time

    from comity.service.signatures import Request, sign

    scene.party("Geneva", "waiting")

    def asked(name: str, key: str, nonce: str) -> Any:
        request = Request("POST", f"{scene.url}/v1/login", {"Comity-Protocol": "1"}, b"")
        headers = sign(request, secret(key), keyid=name, created=int(time.time()), nonce=nonce)
        return line("POST", "/v1/login", headers={"Comity-Protocol": "1", **headers})

    got = asked("Basel", "Basel", "n" * 16)
    assert got.status_code == 200, got.text
    assert got.json()["role"] == "party"
    assert "Log in as Basel" in line("GET", got.json()["path"]).text
    assert asked("Basel", "Basel", "n" * 16).status_code == 401  # a replay
    assert asked("Basel", "Bern", "m" * 16).status_code == 401
    assert asked("Geneva", "Geneva", "o" * 16).status_code == 401
    assert line("POST", "/v1/login").status_code == 401
