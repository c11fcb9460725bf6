"""A hub that leaves the protocol is refused by the honest side, which says why."""

from dataclasses import replace

import cohorts
import pytest
from cohorts import ROOT, Cohort, names, numbers

import comity as co
from comity.channels.identity import ADVERT, Keys
from comity.channels.records import bitmap, field, pack
from comity.channels.secagg import SecAgg
from comity.channels.unmasking import Revealed
from comity.core.errors import ChannelError, TooFewParticipants

EIGHT = numbers(8)
ALL = bitmap(range(8), 8)


@pytest.fixture(autouse=True, scope="module")
def _forget():
    yield
    cohorts.SAID.clear()


@pytest.fixture
def walk():
    """Eight who have sealed; `order` names them by position."""
    made = Cohort(SecAgg(), EIGHT)
    made.set_up()
    list(made.seals())
    return made


def order(walk):
    return walk.session.circles[0].circle.names


def without(*positions):
    return bitmap(set(range(8)) - set(positions), 8)


def signatures(walk, to, who):
    """What the neighbours of one sign of a list."""
    return b"".join(walk.told(n, "survivors", who=who)["signature"] for n in order(walk) if n != to)


def lies(**by_kind):
    """A hub that changes what it tells in some phases."""

    def lie(kind, name, body):
        return replace(body, value=by_kind[kind](name, dict(body.value))) if kind in by_kind else body

    return lie


def refusals(lie, *, channel=None, turn=(0, 0), memories=None, cohort=EIGHT):
    """The reasons that members gave, and the error of the round."""
    walk = Cohort(channel or SecAgg(), cohort, lie=lie, turn=turn, memories=memories)
    with pytest.raises(ChannelError) as error:
        walk.through()
    return set(walk.refused.values()), error.value, walk


def test_two_lists_of_survivors_for_two_halves():
    def split(name, value):
        return {**value, "who": without(0) if int(name[1:]) % 2 else without(1)}

    reasons, error, walk = refusals(lies(survivors=split, unmask=split))
    assert any("others saw another" in r for r in reasons)
    assert isinstance(error, TooFewParticipants)
    assert not [a for kind, _, a in walk.heard if kind == "unmask"]


def test_a_second_list_is_not_signed_and_not_answered(walk):
    me = order(walk)[2]
    for who in (without(0), ALL):
        shown = b"".join(walk.told(n, "survivors", who=without(0))["signature"] for n in order(walk)[3:])
        if who == without(0):
            assert walk.told(me, "survivors", who=who)
            given = walk.told(me, "unmask", who=who, signatures=bytes(128) + shown)
        else:
            with pytest.raises(ChannelError, match=r"One list of survivors is signed"):
                walk.told(me, "survivors", who=who)
            with pytest.raises(ChannelError, match=r"that was signed. Got another"):
                walk.told(me, "unmask", who=who, signatures=bytes(128) + shown)
    again = walk.told(me, "unmask", who=without(0), signatures=bytes(128) + shown)
    assert again == given, "The same question has the same answer: one kind of share of each."


def test_one_question_cannot_ask_for_both(walk):
    me = order(walk)[2]
    for who in (ALL + ALL, ALL + b"\x01", b"", b"\xff\x01"):
        for kind in ("survivors", "unmask"):
            with pytest.raises(ChannelError, match=r"stranger"):
                walk.told(me, kind, who=who, signatures=bytes(64 * 7))


def test_one_share_of_each_is_revealed_and_never_the_other(walk):
    names_, who = order(walk), without(0)
    for name in names_[1:]:
        walk.told(name, "survivors", who=who)
    shown = {n: bytes(64) + b"".join(walk.told(o, "survivors", who=who)["signature"] for o in names_[1:] if o != n)
             for n in names_[1:]}  # fmt: skip
    given = {n: walk.told(n, "unmask", who=who, signatures=shown[n])["shares"] for n in names_[1:]}
    known = Revealed(walk.session.circles[0].circle, {names_.index(n): g for n, g in given.items()})
    keys = [Keys.of(ROOT.side(n), walk.turn) for n in names_]
    for i, key in enumerate(keys):
        hidden, shown_ = (key.seed, key.s.private_bytes_raw()) if i == 0 else (key.s.private_bytes_raw(), key.seed)
        assert known.secret(i, lambda s, want=shown_: s == want) == shown_
        with pytest.raises(ChannelError):
            known.secret(i, lambda s, want=hidden: s == want)


