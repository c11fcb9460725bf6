"""Cases 24 to 28: proxies, terminators, inspectors and portals between sites and hub."""

import importlib
import ssl
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import comity as co
from comity.service.keys import make_certificate

made, between, carry, proxies = map(importlib.import_module, ("actors", "between", "carry", "proxies"))

HTML = (("content-type", "text/html"),)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: Any) -> tuple[Path, Path]:
    """Files of a certificate for 127.0.0.1, and of its key."""
    folder = tmp_path_factory.mktemp("tls")
    private, certificate = make_certificate(["127.0.0.1", "localhost"])
    (folder / "tls.key").write_bytes(private)
    (folder / "tls.crt").write_bytes(certificate)
    return folder / "tls.crt", folder / "tls.key"


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_24_a_proxy_that_fails_is_asked_again(hub, status):
    left = [3]

    def rule(came: Any) -> Any:
        left[0] -= 1
        return between.Give(status, b"<html>no</html>", HTML) if left[0] >= 0 else None

    hub.ask("ada")
    task = hub.poll("ada")
    with between.Between(hub.url.removeprefix("http://"), rule) as bad:
        line = hub.line("ada")
        line.url = bad.url
        assert line.ask("GET", "/v1/tasks?run=run&wait=1").body.endswith(task.body)
        line.close()
    assert len(bad.came) == 4
    hub.say("ada", task)
    assert hub.wait() == ["ada"]


def test_24_retry_after_is_kept(hub):
    came_at: list[float] = []

    def rule(came: Any) -> Any:
        came_at.append(time.monotonic())
        return between.Give(503, b"later", (("retry-after", "1"),)) if len(came_at) == 1 else None

    with between.Between(hub.url.removeprefix("http://"), rule) as bad:
        line = hub.line("ada")
        line.url = bad.url
        assert line.ask("GET", "/v1/health").status == 200
        line.close()
    assert came_at[1] - came_at[0] >= 1.0


@pytest.mark.parametrize("status", [401, 403, 422])
def test_24_what_will_not_come_right_is_not_asked_again(hub, status):
    with between.Between(hub.url.removeprefix("http://"), lambda came: between.Give(status, b"{}")) as bad:
        line = hub.line("ada")
        line.url = bad.url
        if status == 401:
            with pytest.raises(co.ConfigError, match="must know 'ada'"):
                line.ask("GET", "/v1/tasks")
        else:
            assert line.ask("GET", "/v1/tasks").status == status
        line.close()
    assert len(bad.came) == 1


def test_24_a_poll_that_is_cut_is_asked_again_at_once(hub, capsys):
    """However often: a proxy that cuts every poll must not make a site fall asleep. Nothing is said of it."""
    with co.testing.LinkProxy(hub.url.removeprefix("http://"), idle=1.2) as relay:
        line, got = hub.line("ada"), []
        line.url, line.pause = f"http://{relay.place}", 30.0

        def asks() -> None:
            try:
                got.append(line.ask("GET", "/v1/tasks?run=run&wait=25", wait=25))
            except importlib.import_module("comity.service.client").Stopped:
                got.append("stopped")

        ask = threading.Thread(target=asks)
        ask.start()
        time.sleep(6.0)
        polls = relay.accepted
        line.stop.set()
        ask.join(10)
    assert polls >= 5
    assert capsys.readouterr() == ("", "")


def test_25_nginx_with_its_defaults(tmp_path, tls):
    """It refuses bodies above 1 MiB (413): chunks are halved until they pass."""
    hub, port = proxies.free_port(), proxies.free_port()
    with proxies.nginx(tmp_path / "nginx", [f"127.0.0.1:{hub}"], port=port, tls=tls):
        carry.through(tmp_path, f"https://127.0.0.1:{port}", hub, "wide", certificate=tls[0].read_text())
        lines = (tmp_path / "nginx" / "access.log").read_text().splitlines()
    assert any('"PUT' in line and '" 413 ' in line for line in lines), "a chunk was too large for it"
    assert any('"PUT' in line and '" 201 ' in line for line in lines)
    assert not [line for line in lines if '" 401 ' in line]


