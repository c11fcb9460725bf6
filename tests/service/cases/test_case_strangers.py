"""Cases 30 to 34, 37 and 38: strangers, replays, clocks, guesses, forged headers, and answers that are poison."""

import importlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import comity as co
from comity.core.contribution import Contribution
from comity.core.envelope import Envelope
from comity.core.wire import encode
from comity.service import packets
from comity.service.client import Client
from comity.service.invitations import Invitation
from comity.service.registry import Registry

made, carry = map(importlib.import_module, ("actors", "carry"))
TASKS = "/v1/tasks?run=run&wait=0"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """Of the hub in tmp_path/hub: ada and bob are approved."""
    with Registry.open(tmp_path / "hub") as made_here:
        for name in ("ada", "bob"):
            token = made_here.invite(name, made.HUB.public_key())
            made_here.enrol(Invitation.read(token).secret, name, made.KEYS[name])
            made_here.approve(name)
        yield made_here


@pytest.fixture
def served(registry: Registry, tmp_path: Path, request: Any) -> Iterator[Any]:
    """A station of the registry. Gives: its URL."""
    station = importlib.import_module("comity.service.station").Station
    network = co.Network("127.0.0.1:0", tmp_path / "hub", identity=made.HUB, parties=registry)
    with station(network) as here:
        yield here


def signed(url: str, path: str, *, method: str = "GET", body: bytes = b"", who: str = "ada", key: str = "") -> Any:
    line = Client(url, who, made.secret(key or who))
    return line._signed(method, path, body, {})


def sent(url: str, path: str, headers: Any, *, method: str = "GET", body: bytes = b"") -> httpx.Response:
    return httpx.request(method, url + path, headers=headers, content=body or None, trust_env=False)


def test_30_whoever_is_not_known_learns_nothing(served, registry, capsys):
    """Nobody, another's key, a party that waits, one that was removed: the same answer, and no word of who it was."""
    url = served.url
    token = registry.invite("cyd", made.HUB.public_key())
    registry.enrol(Invitation.read(token).secret, "cyd", made.KEYS["cyd"])
    assert sent(url, TASKS, signed(url, TASKS)).status_code in (204, 404)
    registry.remove("ada")
    answers = {
        sent(url, TASKS, headers).content
        for headers in (
            {},
            signed(url, TASKS, who="nobody"),
            signed(url, TASKS, who="bob", key="mallory"),
            signed(url, TASKS, who="cyd"),
            signed(url, TASKS),
        )
    }
    assert len(answers) == 1
    assert all(sent(url, TASKS, h).status_code == 401 for h in ({}, signed(url, TASKS)))
    assert not any(name in str(answers) + capsys.readouterr().err for name in ("ada", "cyd", "mallory"))


def test_31_what_is_signed_is_for_one_request(served):
    """Its method, path, query and body: anything else under the same signature is a stranger's."""
    url, path = served.url, "/v1/ledger?run=run&after=0"
    headers = signed(url, path)
    assert sent(url, path, headers).status_code == 404
    assert sent(url, "/v1/ledger?run=run&after=1", headers).status_code == 401
    assert sent(url, "/v1/ledger", headers).status_code == 401
    assert sent(url, "/v1/tasks?run=run&after=0", headers).status_code == 401
    post = signed(url, "/v1/reply", method="POST", body=b"one")
    assert sent(url, "/v1/reply", post, method="POST", body=b"one").status_code == 422
    assert sent(url, "/v1/reply", post, method="POST", body=b"two").status_code == 401
    put = "/v1/upload/" + "ab" * 32
    assert sent(url, put, signed(url, put), method="PUT").status_code == 401
    assert sent(url, put, {**signed(url, put, method="PUT"), "Upload-Offset": "0"}, method="PUT").status_code == 401


AGREE = b'{"run": "run"}'


def test_32_a_write_counts_once(served, registry, tmp_path):
    """Recorded and sent again: refused within the window, after it, after a restart, and by another hub."""
    url = served.url
    headers = signed(url, "/v1/agree", method="POST", body=AGREE)
    first = sent(url, "/v1/agree", headers, method="POST", body=AGREE)
    assert first.status_code in (404, 422)
    assert sent(url, "/v1/agree", headers, method="POST", body=AGREE).status_code == 401
    again = importlib.import_module("comity.service.station").Station
    port = url.rpartition(":")[2]
    served.close()
    network = co.Network(f"127.0.0.1:{port}", tmp_path / "hub", identity=made.HUB, parties=registry)
    with again(network):
        assert sent(url, "/v1/agree", headers, method="POST", body=AGREE).status_code == 401
    with Registry.open(tmp_path / "hub", clock=lambda: time.time() + 3600) as later:
        network = co.Network(f"127.0.0.1:{port}", tmp_path / "hub", identity=made.HUB, parties=later)
        with again(network):
            assert sent(url, "/v1/agree", headers, method="POST", body=AGREE).status_code == 401
    other = co.Network("127.0.0.1:0", tmp_path / "other", identity=made.HUB, parties=made.KEYS)
    with again(other) as elsewhere:
        assert elsewhere.url != url
        assert sent(elsewhere.url, "/v1/agree", headers, method="POST", body=AGREE).status_code == 401