@pytest.mark.parametrize(
    ("who", "says"),
    [
        (bitmap({2}, 8), "hides each. Got 1"),
        (bitmap({1, 2, 3, 4, 5}, 8), "6 must have survived.*Got 5"),
        (without(2), "must name p.. It does not"),
        (bitmap(range(8), 9), "stranger"),
    ],
)
def test_a_list_that_would_show_too_much(walk, who, says):
    me = order(walk)[2]
    for kind in ("survivors", "unmask"):
        with pytest.raises(ChannelError, match=says.replace("p..", me + ".")):
            walk.told(me, kind, who=who, signatures=bytes(64 * 7))


def test_a_survivor_who_never_shared_is_a_stranger():
    walk = Cohort(SecAgg(), EIGHT, gone={"shares": ["p04"]})
    walk.set_up()
    list(walk.seals())
    me = next(n for n in order(walk) if n != "p04")
    with pytest.raises(ChannelError, match=r"who shared. The list names a stranger"):
        walk.told(me, "survivors", who=ALL)


@pytest.mark.parametrize("forged", ["none", "few", "others", "one for all", "of another list"])
def test_signatures_that_are_not_of_enough_neighbours(walk, forged):
    me = order(walk)[2]
    walk.told(me, "survivors", who=ALL)
    good = [walk.told(n, "survivors", who=ALL)["signature"] for n in order(walk) if n != me]
    made = {
        "none": [bytes(64)] * 7,
        "few": good[:4] + [bytes(64)] * 3,
        "others": good[1:] + good[:1],
        "one for all": good[:1] * 7,
        "of another list": [ROOT.side(n).sign(without(0)) for n in order(walk) if n != me],
    }[forged]
    with pytest.raises(ChannelError, match=r"must have signed the list"):
        walk.told(me, "unmask", who=ALL, signatures=b"".join(made))
    with pytest.raises(ChannelError, match=r"must be shown"):
        walk.told(me, "unmask", who=ALL, signatures=b"".join(good[:3]))
    assert walk.told(me, "unmask", who=ALL, signatures=b"".join(good))["shares"]


@pytest.mark.parametrize("turn", [(0, 1), (1, 0)])
def test_messages_of_another_round_or_attempt(walk, turn):
    me = order(walk)[2]
    old = signatures(walk, me, ALL)
    later = Cohort(SecAgg(), EIGHT, turn=turn, memories=dict(walk.memories))
    later.set_up()
    list(later.seals())
    assert later.told(me, "survivors", who=ALL)
    with pytest.raises(ChannelError, match=r"must have signed the list"):
        later.told(me, "unmask", who=ALL, signatures=old)
    back = Cohort(SecAgg(), EIGHT, turn=(0, 0), memories=dict(later.memories))
    for kind in ("keys", "survivors", "unmask"):
        with pytest.raises(ChannelError, match=r"A round that was left is not gone back to"):
            back.told(me, kind, who=ALL, signatures=old)
    with pytest.raises(ChannelError, match=r"not gone back"):
        back.seal(me, view=walk.session.view(me))


def test_keys_of_another_round_are_refused(walk):
    old = {n: a.value["advert"] for kind, n, a in walk.heard if kind == "keys"}

    def replay(name, value):
        fresh = field(value, "adverts")
        return {**value, "adverts": old[order_of[name][0]] + fresh[ADVERT:]}

    later = Cohort(SecAgg(), EIGHT, turn=(1, 0))
    later.set_up()
    circle = later.session.circles[0].circle
    order_of = {n: circle.near(i) for i, n in enumerate(circle.names)}
    reasons, _, _ = refusals(lies(shares=replay), turn=(1, 0))
    assert all("swapped, are of another round" in r for r in reasons)
    assert len(reasons) == 2


@pytest.mark.parametrize("way", ["bit", "resigned", "given", "of another"])
def test_swapped_keys(walk, way):
    """A changed advertisement; one signed by another identity than was met before or than was given; a neighbour's."""
    thief = co.testing.fixed_secret(99)
    given = {n: ROOT.side(n).public_key() for n in names(8)}
    channel = SecAgg(identities=given) if way == "given" else SecAgg()

    def swapped(name, value):
        data = bytearray(field(value, "adverts"))
        context = channel._terms.context(replace(cohort_turn, me=""))
        if way == "bit":
            data[40] ^= 1
        elif way == "of another":
            data[:ADVERT] = data[ADVERT : 2 * ADVERT]
        else:
            victim = next(n for n in sorted(given) if bytes(data[:32]) == given[n])
            data[:ADVERT] = Keys.of(thief, cohort_turn).advert(victim, context).packed()
        return {**value, "adverts": bytes(data)}

    turn = (1, 0)
    cohort_turn = replace(walk.turn, number=1)
    reasons, error, _ = refusals(lies(shares=swapped), channel=channel, turn=turn, memories=dict(walk.memories))
    assert all("the keys were swapped" in r for r in reasons)
    assert isinstance(error, TooFewParticipants)


