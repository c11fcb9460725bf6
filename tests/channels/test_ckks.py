"""CKKS: sums of ciphertexts, who opens them, and what is refused."""

import sys
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
from test_twoserver import learning

import comity as co
from comity.channels import ckks_vectors as vectors
from comity.channels.ckks import NOISE
from comity.core.contribution import Contribution
from comity.core.parts import Until
from comity.core.tree import leaves
from comity.core.wire import encode, encode_tree
from comity.testing.common import usual_cohort

NAMES = ("a", "b", "c", "d")
HERE = co.Round("run", 0, roster=4, asked=4, hub="hub")


class Stored:
    """Answers are stored and sent again, as a site does it: TenSEAL draws what it encrypts with by itself."""

    def __init__(self, channel):
        self._channel, self._kept = channel, {}
        self.reveals, self.tolerance = channel.reveals, channel.tolerance
        self.setup, self.open = channel.setup, channel.open

    def answer(self, message, memory, round, secret):
        return self._once("answer", (encode(message), encode_tree(memory)), message, memory, round, secret)

    def seal(self, c, view, memory, round, secret):
        return self._once("seal", (encode(c), encode_tree(view), encode_tree(memory)), c, view, memory, round, secret)

    def _once(self, name, key, *given):
        key = (name, *key, given[-2])
        if key not in self._kept:
            self._kept[key] = getattr(self._channel, name)(*given)
        return self._kept[key]


class Cohort:
    """Members who answer, with memories, and what the hub asked."""

    def __init__(self, channel, names=NAMES):
        self.channel, self.memories, self.asked = channel, {n: {} for n in names}, []
        self.away, self.said, self.here = set(), {}, HERE

    def ask(self, cohort, body, until):
        for name in cohort:
            self.asked.append((name, message := body(name)))
            try:
                yield replace(self.answer(name, message), sender=name)
            except co.ChannelError as error:
                self.said[name] = str(error)

    def answer(self, name, message):
        if name in self.away:
            raise co.ChannelError("gone")
        secret = co.testing.fixed_secret().side(name)
        answer, self.memories[name] = self.channel.answer(
            message, self.memories[name], replace(self.here, me=name), secret
        )
        return answer

    def sealed(self, session, here=HERE, names=NAMES):
        for i, name in enumerate(names):
            c = Contribution("delta", {"w": np.full((2, 3), i + 0.25)}, 2.0, {"loss": (0.5, 1.0)})
            secret, turn = co.testing.fixed_secret().side(name), replace(here, me=name)
            c, self.memories[name] = self.channel.seal(c, session.view(name), self.memories[name], turn, secret)
            yield replace(c, sender=name)

    def opened(self, here=HERE, quorum=1):
        self.here = here
        session = self.channel.setup(NAMES, self.ask, here)
        return list(self.channel.open(self.sealed(session, here), session, self.ask, Until(quorum)))


def kinds(cohort):
    return [(name, message.kind) for name, message in cohort.asked]


def test_the_laws_hold():
    channel = Stored(co.CKKS(("p1", "p2", "p3"), minimum=2))
    co.testing.check_channel(channel, usual_cohort(None)[:3])


def test_the_sum_is_right_within_a_millionth_of_the_bound_for_each():
    rng = np.random.default_rng(0)
    public, secret = vectors.keys()
    n, size, bound = 5, 10_000, 0.5
    given = [rng.uniform(-bound, bound, size) for _ in range(n)]
    total = vectors.read(vectors.encrypted(public, given[0]), size)
    for x in given[1:]:
        vectors.add(total, vectors.read(vectors.encrypted(public, x), size))
    off = np.abs(vectors.decrypted(secret, vectors.written(total), size) - sum(given)).max()
    assert off < 1e-12, "What the holder opens is exact but for rounding"
    assert NOISE + off < 1e-6 * bound * n


def test_public_keys_travel_once():
    cohort = Cohort(co.CKKS("a"))
    (first,) = cohort.opened()
    assert kinds(cohort) == [*((n, "ckks key") for n in NAMES), ("a", "ckks public"), ("a", "ckks open")]
    assert np.allclose(first.value["w"], 6.0 + 1.0, rtol=0, atol=co.CKKS.tolerance)
    assert first.metrics == {"loss": pytest.approx((2.0, 4.0))}
    assert first.weight == pytest.approx(8.0)
    cohort.asked.clear()
    cohort.opened(replace(HERE, number=1))
    assert kinds(cohort) == [*((n, "ckks key") for n in NAMES), ("a", "ckks open")]
    assert len(encode_tree(cohort.channel.setup(NAMES, cohort.ask, HERE).view("b"))) < 200


