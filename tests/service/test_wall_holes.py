"""Ways around the wall that were tried and found: each is closed, and stays so."""

import asyncio
import importlib
import socket
import sys
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import comity as co
from comity.core.contribution import Contribution
from comity.core.envelope import Envelope
from comity.core.round import Round
from comity.core.wire import as_tree
from comity.ledger.blobs import PARTS, Blobs
from comity.ledger.mailbox import Mailbox, Question, Reply
from comity.loop.site import EMPTY, Site
from comity.running import Names
from comity.service import agreeing, mail
from comity.service.database import Database
from comity.service.hub import Refused
from comity.service.invitations import Invitation
from comity.service.limits import SPARE
from comity.service.mail import Letter, Letters
from comity.service.offers import Taken
from comity.service.pages import guard
from comity.service.pages.sessions import LINK, OFTEN, Sessions
from comity.service.parties import EnrolmentRefused, Rotation
from comity.service.registry import Registry
from comity.service.signatures import Request, SignatureRefused, sign, verify

sys.path.append(str(Path(__file__).parent))
desks = importlib.import_module("desks")
made = desks.made

PRIVATE = co.Collaboration(co.FedAvg(made.MODEL), seed=3)
NOISED = co.PrivateTrainer(made.MODEL, made.DATA["ada"], clip=1.0, noise=2.0, rate=0.5)
TURN = ("run", 0, 0, "hub", "contribute")


def shared(kind: str = "") -> Contribution:
    told = PRIVATE.method.share(PRIVATE.method.init(Round("", 3)), "ada", Round("", 3, me="ada"))
    return replace(told, kind=kind or told.kind)


def question(kind: str = "", step: float = 0.0, views: Any = None) -> Contribution:
    told = shared(kind)
    told = replace(told, value={k: v + np.float32(step) for k, v in told.value.items()})  # type: ignore[union-attr]
    views = {"hub": None} if views is None else views
    return Contribution("question", {"shared": as_tree(told), "views": views, "public": {}, "idle": False})


# ---- a hub that lies to a site ----


@pytest.mark.parametrize(
    ("phase", "body"),
    [
        ("score", question()),
        ("score", shared()),
        ("contribute", question("score")),
        ("contribute", shared("score")),
    ],
)
def test_the_loop_itself_gives_no_update_as_a_score(phase: str, body: Contribution) -> None:
    """What is asked as a score is neither noised nor sealed: an update must not leave that way."""
    site = Site("ada", made.trainer("ada"), PRIVATE.parts, made.secret("ada"))
    asked = Envelope(Round("run", 3, me="ada", asked=3), phase, "hub", "", body)
    said, drawer = site.answer(asked, EMPTY)
    assert said.body.kind == "error"
    assert "must be of its phase" in said.body.value["reason"]  # type: ignore[index]
    assert drawer is EMPTY


def test_the_loop_itself_gives_no_open_score_where_the_channel_hides() -> None:
    fed = made.masked()
    site = Site("ada", made.trainer("ada"), fed.parts, made.secret("ada"))
    asked = Envelope(Round("run", 3, me="ada", asked=3), "score", "hub", "", shared("score"))
    said, _ = site.answer(asked, EMPTY)
    assert said.body.kind == "error"
    assert "must be sealed" in said.body.value["reason"]  # type: ignore[index]


def rounds_of(run: str, folder: Path, **limits: Any) -> int:
    """How many rounds of a run a site answers."""
    desk = desks.Desk(PRIVATE, run=run)
    one, number = desk.site(folder, NOISED, **limits), 0
    while True:
        laid = one.answer(desk.packet("ada", "contribute", question(), number=number))
        if desks.opened(one, laid).body.kind == "error":
            return number
        number += 1


def test_a_hub_that_begins_anew_gets_no_new_epsilon(tmp_path: Path) -> None:
    """Limits of epsilon are of the folder: runs of other names ask the same data."""
    assert rounds_of("run1", tmp_path, epsilon=4.0) > 3
    assert rounds_of("run2", tmp_path, epsilon=4.0) == 0
    assert rounds_of("run2", tmp_path / "another", epsilon=4.0) > 3


def test_an_agenda_may_count_its_runs_apart(tmp_path: Path) -> None:
    """As a comparison does, which takes part in each step once."""
    assert rounds_of("run1", tmp_path, epsilon=4.0) > 3
    desk = desks.Desk(PRIVATE, run="run2")
    taken = Taken(PRIVATE, NOISED, co.Limits(epsilon=4.0), apart=True)
    line: Any = desks.Line("ada", desk)
    more = {"hub": made.HUB.public_key(), "folder": tmp_path}
    one = desks.Answering(line, desk.offer, taken, made.secret("ada"), **more)
    assert one.agree()
    assert desks.opened(one, one.answer(desk.packet("ada", "contribute", question()))).body.kind == "sealed"