@pytest.mark.parametrize("off", [600.0, -600.0, 86400.0, -86400.0])
def test_33_a_clock_that_is_wrong_is_put_right_by_the_hub(hub, off, monkeypatch):
    hub.ask("ada")
    hub.poll("ada")
    line = hub.line("ada")
    real = time.time
    clock = type("Clock", (), {"time": staticmethod(lambda: real() + off), "monotonic": staticmethod(time.monotonic)})
    monkeypatch.setattr("comity.service.client.time", clock)
    assert line.ask("GET", TASKS).status == 200
    assert abs(line._clock + off) < 5.0
    monkeypatch.undo()
    hub.say("ada", hub.poll("ada"))
    assert hub.wait() == ["ada"]


def test_34_what_is_anothers_is_as_if_it_were_not_there(hub):
    """Questions, bodies, uploads: the same answer as for what does not exist."""
    hub.ask("ada", value=np.zeros(packets.INLINE))
    task = hub.poll("ada")
    bob = hub.line("bob")
    there, absent = bob.ask("GET", f"/v1/blob/{task.ref.sha}"), bob.ask("GET", f"/v1/blob/{'ab' * 32}")
    assert there == absent
    assert there.status == 404
    assert bob.ask("GET", TASKS).status == 204
    data = os.urandom(1000)
    sha = importlib.import_module("hashlib").sha256(data).hexdigest()
    said = {"Upload-Offset": "0", "Upload-Length": "1000"}
    assert hub.line("ada").ask("PUT", f"/v1/upload/{sha}", data[:500], headers=said).status == 204
    assert bob.ask("GET", f"/v1/upload/{sha}").told == {"offset": 0}
    assert bob.ask("PUT", f"/v1/upload/{sha}", data[:500], headers=said).status == 409
    assert hub.say("bob", task).status == 403
    hub.say("ada", task)
    assert hub.wait() == ["ada"]


def test_37_headers_of_proxies_prove_nothing(served):
    """Neither who it is nor where it comes from: nobody is let in, and nobody kept out, by them."""
    forged = {
        "X-Client-DN": "CN=ada",
        "X-Forwarded-For": "127.0.0.1",
        "X-Forwarded-Host": "hub",
        "Forwarded": "for=ada",
    }
    assert sent(served.url, TASKS, forged).status_code == 401
    assert sent(served.url, TASKS, {**signed(served.url, TASKS), **forged}).status_code in (204, 404)


class Poison:
    """A participant that sends what it should not, once."""

    def __init__(self, inner: Any, value: Any) -> None:
        self.inner, self.value, self.left = inner, value, 1

    def contribute(self, shared: Any, local: Any, round: Any, secret: Any) -> Any:
        said, after = self.inner.contribute(shared, local, round, secret)
        if not self.left or shared.kind == "score":
            return said, after
        self.left -= 1
        return Contribution(said.kind, self.value(said.value), said.weight, said.metrics), after


def spoilt(change: Any) -> Any:
    """The same tree, each array changed."""

    def each(tree: Any) -> Any:
        return {k: each(v) for k, v in tree.items()} if isinstance(tree, dict) else change(np.asarray(tree))

    return each


@pytest.mark.parametrize(
    "value",
    [spoilt(lambda a: a * np.nan), spoilt(lambda a: a[..., None])],
    ids=["nan", "shape"],
)
def test_38_poison_is_refused_and_the_round_goes_on(value, tmp_path, monkeypatch):
    """Named in the ledger; what the others sent counts, as if that party had not answered."""
    make, participant = made.WORKS["fedavg"]
    bad = lambda name: Poison(participant(name), value) if name == "cyd" else participant(name)  # noqa: E731
    monkeypatch.setitem(made.WORKS, "poison", (make, bad))
    port = importlib.import_module("proxies").free_port()
    with carry.sites(tmp_path, f"http://127.0.0.1:{port}", "poison") as died:
        run = carry.run_of(make(), 2, tmp_path / "run", made.network(tmp_path, port))
    assert died == []
    assert [(n, who) for n, who, _ in run.ledger.refused] == [(0, "cyd")]
    assert all(np.isfinite(leaf).all() for leaf in _leaves(run.shared))
    assert run.ledger.rounds == 2


def _leaves(tree: Any) -> list[Any]:
    if isinstance(tree, dict):
        return [leaf for value in tree.values() for leaf in _leaves(value)]
    return [np.asarray(getattr(tree, "value", tree), dtype="float64")] if not isinstance(tree, str) else []


def test_38_bytes_that_claim_to_be_enormous(hub):
    """A body whose arrays are declared larger than it is: a reason for the loop, not memory."""
    hub.ask("ada")
    task = hub.poll("ada")
    honest = encode(Contribution("said", {"x": np.zeros(8)}))
    for lie in (honest[:-8], honest + bytes(100), b"\xff" * 64, honest.replace(b"\x08", b"\xff", 1)):
        said = Envelope(task.said.round, task.said.phase, "ada", task.said.recipe, Contribution("said", None))
        head, ref = packets.header(said, lie, asked=task.ref.sha)
        got = hub.line("ada").ask("POST", "/v1/reply", packets.joined(head, ref, lie))
        assert got.status in (200, 409, 422)
        if got.status == 200:
            break
    assert hub.wait() == ["ada"]
    assert hub.answers[0].body.kind in ("error", "said")
