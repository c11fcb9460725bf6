"""The chain notices every change, and the totals are those of a plain recount."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from comity.core.errors import LedgerError
from comity.ledger.record import GENESIS, Entry, Ledger, check_chain


def a_round(n, hub="hub", closed=True, **more):
    return {
        "round": n,
        "attempt": 0,
        "hub": hub,
        "asked": "ada\nbob\ncy",
        "accepted": np.array([True, True, False]),
        "up": np.array([100 + n, 200, 0]),
        "down": np.array([7, 7, 7]),
        "refused": {"0": {"sender": "bob", "reason": "NaN in w (3 of 9 values)."}},
        "dropped": {str(i): {"sender": f"p{i:02}", "reason": "ValueError: no"} for i in range(11)},
        "metrics": {"loss": np.array([1.0 + n, 4.0])},
        "closed": closed,
        **more,
    }


def filled(n=5):
    ledger = Ledger()
    ledger.append("start", {"recipe": "ab" * 32, "seed": 0}, time=1.5)
    for i in range(n - 1):
        ledger.append("round", a_round(i), time=2.5 + i)
    return ledger


def test_an_untouched_chain_is_intact():
    ledger = filled()
    ledger.verify()
    ledger.verify(ledger.head)
    assert ledger[0].previous == GENESIS
    assert [e.number for e in ledger] == [1, 2, 3, 4, 5]
    assert Ledger().head == GENESIS


@pytest.mark.parametrize("at", range(5))
@pytest.mark.parametrize(
    "change",
    [
        {"kind": "other"},
        {"time": 99.0},
        {"facts": {"round": 77}},
        {"hash": "f" * 64},
        {"previous": "e" * 64},
        {"number": 40},
    ],
    ids=lambda c: next(iter(c)),
)
def test_any_changed_field_is_named(at, change):
    entries = list(filled())
    entries[at] = replace(entries[at], **change)
    with pytest.raises(LedgerError, match=f"ledger entry {at + 1} "):
        check_chain(entries)


def test_one_bit_of_one_array_is_enough():
    entries = list(filled())
    up = entries[2].facts["up"].copy()
    up[1] ^= 1
    entries[2] = replace(entries[2], facts={**entries[2].facts, "up": up})
    with pytest.raises(
        LedgerError, match=r"^ledger entry 3 does not match the hash in entry 4\. Entries 1 to 2 are intact\.$"
    ):
        check_chain(entries)


def test_a_rewritten_entry_with_a_good_hash_of_its_own_is_noticed_by_the_next():
    entries = list(filled())
    forged = Ledger.restore(entries[:2]).append("round", a_round(1, closed=False), time=3.5)
    with pytest.raises(LedgerError, match="ledger entry 3 does not match the hash in entry 4"):
        check_chain([*entries[:2], forged, *entries[3:]])


@pytest.mark.parametrize("at", range(4))
def test_a_deleted_entry_is_missing(at):
    entries = list(filled())
    del entries[at]
    with pytest.raises(LedgerError, match=f"ledger entry {at + 1} is missing"):
        check_chain(entries)


def test_a_shortened_chain_needs_a_head_that_was_kept():
    ledger = filled()
    check_chain(list(ledger)[:-1])
    with pytest.raises(LedgerError, match="must end with the hash"):
        check_chain(list(ledger)[:-1], ledger.head)


def test_every_other_order_is_refused():
    entries = list(filled(4))
    for order in list(permutations(entries))[1:]:
        with pytest.raises(LedgerError):
            check_chain(order)
        renumbered = [replace(e, number=i + 1) for i, e in enumerate(order)]
        with pytest.raises(LedgerError):
            check_chain(renumbered)


def test_an_entry_from_another_ledger_is_refused():
    other = Ledger()
    other.append("start", {"seed": 1}, time=1.5)
    other.append("round", a_round(0), time=2.5)
    entries = list(filled())
    with pytest.raises(LedgerError):
        check_chain([entries[0], other[1], *entries[2:]])


def test_facts_are_the_ledgers_own_copy():
    ledger, facts = Ledger(), a_round(0)
    ledger.append("round", facts, time=0.0)
    facts["up"][0] = 1
    facts["metrics"]["loss"][0] = -1.0
    facts["hub"] = "elsewhere"
    ledger.verify()
    assert ledger.bytes_up == 300
    with pytest.raises(ValueError, match="read-only"):
        ledger[0].facts["up"][0] = 1


def test_totals_are_those_of_a_recount():
    ledger = filled()
    ledger.append("round", a_round(4, closed=False), time=9.0)
    ledger.append("setup", {"asked": "bob", "up": np.array([5]), "down": np.array([6])}, time=9.0)
    ledger.append("page", {"down": 1000}, time=9.0)
    facts = [e.facts for e in ledger]
    assert ledger.bytes_up == sum(int(np.sum(f.get("up", 0))) for f in facts) == 5 * 300 + 10 + 5
    assert ledger.bytes_down == 5 * 21 + 6 + 1000
    assert ledger.bytes_of("ada") == (510, 35)
    assert ledger.bytes_of("bob") == (1005, 41)
    ledger.append("setup", {"asked": "bob", "up": np.array([5]), "down": np.array([6])}, time=9.0)
    assert ledger.bytes_of("bob") == (1010, 47)
    assert ledger.bytes_of("nobody") == (0, 0)
    assert ledger.rounds == 4


def test_refused_and_dropped_name_who_and_why_in_order():
    ledger = filled(3)
    assert [tuple(r) for r in ledger.refused] == [(n, "bob", "NaN in w (3 of 9 values).") for n in (0, 1)]
    assert "bob" in str(ledger.refused[0])
    assert "NaN in w" in str(ledger.refused[0])
    assert [d.sender for d in ledger.dropped[:11]] == [f"p{i:02}" for i in range(11)]


def test_a_round_that_did_not_close_has_no_metric():
    ledger = filled(3)
    ledger.append("round", a_round(2, closed=False), time=0.0)
    assert ledger.metric("loss") == [0.25, 0.5]
    ledger.append("round", a_round(2), time=0.0)
    assert ledger.metric("loss") == [0.25, 0.5, 0.75]
    assert ledger.metric("accuracy") == []


def test_hubs_of_one_round_count_as_one_round_and_their_metrics_add():
    ledger = Ledger()
    ledger.append("round", a_round(0, "a"), time=0.0)
    ledger.append("round", a_round(0, "b", metrics={"loss": np.array([7.0, 4.0])}), time=0.0)
    assert ledger.rounds == 1
    assert ledger.metric("loss") == [1.0]


def test_a_score_comes_before_what_was_reported_in_training():
    ledger = filled(3)
    ledger.append("score", {"round": 1, "metrics": {"loss": np.array([1.0, 8.0])}}, time=0.0)
    assert ledger.metric("loss") == [0.125]


def test_restored_goes_on_as_if_never_stopped():
    whole, half = filled(5), filled(3)
    again = Ledger.restore(half)
    for entry in whole.since(3):
        again.append(entry.kind, entry.facts, time=entry.time)
    again.verify()
    assert again.head == whole.head
    assert isinstance(again[-1], Entry)
    for view in ("rounds", "refused", "dropped", "bytes_up", "bytes_down"):
        assert getattr(again, view) == getattr(whole, view)
    assert (again.bytes_of("ada"), again.metric("loss")) == (whole.bytes_of("ada"), whole.metric("loss"))
    assert [e.number for e in whole.since(3)] == [4, 5]


def test_bytes_that_do_not_fit_the_names_are_refused():
    ledger = Ledger()
    with pytest.raises(LedgerError, match=r"'up' must have one number for each of the 3 names.*\(2,\)"):
        ledger.append("round", a_round(0, up=np.zeros(2, int)), time=0.0)
    assert len(ledger) == 0
    nobody = {"asked": "", "up": np.zeros(0, int), "down": np.zeros(0, int), "closed": True, "round": 0}
    ledger.append("round", nobody, time=0.0)
    assert ledger.rounds == 1
    assert ledger.bytes_of("") == (0, 0)