def test_attempts_are_not_rounds_without_an_end(tmp_path: Path) -> None:
    desk = desks.Desk(made.fedavg())
    one = desk.site(tmp_path, made.trainer("ada"), rounds=1)
    kinds = []
    for attempt in range(2 + SPARE + 2):
        laid = one.answer(desk.packet("ada", "contribute", question(), attempt=attempt))
        kinds.append(desks.opened(one, laid).body.kind)
    assert kinds == ["sealed"] * (2 + SPARE) + ["error"] * 2


def test_what_is_too_large_is_not_fetched_first(tmp_path: Path) -> None:
    """A limit of bytes is of what travels: it is looked at before, not after."""
    desk = desks.Desk(PRIVATE)
    one = desk.site(tmp_path, NOISED, bytes=1000)
    one.client.fetch = lambda *_: pytest.fail("it was fetched")
    small = desk.packet("ada", "contribute", question())
    large = small._replace(ref=small.ref._replace(size=2**40), body=None)
    assert b"at most 1000 bytes" in one.answer(large).body


def test_noise_is_not_as_the_hub_says(tmp_path: Path) -> None:
    """A hub that says that a thousand are asked gets a thousandth of the noise from each, and a helper adds three."""
    method, noise = co.FedAvg(made.MODEL), co.DiscreteGaussian(clip=1.0, noise=1.0)
    parts: Any = {"transforms": [noise], "combine": co.Mean(public=True), "evaluate": False, "quorum": 1.0}
    held = co.Collaboration(method, channel=co.SecAgg(threshold=0.9), **parts)
    desks.Desk(held).site(tmp_path / "held", made.trainer("ada"))
    trusting = co.Collaboration(method, channel=co.TwoServer(co.Helper()), **parts)
    with pytest.raises(co.ConfigError, match="TwoServer takes the hub's word"):
        desks.Desk(trusting).site(tmp_path / "trusting", made.trainer("ada"))


# ---- a party that spoils another's ----


@pytest.fixture
def db(tmp_path: Path) -> Any:
    with Registry.open(tmp_path / "hub") as registry:
        yield registry.db


def test_nobody_fills_the_room_of_another(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail, "PAIR", 3 * mail.ROW)
    monkeypatch.setattr(mail, "SENDER", 5 * mail.ROW)
    letters = Letters(db)
    put = [letters.put(Letter("s", "mallory", "bob", n), b"") for n in range(5)]
    assert put == [True, True, True, False, False], "empty letters have their price"
    assert letters.put(Letter("s", "ada", "bob", 0), b""), "there is room for others"
    assert [letters.put(Letter("s", "mallory", name, 0), b"") for name in "cde"] == [True, True, False]
    assert letters.put(Letter("s", "mallory", "bob", 0), b""), "what is there may be said again"


def test_uploads_that_no_answer_names_do_not_pile_up(tmp_path: Path) -> None:
    blobs, names = Blobs(tmp_path), []
    for number in range(3 * PARTS):
        data = f"upload {number}".encode()
        names.append(sha256(data).hexdigest())
        blobs.tidy("mallory", {names[0]})
        blobs.add("mallory", names[-1], 0, len(data), data)
    kept = [name for name in names if blobs.sent("mallory", name)]
    assert {names[0], names[-1]} < set(kept)
    assert len(kept) == PARTS + 1


def test_a_body_that_is_asked_again_is_not_forgotten(db: Database) -> None:
    """A round that did not close asks the same again: its body must not go with the attempt before."""
    box = Mailbox(db)
    sha, other = "ab" * 32, "cd" * 32
    box.offer(TURN, [Question("ada", sha, b"?")], {})
    box.commit(TURN, "ada", sha, Reply(other, b"!"))
    assert (box.answers("ada"), box.answers("bob")) == ({other}, set())
    gone = box.offer(("run", 0, 1, "hub", "contribute"), [Question("ada", sha, b"?")], {}, settled=True)
    assert gone == {other}


def test_links_to_log_in_are_not_without_end(tmp_path: Path) -> None:
    """Each is a line of the audit log for ever: a party could bury what others did."""
    now = [1e9]
    with Registry.open(tmp_path, clock=lambda: now[0]) as registry:
        approved(registry, "ada")
        sessions = Sessions(registry, clock=lambda: now[0])
        for _ in range(OFTEN):
            assert sessions.redeem(sessions.link("ada", "party", source="key"))
        with pytest.raises(co.ConfigError, match="at most 12 times in ten minutes"):
            sessions.link("ada", "party", source="key")
        assert sessions.link("ada", "operator"), "who may use the folder is not held up"
        now[0] += LINK + 1
        assert sessions.link("ada", "party", source="key")


@pytest.mark.parametrize("more", [{"count": agreeing.COUNT + 1}, {"count": "1"}, {"count": 10**400}])
def test_what_a_party_declares_does_not_busy_the_accountant(more: dict[str, Any]) -> None:
    """A thousand million releases once took memory and hours of whoever looked at the budget."""
    good = {"mechanism": "laplace", "noise": 100.0, "rate": 0.01, "count": 1, "unit": "example", "sampling": "poisson"}
    said = {"recipe": "", "limits": co.Limits().told(), "time": 1.0, "proof": {"by": ""}}
    agreeing._check({**said, "spends": [{**good, "who": ""}] * agreeing.SPENDS})
    for spends in ([{**good, "who": "", **more}], [{**good, "who": ""}] * (agreeing.SPENDS + 1)):
        with pytest.raises(Refused, match=r"agreement must have|accounted for"):
            agreeing._check({**said, "spends": spends})


