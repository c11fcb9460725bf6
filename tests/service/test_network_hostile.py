"""A hub that is lied to, cut off and asked by strangers, over HTTP."""

import hashlib
import importlib
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import comity as co
from comity.core.contribution import Contribution
from comity.core.wire import encode
from comity.running import Names
from comity.service import client, packets

sys.path.append(str(Path(__file__).parent))
made, asking = importlib.import_module("actors"), importlib.import_module("asking")

LARGE = np.arange(packets.INLINE // 4, dtype="float32")


def test_twice_late_and_otherwise(hub):
    hub.ask("ada", "bob", seconds=0.4)
    ada, bob = hub.poll("ada"), hub.poll("bob")
    assert hub.say("ada", ada).told == {"outcome": "accepted"}
    assert hub.say("ada", ada).told == {"outcome": "duplicate"}
    assert hub.say("ada", ada, "no").status == 409
    assert hub.wait() == ["ada"]
    late = hub.say("bob", bob)
    assert (late.status, late.told["reason"]) == (409, "No more answers to this are taken.")
    hub.ask("ada", "bob", seconds=0.4)
    assert hub.wait() == ["ada", "ada"], "what was closed is as it was"


def test_for_another_round_recipe_question_or_member(hub):
    hub.ask("ada", "bob")
    ada = hub.poll("ada")
    other = replace(ada.said.round, number=7)
    assert hub.say("ada", ada, round=other).status == 409
    assert hub.say("ada", ada, phase="score").status == 409
    assert hub.say("ada", ada, recipe="cd" * 32).told["reason"] == "This hub runs another recipe."
    assert hub.say("ada", ada._replace(ref=ada.ref._replace(sha="00" * 32))).status == 409
    assert hub.say("ada", ada, round=replace(ada.said.round, me="bob")).status == 403
    assert hub.say("ada", ada, sender="bob").status == 403
    assert hub.say("ada", ada, round=replace(ada.said.round, number=2**63)).status == 409
    for name in ("ada", "bob"):
        assert hub.say(name, hub.poll(name)).status == 200
    assert sorted(hub.wait()) == ["ada", "bob"]


def test_a_poll_consumes_nothing_and_a_newer_one_ends_the_older(hub):
    first: list[Any] = []
    old = threading.Thread(target=lambda: first.append(hub.line("ada").ask("GET", "/v1/tasks?wait=20", wait=20)))
    old.start()
    time.sleep(0.2)
    with pytest.raises(httpx.ReadTimeout):  # it hangs up
        hub.line("ada")._line.get(hub.url + "/v1/tasks?wait=9", timeout=0.2, headers=_signed(hub, "/v1/tasks?wait=9"))
    old.join(5)
    assert first[0].status == 204
    hub.ask("ada")
    assert hub.poll("ada").header == hub.poll("ada").header
    hub.say("ada", hub.poll("ada"))
    assert hub.wait() == ["ada"]


def _signed(hub: Any, path: str, method: str = "GET", body: bytes = b"", who: str = "ada") -> dict[str, str]:
    return hub.line(who)._signed(method, path, body, {})


def test_a_stranger_writes_nothing(hub, tmp_path):
    hub.ask("ada")
    task = hub.poll("ada")
    before = _files(tmp_path)
    for name in ("ada", "nobody"):
        with pytest.raises(co.ConfigError, match="must know"):
            hub.line(name, made.secret("mallory")).ask("POST", "/v1/reply", b"x")
        with pytest.raises(co.ConfigError, match="must know"):
            hub.line(name, made.secret("mallory")).ask("GET", "/v1/tasks")
    changed = _signed(hub, "/v1/reply", "POST", b"one")
    for path, body, headers in (
        ("/v1/reply", b"two", changed),
        ("/v1/upload/" + "ab" * 32, b"one", changed),
        ("/v1/reply", b"one", {}),
        ("/v1/reply", b"one", {**changed, "Upload-Offset": "0"}),
    ):
        verb = "PUT" if "upload" in path else "POST"
        got = httpx.request(verb, hub.url + path, content=body, headers=headers, trust_env=False)
        assert (got.status_code, sorted(got.json())) == (401, ["reason"])
    assert _files(tmp_path) == before
    assert hub.line("bob").ask("GET", f"/v1/blob/{task.ref.sha}").status == 404
    hub.say("ada", task)
    assert hub.wait() == ["ada"]


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.suffix != ".db-shm"}


