"""`comity serve`: studies one after the other, through failures, interrupts, restarts and a backup put back."""

import importlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

import comity as co
from comity.cli import STOPPED
from comity.ledger.audit import audit
from comity.service import opening, versions
from comity.service.answering import Answering
from comity.service.conducting import Job, Stop, Training
from comity.service.keeping import backup, restore
from comity.service.keys import trusting
from comity.service.logs import Log
from comity.service.opening import jobs_of, opened, wanted
from comity.service.posting import Halted
from comity.service.registry import Registry
from comity.service.runs import Runs
from comity.service.studies import Study

houses = importlib.import_module("houses")  # beside this file, see conftest.py
NAMES, made, study, local, kept = houses.NAMES, houses.made, houses.study, houses.local, houses.kept


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(sys, "path", sys.path[:])
    one = made(tmp_path / "hub")
    yield one
    one.close()


def training(*paths: Path) -> list[Job]:
    return [Training(Study.load(path), minimum=2) for path in paths]


BROKEN = """

class Broken:
    def contribute(self, shared, local, round, secret):
        raise ValueError("no data today")


def participant(data):
    return Broken()
"""


def test_studies_are_carried_one_after_the_other_though_one_fails(place: Any, tmp_path: Path) -> None:
    first, bad, last = study(tmp_path), study(tmp_path, "bad", seed=2), study(tmp_path, "last", seed=3)
    bad.write_text(bad.read_text() + BROKEN)
    jobs = training(first, bad, last)
    place.sites(first, bad, last)
    assert place.carry(jobs) == 1
    states = {row.title: (row.state, row.why) for row in place.rows()}
    assert states["First"] == states["Last"] == ("over", "")
    assert states["Bad"][0] == "failed"
    assert "no data today" in place.said.getvalue()
    assert place.events("failed")[0]["level"] == "error"
    for path in (first, last):
        folder = place.folder / "runs" / path.stem
        assert audit(folder).ok
        assert kept(folder, path) == local(path, 3)
    assert [e["round"] for e in place.events("round") if e["study"] == "last"] == [1, 2, 3]
    assert place.carry(jobs[:1]) == 0
    assert "over since" in place.events("settled")[0]["text"]
    assert place.carry(jobs[1:2]) == 1  # what failed is tried again
    assert len(place.events("failed")) == 2


def at_round(place: Any, name: str, number: int) -> None:
    """Wait until so many rounds of a study have closed."""
    ends = time.monotonic() + 20
    while time.monotonic() < ends:
        if len([e for e in place.events("round") if e["study"] == name]) >= number:
            return
        time.sleep(0.005)
    raise AssertionError(place.said.getvalue())


def test_a_hub_that_ends_goes_on_where_it_was(place: Any, tmp_path: Path) -> None:
    path = study(tmp_path, rounds=20)
    place.sites(path)

    def end(station: Any, stop: Stop) -> None:
        at_round(place, "first", 3)
        with suppress(KeyboardInterrupt):  # between two rounds
            stop.ask()

    with pytest.raises(Halted):
        place.carry(training(path), during=end)
    here = audit(place.folder / "runs" / "first").rounds
    assert 3 <= here < 20
    assert [row.state for row in place.rows()] == ["running"]
    assert place.carry(training(path)) == 0
    assert [(row.state, row.title) for row in place.rows()] == [("over", "First")]
    assert kept(place.folder / "runs" / "first", path) == local(path, 20)
    assert audit(place.folder / "runs" / "first").ok


def test_what_an_operator_stopped_waits_until_it_is_asked_for(place: Any, tmp_path: Path) -> None:
    path = study(tmp_path, rounds=20)
    place.sites(path)

    def wish(station: Any, stop: Stop) -> None:
        at_round(place, "first", 2)
        station.runs.wish(station.runs.all()[0].run, "stop", "the operator")

    assert place.carry(training(path), during=wish) == 0
    assert [row.state for row in place.rows()] == ["stopped"]
    rounds = audit(place.folder / "runs" / "first").rounds
    assert rounds < 20
    assert place.carry(training(path)) == 0
    assert "stopped by an operator" in place.events("settled")[0]["text"]
    assert audit(place.folder / "runs" / "first").rounds == rounds
    assert place.carry(training(path), again=True) == 0
    assert [row.state for row in place.rows()] == ["over"]


