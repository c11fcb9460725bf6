"""Cases 2, 3, 4, 6, 7, 8, 13, 14 and 37: who dies at the worst place, and what is full, taken or expired."""

import errno
import hashlib
import importlib
import os
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import comity as co
from comity.service.client import Client
from comity.service.posting import Halted

made, between, carry, proxies = map(importlib.import_module, ("actors", "between", "carry", "proxies"))


def counted(run: Any) -> list[list[bool]]:
    return [e.facts["accepted"].tolist() for e in run.ledger if e.kind == "round"]


@pytest.mark.parametrize("path", ["/v1/reply", "/v1/agree", "/v1/upload", "/v1/tasks"])
def test_2_an_answer_of_the_hub_is_lost(path, tmp_path):
    """It did what was asked, and nobody heard: the same is asked again, answered the same, and counts once."""
    port, lost = proxies.free_port(), []

    def rule(came: Any) -> Any:
        if came.path.startswith(path) and len(lost) < 4 and came.body not in lost[-1:]:
            lost.append(came.body)
            return between.Cut()
        return None

    with between.Between(f"127.0.0.1:{port}", rule) as middle:
        run = carry.through(tmp_path, middle.url, port, "wide" if "upload" in path else "fedavg", 1)
    assert lost
    assert counted(run) == [[True] * 3]


def upload(hub: Any, data: bytes, at: int, piece: bytes) -> Any:
    said = {"Upload-Offset": str(at), "Upload-Length": str(len(data))}
    return hub.line("ada").ask("PUT", f"/v1/upload/{sha(data)}", piece, headers=said, patience=0.0)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("there", ["nothing", "half", "half a chunk", "all"])
def test_3_4_a_hub_that_dies_in_an_upload_goes_on_from_what_is_durable(there, hub, tmp_path):
    """Whatever was written of it before the hub died: the part file's length is the truth."""
    hub.ask("ada")
    task = hub.poll("ada")
    data = os.urandom(30_000)
    if there != "nothing":
        assert upload(hub, data, 0, data[:10_000]).status == 204
    if there == "all":
        assert upload(hub, data, 10_000, data[10_000:]).status == 201
    if there == "half a chunk":
        (part,) = tmp_path.rglob("*.part")
        part.write_bytes(data[:12_345])
    sent: list[int] = []
    line = hub.line("ada")
    ask = line.ask
    line.ask = lambda verb, path, body=b"", **more: (
        sent.append(len(getattr(body, "data", body))),
        ask(verb, path, body, **more),
    )[1]
    line.send(sha(data), data)
    want = {"nothing": 30_000, "half": 20_000, "half a chunk": 17_655, "all": 0}
    assert sum(sent) == want[there]
    assert [p.read_bytes() for p in tmp_path.rglob(sha(data))] == [data]
    assert hub.say("ada", task).status == 200
    assert hub.wait() == ["ada"]


class Dies(BaseException):
    """As a process that is killed: nothing is cleaned up."""


def lives(folder: Path, url: str, monkeypatch: Any, where: str) -> tuple[list[str], threading.Thread]:
    """Ada dies once at a place, and is begun again in the same folder; gives where it died."""
    died: list[str] = []
    answering = importlib.import_module("comity.service.answering").Answering
    real = Client.ask

    def ask(self: Any, method: str, path: str, body: bytes = b"", **more: Any) -> Any:
        if self.name == "ada" and path == where and not died:
            died.append(path)
            raise Dies
        return real(self, method, path, body, **more)

    def answer(self: Any, packet: Any) -> Any:
        if self.name == "ada" and where == "task" and not died:
            died.append("task")
            raise Dies
        return told(self, packet)

    told = answering.answer
    monkeypatch.setattr(Client, "ask", ask)
    monkeypatch.setattr(answering, "answer", answer)

    def run() -> None:
        try:
            carry.joined(folder, url, "ada", "wide")
        except Dies:
            carry.joined(folder, url, "ada", "wide")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return died, thread


@pytest.mark.parametrize("where", ["task", "/v1/reply"])
def test_6_7_a_site_that_dies_with_a_question_or_an_answer_in_hand(where, tmp_path, monkeypatch):
    """It is asked the same and says the same, once; what the hub has of its upload is not sent again."""
    port = proxies.free_port()
    with between.Between(f"127.0.0.1:{port}") as middle:
        died, ada = lives(tmp_path, middle.url, monkeypatch, where)
        with carry.sites(tmp_path, middle.url, "wide", names=("bob", "cyd")) as others:
            engine = made.network(tmp_path, port, url=middle.url, linger=3.0)
            run = carry.run_of(carry.wide(), 1, tmp_path / "run", engine)
        ada.join(20)
    assert (died, others) == ([where], [])
    assert made.bits(run.state) == made.bits(made.local("wide", 1).state)
    assert counted(run) == [[True] * 3]
    sent = sum(len(c.body) for c in middle.came if c.method == "PUT" and b'keyid="ada"' in _signature(c))
    assert 1_000_000 < sent < 1_300_000, "1.2 MB, once"


