"""Two servers: what they add, what they refuse, and what neither shows."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

import comity as co
from comity.channels.helper import Known, ask, read
from comity.channels.layout import Form, lay
from comity.channels.seeds import SealedSeed, Turn
from comity.channels.twoserver import Turned, _Adding
from comity.core.contribution import Contribution
from comity.core.parts import Until

NAMES = ("a", "b", "c", "d", "e")
HERE = co.Round("run", 0, roster=5, asked=5, hub="hub")


class Forgets(co.Helper):
    """The walks of the laws are of one turn, though each is a run of its own."""

    def _answer_once(self, *said):
        pass


def secret_of(name):
    return co.testing.fixed_secret().side(name)


def contribution(name, value=None):
    i = NAMES.index(name) if name in NAMES else 9
    value = {"w": np.arange(6).reshape(2, 3) * (i + 1) - 5} if value is None else value
    return Contribution("delta", value, 2.0 + i, {"loss": (0.5 * i, 1.0)})


def sealed(channel, name, here=HERE, value=None):
    c, memory = channel.seal(contribution(name, value), None, {}, replace(here, me=name), secret_of(name))
    assert memory == {}
    return replace(c, sender=name)


def seeds(channel, names=NAMES, here=HERE):
    return {name: SealedSeed.read(sealed(channel, name, here).value["seed"]) for name in names}


def opened(channel, given, here=HERE, quorum=1):
    session = channel.setup(NAMES, None, here)
    return list(channel.open(iter(given), session, None, Until(quorum)))


def form():
    return lay(contribution("a"), 5)[0]


def turn(here=HERE):
    return Turn.of(here)


def test_the_laws_hold():
    co.testing.check_channel(co.TwoServer(Forgets()), least=3)


def test_the_sum_is_exact_and_the_same_whoever_is_left():
    for left in (NAMES, NAMES[1:], ("a", "c", "e")):
        channel = co.TwoServer(co.Helper())
        (got,) = opened(channel, [sealed(channel, n) for n in left])
        want = sum(contribution(n).value["w"] for n in left)
        assert (got.value["w"] == want).all()
        assert got.value["w"].dtype == np.int32
        assert got.weight == sum(2.0 + NAMES.index(n) for n in left)
        assert got.metrics["loss"] == (sum(0.5 * NAMES.index(n) for n in left), float(len(left)))
        assert (got.kind, got.sender) == ("delta", "")


def lists(channel):
    """Lists that a helper must refuse after it has answered for `NAMES`, and what it says."""
    mine, later = seeds(channel), replace(HERE, number=1)
    four = {n: mine[n] for n in NAMES[:4]}
    forged = SealedSeed.seal(
        bytes(16), b"1" * 32, turn().context(form(), channel.key), "f", channel.key, secret_of("x")
    )
    short = Form("delta", {"w": "2x2"}, ("loss",))
    return {
        "cohorts that differ by one": (turn(), form(), four, "one list"),
        "one with somebody of its own making": (turn(), form(), four | {"f": forged}, "one list"),
        "too few": (turn(), form(), {n: mine[n] for n in NAMES[:2]}, "at least 3"),
        "one of them": (turn(), form(), {"a": mine["a"]}, "at least 3"),
        "a member twice": (turn(), form(), four | {"z": mine["a"]}, "twice"),
        "seeds of another round": (turn(later), form(), mine, "signed by it for this run"),
        "another attempt": (turn(replace(HERE, attempt=1)), form(), mine, "signed by it for this run"),
        "another hub": (turn(replace(HERE, hub="other")), form(), mine, "signed by it for this run"),
        "another run": (turn(replace(HERE, run="x")), form(), mine, "signed by it for this run"),
        "another length": (turn(), short, mine, "length"),
        "seeds of each other": (turn(), form(), mine | {"a": mine["b"], "b": mine["a"]}, "of a must be signed"),
        "a seed of an old round": (
            turn(),
            form(),
            mine | {"a": seeds(channel, "a", later)["a"]},
            "of a must be signed",
        ),
    }


@pytest.mark.parametrize("which", list(lists(co.TwoServer(co.Helper()))))
def test_the_helper_refuses_a_hub_that_lies(which, tmp_path):
    helper = co.Helper(tmp_path)
    channel = co.TwoServer(helper)
    first = helper.masks(ask(turn(), form(), seeds(channel)))
    of, length, members, says = lists(channel)[which]
    for again in (helper, co.Helper(tmp_path)):
        with pytest.raises(co.ChannelError, match=says):
            again.masks(ask(of, length, members))
        assert (again.masks(ask(turn(), form(), seeds(channel))) == first).all(), "A replay gets the same answer."


def test_with_identities_no_turn_is_answered_twice_and_strangers_are_refused():
    known = {n: secret_of(n).public_key() for n in NAMES} | {n: secret_of(n).public_key() for n in ("x", "y", "z")}
    helper = co.Helper(identities=known)
    channel = co.TwoServer(helper)
    helper.masks(ask(turn(), form(), seeds(channel)))
    with pytest.raises(co.ChannelError, match="one list"):
        helper.masks(ask(turn(), form(), seeds(channel, ("x", "y", "z"))))
    stranger = seeds(channel, ("a", "b", "stranger"), replace(HERE, number=1))
    with pytest.raises(co.ChannelError, match="identity of stranger"):
        helper.masks(ask(turn(replace(HERE, number=1)), form(), stranger))


@pytest.mark.parametrize("value", [None, "x", {}, {"turn": 1}, {"turn": {"run": "r", "number": "0"}}])
def test_the_helper_refuses_what_is_no_question(value):
    with pytest.raises(co.ChannelError):
        co.Helper().masks(Contribution("masks", value))
    good = ask(turn(), form(), seeds(co.TwoServer(co.Helper())))
    for change in ({"split": 7}, {"size": 2**40}, {"size": 3.0}, {"size": -2}, {"seeds": b"x"}, {"names": b"\xff" * 9}):
        with pytest.raises(co.ChannelError):
            read(replace(good, value={**good.value, **change}))


def test_what_was_not_sealed_is_left_out_and_the_rest_opens():
    channel = co.TwoServer(co.Helper())
    good = [sealed(channel, n) for n in NAMES]
    other = sealed(channel, "b", value={"w": np.zeros((9, 9), int)})
    short = replace(good[1], value={**good[1].value, "words": good[1].value["words"][:-2]})
    stolen = replace(good[1], value={**good[1].value, "seed": good[0].value["seed"]})
    for odd in (other, short, stolen, replace(good[1], value=None), replace(good[0], value={**good[0].value})):
        session = Turned(turn())
        adding = _Adding(session, channel.key)
        for c in (good[0], odd, *good[2:]):
            adding.take(c)
        assert sorted(adding.members) == ["a", "c", "d", "e"]
        assert list(session.left_out) == [odd.sender]


def test_too_few_for_the_quorum_are_never_shown_to_the_helper():
    helper = co.Helper()
    channel = co.TwoServer(helper)
    four = [sealed(channel, n) for n in NAMES[:4]]
    with pytest.raises(co.TooFewParticipants, match="at least 5"):
        opened(channel, four, quorum=5)
    assert not helper._held.execute("SELECT * FROM answered").fetchall()
    assert opened(channel, [*four, sealed(channel, "e")])


def test_a_member_refuses_a_cohort_of_one():
    channel = co.TwoServer(co.Helper())
    with pytest.raises(co.ChannelError, match="at least 3"):
        sealed(channel, "a", replace(HERE, asked=1))


def test_two_contributions_in_one_turn_have_two_masks():
    channel = co.TwoServer(co.Helper())
    a, b = (sealed(channel, "a", value={"w": np.full((2, 3), v)}).value for v in (7, 9))
    assert not set((b["words"] - a["words"]).tolist()) & {2}, "The difference of what was sealed tells nothing."
    assert (sealed(channel, "a", value={"w": np.full((2, 3), 7)}).value["words"] == a["words"]).all()


class Counts(co.Trainer):
    """Counts how often it was asked."""

    asked = 0

    def contribute(self, shared, local, round, secret):
        Counts.asked += 1
        return super().contribute(shared, local, round, secret)


def learning(channel, sites=5, **more):
    rng = np.random.default_rng(0)
    model = co.Linear(4, 2, rate=0.5, batch=8)
    data = {f"p{i}": (rng.normal(size=(16, 4)).astype("float32"), np.arange(16) % 2) for i in range(sites)}
    people = {n: Counts(model, d, test=d) for n, d in data.items()}
    return co.Collaboration(
        co.FedAvg(model, bound=0.5), people, combine=co.Mean(uniform=True), channel=channel, seed=1, **more
    )


def test_a_run_is_the_plain_one_within_fixed_point_and_can_begin_anew():
    plain, two = learning(co.Plain()).run(3), learning(co.TwoServer(helper := co.Helper()))
    for _ in range(2):  # the same recipe, and other identities
        run = two.run(3)
        assert max(np.abs(run.shared[k] - x).max() for k, x in plain.shared.items()) < 3 * 5 * 0.5 / 2**31 + 1e-6
    assert run.metrics["accuracy"] == pytest.approx(plain.metrics["accuracy"])
    assert not run.ledger.refused
    assert co.recipe(two)["parts"]["channel"]["helper"]["key"] == helper.key.hex()


def test_a_run_goes_on_in_its_folder(tmp_path):
    channel = co.TwoServer(co.Helper(tmp_path / "helper"))
    whole = learning(channel).run(4).shared
    for rounds in (2, 4):
        run = learning(co.TwoServer(co.Helper(tmp_path / "helper"))).run(rounds, folder=tmp_path / "run")
    assert all((run.shared[k] == x).all() for k, x in whole.items())


@pytest.mark.parametrize(
    ("channel", "says"),
    [
        (lambda: co.TwoServer("http://127.0.0.1:9", co.Helper().key), "Start it with comity helper"),
        (lambda: co.TwoServer(co.Helper(), co.Helper().key), "it was swapped"),
    ],
)
def test_a_helper_that_is_down_or_swapped_is_told_before_anything_moves(channel, says):
    Counts.asked = 0
    with pytest.raises(co.TooFewParticipants, match=says):
        learning(channel(), retries=0).run(1)
    assert Counts.asked == 0


def test_what_is_secret_is_never_shown(tmp_path):
    helper = co.Helper(tmp_path / "helper")
    channel, private = co.TwoServer(helper), (tmp_path / "helper" / "helper.key").read_bytes()
    assert (tmp_path / "helper" / "helper.key").stat().st_mode & 0o777 == 0o600
    learning(channel).run(1, folder=tmp_path / "run")
    shown = [repr(channel), repr(helper), repr(helper.__dict__["_key"]), str(co.recipe(learning(channel)))]
    mine = seeds(channel)
    context = turn().context(form(), helper.key)
    seed = mine["a"].opened(context, "a", helper._key)
    shown += [repr(mine["a"]), repr(mine), repr(channel.setup(NAMES, None, HERE))]
    for members in (mine | {"z": mine["a"]}, mine | {"a": mine["b"], "b": mine["a"]}, {"a": mine["a"]}):
        with pytest.raises(co.ChannelError) as caught:
            helper.masks(ask(turn(), form(), members))
        shown.append(repr(caught.value) + repr(caught.value.__cause__))
    with pytest.raises(co.ChannelError) as caught:
        mine["a"].opened(context, "a", co.Helper()._key)
    shown.append(repr(caught.value) + repr(caught.value.__cause__))
    told = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and p.name != "helper.key")
    told += "".join(shown).encode() + pickle.dumps(channel)
    for found in (private, seed):
        assert found not in told
        assert found.hex().encode() not in told
        assert repr(found).encode() not in told


def test_in_another_process_a_helper_is_its_key_alone():
    helper = co.Helper()
    there = pickle.loads(pickle.dumps(helper))
    assert isinstance(there, Known)
    assert (there.key, there.public_key()) == (helper.key, helper.key)
    with pytest.raises(co.ChannelError, match="comity helper"):
        there.masks(ask(turn(), form(), {}))


def test_a_helper_whose_disk_fails_answers_nothing(tmp_path):
    helper = co.Helper(tmp_path)
    channel = co.TwoServer(helper)
    helper._held.execute("DROP TABLE answered")
    with pytest.raises(co.ChannelError, match="must write down"):
        helper.masks(ask(turn(), form(), seeds(channel)))
    (tmp_path / "helper.key").write_bytes(b"short")
    with pytest.raises(co.ConfigError, match="32 bytes"):
        co.Helper(tmp_path)


def test_the_seed_and_the_mask_are_what_the_text_says():
    """Known answers, so that another implementation can be held against this one."""
    from comity.channels.masks import mask

    channel = co.TwoServer(Forgets())
    one, words = sealed(channel, "a"), lay(contribution("a"), 5)[1]
    seed = SealedSeed.read(one.value["seed"]).opened(turn().context(form(), channel.key), "a", channel.helper._key)
    mask(words, form(), [seed])
    assert (words == one.value["words"]).all()
    assert turn().digest.hex() == TURN
    assert turn().context(form(), bytes(32)).hex() == CONTEXT


TURN = "e59553e1247010d8e7d7992d1d373e721d7f95fc86394a150b1a58d1b9f54fa1"
CONTEXT = "e2ccdb4b35c3505f3787d4c73f5545ca999ef747dcbea9c892182f9d6b62681e"
