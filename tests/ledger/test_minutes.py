"""Minutes over declared links are those of a plain recount, whatever the run went through."""

import math
from itertools import pairwise

import numpy as np
import pytest

import comity as co
from comity.ledger import minutes as timing
from comity.ledger.minutes import figure

MODEL = co.Linear(inputs=4, classes=2, rate=0.1)
DATA = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
SLOW, FAST = co.Link(up=1e4, down=4e4, delay=0.2), co.Link(up=1e8, down=1e8)


def ran(names="abc", **more):
    sites = {name: co.Trainer(MODEL, DATA, test=DATA, send="model") for name in names}
    return co.Collaboration(co.FedAvg(MODEL, send="model"), sites, **more).run(rounds=3)


def plain(ledger, links, compute=None):
    """Minutes of each attempt and who was last, by loops: entries of one attempt stand together, a hub once."""
    groups, keys = [], []
    for e in ledger:
        if e.kind not in ("round", "score"):
            continue
        key = e.kind, e.facts["round"], e.facts["attempt"]
        if not groups or keys[-1] != key or e.facts["hub"] in [f["hub"] for f in groups[-1]]:
            groups.append([])
            keys.append(key)
        groups[-1].append(e.facts)
    out = []
    for (kind, number, _), hubs in zip(keys, groups, strict=True):
        up, down = {}, {}
        for f in hubs:
            for who, u, d in zip(
                f["asked"].split("\n") if f["asked"] else (), f["up"].tolist(), f["down"].tolist(), strict=True
            ):
                up[who], down[who] = up.get(who, 0) + u, down.get(who, 0) + d
        took = {w: links[w].seconds(up[w], down[w]) + (up[w] > 0) * (compute or {}).get(w, 0) for w in up} or {"": 0.0}
        who = max(took, key=took.get)
        out.append((kind, number, took[who] / 60, who))
    return out


def agree(found, expected):
    rounds = sorted({n for kind, n, _, _ in expected if kind == "round"})
    assert found.rounds.tolist() == [n + 1 for n in rounds]
    for i, number in enumerate(rounds):
        own = [(took, who) for kind, n, took, who in expected if kind == "round" and n == number]
        assert found.each[i] == pytest.approx(sum(took for took, _ in own))
        assert found.attempts[i] == len(own)
        assert found.slowest[i] == max(own, key=lambda pair: pair[0])[1]
    assert found.scores == pytest.approx(sum(took for kind, _, took, _ in expected if kind == "score"))
    assert found.total == pytest.approx(sum(took for _, _, took, _ in expected))
    assert {w: found.slowest.count(w) / len(rounds) for w in set(found.slowest) - {""}} == pytest.approx(found.last)
    assert all(a >= b for a, b in pairwise(found.last.values()))


def drawn(seed, hubs=("",)):
    """A ledger of attempts that fail and close, with scores in between, of one hub or of several."""
    rng, ledger, people = np.random.default_rng(seed), co.Ledger(), [f"p{i}" for i in range(9)]
    ledger.append("start", {"recipe": "x"}, time=0.0)
    for number in range(7):
        tries = int(rng.integers(1, 4))
        for attempt in range(tries + 1):
            kind = "score" if attempt == tries else "round"
            for hub in hubs:
                asked = sorted(rng.choice(people, rng.integers(1, 6), replace=False).tolist())
                up, down = rng.integers(0, 9000, (2, len(asked)))
                facts = {"round": number, "attempt": attempt % tries, "hub": hub, "asked": "\n".join(asked)}
                closed = kind == "score" or attempt == tries - 1
                ledger.append(kind, {**facts, "up": up * (up > 3000), "down": down, "closed": closed}, time=1.0)
            ledger.append("choice", {"who": "all"}, time=1.0)
    links = {p: co.Link(*rng.uniform(1e4, 1e6, 2), delay=rng.random(), loss=0.5 * rng.random()) for p in people}
    return ledger, links, {p: float(rng.random()) for p in people[:5]}


@pytest.mark.parametrize("hubs", [("",), ("p0", "p1", "p2")], ids=["one hub", "three hubs"])
@pytest.mark.parametrize("lot", [1, 7, timing.LOT])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_a_plain_recount_however_many_are_timed_at_once(seed, lot, hubs, monkeypatch):
    monkeypatch.setattr(timing, "LOT", lot)
    ledger, links, compute = drawn(seed, hubs)
    agree(co.minutes(ledger, links), plain(ledger, links))
    agree(co.minutes(list(ledger), links, compute=compute), plain(ledger, links, compute))
    everybody = dict.fromkeys(links, 0.7)
    agree(co.minutes(ledger, links, compute=0.7), plain(ledger, links, everybody))


def test_a_link_takes_its_delay_and_its_bytes_both_ways():
    link = co.Link(up=8e3, down=16e3, delay=0.5)
    assert link.seconds(1000, 4000) == 0.5 + 1 + 2
    assert link.seconds(0) == 0.5
    assert co.Link(up=8e3, down=16e3, loss=0.5).seconds(1000, 4000) == 2 + 4
    assert co.Link(up=math.inf, down=math.inf).seconds(1e12, 1e12) == 0


@pytest.mark.parametrize("name", ["2g", "3g", "4g", "lte", "dsl", "cable"])
def test_names_of_connections_are_those_of_the_table(name):
    table = {r[0].strip(" `"): r[1:] for line in co.Link.of.__doc__.splitlines() if (r := line.strip(" |").split("|"))}
    up, down, delay = (float(cell.replace(",", "")) for cell in table[name])
    assert co.Link.of(name) == co.Link(up, down, delay=delay)


