"""A hub and its sites over HTTP, in one process: the same as with `Local`, to the bit."""

import importlib
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import comity as co
from comity.service import site
from comity.service.invitations import Invitation
from comity.service.keys import make_certificate
from comity.service.registry import Registry

sys.path.append(str(Path(__file__).parent))
made = importlib.import_module("actors")


def joined(folder: Path, url: str, name: str, work: str = "fedavg", **more: Any) -> None:
    make, participant = made.WORKS[work]
    stop, to = more.pop("stop", None), made.pinned(url, name, more.pop("certificate", ""))
    settings = {"identity": made.secret(name), "folder": folder / name, **more}
    one = site.runner(make(), to, participant(name), **settings)
    one.client.stop = stop or one.client.stop
    one.run()


def over_http(work: str, folder: Path, rounds: int, *, fed: Any = None, **more: Any) -> Any:
    """A run with a hub and its sites in threads."""
    threads: list[threading.Thread] = []
    more["stop"] = threading.Event()

    def tell(url: str) -> None:
        for name in made.NAMES:
            threads.append(threading.Thread(target=joined, args=(folder, url, name, work), kwargs=more))
            threads[-1].start()

    try:
        hub = made.network(folder, tell=tell)
        return (fed or made.WORKS[work][0]()).run(rounds=rounds, folder=folder / "run", engine=hub)
    except BaseException:
        more["stop"].set()
        raise
    finally:
        for thread in threads:
            thread.join(20)
        assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("work", ["fedavg", "masked", "memory"])
def test_the_hub_gives_what_one_process_gives(work, tmp_path):
    want, got = made.local(work, 4), over_http(work, tmp_path, 4)
    assert made.bits(got.state) == made.bits(want.state)
    assert got.metrics == want.metrics
    assert (got.ledger.bytes_up, got.ledger.bytes_down) == (want.ledger.bytes_up, want.ledger.bytes_down)
    assert (got.ledger.dropped, got.ledger.refused) == ([], [])


@pytest.mark.slow
def test_it_goes_on_after_its_end(tmp_path):
    over_http("memory", tmp_path, 2)
    assert made.bits(over_http("memory", tmp_path, 4).state) == made.bits(made.local("memory", 4).state)


@pytest.mark.slow
def test_another_folder_is_another_run(tmp_path):
    """Of the same recipe, with the same hub and sites: nothing of the first is taken for the second."""
    first = over_http("masked", tmp_path, 1)
    (tmp_path / "run").rename(tmp_path / "earlier")
    assert made.bits(over_http("masked", tmp_path, 1).state) == made.bits(first.state)
    runs = {path.name for path in (tmp_path / "ada").iterdir() if path.is_dir()}
    assert len(runs) == 2


def test_a_site_beyond_its_limits_is_dropped_and_says_why(tmp_path):
    run = over_http("fedavg", tmp_path, 3, limits=co.Limits(rounds=3, cohort=3))
    assert run.ledger.dropped == []
    with pytest.raises(co.TooFewParticipants, match="cohorts of at least 4"):
        over_http("fedavg", tmp_path / "other", 1, limits=co.Limits(cohort=4))


def test_a_run_that_was_given_up_asks_again(tmp_path):
    """Under other attempts: what was answered to the first ones is of the past."""
    fed = made.fedavg().replace(retries=0)

    with pytest.raises(co.TooFewParticipants):
        _run_with(
            tmp_path,
            fed,
            lambda url, stop: [_site(tmp_path, fed, url, n, stop, co.Limits(cohort=4)) for n in made.NAMES],
        )
    run = _run_with(tmp_path, fed, lambda url, stop: [_site(tmp_path, fed, url, n, stop, None) for n in made.NAMES])
    assert [e.facts["attempt"] for e in run.ledger if e.kind == "round"] == [0, 1]
    assert made.bits(run.state) == made.bits(made.local("fedavg", 1).state)


def _site(folder: Path, fed: Any, url: str, name: str, stop: Any, limits: Any) -> threading.Thread:
    more = {"identity": made.secret(name), "folder": folder / name, "limits": limits}
    one = site.runner(fed, made.pinned(url, name), made.trainer(name), **more)
    one.client.stop = stop
    thread = threading.Thread(target=one.run)
    thread.start()
    return thread