# ---- keys that change under an operator's eyes ----


def approved(registry: Registry, name: str, status: str = "approved") -> None:
    token = registry.invite(name, made.HUB.public_key())
    registry.enrol(Invitation.read(token).secret, name, made.secret(name).public_key())
    if status == "approved":
        registry.approve(name)


def test_a_key_that_came_after_the_look_is_not_approved(tmp_path: Path) -> None:
    new = made.secret("the thief")
    with Registry.open(tmp_path) as registry:
        approved(registry, "ada", "waiting")
        looked = registry.party("ada")
        assert looked is not None
        registry.rotate(Rotation.of("ada", made.secret("ada"), new))
        with pytest.raises(co.ConfigError, match="must be the one that was compared"):
            registry.approve("ada", looked.key)
        assert registry.key_of("ada") is None
        assert registry.approve("ada", new.public_key()).status == "approved"
        with pytest.raises(co.ConfigError, match="must be the one that was compared"):
            registry.approve("ada", looked.key)


def test_who_is_suspended_takes_no_other_key(tmp_path: Path) -> None:
    """It may be suspended because its key was stolen: the thief's next one would be approved with it."""
    with Registry.open(tmp_path) as registry:
        approved(registry, "ada")
        registry.suspend("ada")
        with pytest.raises(EnrolmentRefused):
            registry.rotate(Rotation.of("ada", made.secret("ada"), made.secret("the thief")))
        assert registry.approve("ada").key == made.secret("ada").public_key()


# ---- a stranger who knows a name ----


def test_a_head_is_verified_before_its_body() -> None:
    url, ada = "https://hub.example/v1/reply", made.secret("ada")
    headers = sign(Request("POST", url, {}, b"body"), ada, keyid="ada", created=1000, nonce="n" * 16)
    bare = Request("POST", url, headers)
    assert verify(bare, ada.public_key(), now=1000.0, whole=False).keyid == "ada"
    for wrong in ({"now": 1000.0}, {"now": 9999.0, "whole": False}):
        with pytest.raises(SignatureRefused):
            verify(bare, ada.public_key(), **wrong)
    with pytest.raises(SignatureRefused):
        verify(bare, made.secret("bob").public_key(), now=1000.0, whole=False)


def test_a_stranger_who_knows_a_name_takes_no_room_of_its_party(tmp_path: Path) -> None:
    """Slow bodies under the name of a party once used up what that party may send."""
    urls: list[str] = []
    engine: Any = made.network(tmp_path, tell=urls.append, linger=0.0).connect(Names({}), None)  # type: ignore[arg-type]
    engine.begin(Round("run", 0, roster=3, asked=3, expected=3.0), {"hash": "ab" * 32})
    host, _, port = urls[0].removeprefix("http://").partition(":")
    url = f"{urls[0]}/v1/upload/{'ab' * 32}"
    asked = Request("PUT", url, {}, b"x")
    named = sign(asked, made.secret("mallory"), keyid="ada", created=int(time.time()), nonce="n" * 16)
    head = f"PUT /v1/upload/{'ab' * 32} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 1000000\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in named.items())
    try:
        with socket.create_connection((host, int(port)), timeout=10.0) as line:
            line.sendall(f"{head}\r\n".encode())
            assert b" 401 " in line.recv(4096).split(b"\r\n")[0]
    finally:
        engine.close()


# ---- a ledger that is none ----


@pytest.mark.parametrize("entries", [-1, True, 1e300, "x", {"a": 1}, [None], [[]], [{"facts": "AA=="}]])
def test_a_ledger_that_is_none_ends_in_a_sentence(entries: Any, tmp_path: Path) -> None:
    desk = desks.Desk(PRIVATE)
    desk.on_ledger = lambda *_: (200, {"at": "0" * 64, "entries": entries, "more": False})
    with pytest.raises(co.LedgerError, match="must"):
        desk.site(tmp_path, NOISED).watch.look(last=True)


def test_a_round_of_a_ledger_that_says_half_ends_in_a_sentence(tmp_path: Path) -> None:
    desk = desks.Desk(PRIVATE)
    desk.start()
    desk.ledger.append("round", {"asked": "ada"}, time=0.0)
    with pytest.raises(co.LedgerError, match="must charge"):
        desk.site(tmp_path, NOISED).watch.look(last=True)


def test_a_form_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to be logged in to send one."""

    async def stream() -> Any:
        yield b"link="
        await asyncio.sleep(30.0)

    monkeypatch.setattr(guard, "PATIENCE", 0.05)
    with pytest.raises(guard.Denied, match="must come at once"):
        asyncio.run(guard.form(SimpleNamespace(stream=stream)))