def test_25_nginx_tuned(tmp_path, tls):
    hub, port = proxies.free_port(), proxies.free_port()
    with proxies.nginx(tmp_path / "nginx", [f"127.0.0.1:{hub}"], port=port, tls=tls, settings=proxies.TUNED):
        carry.through(tmp_path, f"https://127.0.0.1:{port}", hub, "wide", 1, certificate=tls[0].read_text())
        lines = (tmp_path / "nginx" / "access.log").read_text().splitlines()
    assert not [line for line in lines if '" 413 ' in line]


def over_tls(folder: Path, tls: tuple[Path, Path]) -> str:
    """A run whose hub ends TLS itself. Gives: its place."""
    port = proxies.free_port()
    url, hub = f"https://127.0.0.1:{port}", {"certificate": tls[0], "key": tls[1]}
    carry.through(folder, url, port, rounds=1, certificate=tls[0].read_text(), hub=hub)
    return f"127.0.0.1:{port}"


def environment(monkeypatch: Any, port: int, without: str = "") -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        for spelled in (name, name.lower()):
            monkeypatch.delenv(spelled, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
    if without:
        monkeypatch.setenv("NO_PROXY", without)


def test_26_a_proxy_of_the_environment(tmp_path, tls, monkeypatch):
    with proxies.tinyproxy(tmp_path / "proxy") as port:
        environment(monkeypatch, port)
        place = over_tls(tmp_path, tls)
        log = (tmp_path / "proxy" / "tinyproxy.log").read_text()
    assert f"CONNECT {place}" in log


def test_26_no_proxy_is_kept(tmp_path, tls, monkeypatch):
    environment(monkeypatch, proxies.free_port(), without="127.0.0.1")
    over_tls(tmp_path, tls)


def test_26_a_proxy_that_refuses_is_named(tmp_path, tls, monkeypatch):
    """Once, and the site goes: it will not come right by itself."""
    with proxies.tinyproxy(tmp_path / "proxy", connect=[443]) as port:
        environment(monkeypatch, port)
        line = importlib.import_module("comity.service.client").Client(
            "https://127.0.0.1:9", "ada", made.secret("ada"), tls[0].read_text()
        )
        threading.Timer(5.0, line.stop.set).start()  # else it might ask for ever
        with pytest.raises(co.ConfigError, match=f"proxy 127.0.0.1:{port} .* port 9"):
            line.ask("GET", "/v1/tasks")
        line.stop.set()
        line.close()


def inspector(files: tuple[Path, Path], to: str, hub: Path, rule: Any = lambda came: None) -> Any:
    """Who ends TLS under a certificate of its own, and begins it anew towards the hub."""
    door = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    door.load_cert_chain(*files)
    return between.Between(to, rule, door, ssl.create_default_context(cafile=str(hub)))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: Any) -> tuple[Path, Path]:
    """The inspector's certificate and key."""
    folder = tmp_path_factory.mktemp("inspector")
    private, certificate = make_certificate(["127.0.0.1"])
    (folder / "key").write_bytes(private)
    (folder / "crt").write_bytes(certificate)
    return folder / "crt", folder / "key"


@pytest.mark.parametrize("how", ["pinned", "environment"])
def test_27_an_inspector_of_tls_that_the_site_trusts(how, tmp_path, tls, theirs, monkeypatch):
    """By a certificate that is named, or by SSL_CERT_FILE; requests stay signed, questions too."""
    port = proxies.free_port()
    if how == "environment":
        monkeypatch.setenv("SSL_CERT_FILE", str(theirs[0]))
    with inspector(theirs, f"127.0.0.1:{port}", tls[0]) as middle:
        certificate = theirs[0].read_text() if how == "pinned" else ""
        hub = {"certificate": tls[0], "key": tls[1]}
        carry.through(tmp_path, middle.url, port, certificate=certificate, hub=hub)
    assert "POST /v1/reply" in middle.paths()