def test_the_holder_adds_noise_so_that_the_key_stays_hidden():
    cohort = Cohort(co.CKKS("a"))
    (first,) = cohort.opened()
    off = np.abs(first.value["w"] - 7.0)
    assert NOISE / 1e3 < off.max() <= NOISE
    assert len(set(first.value["w"].ravel().tolist())) == 6
    (same,) = list(cohort.ask(["a"], lambda to: cohort.asked[-1][1], Until(1)))
    assert np.array_equal(same.value["numbers"][1:7], first.value["w"].ravel()), "The same sum, the same noise"


def test_a_run_is_the_plain_one_within_the_tolerance():
    plain, channel = learning(co.Plain()).run(2), co.CKKS(("p1", "p3"))
    run = learning(channel).run(2)
    assert max(np.abs(run.shared[k] - x).max() for k, x in plain.shared.items()) < 1e-6
    assert run.metrics["accuracy"] == pytest.approx(plain.metrics["accuracy"], abs=1e-6)
    assert run.ledger.bytes_up > 2 * 5 * 2 * 57 * vectors.SLOTS
    assert co.recipe(learning(channel))["parts"]["channel"]["holder"] == ["p1", "p3"]
    assert "held by p1 or p3" in channel.warning


def test_one_of_two_holders_may_go():
    cohort = Cohort(co.CKKS(("a", "b")))
    session = cohort.channel.setup(NAMES, cohort.ask, HERE)
    sealed = list(cohort.sealed(session))
    cohort.away.add("a")
    (total,) = cohort.channel.open(iter(sealed), session, cohort.ask, Until(1))
    assert np.allclose(total.value["w"], 7.0)
    cohort.away.add("b")
    with pytest.raises(co.ChannelError, match="must open the sum"):
        list(cohort.channel.open(iter(sealed), session, cohort.ask, Until(1)))


def test_without_a_holder_nothing_is_asked():
    cohort = Cohort(co.CKKS("elsewhere"))
    with pytest.raises(co.ChannelError, match="must be in each cohort: elsewhere"):
        cohort.opened()
    assert not cohort.asked
    cohort = Cohort(co.CKKS("a"))
    cohort.away.add("a")
    with pytest.raises(co.ChannelError, match="must answer: a"):
        cohort.opened()
    with pytest.raises(co.TooFewParticipants, match="at least 3"):
        cohort.channel.setup(NAMES[:2], cohort.ask, HERE)


def test_too_few_are_never_shown_to_the_holder():
    cohort = Cohort(co.CKKS("a"))
    with pytest.raises(co.TooFewParticipants, match="at least 5"):
        cohort.opened(quorum=5)
    assert "ckks open" not in {kind for _, kind in kinds(cohort)}
    with pytest.raises(co.ChannelError, match="at least 3"):
        list(cohort.sealed(cohort.channel.setup(NAMES, cohort.ask, HERE), replace(HERE, asked=2)))


def test_a_holder_refuses_what_is_not_the_sum_of_as_many_and_a_second_one():
    cohort = Cohort(co.CKKS("a"))
    cohort.opened()
    question = cohort.asked[-1][1]
    session = cohort.channel.setup(NAMES, cohort.ask, HERE)
    one = next(cohort.sealed(session)).value["under"]["a"]
    for change, says in (
        ({"sum": one}, "of another number"),
        ({"sum": one, "count": 1}, "at least 3"),
        ({"count": 3}, "of another number"),
        ({"count": None}, "number of its members"),
        ({"sum": {"0": b"junk"}}, "Ciphertexts must be"),
        ({"sum": {}}, "1 ciphertexts"),
        ({"size": 5000}, "2 ciphertexts"),
        ({"sum": vectors.encrypted(vectors.keys()[0], np.ones(9))}, "another"),
    ):
        with pytest.raises(co.ChannelError, match=says):
            cohort.answer("a", replace(question, value={**question.value, **change}))
    public = cohort.memories["a"]["mine"]["public"]
    second = vectors.encrypted(public, np.full(question.value["size"], 4.0))
    with pytest.raises(co.ChannelError, match="one sum in a round"):
        cohort.answer("a", replace(question, value={**question.value, "sum": second}))
    with pytest.raises(co.ChannelError, match="holds no key"):
        cohort.answer("b", question)


def swapped(view, who, public=None):
    """What a hub tells that would rather have a key of its own used."""
    public = public or vectors.keys()[0]
    from comity.channels.ckks import _said

    secret = co.testing.fixed_secret().side(who)
    signature = secret.sign(_said(replace(HERE, me="a"), public))
    said = {"public": public, "identity": secret.public_key(), "signature": signature}
    return {"keys": {"a": sha256(public).digest()}, "public": {"a": said}}