def test_what_is_wished_on_a_page_is_done_at_once(place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not when the hub looks again, some seconds later."""
    fronts: list[Any] = []
    monkeypatch.setattr(opening, "pages", lambda front: fronts.append(front) or [])
    took: list[float] = []
    path = study(tmp_path, rounds=5000)
    place.sites(path)

    def wish(station: Any, stop: Stop) -> None:
        at_round(place, "first", 2)
        began, run = time.monotonic(), station.runs.all()[0].run
        fronts[0].runs.wish(run, "stop now", "the operator")
        while station.runs.find(run).state == "running" and time.monotonic() < began + 10:
            time.sleep(0.01)
        took.append(time.monotonic() - began)

    assert place.carry(training(path), during=wish) == 0
    assert [row.state for row in place.rows()] == ["stopped"]
    assert took[0] < 2.0


def test_a_backup_of_a_hub_at_work_is_put_back_and_goes_on(place: Any, tmp_path: Path) -> None:
    path = study(tmp_path, rounds=20)
    place.sites(path)

    def lose(station: Any, stop: Stop) -> None:
        at_round(place, "first", 3)
        run = station.runs.all()[0].run
        station.runs.wish(run, "pause", "the operator")
        while station.runs.find(run).state != "paused":
            time.sleep(0.005)
        time.sleep(0.2)  # parties sign the last head that they saw
        assert backup(place.folder, tmp_path / "hub.tar").faults == ()
        with suppress(KeyboardInterrupt):
            stop.ask()
        station.runs.wish(run, "go", "the operator")

    with pytest.raises(Halted):
        place.carry(training(path), during=lose)
    shutil.rmtree(place.folder)
    assert restore(tmp_path / "hub.tar", place.folder)[1] == ()
    db = versions.opened(place.folder, "")
    Runs(db).wish(Runs(db).all()[0].run, "go", "the operator")
    db.close()
    assert place.carry(training(path)) == 0
    assert kept(place.folder / "runs" / "first", path) == local(path, 20)
    assert audit(place.folder / "runs" / "first").ok


def test_a_run_waits_for_all_that_were_invited_and_for_two_at_least(place: Any, tmp_path: Path) -> None:
    job = Training(Study.load(study(tmp_path)))
    with Registry.open(place.folder) as registry:
        assert wanted(job, registry) == 2
        registry.invite("cyd", bytes(32))
        registry.invite("eve", bytes(32), role="auditor")
        assert wanted(job, registry) == 3
        for name in (*NAMES, "cyd"):
            registry.remove(name)
        assert wanted(job, registry) == 2
        assert wanted(Training(job.study, minimum=5), registry) == 5
        assert wanted(Training(job.study, parties=("ada",)), registry) is None


COMPARE = """
[compare]
target = "readmitted"
rounds = 5
minimum = 2
words = "hashed"
"""


def test_what_is_carried_stands_in_the_settings(place: Any, tmp_path: Path) -> None:
    file = place.folder / "hub.toml"
    text = file.read_text()
    study(place.folder, "own")
    file.write_text(f'{text}[[study]]\nfile = "own.py"\nrounds = 7\n{COMPARE}')
    own, named, compared, other = jobs_of(place.settings, [study(tmp_path)], ["readmitted", "died"], minimum=3)
    assert (own.name, own.closed, own.minimum) == ("own", 7, 3)  # type: ignore[attr-defined]
    assert (named.name, named.closed) == ("first", 3)  # type: ignore[attr-defined]
    assert (compared.name, compared.minimum) == ("compare-readmitted", 2)  # type: ignore[attr-defined]
    plain = other.terms.plain  # type: ignore[attr-defined]
    assert (plain["target"], plain["rounds"], plain["words"]) == ("died", 5, "hashed")
    assert [job.name for job in jobs_of(place.settings)] == ["own", "compare-readmitted"]
    with pytest.raises(co.ConfigError, match="Got own twice"):
        jobs_of(place.settings, [study(tmp_path, "own")])
    file.write_text(text + COMPARE.replace("rounds", "round"))
    with pytest.raises(co.ConfigError, match=r"\[compare\] in .*hub\.toml .*Did you mean 'rounds'"):
        jobs_of(place.settings)


def test_the_first_wish_to_end_waits_for_the_round_the_second_does_not() -> None:
    said: list[str] = []
    stop = Stop(lambda: said.append("waits"))
    stop.station = SimpleNamespace(hub=SimpleNamespace(inside=True), ending=False)
    stop.ask()
    assert (stop.station.ending, said) == (True, ["waits"])
    with pytest.raises(KeyboardInterrupt):
        stop.ask()
    with pytest.raises(KeyboardInterrupt):
        Stop(lambda: None).ask()


@contextmanager
def command(*args: str | Path) -> Iterator[subprocess.Popen[str]]:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = [sys.executable, "-c", "from comity.cli import main; main()", *map(str, args)]
    with subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(*args: str | Path) -> tuple[int, str, str]:
    with command(*args) as process:
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err


@pytest.mark.slow
def test_the_command_serves_refuses_a_second_hub_and_ends_when_told(place: Any, tmp_path: Path) -> None:
    path = study(tmp_path)
    with command("serve", place.folder, path) as process:
        assert process.stdout is not None
        head = [process.stdout.readline() for _ in range(5)]
        assert [line.split()[0] for line in head] == ["hub", "page", "recipe", "parties", "begins"]
        assert Study.load(path).hash in head[2]
        url = place.settings.url
        assert httpx.get(f"{url}/healthz").json() == {"database": "ok", "disk": "ok"}
        assert httpx.get(f"{url}/metrics").status_code == 401
        assert httpx.get(f"{url}/").status_code in (200, 303)
        code, _, err = ended("serve", place.folder)
        assert (code, err.split()[0]) == (2, "error")
        assert "using" in err
        other = made(tmp_path / "other")
        text = (other.folder / "hub.toml").read_text().replace(str(other.port), str(place.port))
        (other.folder / "hub.toml").write_text(text)
        code, _, err = ended("serve", other.folder)
        assert code == 2
        assert f"port {place.port}" in err
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == STOPPED + signal.SIGINT
    assert "Run the same command to go on." in err
    assert json.loads(err.splitlines()[0])["event"] == "state"


@pytest.mark.slow
def test_the_command_carries_and_ends(place: Any, tmp_path: Path) -> None:
    path = study(tmp_path)
    place.sites(path)
    code, out, err = ended("serve", place.folder, path, "--once", "--minimum", "2")
    assert (code, [json.loads(line)["round"] for line in err.splitlines() if '"round"' in line]) == (0, [1, 2, 3])
    assert "minimum" not in out


def test_a_hub_that_ends_by_itself_tells_everybody_first(
    place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However late they ask: else they would call a hub that is gone."""
    path = study(tmp_path, rounds=1)
    step = Answering.step
    monkeypatch.setattr(Answering, "step", lambda self: (time.sleep(0.7), step(self))[1])
    place.sites(path, stay=False)
    code, _, err = ended("serve", place.folder, path, "--once", "--minimum", "2")
    assert code == 0, err
    for thread in place.threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in place.threads)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["absent"], "must be the folder of a hub"),
        (["hub", "absent.py"], "must be a study that can be read"),
        (["hub", "bad.py"], "line 1 must run"),
        (["hub", "--minimum", "0"], "whole number"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_door_is_open(
    place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], says: str
) -> None:
    from comity import cli

    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.py").write_text("1 / 0\n")
    monkeypatch.setattr(sys, "argv", ["comity", "serve", *args])
    err = io.StringIO()
    monkeypatch.setattr(sys, "stderr", err)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert says in " ".join(err.getvalue().split())