def _signature(came: Any) -> bytes:
    return str(came.headers.get("signature-input", "")).encode()


def test_8_two_processes_of_one_party(tmp_path):
    """From two folders: one takes part; the run has its answer once, and the other says what is wrong or is idle."""
    port = proxies.free_port()
    url = f"http://127.0.0.1:{port}"
    with carry.sites(tmp_path, url) as died, carry.sites(tmp_path / "second", url, names=("ada",)) as second:
        run = carry.run_of(made.fedavg(), 3, tmp_path / "run", made.network(tmp_path, port))
    assert counted(run) == [[True] * 3] * 3
    assert made.bits(run.state) == made.bits(made.local("fedavg", 3).state)
    assert all("folder" in str(error) for error in (*died, *second))


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_13_a_disk_that_is_full(call, hub, monkeypatch):
    """507, and nothing is forgotten; when there is room again the same goes through."""
    hub.ask("ada")
    task = hub.poll("ada")
    data = os.urandom(5000)

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as now:
        if call == "fsync":
            now.setattr("comity.ledger.blobs.os.fsync", full)
        else:
            now.setattr(Path, "replace", full)
        line = hub.line("ada")
        headers = {"Upload-Offset": "0", "Upload-Length": "5000"}
        got = line._once("PUT", f"/v1/upload/{sha(data)}", data, headers, 0.0)
    assert got.status == 507
    hub.line("ada").send(sha(data), data)
    assert int(hub.line("ada").ask("GET", f"/v1/upload/{sha(data)}").told["offset"]) == 5000
    assert hub.say("ada", task).status == 200
    assert hub.wait() == ["ada"]


def test_14_a_port_that_is_taken(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(co.ConfigError, match=f"listen on 127.0.0.1, port {port}"):
            made.fedavg().run(rounds=1, engine=made.network(tmp_path, port))


def certificate(folder: Path, name: str, days: float, issuer: Any = None) -> Any:
    """An authority (days >= 100), or a certificate for 127.0.0.1 from it. Writes NAME.crt and NAME.key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    called = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer, by = (issuer[1], issuer[0].subject) if issuer else (key, called)
    here = x509.IPAddress(importlib.import_module("ipaddress").ip_address("127.0.0.1"))
    built = (
        x509.CertificateBuilder(by, called, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([here]), critical=False)
        .sign(signer, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / f"{name}.crt").write_bytes(built.public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / f"{name}.key").write_bytes(private)
    return built, key


def test_37_a_certificate_that_has_expired(tmp_path):
    """The site says so and goes; under a renewed one the run is carried on to its end, with no round lost."""
    authority = certificate(tmp_path, "authority", 100.0)
    certificate(tmp_path, "old", -1.0, authority)
    certificate(tmp_path, "new", 1.0, authority)
    trusted, port = (tmp_path / "authority.crt").read_text(), proxies.free_port()
    url = f"https://127.0.0.1:{port}"

    def hub(which: str) -> Any:
        files = {"certificate": tmp_path / f"{which}.crt", "key": tmp_path / f"{which}.key"}
        return made.network(tmp_path, port, **files, linger=3.0)

    with importlib.import_module("comity.service.station").Station(hub("old")):
        line = Client(url, "ada", made.secret("ada"), trusted)
        with pytest.raises(co.ConfigError, match="must be trusted"):
            line.ask("GET", "/v1/health")
        line.close()
    with carry.sites(tmp_path, url, certificate=trusted) as died:
        run = carry.run_of(made.fedavg(), 2, tmp_path / "run", hub("new"))
    assert died == []
    assert counted(run) == [[True] * 3] * 2


def test_37_a_certificate_is_renewed_in_the_middle_of_a_run(tmp_path):
    """The hub is begun again with a new one of the same authority: sites wait for it, and no round is lost."""
    authority = certificate(tmp_path, "authority", 100.0)
    for name in ("first", "second"):
        certificate(tmp_path, name, 1.0, authority)
    trusted, port = (tmp_path / "authority.crt").read_text(), proxies.free_port()

    def part(which: str, rounds: int) -> Any:
        files = {"certificate": tmp_path / f"{which}.crt", "key": tmp_path / f"{which}.key"}
        station = importlib.import_module("comity.service.station").Station
        with station(made.network(tmp_path, port, **files)) as here:
            here.ending = False
            timer = threading.Timer(0.8, lambda: setattr(here, "ending", which == "first"))
            timer.start()
            try:
                return carry.run_of(made.fedavg(), rounds, tmp_path / "run", here.carrying(folder=tmp_path / "run"))
            except Halted:
                assert which == "first"
                return None
            finally:
                timer.cancel()
                time.sleep(0.5)

    with carry.sites(tmp_path, f"https://127.0.0.1:{port}", certificate=trusted) as died:
        assert part("first", 60) is None
        run = part("second", 60)
    assert died == []
    assert counted(run) == [[True] * 3] * 60
    assert made.bits(run.state) == made.bits(made.local("fedavg", 60).state)