def _run_with(folder: Path, fed: Any, begin: Callable[[str, Any], list[threading.Thread]]) -> Any:
    threads, stop = [], threading.Event()
    try:
        hub = made.network(folder, tell=lambda url: threads.extend(begin(url, stop)))
        return fed.run(rounds=1, folder=folder / "run", engine=hub)
    finally:
        stop.set()
        for thread in threads:
            thread.join(40)


def test_another_recipe_is_refused_with_the_difference(tmp_path):
    errors = []

    def late(url: str, stop: Any) -> list[threading.Thread]:
        def ask() -> None:
            try:
                joined(tmp_path, url, "cyd", stop=stop)
            except co.ConfigError as error:
                errors.append(str(error))

        thread = threading.Thread(target=ask)
        thread.start()
        return [thread, *(_site(tmp_path, fed, url, n, stop, None) for n in ("ada", "bob"))]

    fed = made.fedavg().replace(seed=9, deadline=1.5, evaluate=False)
    run = _run_with(tmp_path, fed, late)
    assert run.ledger.rounds == 1
    assert "seed: 3 → 9" in errors[0]


def test_what_was_approved_is_what_runs(tmp_path):
    with pytest.raises(co.ConfigError, match="approved"):
        joined(tmp_path, "http://127.0.0.1:1", "ada", limits=co.Limits(recipe="sha256:" + "0" * 64))


def test_over_tls(tmp_path):
    """By a certificate that is trusted; without it, the site says so and goes."""
    private, certificate = make_certificate(["127.0.0.1"])
    (tmp_path / "tls.key").write_bytes(private)
    (tmp_path / "tls.crt").write_bytes(certificate)
    threads: list[threading.Thread] = []
    refused: list[str] = []

    def untrusting(url: str) -> None:
        with pytest.raises(co.ConfigError, match="must be trusted"):
            joined(tmp_path / "other", url, "ada")
        refused.append(url)

    def tell(url: str) -> None:
        untrusting(url)
        for name in made.NAMES:
            more = {"certificate": certificate.decode()}
            threads.append(threading.Thread(target=joined, args=(tmp_path, url, name), kwargs=more))
            threads[-1].start()

    files = {"certificate": tmp_path / "tls.crt", "key": tmp_path / "tls.key"}
    run = made.fedavg().run(rounds=2, folder=tmp_path / "run", engine=made.network(tmp_path, tell=tell, **files))
    for thread in threads:
        thread.join(20)
    assert refused[0].startswith("https://")
    assert made.bits(run.state) == made.bits(made.local("fedavg", 2).state)


def test_parties_of_a_registry(tmp_path):
    """Who is approved takes part; who is not, or waits, is refused like a stranger."""
    with Registry.open(tmp_path / "hub") as registry:
        for name in ("ada", "bob", "cyd"):
            token = registry.invite(name, made.HUB.public_key())
            registry.enrol(Invitation.read(token).secret, name, made.KEYS[name])
        for name in ("ada", "bob"):
            registry.approve(name)
        threads: list[threading.Thread] = []

        def tell(url: str) -> None:
            with pytest.raises(co.ConfigError, match="must know 'cyd'"):
                joined(tmp_path, url, "cyd")
            for name in ("ada", "bob"):
                threads.append(threading.Thread(target=joined, args=(tmp_path, url, name)))
                threads[-1].start()

        engine = co.Network("127.0.0.1:0", tmp_path / "hub", identity=made.HUB, parties=registry, tell=tell)
        run = made.fedavg().run(rounds=2, folder=tmp_path / "run", engine=engine)
        for thread in threads:
            thread.join(20)
    two = {n: made.trainer(n) for n in ("ada", "bob")}
    assert made.bits(run.state) == made.bits(made.fedavg().replace(participants=two).run(rounds=2).state)


def test_the_hub_has_no_participants_of_its_own(tmp_path):
    fed = made.fedavg().replace(participants={"ada": made.trainer("ada")})
    with pytest.raises(co.ConfigError, match="no participants of its own"):
        fed.run(rounds=1, engine=made.network(tmp_path))


def test_a_hub_without_parties_lets_go_of_its_folder(tmp_path):
    for _ in range(2):
        with pytest.raises(co.ConfigError, match="needs parties"):
            made.fedavg().run(rounds=1, engine=co.Network("127.0.0.1:0", tmp_path, identity=made.HUB, parties={}))