def test_the_hub_itself_leaves_out_whom_it_does_not_know():
    given = {n: ROOT.side(n).public_key().hex() for n in names(8) if n != "p05"}
    walk = Cohort(SecAgg(identities=given), EIGHT)
    (got,) = walk.through()
    assert cohorts.same(got, [c for c in EIGHT if c.sender != "p05"])


@pytest.mark.parametrize("keep", [1, 2])
def test_a_cohort_below_the_minimum(keep):
    walk = Cohort(SecAgg(minimum=3), EIGHT)
    commits = {n: walk.told(n, "keys")["advert"][96:128] for n in names(keep)}
    with pytest.raises(ChannelError, match=f"A cohort must be of 3 at least, so that a sum hides each. Got {keep}"):
        walk.told("p00", "shares", names=pack(names(keep)), commits=b"".join(commits.values()), adverts=b"")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda v: {**v, "names": v["names"][:-3] + b"zzz"}, "must name p07|must be signed|Keys|swapped"),
        (lambda v: {**v, "commits": bytes(32) + v["commits"][32:]}, "must name p00|must be signed"),
        (lambda v: {**v, "commits": v["commits"][:-32]}, "A roster must name each member once"),
        (lambda v: {**v, "names": pack(["p00"] * 8)}, "A roster must name each member once"),
        (lambda v: {**v, "names": pack(names(8)[::-1])}, "A roster must name each member once"),
        (lambda v: {**v, "names": b"\xff\xff\xff\xff"}, "ends early"),
        (lambda v: {**v, "names": b"\x01\0\0\0\xff"}, "UTF-8"),
        (lambda v: {**v, "adverts": v["adverts"][:-ADVERT]}, "Keys of 7 neighbours"),
        (lambda v: {**v, "adverts": b""}, "Keys of 7 neighbours"),
        (lambda v: {k: x for k, x in v.items() if k != "adverts"}, "must hold 'adverts'"),
    ],
)
def test_a_roster_that_is_wrong(change, says):
    reasons, _, walk = refusals(lies(shares=lambda name, value: change(value)))
    assert len(walk.refused) == 8
    assert all(any(part in r for part in says.split("|")) for r in reasons), reasons


def test_a_second_roster_in_a_round(walk):
    message = next(iter(told_shares()))
    other = {**message, "names": pack(names(7)), "commits": message["commits"][:-32]}
    with pytest.raises(ChannelError, match=r"one roster. Got a second"):
        walk.told("p00", "shares", **{**other, "adverts": message["adverts"][:-ADVERT]})


def told_shares():
    seen = []
    walk = Cohort(SecAgg(), EIGHT, lie=lies(shares=lambda name, value: seen.append(value) or value))
    walk.set_up()
    return seen


def test_a_second_contribution_under_the_same_masks(walk):
    other = replace(EIGHT[0], value={"w": EIGHT[0].value["w"] * 0})
    with pytest.raises(ChannelError, match=r"sealed once in a round. Got a second"):
        walk.seal("p00", c=other)


@pytest.mark.parametrize(
    ("view", "says"),
    [
        (lambda v: None, "must hold 'who'"),
        (lambda v: {**v, "who": bitmap(range(1, 5), 8)}, "must"),
        (lambda v: {**v, "who": bytes(1)}, "must name"),
        (lambda v: {**v, "who": ALL + ALL}, "stranger"),
        (lambda v: {**v, "shares": v["shares"][1:]}, "'shares' must be"),
    ],
)
def test_a_view_that_is_wrong(view, says):
    walk = Cohort(SecAgg(), EIGHT)
    walk.set_up()
    with pytest.raises(ChannelError, match=says):
        walk.seal("p03", view=view(walk.session.view("p03")) or {})


def test_phases_out_of_turn():
    walk = Cohort(SecAgg(), EIGHT)
    for kind in ("survivors", "unmask"):
        with pytest.raises(ChannelError, match=r"Shares must be asked for first"):
            walk.told("p00", kind, who=ALL, signatures=b"")
    walk.set_up()
    with pytest.raises(ChannelError, match=r"sealed before survivors"):
        walk.told("p00", "survivors", who=ALL)
    with pytest.raises(ChannelError, match=r"has no phase 'open sesame'"):
        walk.told("p00", "open sesame")
