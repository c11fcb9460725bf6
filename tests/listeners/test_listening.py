"""Who listens to a run hears everything and changes nothing."""

import hashlib

import numpy as np
import pytest

import comity as co
from comity import running
from comity.core.contribution import Contribution
from comity.core.wire import encode_tree

RNG = np.random.default_rng(0)
DATA = {n: (RNG.normal(size=(8, 4)).astype("float32"), RNG.integers(0, 3, 8)) for n in ("a", "b", "c")}
MODEL = co.Linear(4, 3, rate=0.1)


def collaboration(**parts):
    return co.Collaboration(co.FedAvg(MODEL), {n: co.Trainer(MODEL, d) for n, d in DATA.items()}, seed=3, **parts)


def bits(run):
    facts = {str(i): {"kind": e.kind, "facts": e.facts} for i, e in enumerate(run.ledger)}
    return hashlib.sha256(encode_tree({"state": run.state, "metrics": dict(run.metrics), "facts": facts})).hexdigest()


def short(events):
    return [(e.kind, e.round.number, e.closed) for e in events]


class Fails:
    """Raises from the n-th event on."""

    def __init__(self, n, error=OSError):
        self.n, self.error, self.heard = n, error, 0

    def __call__(self, event):
        self.heard += 1
        if self.heard >= self.n:
            raise self.error("no such server")


def test_the_events_of_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "SAVE_SECONDS", 0.0)
    one, other = [], []
    fed = collaboration(evaluate=co.every(2))
    fed.run(3, folder=tmp_path, listen=[one.append, other.append])
    rounds = [("round", 0, True), ("saved", 1, True), ("round", 1, True), ("score", 2, True), ("saved", 2, True)]
    assert (
        short(one) == short(other) == [*rounds, ("round", 2, True), *((k, 3, True) for k in ("score", "saved", "end"))]
    )
    again = []
    fed.run(3, folder=tmp_path, listen=again.append)
    assert short(again) == [("end", 3, True)]
    nowhere = []
    collaboration(evaluate=False).run(1, listen=nowhere.append)
    assert short(nowhere) == [("round", 0, True), ("end", 1, True)]


def test_what_was_saved_is_in_the_folder_when_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "SAVE_SECONDS", 0.0)
    seen = []

    def look(event):
        if event.kind == "saved":
            seen.append((event.round.number, co.audit(tmp_path).rounds))

    collaboration().run(3, folder=tmp_path, listen=look)
    assert seen == [(1, 1), (2, 2), (3, 3)]


def test_the_end_is_told_whatever_ends_a_run(tmp_path):
    class Away:
        def contribute(self, shared, local, round, secret):
            raise OSError("away")

    events = []
    with pytest.raises(co.TooFewParticipants):
        collaboration(retries=1).replace(participants={"a": Away()}).run(2, folder=tmp_path, listen=events.append)
    ended = [("round", 0, False), ("round", 0, False), ("saved", 0, True), ("end", 0, False)]
    assert short(events) == ended
    events.clear()
    with pytest.raises(KeyboardInterrupt):
        collaboration().run(2, listen=[events.append, Fails(1, KeyboardInterrupt)])
    assert short(events) == [("round", 0, True), ("end", 1, False)]


@pytest.mark.parametrize("n", range(1, 8))
def test_a_listener_that_fails_is_reported_once_and_changes_nothing(n, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "SAVE_SECONDS", 0.0)
    fed, heard, bad = collaboration(evaluate=co.every(2)), [], Fails(n)
    straight = bits(fed.run(3))
    with pytest.warns(RuntimeWarning, match=r"The listener Fails failed .* OSError: no such server") as said:
        run = fed.run(3, folder=tmp_path, listen=[bad, heard.append])
    assert (len(said), bad.heard, len(heard)) == (1, n, 9)
    assert bits(run) == straight


@pytest.mark.filterwarnings("error")
def test_where_warnings_are_errors_the_run_stops_and_goes_on_as_in_one(tmp_path):
    fed = collaboration(evaluate=co.every(2))
    straight = bits(fed.run(4))
    for n in (1, 2, 3):
        with pytest.raises(RuntimeWarning, match="told no more"):
            fed.run(4, folder=tmp_path, listen=Fails(n))
    assert bits(fed.run(4, folder=tmp_path)) == straight


def test_the_history_of_peers_counts_each_participant_once():
    sites = {n: co.Trainer(MODEL, d, send="model") for n, d in DATA.items()}
    fed = co.Collaboration(co.FedAvg(MODEL, send="model"), sites, select=co.ring(), evaluate=co.every(2), seed=1)
    run = fed.run(3)
    h = run.history
    assert h["asked"].to_list() == h["accepted"].to_list() == [3, 3, 3]
    assert (h["bytes_up"].sum(), h["bytes_down"].sum()) == (run.ledger.bytes_up, run.ledger.bytes_down)
    assert len(set(run.shared)) == 3


def test_the_history_of_failed_attempts_and_of_peers_that_fail():
    """A peer that never answers is asked and not accepted; what failed attempts cost stands with their round."""

    class Late(co.Trainer):
        def contribute(self, shared, local, round, secret):
            if round.attempt == 0 and shared.kind != "score":
                return Contribution("delta", {}), local
            return super().contribute(shared, local, round, secret)

    plain = collaboration(evaluate=False)
    late = plain.replace(participants={n: Late(MODEL, d) for n, d in DATA.items()})
    one, two = plain.run(2), late.run(2)
    assert two.history["accepted"].to_list() == two.history["asked"].to_list() == [3, 3]
    assert two.history["bytes_down"].sum() == two.ledger.bytes_down == 2 * one.ledger.bytes_down
    assert two.history["train_loss"].to_list() == one.history["train_loss"].to_list()

    class Never(co.Trainer):
        def contribute(self, shared, local, round, secret):
            raise OSError("away")

    sites = {n: (Never if n == "b" else co.Trainer)(MODEL, d, send="model") for n, d in DATA.items()}
    peers = co.Collaboration(co.FedAvg(MODEL, send="model"), sites, select=co.ring(), evaluate=False, quorum=0.5)
    assert peers.run(1).history.row(0)[:3] == (1, 3, 2)