def authority(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate of a client that signs itself, and a file with it and its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    called = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(called, called, key.public_key(), 1)
    made = builder.not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(1)).sign(key, SHA256())
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / f"{name}.crt").write_bytes(made.public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    (folder / f"{name}.pem").write_bytes(made.public_bytes(pem) + private)
    return folder / f"{name}.crt", folder / f"{name}.pem"


def test_the_outer_gate_lets_nobody_through_without_a_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMITY_CLIENT_CERT", "")
    place = made(tmp_path / "hub")
    crt, pem = authority(tmp_path, "site.example")
    _, other = authority(tmp_path, "other.example")
    text = (place.folder / "hub.toml").read_text().replace("http://", "https://")
    more = f'certificate = "tls.crt"\ncertificate_key = "tls.key"\nmutual_tls = "{crt}"\n'
    (place.folder / "hub.toml").write_text(text + more)
    trusted = (place.folder / "tls.crt").read_text()
    with opened(place.settings, Log("text", io.StringIO())):
        for shown in ("", str(other)):
            monkeypatch.setenv("COMITY_CLIENT_CERT", shown)
            with pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)):
                httpx.get(f"{place.settings.url}/healthz", verify=trusting(trusted))
        monkeypatch.setenv("COMITY_CLIENT_CERT", str(pem))
        assert httpx.get(f"{place.settings.url}/healthz", verify=trusting(trusted)).status_code == 200
    monkeypatch.setenv("COMITY_CLIENT_CERT", str(crt))
    with pytest.raises(co.ConfigError, match="a certificate and its key"):
        trusting(trusted)


def test_large_bodies_lie_in_a_store_of_objects(place: Any, tmp_path: Path) -> None:
    """A model that is large both ways; at the end nothing is left in the store, and no run is another for it."""
    file, store = place.folder / "hub.toml", tmp_path / "store"
    file.write_text(file.read_text() + f'blobs = "file://{store}"\n')
    path = tmp_path / "wide.py"
    text = houses.STUDY.format(rounds=2, title="Wide", seed=1, inputs=40_000)
    path.write_text(text.replace("inputs=4,", "inputs=40_000,"))
    seen: set[str] = set()
    health = []

    def during(station: Any, stop: Any) -> None:
        health.append(httpx.get(f"{place.settings.url}/healthz").json())
        while not (rows := station.runs.all()) or rows[0].state != "over":
            seen.update(p.relative_to(store).parts[1] for p in store.rglob("*") if len(p.name) == 64)
            time.sleep(0.002)

    place.sites(path)
    assert place.carry([Training(Study.load(path))], during=during) == 0
    assert kept(place.folder / "runs" / "wide", path) == local(path, 2)
    assert seen == {"up", "down"}
    assert health == [{"database": "ok", "disk": "ok", "store": "ok"}]
    assert [p for p in store.rglob("*") if p.is_file()] == []
    (place.folder / "hub.toml").write_text(file.read_text().replace("file://", "zzz://"))
    with pytest.raises(co.ConfigError, match="'blobs'"), opened(place.settings, Log("text", io.StringIO())):
        pass
