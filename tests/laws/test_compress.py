"""Codecs: what arrives, in every order in which they chain, over runs with real bytes, lost replies and resuming."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import comity as co
from comity.core.contribution import Contribution
from comity.core.tree import leaves
from comity.core.wire import as_tree, decode, encode, encode_tree, size

HERE = co.Round("codecs", 0, me="ann")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 16)).astype("float32")
Y = (X[:, 0] > 0).astype(int)
MLP = co.MLP(16, 2, hidden=(40,), rate=0.2, batch=8)
SITES = {n: co.Trainer(MLP, (X[i::3], Y[i::3]), test=(X, Y)) for i, n in enumerate("abc")}
ODD = {
    "z": RNG.normal(size=(30, 11)).astype("float32"),
    "deep": {"f16": RNG.normal(size=300).astype("float16"), "f64": RNG.normal(size=(2, 3)), "nothing": {}},
    "scalar": np.float32(0.5),
    "zero": np.array(2.5),
    "empty": np.zeros((0, 4), "float32"),
    "ints": np.arange(500),
    "bits": np.ones(9, bool),
    "text": "said",
    "raw": b"x" * 2000,
    "none": None,
    "number": 3.5,
}
CODECS = (
    co.Quantize(), co.Quantize(up=4, down=8), co.Quantize(up=2, down=3, block=7, least=1), co.Quantize(up=0, down=5),
    co.Half(), co.Half("float16"), co.QSGD(), co.QSGD(levels=300, bucket=5), co.Deflate(), co.Deflate(level=0),
    co.TopK(0.1), co.TopK(0.3, feedback=False), co.TopK(1.0),
)  # fmt: skip
CHAINS = (
    (co.Quantize(up=4, down=8), co.Deflate()),
    (co.Deflate(), co.Quantize(up=4, down=8)),
    (co.Quantize(up=8, down=8), co.Sparse(), co.Deflate()),
    (co.Sparse(), co.Quantize(up=8, down=8), co.Deflate()),
    (co.TopK(0.05), co.Quantize(up=8, least=8), co.Deflate()),
    (co.TopK(0.05), co.Half()),
    (co.QSGD(), co.Deflate(), co.Once()),
    (co.Half("float16"), co.Half(), co.Deflate()),
    (co.Quantize(up=6), co.QSGD(), co.TopK(0.5), co.Deflate()),
)


def names(chain: Any) -> str:
    return ">".join(type(t).__name__ for t in chain)


def up(chain: Any, c: Contribution, drawers: list[Any] | None = None, turn: co.Round = HERE) -> Contribution:
    """What travels, after the wire; `drawers` are those before, and then those after."""
    drawers = [{} for _ in chain] if drawers is None else drawers
    for i, t in enumerate(chain):
        c, drawers[i] = t.encode(c, None, drawers[i], turn, None)
    return decode(encode(c))


def back(chain: Any, c: Contribution) -> Contribution:
    for t in reversed(chain):
        c = t.decode(c, t.init(), HERE, None)[0]
    return c


def down(chain: Any, c: Contribution) -> Contribution:
    for t in chain:
        c = t.pack(c, t.init(), "ann", HERE) if hasattr(t, "pack") else c
    c = decode(encode(c))
    for t in reversed(chain):
        c = t.unpack(c, {}, HERE)[0] if hasattr(t, "unpack") else c
    return c


def looks(tree: Any) -> list[Any]:
    return [(path, np.shape(x), getattr(x, "dtype", type(x))) for path, x in leaves(tree)]


def plain(tree: Any) -> Any:
    """Scalars as the wire brings them."""
    return decode(encode(Contribution("x", tree))).value


@pytest.mark.parametrize("codec", CODECS, ids=repr)
@pytest.mark.parametrize(
    "c",
    [
        None,
        Contribution("delta", ODD, 2.0),
        Contribution("delta", ODD["z"], ODD["z"] > 0.5),
        Contribution("delta", {"a": {"w": ODD["z"]}, "b": ODD["ints"]}, {"a": np.abs(ODD["z"]), "b": 3}),
        Contribution("delta", {}),
        Contribution("text", {"said": "hello"}),
    ],
    ids=["usual", "odd", "array", "weights", "nothing", "text"],
)
def test_the_laws_of_transforms_hold(codec, c):
    if c is not None and "said" in c.value and codec.contracts:
        pytest.skip("noise has no looks of text")
    if c is not None and codec.contracts and "text" in c.value:
        numbers = {k: v for k, v in ODD.items() if k not in ("text", "raw", "none", "number", "bits", "ints")}
        c = Contribution("delta", numbers, 2.0)
    co.testing.check_transform(codec, c)


def test_the_parts_that_are_proved():
    assert {type(t) for t in CODECS} == {co.Quantize, co.Half, co.QSGD, co.Deflate, co.TopK}


@pytest.mark.parametrize("chain", [*((t,) for t in CODECS), *CHAINS], ids=names)
def test_names_shapes_dtypes_weights_and_what_is_no_float_come_back(chain):
    weight = {k: np.abs(ODD["z"]) if k == "z" else 2.0 for k in ODD}
    for w in (5.0, weight):
        c = Contribution("delta", ODD, w, {"loss": (1.0, 2.0)}, "ann")
        got = back(chain, up(chain, c))
        assert looks(got.value) == looks(plain(ODD))
        for name in ("ints", "bits", "text", "raw", "none", "number"):
            assert np.array_equal(got.value[name], ODD[name]) or got.value[name] is ODD[name]
        assert encode_tree({"w": got.weight}) == encode_tree({"w": w})
        assert (got.kind, got.metrics, got.sender) == (c.kind, c.metrics, c.sender)
    assert looks(down(chain, c).value) == looks(plain(ODD))


@pytest.mark.parametrize("codec", [co.Deflate(), co.Deflate(0), co.TopK(1.0), co.TopK(1.0, feedback=False)], ids=repr)
def test_what_loses_nothing_gives_every_bit_back(codec):
    c = Contribution("delta", ODD, dict.fromkeys(ODD, 1.5), {"loss": (1.0, 2.0)}, "ann")
    assert encode_tree(as_tree(back((codec,), up((codec,), c)))) == encode_tree(as_tree(c))


@pytest.mark.parametrize("bits", range(2, 9))
def test_integers_are_off_by_less_than_a_step_and_the_nearest_by_half_of_one(bits):
    codec, x = co.Quantize(up=bits, down=bits), ODD["z"]
    most = 2 ** (bits - 1) - 1
    c = Contribution("delta", {"w": x})
    sent = up((codec,), c)
    assert sent.value["value"]["w"].dtype == np.int8
    flat = np.pad(np.abs(x).ravel(), (0, -x.size % 64)).reshape(-1, 64)
    top = np.repeat(flat.max(1) * (1 + 2**-7), 64)[: x.size].reshape(x.shape)
    assert (np.abs(back((codec,), sent).value["w"] - x) <= top / most).all()
    assert (np.abs(down((codec,), c).value["w"] - x) <= top / most / 2 * (1 + 1e-6)).all()


def test_a_top_of_a_power_of_two_is_met_exactly():
    x = RNG.uniform(0, 1, 300).astype("float32")
    x[::64] = 1.0
    for bits in range(2, 9):
        assert back((co.Quantize(bits),), up((co.Quantize(bits),), Contribution("p", x))).value.max() == 1.0


def test_halves_are_as_exact_as_they_say():
    x = ODD["z"]
    for kind, share in (("bfloat16", 2**-8), ("float16", 2**-11)):
        got = back((co.Half(kind),), up((co.Half(kind),), Contribution("delta", x))).value
        assert (np.abs(got - x) <= share * np.abs(x)).all()
        assert not np.array_equal(got, x)
    with pytest.raises(co.ContributionError, match=r"at most 65504. Got 70000. Use Half\('bfloat16'\)"):
        up((co.Half("float16"),), Contribution("delta", {"w": np.array([1.0, -7e4])}))


@pytest.mark.parametrize("codec", CODECS, ids=repr)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_what_is_not_finite_is_passed_on_and_what_is_stays_finite(codec, dtype):
    huge = np.finfo(min(dtype, "float32", key=lambda d: np.finfo(d).max)).max
    if codec != co.Half("float16") and (dtype == "float16" or not isinstance(codec, co.QSGD)):
        x = np.full(300, huge, dtype)
        assert np.isfinite(back((codec,), up((codec,), Contribution("delta", x, 1.0))).value).all()
    for bad in (np.nan, np.inf, -np.inf):
        x = np.ones(300, dtype)
        x[17] = bad
        got = back((codec,), up((codec,), Contribution("delta", {"w": x}))).value["w"]
        assert not np.isfinite(got).all()
        assert np.isnan(got).any() or not np.isnan(bad)


def test_topk_sends_the_largest_over_all_leaves_and_holds_the_rest_back():
    codec = co.TopK(0.2)
    c = Contribution("delta", {"a": np.array([1.0, -9.0, 3.0]), "b": np.array([[8.0, 0.5], [2.0, 0.0]])})
    drawers: list[Any] = [{}]
    first = back((codec,), up((codec,), c, drawers)).value
    assert (first["a"].tolist(), first["b"].tolist()) == ([0, -9, 0], [[8, 0], [0, 0]])
    assert drawers[0]["held"]["a"].tolist() == [1, 0, 3]
    total = {k: first[k].copy() for k in first}
    for _ in range(9):
        got = back((codec,), up((codec,), c, drawers)).value
        total = {k: total[k] + got[k] for k in total}
    for k in total:
        assert np.allclose(total[k] + drawers[0]["held"][k], 10 * c.value[k]), "nothing is lost, only late"
    without = co.TopK(0.2, feedback=False)
    assert without.encode(c, None, {"held": 1}, HERE, None)[1] == {"held": 1}


def test_what_is_held_back_waits_where_there_is_no_weight_and_goes_where_shapes_change():
    codec, drawers = co.TopK(0.25), [{}]
    value = {"w": np.array([4.0, 3.0, 2.0, 1.0])}
    up((codec,), Contribution("delta", value), drawers)
    pruned = Contribution("delta", {"w": np.array([1.0, 0.0, 0.0, 0.0])}, {"w": np.array([1.0, 0.0, 0.0, 1.0])})
    got = back((codec,), up((codec,), pruned, drawers)).value["w"]
    assert np.count_nonzero(got[[1, 2]]) == 0
    assert drawers[0]["held"]["w"][[1, 2]].tolist() == [3.0, 2.0]
    other = Contribution("delta", {"v": np.array([4.0, 3.0])})
    assert back((codec,), up((codec,), other, drawers)).value["v"].tolist() == [4.0, 0.0]
    assert drawers[0]["held"]["v"].tolist() == [0.0, 3.0]


def test_deflate_is_short_where_it_can_be_and_never_long():
    noise = RNG.integers(0, 256, 10**5, np.uint8)
    cases = {"noise": (noise, 1.002), "zeros": (np.zeros(10**5), 0.01), "float32": (ODD["z"].repeat(50), 0.1)}
    normal = RNG.normal(size=10**5)
    cases |= {
        "float": (normal.astype("float32"), 0.93),
        "half": ((normal.astype("f4").view("u4") >> 16).astype("u2"), 0.75),
    }
    for x, share in cases.values():
        assert size(up((co.Deflate(),), Contribution("x", x))) < share * x.nbytes + 200


def told(run: co.Run) -> list[Any]:
    return [(e.facts["up"].tolist(), e.facts["down"].tolist()) for e in run.ledger if e.kind == "round"]


def ran(transforms: Any, rounds: int = 4, *, sites: Any = SITES, method: Any = None, **settings: Any) -> co.Run:
    folder = {k: settings.pop(k) for k in ("folder", "engine") if k in settings}
    fed = co.Collaboration(method or co.FedAvg(MLP), sites, transforms=transforms, **settings)
    return fed.run(rounds=rounds, **folder)


@pytest.mark.parametrize("chain", CHAINS, ids=names)
def test_chains_learn_resume_to_the_bit_and_refuse_nobody(chain, tmp_path):
    straight = ran(chain)
    assert straight.metrics["accuracy"] > 0.6
    assert not straight.ledger.refused
    ran(chain, 2, folder=tmp_path / "run")
    resumed = ran(chain, folder=tmp_path / "run")
    assert encode_tree(resumed.state) == encode_tree(straight.state)
    assert told(resumed) == told(straight)


def test_the_ledger_counts_the_bytes_that_travel():
    plain, small = ran([]), ran([co.Quantize(up=4, down=8), co.Deflate()])
    first, then = told(plain), told(small)
    numbers = 4 * (16 * 40 + 40 + 40 * 2 + 2)
    assert all(a - b > 0.5 * numbers for p, q in zip(first, then, strict=True) for a, b in zip(p[0], q[0], strict=True))
    assert all(a - b > 0.5 * numbers for p, q in zip(first, then, strict=True) for a, b in zip(p[1], q[1], strict=True))


@dataclass(frozen=True)
class Losing:
    """A local engine that loses the reply of b in the second round, once it was made."""

    choice: Any = field(default_factory=lambda: {"executor": "losing"})

    def connect(self, roster: Any, answer: Any) -> Any:
        return _Lossy(co.Local().connect(roster, answer))


@dataclass(frozen=True)
class _Lossy:
    inner: Any

    def roster(self) -> Any:
        return self.inner.roster()

    def ask(self, cohort: Any, message: Any, until: Any) -> Any:
        for reply in self.inner.ask(cohort, message, until):
            if (reply.sender, reply.round.number) != ("b", 1):
                yield reply


@dataclass(frozen=True)
class Steady:
    """Gives the same numbers each time."""

    combiner: Any = field(default_factory=co.Mean)

    def contribute(self, shared: Any, local: Any, round: Any, secret: Any) -> Any:
        return Contribution("delta", {"w": np.arange(1.0, 9.0)}), local

    def init(self, round: Any) -> Any:
        return {"w": np.zeros(8)}

    def share(self, state: Any, to: str, round: Any) -> Contribution:
        return Contribution("model", state)

    def expect(self, state: Any, to: str, round: Any) -> Any:
        return co.Spec({"w": co.Leaf((8,), "float64")})

    def update(self, state: Any, combined: Any, round: Any) -> Any:
        return {"w": state["w"] + combined.value["w"]}


def test_a_lost_reply_takes_nothing_from_what_is_held_back():
    settings: Any = {"sites": {"a": Steady(), "b": Steady()}, "method": Steady(), "evaluate": False, "quorum": 0.5}
    run = ran([co.TopK(1 / 8)], rounds=4, engine=Losing(), **settings)
    given = Contribution("delta", {"w": np.arange(1.0, 9.0)})
    drawers: list[Any] = [{}]
    sent = [back((co.TopK(1 / 8),), up((co.TopK(1 / 8),), given, drawers)).value["w"] for _ in range(4)]
    as_if_not_asked = (sent[0] + sent[0]) / 2 + sent[1] + (sent[2] + sent[1]) / 2 + (sent[3] + sent[2]) / 2
    assert np.allclose(run.state["w"], as_if_not_asked)
    assert not np.allclose(sum(sent), as_if_not_asked)


def test_an_honest_message_of_one_site_with_nan_is_refused_by_name():
    class Wild(co.Trainer):
        def contribute(self, shared: Any, local: Any, round: Any, secret: Any) -> Any:
            c, local = super().contribute(shared, local, round, secret)
            if shared.kind != "score":
                c.value["0.weight"][3, 3] = np.nan
            return c, local

    sites = {**SITES, "wild": Wild(MLP, (X, Y), test=(X, Y))}
    for chain in CHAINS:
        refused = ran(chain, 1, sites=sites).ledger.refused
        assert {who for _, who, _ in refused} == {"wild"}
        assert "NaN in" in str(refused) or "infinity in" in str(refused)


def test_rules_say_what_may_follow_a_bound():
    @dataclass(frozen=True)
    class Clip:
        decodes = "sum"
        contracts = True

        def init(self) -> Any: ...
        def bounds(self, spec: Any) -> Any: ...
        def encode(self, c: Any, public: Any, local: Any, round: Any, secret: Any) -> Any: ...
        def decode(self, c: Any, state: Any, round: Any, secret: Any) -> Any: ...

    for fine in (co.TopK(0.1, feedback=False), co.Deflate(), co.Quantize(up=0, down=8)):
        co.Collaboration(co.FedAvg(MLP), SITES, transforms=[Clip(), fine])
    for wrong in (co.TopK(0.1), co.Quantize(), co.QSGD(), co.Half()):
        with pytest.raises(co.ConfigError, match=f"{type(wrong).__name__} may raise the norm"):
            co.Collaboration(co.FedAvg(MLP), SITES, transforms=[Clip(), wrong])


def test_a_question_to_many_is_coded_once():
    value = {"w": ODD["z"]}
    for codec in (co.Quantize(down=8), co.Half(), co.Deflate()):
        first, same = (codec.pack(Contribution("model", value), None, to, HERE) for to in "ab")
        later = codec.pack(Contribution("model", value), None, "a", co.Round("codecs", 0, number=1))
        inner = [c.value["value"] if not isinstance(codec, co.Deflate) else c.value for c in (first, same, later)]
        assert inner[0] is inner[1]
        assert inner[0] is not inner[2]