def test_junk_is_refused_with_a_short_text(hub):
    hub.ask("ada")
    task = hub.poll("ada")
    header = packets.joined(task.header, task.ref, b"not it")
    for junk in (b"", b"\0" * 9, b"\xff\xff\xff\xff", header, header[:-1], packets.joined(task.header, task.ref, b"")):
        got = hub.line("ada").ask("POST", "/v1/reply", junk)
        assert got.status in (403, 422), junk
        assert len(got.body) < 300
    for path in ("/v1/blob/..%2Fhub.db", "/v1/blob/zz", "/v1/upload/%00", "/v1/nothing"):
        assert hub.line("ada").ask("GET", path).status == 404
    assert hub.line("ada").ask("PUT", f"/v1/upload/{'ab' * 32}", b"x").status == 400
    hub.say("ada", task)
    assert hub.wait() == ["ada"]


def test_too_large_is_refused_before_it_is_read(hub):
    hub.ask("ada")
    task = hub.poll("ada")
    much = {"Upload-Offset": "0", "Upload-Length": str(2**23 + 1)}
    got = hub.line("ada").ask("PUT", f"/v1/upload/{'ab' * 32}", b"x", headers=much)
    assert (got.status, got.told["most"]) == (413, 2**23)
    assert hub.line("ada").ask("POST", "/v1/reply", bytes(2**19)).status == 413
    with pytest.raises(co.ChannelError, match="at most"):
        hub.line("ada").send("ab" * 32, bytes(2**23 + 1))
    hub.say("ada", task)
    assert hub.wait() == ["ada"]


def test_an_upload_that_is_cut_goes_on_where_it_was(hub, tmp_path):
    hub.ask("ada", value=LARGE)
    task = hub.poll("ada")
    assert task.body is None
    body = encode(Contribution("said", {"x": LARGE}))
    sha = hashlib.sha256(body).hexdigest()
    part = {"Upload-Offset": "0", "Upload-Length": str(len(body))}
    me = hub.line("ada")
    assert me.ask("PUT", f"/v1/upload/{sha}", body[:1000], headers=part).status == 204
    assert me.ask("PUT", f"/v1/upload/{sha}", body[:1000], headers=part).told["offset"] == 1000
    assert hub.line("bob").ask("GET", f"/v1/upload/{sha}").told == {"offset": 0}
    assert hub.say("ada", task, LARGE).told["missing"] is True
    sent = []
    me.ask, real = lambda verb, path, data=b"", **k: (sent.append(len(data)), real(verb, path, data, **k))[1], me.ask  # type: ignore[method-assign]
    me.send(sha, body)
    assert sum(sent) == len(body) - 1000
    assert hub.say("ada", task, LARGE).status == 200
    assert hub.wait() == ["ada"]
    assert np.array_equal(hub.answers[0].body.value["x"], LARGE)


def test_an_upload_that_is_not_what_it_says_begins_anew(hub):
    hub.ask("ada", value=LARGE)
    task = hub.poll("ada")
    said = {"Upload-Offset": "0", "Upload-Length": "3"}
    got = hub.line("ada").ask("PUT", f"/v1/upload/{'ab' * 32}", b"abc", headers=said)
    assert (got.status, got.told["offset"]) == (422, 0)
    assert hub.line("ada").ask("GET", f"/v1/upload/{'ab' * 32}").told == {"offset": 0}
    hub.say("ada", task)


def test_a_download_that_is_cut_goes_on_where_it_was(hub, tmp_path):
    hub.ask("ada", value=LARGE)
    task = hub.poll("ada")
    whole = hub.line("ada").fetch(task.ref.sha, task.ref.size, tmp_path)
    (tmp_path / f"{task.ref.sha}.part").write_bytes(whole[:5000])
    assert hub.line("ada").fetch(task.ref.sha, task.ref.size, tmp_path) == whole
    (tmp_path / f"{task.ref.sha}.part").write_bytes(bytes(5000))
    with pytest.raises(co.ChannelError, match="what it named"):
        hub.line("ada").fetch(task.ref.sha, task.ref.size, tmp_path)
    hub.say("ada", task)
    assert hub.wait() == ["ada"]


def test_two_hubs_do_not_share_a_folder(hub, tmp_path):
    with pytest.raises(co.ConfigError, match="already has"):
        made.network(tmp_path).connect(Names({}), None)  # type: ignore[arg-type]


def test_secrets_are_not_shown(tmp_path):
    shown = repr(made.network(tmp_path)) + repr(client.Client("http://x", "ada", made.secret("ada")))
    assert made.HUB.root.hex() not in shown
    assert "SideSecret" not in shown
