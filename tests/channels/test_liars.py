"""Participants that lie: never a wrong sum, and where it can be told, whose shares do not fit."""

from dataclasses import replace

import cohorts
import numpy as np
import pytest
from cohorts import ROOT, Cohort, names, numbers, same

from comity.channels.identity import _LOW_ORDER, ADVERT, Keys, agreed, usable
from comity.channels.secagg import SecAgg
from comity.channels.shamir import SHARE
from comity.core.errors import BadShare, ChannelError, ContributionError, TooFewParticipants

EIGHT = numbers(8)


@pytest.fixture(autouse=True, scope="module")
def _forget():
    yield
    cohorts.SAID.clear()


def spoils(who, kind, change):
    """These members answer a phase otherwise."""

    def spoil(phase, name, answer):
        return replace(answer, value=change(answer.value)) if phase == kind and name in who else answer

    return spoil


def wrong(value):
    """Other shares."""
    data = np.frombuffer(value["shares"], np.uint8).reshape(-1, SHARE).copy()
    data[:, 1:] = np.random.default_rng(int(data[0, 5])).integers(0, 256, data[:, 1:].shape)
    return {"shares": data.tobytes()}


@pytest.mark.parametrize("liars", [["p00"], ["p03", "p06"]])
def test_wrong_shares_where_enough_are_right(liars):
    walk = Cohort(SecAgg(), EIGHT, spoil=spoils(liars, "unmask", wrong))
    (got,) = walk.through()
    assert same(got, EIGHT)


@pytest.mark.parametrize("gone", [[], ["p07"]])
def test_wrong_shares_where_too_few_are_right(gone):
    walk = Cohort(SecAgg(), EIGHT, gone={"contribute": gone}, spoil=spoils(names(3), "unmask", wrong))
    with pytest.raises(BadShare, match=r"6 shares of p\d\d must give back what it committed to. Got [78] that do not"):
        walk.through()


def test_shares_of_another_secret():
    """Who shares what it did not commit to is named."""

    def another(value):
        return {"shares": shares["p02"]}

    shares = {}
    other = Cohort(SecAgg(), EIGHT, turn=(3, 0))
    other.set_up()
    shares["p02"] = next(a.value["shares"] for kind, n, a in other.heard if (kind, n) == ("shares", "p02"))
    walk = Cohort(SecAgg(), EIGHT, spoil=spoils(["p02"], "shares", another))
    with pytest.raises(TooFewParticipants, match=r"6 shares of p02 must be revealed. Got 1. The sum is not opened"):
        walk.through()


@pytest.mark.parametrize(
    "change",
    [
        lambda v: {**v, "words": v["words"][:-2]},
        lambda v: {**v, "words": np.concatenate([v["words"], v["words"][:2]])},
        lambda v: {**v, "words": v["words"].view("int32")},
        lambda v: {**v, "words": v["words"].tobytes()},
        lambda v: {**v, "words": v["words"].reshape(1, -1)},
        lambda v: {"words": v["words"]},
        lambda v: {**v, "form": {**v["form"], "kind": "gradient"}},
        lambda v: {**v, "form": {**v["form"], "value": {"v": v["form"]["value"]["w"]}}},
        lambda v: v["words"],
        lambda v: None,
    ],
)
def test_a_mask_of_another_length_or_form_is_left_out(change):
    walk = Cohort(SecAgg(), EIGHT, spoil=spoils(["p04"], "contribute", change))
    (got,) = walk.through()
    assert same(got, [c for c in EIGHT if c.sender != "p04"])