def test_27_an_inspector_that_the_site_does_not_trust(tmp_path, tls, theirs):
    with inspector(theirs, "127.0.0.1:9", tls[0]) as middle:
        with pytest.raises(co.ConfigError, match=r"certificate of .* must be trusted"):
            carry.joined(tmp_path, middle.url, "ada", certificate=tls[0].read_text())
        assert middle.came == []


def test_27_what_an_inspector_changed_is_not_answered(tmp_path, capsys):
    """The run goes on once it lets questions through as they are."""
    changed = [2]

    def turn(data: bytes) -> bytes:
        """Another question, in the right form: the signature is the hub's, of what it asked."""
        if len(data) > 300 and changed[0]:
            changed[0] -= 1
            return data.replace(b"contribute", b"contribuTe")
        return data

    port = proxies.free_port()
    rule = lambda came: between.Changed(turn) if came.path.startswith("/v1/tasks") else None  # noqa: E731
    with between.Between(f"127.0.0.1:{port}", rule) as middle:
        carry.through(tmp_path, middle.url, port)
    assert changed == [0]
    assert "must be signed by the hub" in capsys.readouterr().err


def page(came: Any) -> Any:
    return between.Give(200, b"<html><form>Accept our terms</form></html>", HTML)


@pytest.mark.parametrize("give", [page, lambda came: between.Give(302, b"", (("location", "http://login.example/"),))])
def test_28_a_portal_that_answers_everything(give, tmp_path, capsys):
    """Its page is not read; once somebody has logged in, the run goes on as if nothing had been."""
    port, opens = proxies.free_port(), time.monotonic() + 1.0
    with between.Between(f"127.0.0.1:{port}", lambda came: give(came) if time.monotonic() < opens else None) as middle:
        carry.through(tmp_path, middle.url, port)
    err = capsys.readouterr().err
    assert "terms" not in err


def test_28_a_portal_in_the_middle_of_a_run(tmp_path):
    """It answers every fifth request, whatever it is."""
    port = proxies.free_port()
    with between.Between(f"127.0.0.1:{port}") as middle:
        middle.rule = lambda came: page(came) if len(middle.came) % 5 == 4 else None
        carry.through(tmp_path, middle.url, port, "wide", 1)
    assert len(middle.came) >= 15


def test_25_nginx_before_two_hubs_of_which_one_goes(postgres, tmp_path):
    """They share a database and take turns; one ends in the middle of the run: nothing is lost, nothing is twice."""
    shared, stations = importlib.import_module("test_postgres"), importlib.import_module("comity.service.station")
    url, port = postgres.url(), proxies.free_port()
    named, places = f"http://127.0.0.1:{port}", [proxies.free_port(), proxies.free_port()]

    def station(at: int, registry: Any) -> Any:
        settings = {"identity": made.HUB, "parties": registry, "url": named}
        return stations.Station(co.Network(f"127.0.0.1:{at}", tmp_path / "hub", **settings))

    again = "proxy_next_upstream error timeout http_503 non_idempotent;"
    with (
        shared.approved(url) as one,
        shared.approved(url) as two,
        proxies.nginx(tmp_path / "nginx", [f"127.0.0.1:{p}" for p in places], port=port, settings=again),
        station(places[0], one) as ours,
        station(places[1], two) as theirs,
    ):

        def strike(event: Any) -> None:
            if event.kind == "round" and event.round.number == 2:
                theirs.close()

        with shared.sites(tmp_path, named, "fedavg"):
            run = shared.carried(ours, tmp_path, "fedavg", 6, strike)
    assert made.bits(run.state) == made.bits(made.local("fedavg", 6).state)
    assert (run.ledger.dropped, run.ledger.refused) == ([], [])