class View:
    def __init__(self, told):
        self.told = told

    def view(self, member):
        return self.told


def test_a_key_that_the_hub_swapped_is_refused():
    known = {"a": co.testing.fixed_secret().side("a").public_key()}
    cohort = Cohort(co.CKKS("a", identities=known))
    session = cohort.channel.setup(NAMES, cohort.ask, HERE)
    good = session.view("b")
    unsigned = {**good, "public": {"a": {**good["public"]["a"], "signature": bytes(64)}}}
    for told, says in (
        (swapped(good, "hub"), "identity of a must be"),
        (unsigned, "must be signed by it"),
        ({**good, "keys": {"a": bytes(32)}}, "must be signed by it"),
        ({**good, "keys": {"hub": bytes(32)}}, "names others"),
        ({**good, "keys": {}}, "or none"),
        ({**good, "public": {}}, "'public'"),
        (None, "or none"),
    ):
        with pytest.raises(co.ChannelError, match=says):
            list(cohort.sealed(View(told), names=("b",)))
    with pytest.raises(co.ChannelError, match="it was swapped"):
        list(cohort.sealed(View(swapped(good, "a")), names=("a",)))
    late = Cohort(co.CKKS("a"))
    late.opened()
    with pytest.raises(co.ChannelError, match="keys were swapped"):
        list(late.sealed(View(swapped(good, "hub")), names=("b",)))


def test_what_is_no_number_or_too_large_is_refused_by_the_site():
    cohort = Cohort(co.CKKS("a"))
    session = cohort.channel.setup(NAMES, cohort.ask, HERE)
    secret = co.testing.fixed_secret().side("b")
    for value in (np.array([1.0, np.nan]), np.array([np.inf]), np.array([1e12]), "text", {"x": b"bytes"}):
        with pytest.raises(co.ContributionError):
            cohort.channel.seal(Contribution("delta", value), session.view("b"), {}, replace(HERE, me="b"), secret)


def test_weights_by_coordinate_and_leaves_without_numbers_are_opened_too():
    c = Contribution("delta", {"w": np.ones(3), "n": None}, {"w": np.arange(3.0)}, {"loss": (1.0, 2.0)})
    form, numbers = vectors.flat(c, ("accuracy", "loss"), 3)
    assert numbers.tolist() == [1, 1, 1, 1, 0, 1, 2, 0, 0, 1, 2]
    assert numbers.size == vectors.length(form)
    back = vectors.back(form, numbers)
    assert back.value["n"] is None
    assert back.value["w"].tolist() == [1, 1, 1]
    assert back.weight["w"].tolist() == [0, 1, 2]
    assert back.metrics == {"loss": (1.0, 2.0)}


def test_the_secret_key_is_never_shown(tmp_path, monkeypatch):
    made, keys = [], vectors.keys
    monkeypatch.setattr(vectors, "keys", lambda: made.append(keys()) or made[-1])
    learning(co.CKKS("p0")).run(2, folder=tmp_path)
    ((_, private),) = made
    told = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    monkeypatch.setattr(vectors, "keys", lambda: made[0])
    cohort = Cohort(co.CKKS("a"))
    session = cohort.channel.setup(NAMES, cohort.ask, HERE)
    cohort.opened()
    shown = repr(cohort.channel) + repr(session) + "".join(cohort.said.values())
    told += b"".join(encode(m) for _, m in cohort.asked) + shown.encode()
    told += encode_tree(cohort.memories["a"]) + encode_tree(session.view("b"))
    for piece in (private[1000:1040], private[100_000:100_040]):
        assert piece in private
        assert piece not in told
        assert repr(piece).encode() not in told
    assert private[1000:1040] not in b"".join(x for _, x in leaves(cohort.memories["a"]) if isinstance(x, bytes))
    locked = replace_secret(cohort.memories["a"])
    with pytest.raises(co.ChannelError, match="drawer was changed"):
        co.CKKS("a").answer(cohort.asked[-1][1], locked, replace(HERE, me="a"), co.testing.fixed_secret().side("a"))


def replace_secret(memory):
    mine = memory["mine"]
    return {**memory, "mine": {**mine, "secret": mine["secret"][:-1] + bytes([mine["secret"][-1] ^ 1])}}


def test_without_tenseal_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tenseal", None)
    vectors.library.cache_clear()
    with pytest.raises(co.ConfigError, match=r"pip install comity\[he\]"):
        co.CKKS("a")