@pytest.mark.parametrize(
    ("c", "says"),
    [
        (replace(EIGHT[0], value={"w": np.array([0, 0, 0, 0, 2**31 // 8])}), "must be within 268435455.*FixedPoint"),
        (replace(EIGHT[0], value={"w": np.ones(5)}), "must hold integers.*FixedPoint"),
        (replace(EIGHT[0], weight=float("nan")), "weight must be within"),
        (replace(EIGHT[0], weight={"w": 1.0}), "one number"),
        (replace(EIGHT[0], metrics={"loss": (1e30, 1.0)}), "metric 'loss'"),
    ],
)
def test_what_is_not_bounded_is_not_sealed(c, says):
    walk = Cohort(SecAgg(), EIGHT)
    walk.set_up()
    with pytest.raises(ContributionError, match=says):
        walk.seal("p00", c=c)


@pytest.mark.parametrize(
    "change",
    [
        lambda v: {"advert": v["advert"][:-1]},
        lambda v: {"advert": v["advert"][:-1] + bytes(1)},
        lambda v: {"advert": Keys.of(ROOT.side("p01"), Cohort(SecAgg(), EIGHT).turn)
                   .advert("p01", SecAgg()._terms.context(Cohort(SecAgg(), EIGHT).turn)).packed()},
        lambda v: {"advert": bytes(ADVERT)},
        lambda v: {},
        lambda v: "text",
    ],
)  # fmt: skip
def test_keys_that_are_not_its_own_leave_it_out(change):
    walk = Cohort(SecAgg(), EIGHT, spoil=spoils(["p04"], "keys", change))
    (got,) = walk.through()
    assert same(got, [c for c in EIGHT if c.sender != "p04"])


def test_two_with_one_identity_are_one():
    walk = Cohort(SecAgg(), EIGHT)
    turn = walk.turn
    twin = Keys.of(ROOT.side("p01"), turn).advert("p04", SecAgg()._terms.context(turn)).packed()
    walk.spoil = spoils(["p04"], "keys", lambda v: {"advert": twin})
    (got,) = walk.through()
    assert same(got, [c for c in EIGHT if c.sender != "p04"])


def test_a_point_of_low_order_is_no_key():
    """Who advertises one, and signs it, is left out: what it agrees on with others anybody could guess."""
    walk = Cohort(SecAgg(), EIGHT)
    keys = Keys.of(ROOT.side("p04"), walk.turn)

    class Low:
        def public_key(self):
            return self

        def public_bytes_raw(self):
            return bytes(32)

    keys.__dict__["s"] = Low()
    advert = keys.advert("p04", SecAgg()._terms.context(walk.turn)).packed()
    walk.spoil = spoils(["p04"], "keys", lambda v: {"advert": advert})
    (got,) = walk.through()
    assert same(got, [c for c in EIGHT if c.sender != "p04"])
    with pytest.raises(ChannelError, match=r"full order"):
        agreed(keys.c, bytes(32), b"", b"")


def test_damaged_shares_of_one_way_do_not_matter_where_enough_are_left():
    def damaged(value):
        return {"shares": value["shares"][:40] + bytes(1) + value["shares"][41:]}

    walk = Cohort(SecAgg(), EIGHT, spoil=spoils(["p02", "p05"], "shares", damaged))
    (got,) = walk.through()
    assert same(got, EIGHT)


def test_a_signature_that_is_none_does_not_stop_the_others():
    walk = Cohort(SecAgg(), EIGHT, spoil=spoils(["p02", "p05"], "survivors", lambda v: {"signature": bytes(64)}))
    (got,) = walk.through()
    assert same(got, EIGHT)


def test_every_point_of_low_order_is_known():
    """Those that are refused at the hub are those that X25519 itself will not agree with."""
    mine = Keys.of(ROOT.side("p00"), Cohort(SecAgg(), EIGHT).turn)
    for u in _LOW_ORDER:
        for top in (0, 2**255):
            point = (u + top).to_bytes(32, "little")
            assert not usable(point)
            with pytest.raises(ChannelError, match=r"full order"):
                agreed(mine.c, point, b"", b"")
    assert usable(mine.c.public_key().public_bytes_raw(), (9).to_bytes(32, "little"))
