"""Peers that each run their own rounds come to the bits of one process that plays them all."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

import comity as co
from comity.core.errors import ContributionError, TooFewParticipants, WireError
from comity.engines.peers import Peers

RNG = np.random.default_rng(0)
NAMES = ("ada", "bob", "cyd", "dan")
MODEL = co.MLP(3, 2, hidden=(4,), rate=0.2, batch=5)
DATA = {n: (RNG.normal(size=(20, 3)).astype("float32"), RNG.integers(0, 2, 20)) for n in NAMES}
PATH = co.graph([("ada", "bob"), ("bob", "cyd"), ("cyd", "dan")])
ROUNDS = 5


class Post:
    """Letters in memory, read by whoever they are for."""

    def __init__(self) -> None:
        self.letters: dict[Any, bytes] = {}
        self.came = threading.Condition()


class InMemory:
    def __init__(self, me: str, post: Post) -> None:
        self.me, self.post = me, post

    def send(self, to: str, number: int, data: bytes) -> None:
        with self.post.came:
            self.post.letters.setdefault((self.me, to, number), data)
            self.post.came.notify_all()

    def there(self, senders: Sequence[str], number: int, seconds: float) -> list[str]:
        def found() -> list[str]:
            return [name for name in senders if (name, self.me, number) in self.post.letters]

        with self.post.came:
            self.post.came.wait_for(lambda: bool(found()), seconds)
            return found()

    def fetch(self, sender: str, number: int) -> bytes:
        data = self.post.letters[sender, self.me, number]
        if data == b"spoilt":
            raise WireError("It is spoilt.")
        return data


def person(name: str) -> Any:
    return co.Trainer(MODEL, DATA[name], test=DATA[name], send="model")


def fed(people: Mapping[str, Any], **parts: Any) -> co.Collaboration:
    return co.Collaboration(co.FedAvg(MODEL, send="model"), people, seed=3, **parts)


def apart(people: Mapping[str, Any], post: Post, rounds: int = ROUNDS, **parts: Any) -> dict[str, Any]:
    """Each peer in a thread; what came of it, or the error."""
    out: dict[str, Any] = {}

    def one(name: str) -> None:
        folder = parts.get("folder") and parts["folder"] / name
        given = {k: v for k, v in parts.items() if k != "folder"}
        engine: Any = Peers(name, NAMES, InMemory(name, post), given["select"])
        try:
            out[name] = fed({name: people[name]}, **given).run(rounds, engine=engine, folder=folder)
        except Exception as error:  # noqa: BLE001  it is looked at
            out[name] = error

    threads = [threading.Thread(target=one, args=(name,)) for name in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return out


def same(a: Any, b: Any) -> bool:
    return all(np.array_equal(a[k], b[k]) for k in b) and a.keys() == b.keys()


CASES = {
    "ring": {"select": co.ring(), "combine": co.Mean(uniform=True)},
    "wide ring": {"select": co.ring(2)},
    "path": {"select": PATH, "combine": co.Metropolis(PATH.neighbours)},
    "sparse": {"select": co.ring(), "transforms": [co.TopK(0.5)]},
}


@pytest.mark.parametrize("case", CASES)
def test_the_same_as_in_one_process(case: str) -> None:
    parts: Any = CASES[case]
    people = {name: person(name) for name in NAMES}
    whole, found = fed(people, **parts).run(ROUNDS), apart(people, Post(), **parts)
    for name in NAMES:
        assert same(found[name].shared, whole.shared[name]), name
        assert found[name].recipe == whole.recipe
        assert found[name].metrics != whole.metrics  # one's own, not the mean of all


def test_a_peer_that_stopped_goes_on_from_its_folder(tmp_path: Any) -> None:
    people, post = {name: person(name) for name in NAMES}, Post()
    parts: Any = CASES["ring"]
    apart(people, post, 2, folder=tmp_path, **parts)
    found = apart(people, post, ROUNDS, folder=tmp_path, **parts)
    assert all(same(found[n].shared, s) for n, s in fed(people, **parts).run(ROUNDS).shared.items())


class Failing:
    """Fails in one round."""

    def __init__(self, inner: Any, number: int) -> None:
        self.inner, self.number, self.model, self.data = inner, number, inner.model, inner.data

    def contribute(self, shared: Any, local: Any, round: Any, secret: Any) -> Any:
        if round.number == self.number:
            raise ContributionError("The disk is full.")
        return self.inner.contribute(shared, local, round, secret)


def test_a_peer_that_fails_tells_its_neighbours_and_they_go_on() -> None:
    parts: Any = {"select": co.ring(), "quorum": 0.6, "evaluate": False}
    people = {name: person(name) for name in NAMES}
    broken = {**people, "bob": Failing(people["bob"], 1)}
    whole, found = fed(broken, **parts).run(3), apart(broken, Post(), 3, **parts)
    for name in NAMES:
        assert same(found[name].shared, whole.shared[name]), name
    said = [e.facts["dropped"] for e in found["ada"].ledger if e.kind == "round"]
    assert "The disk is full" in str(said[1])


def test_a_letter_that_cannot_be_opened_is_a_neighbour_that_did_not_answer() -> None:
    post = Post()
    post.letters["bob", "ada", 0] = b"spoilt"
    people = {name: person(name) for name in NAMES}
    parts: Any = {"select": co.ring(), "quorum": 1.0, "retries": 0}
    found = apart(people, post, 1, **parts)
    assert isinstance(found["ada"], TooFewParticipants)
    assert "It is spoilt" in str(found["ada"])
    assert isinstance(found["cyd"], co.Run)


def test_who_is_silent_is_not_waited_for_beyond_the_deadline() -> None:
    people = {name: person(name) for name in NAMES if name != "dan"}
    found = apart(people, Post(), 1, select=co.ring(), quorum=0.5, deadline=1.0)
    assert found["bob"].ledger.rounds == found["ada"].ledger.rounds == 1
    (round_,) = [e.facts for e in found["ada"].ledger if e.kind == "round"]
    assert list(round_["accepted"]) == [True, True, False]


def test_a_peer_brings_itself_alone() -> None:
    two = {name: person(name) for name in NAMES[:2]}
    engine: Any = Peers("ada", NAMES, InMemory("ada", Post()), co.ring())
    with pytest.raises(co.ConfigError, match="must bring itself alone"):
        fed(two, select=co.ring()).run(1, engine=engine)
