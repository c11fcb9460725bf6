"""Sparse: what is kept travels and nothing else, whatever is lost; results are the same to the bit."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import comity as co
from comity.core.contribution import Contribution
from comity.core.tree import tree_map
from comity.core.wire import as_tree, decode, encode, encode_tree, size

HERE = co.Round("sparse", 0)
SHAPE = (60, 50)
RNG = np.random.default_rng(5)


def bits(c: Contribution) -> bytes:
    return encode_tree(as_tree(c))


def travelled(c: Contribution) -> Contribution:
    return decode(encode(c))


def ticket(mask: Any, n: float = 12.0, dtype: str = "float32") -> Contribution:
    """A delta that counts where the mask is, beside a bias that counts as a whole."""
    w = (RNG.integers(-9, 10, mask.shape) * mask).astype(dtype)
    value = {"layer": {"w": w, "b": np.ones(4, "float32")}}
    return Contribution("delta", value, {"layer": {"w": mask.astype("float32") * np.float32(n), "b": n}})


def passed(sparse: Any, c: Contribution, drawer: Any, entry: Any) -> Any:
    reply, drawer = sparse.encode(c, None, drawer, HERE, None)
    return (*sparse.decode(travelled(reply), entry, HERE, None), drawer, size(reply))


@dataclass(frozen=True)
class Shrinking:
    """Keeps fewer coordinates each round, answers by what it was told at them; may fail in a round."""

    seed: int
    fails: tuple[int, ...] = ()
    every: int = 1

    def mask(self, number: int) -> Any:
        return np.random.default_rng(self.seed).random(SHAPE) < 0.4 * 0.7 ** (number // self.every)

    def contribute(self, shared: Any, local: Any, round: Any, secret: Any) -> Any:
        if shared.kind == "score":
            seen = np.abs(np.where(local.get("mask", True), shared.value["w"], 0))
            return Contribution("score", None, metrics={"told": (float(seen.sum()), 1.0)}), local
        if round.number in self.fails and not round.attempt:
            raise RuntimeError("not today")
        mask = local["mask"] if "mask" in local else self.mask(0)
        rng = round.mine("drawn")
        moved = {k: rng.normal(size=x.shape).astype("float32") - 0.1 * x for k, x in shared.value.items()}
        moved["w"] = np.where(mask, moved["w"] + shared.value["w"] * mask, np.float32(0))
        n = float(3 + self.seed)
        new = mask & self.mask(round.number + 1)
        moved["w"] = np.where(new, moved["w"], np.float32(0))
        return Contribution("delta", moved, {"w": new.astype("float32") * np.float32(n), "b": n}), {"mask": new}


@dataclass(frozen=True)
class Summing:
    """Adds the coordinate-wise mean to what is shared."""

    combiner: co.Mean = field(default_factory=co.Mean)

    def init(self, round: Any) -> Any:
        rng = round.rng("init")
        return {"w": rng.normal(size=SHAPE).astype("float32"), "b": np.zeros(7, "float32")}

    def share(self, state: Any, to: str, round: Any) -> Contribution:
        return Contribution("model", state)

    def expect(self, state: Any, to: str, round: Any) -> Any:
        leaves = {"w": co.Leaf(SHAPE, "float32"), "b": co.Leaf((7,), "float32")}
        return co.Spec(leaves, kind="delta", weights="tree")

    def update(self, state: Any, combined: Any, round: Any) -> Any:
        return {k: (x + combined.value[k]).astype("float32") for k, x in state.items()}


@dataclass(frozen=True)
class Losing:
    """A local engine that loses the reply of a member in the first attempt of a round, after the site has answered."""

    lost: tuple[tuple[str, int], ...]
    choice: Any = None

    def connect(self, roster: Any, answer: Any) -> Any:
        return _Lossy(co.Local().connect(roster, answer), self.lost)


@dataclass(frozen=True)
class _Lossy:
    inner: Any
    lost: Any

    def roster(self) -> Any:
        return self.inner.roster()

    def ask(self, cohort: Any, message: Any, until: Any) -> Any:
        for reply in self.inner.ask(cohort, message, until):
            if (reply.sender, reply.round.number) not in self.lost or reply.round.attempt:
                yield reply


def ran(transforms: Any = (), rounds: int = 6, **more: Any) -> co.Run:
    run = {name: more.pop(name) for name in ("folder", "engine") if name in more}
    people = more.pop("people", {name: Shrinking(i) for i, name in enumerate("abcd")})
    fed = co.Collaboration(Summing(), people, transforms=transforms, seed=3, **{"evaluate": co.every(2), **more})
    return fed.run(rounds=rounds, **run)


def same(a: co.Run, b: co.Run) -> bool:
    told = [list(r.ledger.metric("told")) for r in (a, b)]
    return encode_tree(a.state) == encode_tree(b.state) and told[0] == told[1] and len(told[0]) > 2


WHOLE = {"a": {"b": np.ones((40, 40))}, "c": np.float32(3)}
MASK = RNG.random(SHAPE) < 0.06
HOLEY = {"a": np.where(MASK, -0.0, 0.0), "b": np.where(MASK, np.nan, 0).astype("float16"), "n": 3, "t": "x", "z": None}


@pytest.mark.parametrize("sparse", [co.Sparse(), co.Sparse(down=False)], ids=repr)
@pytest.mark.parametrize(
    "example",
    [
        None,
        Contribution("delta", WHOLE, 2.0),
        ticket(MASK),
        ticket(np.zeros(SHAPE, bool)),
        ticket(np.ones(SHAPE, bool)),
        ticket(MASK, dtype="int8"),
        Contribution("delta", ticket(MASK).value, {"layer": 3.0}),
        Contribution("delta", ticket(MASK).value["layer"]["w"], ticket(MASK).weight["layer"]["w"]),
    ],
)
def test_the_laws_of_transforms_hold(sparse, example):
    co.testing.check_transform(sparse, example)


DTYPES = st.sampled_from(["float32", "float64", "float16", "int8", "int64", "bool"])


@settings(deadline=None)
@given(st.data())
def test_rounds_come_back_to_the_bit_as_leaves_weights_and_masks_change(data):
    sparse, entry, drawer = co.Sparse(), co.Sparse().init(), {}
    shapes = data.draw(st.lists(st.sampled_from([(0,), (), (1,), (300,), (20, 30), (3, 0)]), min_size=1, max_size=3))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    for _ in range(4):
        density = data.draw(st.sampled_from([0.0, 0.03, 0.5, 1.0]))
        masks = {f"l{i}": np.asarray(rng.random(s) < density) for i, s in enumerate(shapes)}
        dtype = data.draw(DTYPES)
        value = {
            k: np.asarray(rng.normal(0, 9, m.shape) * m).astype(dtype) + np.zeros((), dtype) for k, m in masks.items()
        }
        kind = data.draw(st.sampled_from(["one", "whole", "masks", "uneven", "elsewhere", "other"]))
        weight: Any = {
            "one": 2.5,
            "whole": dict.fromkeys(masks, 3.0),
            "masks": {k: m * np.float32(2) for k, m in masks.items()},
            "uneven": {k: m * rng.random(m.shape) for k, m in masks.items()},
            "elsewhere": {k: ~m * np.float32(2) for k, m in masks.items()},
            "other": {k: np.where(np.arange(400) % 50, 0, 7.0) for k in masks},
        }[kind]
        c = Contribution(
            "delta", {"x": tree_map(lambda x: x + x.dtype.type(0), value)}, {"x": weight} if kind != "one" else weight
        )
        back, entry, drawer, _ = passed(sparse, c, drawer, entry)
        assert bits(back) == bits(c)
        assert encode_tree(entry) == encode_tree(drawer)


def test_a_mask_travels_once_then_its_change_then_nothing():
    sparse, entry, drawer, n = co.Sparse(), co.Sparse().init(), {}, int(MASK.sum())
    fewer = MASK & (RNG.random(SHAPE) < 0.75)
    spent = []
    for mask in (MASK, MASK, fewer, fewer):
        back, entry, drawer, count = passed(sparse, c := ticket(mask), drawer, entry)
        assert bits(back) == bits(c)
        spent.append(count)
    first, still, change, after = spent
    code = MASK.size * 0.34 / 8
    assert code <= first - still <= code + 180
    assert still <= 4 * n + 400
    assert 0 < change - after <= 0.09 * MASK.size / 8 + 60


def test_of_masks_that_stay_only_the_hash_travels():
    sparse = co.Sparse()
    _, drawer = sparse.encode(ticket(MASK), None, {}, HERE, None)
    reply, after = sparse.encode(ticket(MASK), None, drawer, HERE, None)
    assert reply.value["masks"] == {}
    assert len(reply.value["hash"]) == 8
    assert encode_tree(after) == encode_tree(drawer)


def test_every_bit_that_is_set_comes_back():
    c = Contribution("delta", HOLEY, 2.0)
    back, _, drawer, _ = passed(co.Sparse(), c, {}, {})
    assert bits(back) == bits(c)
    assert len(drawer) == 2


def test_a_leaf_that_changes_its_shape_is_told_anew():
    sparse, entry, drawer = co.Sparse(), {}, {}
    for x in (1.0 * MASK, 1.0 * MASK.reshape(-1), 1.0 * MASK.T):
        c = Contribution("delta", {"w": x}, 2.0)
        back, entry, drawer, _ = passed(sparse, c, drawer, entry)
        assert bits(back) == bits(c)


def test_what_is_not_worth_it_travels_as_it_is():
    for value in (np.ones(1000), np.where(RNG.random(1000) < 0.995, 1.0, 0.0)):
        reply, drawer = co.Sparse().encode(Contribution("delta", {"w": value}, 2.0), None, {}, HERE, None)
        assert reply.value["value"]["w"].shape == (1000,)
        assert reply.value["masks"] == drawer == {}


def test_a_leaf_that_becomes_full_forgets_its_mask():
    sparse, entry, drawer = co.Sparse(), co.Sparse().init(), {}
    for value in (1.0 * MASK, np.ones(SHAPE), 1.0 * MASK):
        c = Contribution("delta", {"w": value}, 2.0)
        back, entry, drawer, _ = passed(sparse, c, drawer, entry)
        assert bits(back) == bits(c)
    assert list(drawer) == list(entry)


def test_a_zero_without_weight_loses_its_sign_and_no_more():
    mask = MASK.astype("float32")
    c = Contribution("delta", {"w": np.where(MASK, np.float32(-2), np.float32(-0.0))}, {"w": mask})
    back, _, _, count = passed(co.Sparse(), c, {}, {})
    assert np.array_equal(back.value["w"], c.value["w"])
    assert not np.signbit(back.value["w"][~MASK]).any()
    assert count < 4 * MASK.sum() + 700


def test_a_run_is_the_same_to_the_bit_and_takes_fewer_bytes():
    plain, sparse, up = ran(), ran([co.Sparse()]), ran([co.Sparse(down=False)])
    assert same(plain, sparse)
    assert same(plain, up)
    assert sparse.ledger.bytes_up < 0.15 * plain.ledger.bytes_up
    assert sparse.ledger.bytes_up == up.ledger.bytes_up
    assert sparse.ledger.bytes_down < 0.7 * plain.ledger.bytes_down < up.ledger.bytes_down
    assert not sparse.ledger.refused


def down(run: co.Run) -> list[dict[str, int]]:
    facts = [e.facts for e in run.ledger if e.kind == "round"]
    return [dict(zip(f["asked"].split("\n"), f["down"].tolist(), strict=True)) for f in facts]


def test_after_first_contact_only_what_was_kept_goes_down():
    sent = down(ran([co.Sparse()], evaluate=False))
    dense = 4 * SHAPE[0] * SHAPE[1]
    assert all(n >= dense for n in sent[0].values())
    for number, asked in enumerate(sent[1:], 1):
        for i, who in enumerate("abcd"):
            kept = np.logical_and.reduce([Shrinking(i).mask(n) for n in range(number + 1)]).sum()
            assert 4 * kept < asked[who] < 4 * kept + 900


@pytest.mark.parametrize("select", [co.sample(2), co.sample(0.5), co.everyone()])
def test_it_is_the_same_with_partial_participation(select):
    assert same(ran(select=select, rounds=9), ran([co.Sparse()], select=select, rounds=9))


@pytest.mark.parametrize(
    ("lost", "quorum"),
    [((("b", 0), ("c", 3)), 0.5), ((("a", 1), ("a", 2), ("d", 2)), 0.5), ((("b", 0), ("b", 2)), 1.0)],
)
def test_lost_replies_change_nothing(lost, quorum):
    engine = Losing(lost, {"executor": "losing"})
    plain, sparse = (ran(t, engine=engine, quorum=quorum) for t in ((), [co.Sparse()]))
    assert same(plain, sparse)
    assert not sparse.ledger.refused
    assert sparse.ledger.bytes_up < plain.ledger.bytes_up / 4


def test_members_that_drop_out_and_come_back_are_the_same():
    people = {
        "a": Shrinking(0),
        "b": Shrinking(1, fails=(0, 2, 3)),
        "c": Shrinking(2, every=2),
        "d": Shrinking(3, (4,)),
    }
    plain, sparse = (ran(t, people=people, rounds=7) for t in ((), [co.Sparse()]))
    assert same(plain, sparse)
    assert {who for _, who, _ in sparse.ledger.dropped} == {"b", "d"}


@dataclass(frozen=True)
class Spoiling(Shrinking):
    """Sends NaN in a round, so that the hub refuses it after decoding."""

    def contribute(self, shared: Any, local: Any, round: Any, secret: Any) -> Any:
        c, after = Shrinking.contribute(replace(self, fails=()), shared, local, round, secret)
        if round.number in self.fails and c.kind == "delta":
            c = replace(c, value={**c.value, "b": np.full(7, np.nan, "float32")})
        return c, after


def test_refused_replies_change_nothing():
    people = {"a": Shrinking(0), "b": Spoiling(1, fails=(0, 2)), "c": Shrinking(2), "d": Shrinking(3)}
    plain, sparse = (ran(t, people=people) for t in ((), [co.Sparse()]))
    assert same(plain, sparse)
    assert [(n, who) for n, who, _ in sparse.ledger.refused] == [(n, who) for n, who, _ in plain.ledger.refused]
    assert len(sparse.ledger.refused) == 2


NOTHING = {
    "one": 0.0,
    "whole": {"layer": 0.0},
    "0-d": {"layer": {"w": np.array(0.0), "b": 0.0}},
    "masks": {"layer": {"w": np.zeros(SHAPE, "float32"), "b": 0.0}},
}


@pytest.mark.parametrize("weight", NOTHING)
@pytest.mark.parametrize("lifted", [False, True])
@pytest.mark.parametrize("known", [False, True], ids=["first", "after a ticket"])
def test_a_contribution_without_weight_comes_back_to_the_bit_and_leaves_the_way_down_whole(weight, lifted, known):
    sparse, drawer, entry = co.Sparse(), {}, co.Sparse().init()
    if known:
        _, entry, drawer, _ = passed(sparse, ticket(MASK), drawer, entry)
    c = replace(ticket(MASK), weight=NOTHING[weight])
    back, entry, drawer, _ = passed(sparse, c := co.Mean().lift(c) if lifted else c, drawer, entry)
    assert bits(replace(back, value=tree_map(lambda x: x + 0.0, back.value))) == bits(
        replace(c, value=tree_map(lambda x: x + 0.0, c.value))
    )
    assert encode_tree(entry) == encode_tree(drawer)
    shared = ticket(np.ones(SHAPE, bool))
    packed = travelled(sparse.pack(shared, entry, "a", HERE))
    assert bits(sparse.unpack(packed, drawer, HERE)[0]) == bits(shared)


@dataclass(frozen=True)
class Idle(Shrinking):
    """Has nothing to add in some rounds: its weights are 0 everywhere."""

    idle: tuple[int, ...] = ()

    def contribute(self, shared: Any, local: Any, round: Any, secret: Any) -> Any:
        c, after = Shrinking.contribute(self, shared, local, round, secret)
        if round.number in self.idle and c.kind == "delta":
            c = replace(c, weight={"w": 0 * c.weight["w"], "b": 0.0})
        return c, after


def test_a_run_with_members_that_add_nothing_is_the_same_to_the_bit():
    people = {"a": Shrinking(0), "b": Idle(1, idle=(0, 2, 3)), "c": Idle(2, idle=(1,)), "d": Shrinking(3)}
    plain, sparse = (ran(t, people=people) for t in ((), [co.Sparse()]))
    assert same(plain, sparse)
    assert not sparse.ledger.refused


def test_a_resumed_run_goes_on_where_it_was(tmp_path):
    straight = ran([co.Sparse()])
    ran([co.Sparse()], rounds=3, folder=tmp_path / "run")
    resumed = ran([co.Sparse()], folder=tmp_path / "run")
    assert down(resumed) == down(straight)
    assert encode_tree(resumed.state) == encode_tree(straight.state)


def test_a_hub_that_knows_nothing_is_told_all_again():
    sparse = co.Sparse()
    _, _, drawer, _ = passed(sparse, ticket(MASK), {}, {})
    shared, drawer = sparse.unpack(sparse.pack(c := ticket(np.ones(SHAPE, bool)), {}, "a", HERE), drawer, HERE)
    assert bits(shared) == bits(c)
    back, entry, drawer, _ = passed(sparse, d := ticket(MASK), drawer, {})
    assert bits(back) == bits(d)
    assert encode_tree(entry) == encode_tree(drawer)


def test_a_leaf_of_another_shape_goes_down_whole():
    sparse = co.Sparse()
    _, entry, drawer, _ = passed(sparse, ticket(MASK), {}, {})
    shared = Contribution("model", {"layer": {"w": np.ones((3, 2)), "b": np.ones(4)}, "new": None})
    packed = travelled(sparse.pack(shared, entry, "a", HERE))
    assert bits(sparse.unpack(packed, drawer, HERE)[0]) == bits(shared)


def test_it_needs_a_channel_that_shows_each_reply():
    @dataclass(frozen=True)
    class Sums(co.Plain):
        reveals = "sum"

    with pytest.raises(co.ConfigError, match="Sparse is decoded one by one; Sums reveals only the sum"):
        co.Collaboration(Summing(), {"a": Shrinking(0)}, transforms=[co.Sparse()], channel=Sums())