def test_a_run_waits_for_its_slowest():
    run = ran(evaluate=False)
    found = co.minutes(run.ledger, {"b": SLOW}, default=FAST, compute={"b": 3.0})
    agree(found, plain(run.ledger, {"a": FAST, "b": SLOW, "c": FAST}, {"b": 3.0}))
    assert found.last == {"b": 1.0}
    assert found.slowest == ("b", "b", "b")
    up, down = run.ledger.bytes_of("b")
    assert found.total == pytest.approx((3 * 0.2 + 8 * up / 1e4 + 8 * down / 4e4 + 9) / 60)
    assert found.scores == 0
    assert co.minutes(run.ledger, FAST, compute={"c": 60}).last == {"c": 1.0}


@pytest.mark.parametrize(
    "more",
    [{"select": co.ring()}, {"select": co.sample(2)}, {"evaluate": co.every(1)}, {"select": co.poisson(0.3)}],
    ids=["ring", "sample", "scores", "poisson"],
)
def test_runs_of_every_shape_are_counted(more):
    run = ran(quorum=0.0, **more)
    links = {"a": SLOW, "b": co.Link.of("dsl"), "c": co.Link.of("2g")}
    found = co.minutes(run.ledger, links)
    assert len(found.rounds) == 3
    assert found.total > 0
    agree(found, plain(run.ledger, links))


class Failing:
    def contribute(self, shared, local, round, secret):
        if round.number == 1:
            raise RuntimeError("not today")
        return co.Trainer(MODEL, DATA).contribute(shared, local, round, secret)


def test_attempts_that_failed_take_their_time_also_where_a_run_was_taken_up_again():
    people = {"a": co.Trainer(MODEL, DATA), "b": Failing()}
    fed = co.Collaboration(co.FedAvg(MODEL), people, quorum=1.0, retries=1, evaluate=False)
    told = []
    with pytest.raises(co.TooFewParticipants):
        fed.run(rounds=3, listen=told.append)
    ledger = co.Ledger()
    for event in [*told[:-1], *told[1:-1]]:
        for heard in event.heard.values():
            up, down = (np.array([n.get(w, 0) for w in heard.asked]) for n in (heard.up, heard.down))
            facts = {"round": event.round.number, "attempt": event.round.attempt, "hub": "", "closed": event.closed}
            ledger.append("round", {**facts, "asked": "\n".join(heard.asked), "up": up, "down": down}, time=0.0)
    found = co.minutes(ledger, SLOW)
    agree(found, plain(ledger, dict.fromkeys("ab", SLOW)))
    assert found.attempts.tolist() == [1, 4]
    assert found.each[1] > 3 * found.each[0]


def test_the_same_attempt_twice_in_a_row_is_two():
    ledger, facts = co.Ledger(), {"round": 0, "attempt": 0, "hub": "", "asked": "a", "up": np.array([1000])}
    for _ in range(2):
        ledger.append("round", facts | {"down": np.array([0])}, time=0.0)
    found = co.minutes(ledger, co.Link(up=8e3, down=1))
    assert (found.attempts.tolist(), found.total) == ([2], 2 / 60)


def test_who_gives_nothing_is_waited_for_until_its_question_is_there():
    facts = {"round": 0, "asked": "a\nb\nc", "up": np.array([0, 10, 0]), "down": np.array([9000, 10, 0])}
    ledger = co.Ledger()
    ledger.append("round", facts, time=0.0)
    found = co.minutes(ledger, co.Link(up=8e3, down=8e3, delay=1), compute={"a": 100, "b": 2, "c": 100})
    assert (found.total * 60, found.slowest) == (10.0, ("a",))


def test_nobody_takes_no_time():
    assert co.minutes(co.Ledger(), FAST).total == 0
    assert "waited for nobody" in str(co.minutes([], {}))
    ledger = co.Ledger()
    ledger.append("round", {"round": 0, "asked": "", "up": np.zeros(0, int), "down": np.zeros(0, int)}, time=0.0)
    found = co.minutes(ledger, {}, compute=5)
    assert (found.each.tolist(), found.slowest, found.last) == ([0.0], ("",), {})


def test_all_who_have_no_link_are_named():
    ledger, _, _ = drawn(0)
    with pytest.raises(co.ConfigError, match=r"Every participant must have a link. Got none for 'p\d', .*default="):
        co.minutes(ledger, {})
    people = [f"site {i}" for i in range(8)]
    with pytest.raises(co.ConfigError, match="none for 'site 1', 'site 2', 'site 3', 'site 4', 'site 5' and 2 more"):
        co.minutes(ran(people).ledger, {"site 0": FAST})


def test_it_tells_in_three_lines():
    ledger, links, _ = drawn(1)
    found = co.minutes(ledger, links)
    first, second, third = str(found).splitlines()
    assert first == f"a round    {figure(found.mean)} minutes, {figure(max(found.each))} at most"
    assert f"{figure(found.total)} minutes: 7 rounds, {found.attempts.sum() - 7} more attempts" in second
    who, share = next(iter(found.last.items()))
    assert third.startswith(f"waited for {who} in {100 * share:.3g} %, ")
    assert (figure(0.01234), figure(12.34), figure(12345.6), figure(0)) == ("0.0123", "12.3", "12,346", "0")
