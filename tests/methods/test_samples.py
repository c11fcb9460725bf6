"""Contributed rows: what joins, what is set aside and why, and that each counts once."""

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import pandas
import polars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import comity as co
from comity import running
from comity.core.contribution import Contribution
from comity.core.wire import decode_tree, encode_tree
from comity.methods.fields import digests, far, table_of, tree_of, unpacked, values_of

HERE = co.Round("", 0)
SCHEMA = {
    "age": co.Field("whole", low=0, high=120),
    "dose": co.Field("number", missing=1.0),
    "sex": co.Field("word", words=("f", "m")),
    "note": co.Field("word", missing=1.0),
}
KINDS = {name: f.kind for name, f in SCHEMA.items()}
EMPTY = {"age": [], "dose": [], "sex": [], "note": []}


def rows(*lines):
    return {name: [line[i] for line in lines] for i, name in enumerate(SCHEMA)} if lines else EMPTY


def value(*lines):
    return tree_of(table_of(rows(*lines), KINDS))


def taken(method, *rounds):
    """The state after rounds of {sender: value}, kept on disk in between."""
    state = method.init(HERE)
    for number, said in enumerate(rounds):
        state = method.update(
            decode_tree(encode_tree(state)),
            Contribution("sample", said, dict.fromkeys(said, 1.0)),
            replace(HERE, number=number),
        )
    return state


def lines_of(table):
    return [
        (None if np.isnan(a) else a, None if np.isnan(d) else d, s, n)
        for a, d, s, n in zip(table["age"], table["dose"], table["sex"], table["note"], strict=True)
    ]


GOOD, ALSO, THIRD = (40, 1.5, "f", "ok"), (61, None, "m", None), (33, -2.0, "f", "käse\nbrot")


def test_each_value_is_judged_by_its_field():
    method = co.Samples(SCHEMA)
    bad = [(121, 1.0, "f", ""), (-1, 1.0, "x", ""), (40.5, 1.0, "m", ""), (None, 1.0, None, "")]
    state = taken(method, {"ann": value(GOOD, *bad, ALSO)})
    assert lines_of(method.table(state)) == [GOOD, ALSO]
    held = method.quarantine(state)
    assert held["reason"] == [
        "age is above 120",
        "age is below 0; sex is none of its words",
        "age is not whole",
        "age is missing; sex is missing",
    ]
    assert lines_of(held) == [(a, d, s, n or None) for a, d, s, n in bad]
    assert method.reputation(state) == {"ann": pytest.approx(3 / 8)}
    assert state["contributors"]["ann"]["reasons"] == dict.fromkeys(held["reason"], 1)


def test_what_is_missing_is_a_share_of_the_contribution():
    method = co.Samples({"x": co.Field(missing=0.25)})
    for values, accepted in (([1, 2, 3, None], 4), ([1, 2, None, np.nan], 2), ([np.inf], 0), ([None] * 3, 0)):
        given = tree_of(table_of({"x": values}, {"x": "number"}))
        state = taken(method, {"a": given})
        first = len(method.table(state)["x"])
        twice = len(method.quarantine(state)["x"])
        assert (first, first + twice) == (accepted, len(values))


CELLS = st.tuples(
    st.integers(0, 3), st.sampled_from([None, 0.5, -0.0, 0.0]), st.sampled_from(["f", "m", "x"]), st.none()
)
SENT = st.lists(st.dictionaries(st.sampled_from("abc"), st.lists(CELLS, max_size=5), max_size=3), max_size=5)


@settings(max_examples=80, deadline=None)
@given(SENT)
def test_every_row_counts_once_whenever_and_however_often_it_comes(sent):
    method = co.Samples(SCHEMA)
    state = taken(method, *({who: value(*ls) for who, ls in said.items()} for said in sent))
    again = taken(method, *({who: value(*ls) for who, ls in said.items()} for said in [*sent, *sent, {}]))
    first = {}
    for said in sent:
        for who in sorted(said):
            for line in said[who]:
                clean = (line[0], None if line[1] is None else line[1] + 0.0, *line[2:])
                if line[2] != "x":
                    first.setdefault(clean, who)
    table = method.table(state)
    assert dict(zip(lines_of(table), table["contributor"], strict=True)) == first
    assert len(table["contributor"]) == len(first)
    for one, other in ((state, again),):
        assert encode_tree({k: one[k] for k in ("accepted", "quarantine", "versions")}) == encode_tree(
            {k: other[k] for k in ("accepted", "quarantine", "versions")}
        )
        assert method.reputation(one) == method.reputation(other)
    for who, said in again["contributors"].items():
        given_in_all = 2 * sum(len(part.get(who, [])) for part in sent)
        assert sum(said[k] for k in ("accepted", "quarantined", "copied", "repeated")) == given_in_all


def test_copies_are_set_aside_for_no_ones_good_or_ill():
    method = co.Samples(SCHEMA)
    state = taken(method, {"bob": value(GOOD), "ann": value(GOOD, ALSO, ALSO)}, {"cy": value(ALSO), "ann": value(GOOD)})
    assert method.table(state)["contributor"] == ["ann", "ann"]
    held = method.quarantine(state)
    said = zip(held["contributor"], held["reason"], held["round"].tolist(), strict=True)
    assert list(said) == [
        ("ann", "given twice at once", 0),
        ("bob", "given by another before", 0),
        ("cy", "given by another before", 1),
    ]
    assert method.reputation(state) == {"ann": 0.75, "bob": 0.5, "cy": 0.5}
    assert state["contributors"]["ann"]["repeated"] == 1
    assert method.weights(state).tolist() == [0.75, 0.75]


def test_later_versions_only_add_rows():
    method, states = co.Samples(SCHEMA), []
    said = [{"a": value(GOOD)}, {}, {"a": value(GOOD)}, {"b": value(THIRD, ALSO)}, {"a": value((1, 1.0, "m", "new"))}]
    for n in range(len(said) + 1):
        states.append(taken(method, *said[:n]))
    versions = method.versions(states[-1])
    assert [(n, r) for _, n, r in versions] == [(1, 0), (3, 3), (4, 4)]
    assert len({v for v, _, _ in versions}) == 3
    for state in states[1:]:
        for version, n, _ in method.versions(state):
            earlier = method.table(states[-1], version)
            assert lines_of(earlier) == lines_of(method.table(states[-1]))[:n] == lines_of(method.table(state, version))
    assert method.share(states[-1], "", HERE).value["version"] == versions[-1][0]
    assert versions[-1][0] == hashlib.sha256(states[-1]["accepted"]["digest"].tobytes()).hexdigest()
    assert method.weights(states[-1], versions[0][0]).shape == (1,)
    at_once = taken(method, {"a": value(GOOD)}, {"b": value(THIRD, ALSO), "c": value((1, 1.0, "m", "new"))})
    assert method.versions(at_once)[-1][0] == versions[-1][0]
    with pytest.raises(co.ConfigError, match=r"'version' must be one that there was. Got 'x'"):
        method.table(states[-1], "x")


def test_rows_differ_where_any_value_does():
    lines = [GOOD, (40, 1.5, "f", None), (40, None, "f", "ok"), (40, 0.0, "f", "ok"), (40, 1.5, "kf", "o")]
    lines += [(40, 1.5, "", "okf"), (40, 1.5000000000000002, "f", "ok")]
    found = digests(table_of(rows(*lines), KINDS), len(lines))
    assert len({d.tobytes() for d in found}) == len(lines)
    same = digests(table_of(rows((40.0, -0.0, "f", "")), KINDS), 1)
    assert same.tobytes() == digests(table_of(rows((40, 0, "f", None)), KINDS), 1).tobytes()


def test_numbers_far_from_the_others_are_set_aside():
    rng = np.random.default_rng(0)
    x = rng.normal(50, 5, 200)
    method = co.Samples({"x": co.Field(high=1e6)}, outliers=3.5)

    def of(values):
        return tree_of(table_of({"x": values}, {"x": "number"}))

    state = taken(method, {"a": of(x)})
    z = 0.6745 * np.abs(x - np.median(x)) / np.median(np.abs(x - np.median(x)))
    assert sorted(method.table(state)["x"]) == sorted(x[z <= 3.5])
    later = taken(method, {"a": of(x)}, {"b": of(rng.normal(900, 5, 100))})
    assert len(method.table(later)["x"]) == len(method.table(state)["x"])
    assert set(method.quarantine(later)["reason"]) == {"x is far from the others"}
    few = taken(method, {"a": of([*range(19), 1e5])})
    assert len(method.table(few)["x"]) == 20
    assert not far(np.array([5.0, 1.0]), np.array([*[1.0] * 20, 2.0, 3.0]), 3.5).any()


def members(n=3, count=8):
    out = {}
    for i in range(n):
        rng = np.random.default_rng(i)
        lines = [
            (int(a), float(d), s, f"{i} {k}" if k % 3 else None)
            for k, (a, d, s) in enumerate(
                zip(
                    rng.integers(0, 140, count),
                    rng.normal(size=count).round(2),
                    rng.choice(["f", "m", "x"], count),
                    strict=True,
                )
            )
        ]
        out[f"p{i}"] = co.Contributor(rows(*lines))
    return out


def test_in_the_loop():
    method = co.Samples(SCHEMA, most=3)
    run = co.Collaboration(method, members(), seed=0).run(rounds=4)
    at_once = taken(co.Samples(SCHEMA), {who: tree_of(table_of(c.rows, KINDS)) for who, c in members().items()})
    assert set(lines_of(method.table(run.state))) == set(lines_of(method.table(at_once)))
    assert method.reputation(run.state) == method.reputation(at_once)
    assert {who: run.local(who)["sent"] for who in members()} == dict.fromkeys(members(), 8)
    assert run.ledger.metric("rows") == [3.0, 3.0, 2.0, 0.0]
    kept, gone = len(method.table(run.state)["sex"]), len(method.quarantine(run.state)["sex"])
    assert kept + gone == 24
    assert run.metrics == {"accepted": kept / 24, "quarantined": gone / 24, "repeated": 0.0}
    assert run.shared["version"] == method.versions(run.state)[-1][0]
    assert not run.ledger.refused


def test_who_comes_late_joins_and_who_has_more_sends_what_is_new(tmp_path):
    method, everybody = co.Samples(SCHEMA), members()
    co.Collaboration(method, {"p0": everybody["p0"]}).run(rounds=1, folder=tmp_path)
    grown = {name: [*x, *y] for (name, x), y in zip(everybody["p0"].rows.items(), rows(THIRD).values(), strict=True)}
    people = {**everybody, "p0": co.Contributor(grown)}
    run = co.Collaboration(method, people).run(rounds=2, folder=tmp_path)
    assert run.ledger.metric("rows") == [8.0, pytest.approx(17 / 3)]
    assert "käse\nbrot" in method.table(run.state)["note"]
    assert {who: said["repeated"] for who, said in run.state["contributors"].items()} == dict.fromkeys(people, 0)


def test_in_pieces_as_in_one(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "SAVE_SECONDS", 0.0)
    fed = co.Collaboration(co.Samples(SCHEMA, most=2, outliers=3.5), members(5, 12), select=co.sample(3), seed=2)
    straight = fed.run(rounds=8, folder=tmp_path / "straight")
    for n in (1, 2, 5, 8):
        pieces = fed.run(rounds=n, folder=tmp_path / "pieces")
    assert encode_tree(pieces.state) == encode_tree(straight.state)
    assert pieces.metrics == straight.metrics


def test_the_laws_hold():
    co.testing.check_method(co.Samples(SCHEMA, most=3, outliers=2.0), members)
    co.testing.check_method(co.Samples({"w": co.Field("word")}), {"a": co.Contributor({"w": ["x", "y", "x"]})})


@dataclass(frozen=True)
class Sends:
    """Sends what nobody asked for."""

    value: dict

    def contribute(self, shared, local, round, secret):
        if shared.kind == "score":
            return Contribution("score", None, metrics={"accepted": (0.0, 0.0)}), local
        return Contribution("sample", self.value), local


def spoilt(**changes):
    return {**value(GOOD, ALSO), **changes}


F8, OK = np.zeros(2), np.ones(2, bool)
WHOLE = [
    (spoilt(age={"x": F8.astype("float32"), "known": OK}), "age.x must be float64"),
    (spoilt(more={"x": F8, "known": OK}), "unasked more"),
    ({k: v for k, v in value(GOOD).items() if k != "sex"}, "missing sex"),
    (spoilt(age={"x": np.array([np.nan, 1]), "known": OK}), "NaN in age.x"),
    (co.Contributor({"age": [1]}), "There is no 'dose'"),
    (
        co.Contributor(rows((40, "1.5", "f", "ok"))),
        "'dose' must hold a number in every row, or None. Got '1.5' in row 0",
    ),
    (co.Contributor(rows((40, 1.5, 7, "ok"))), "'sex' must hold a word in every row, or None. Got 7 in row 0"),
    (co.Contributor({**rows(GOOD), "age": [1, 2]}), "Columns must have one length. Got 1, 2"),
]


@pytest.mark.parametrize(("sent", "reason"), WHOLE, ids=[why for _, why in WHOLE])
def test_what_is_malformed_is_refused_whole_and_the_rest_goes_on(sent, reason):
    bad = sent if isinstance(sent, co.Contributor) else Sends(sent)
    run = co.Collaboration(co.Samples(SCHEMA), {**members(2), "bad": bad}, evaluate=False).run(rounds=1)
    assert set(run.state["contributors"]) == {"p0", "p1"}
    [(who, why)] = [(e.sender, e.reason) for e in (*run.ledger.refused, *run.ledger.dropped)]
    assert who == "bad"
    assert reason in why


TEXT = np.frombuffer(b"ab\xff", np.uint8)
LIES = [
    (spoilt(age={"x": np.zeros(3), "known": np.ones(3, bool)}), "columns of unlike lengths"),
    (spoilt(age={"x": np.zeros(3), "known": OK}), "columns of unlike lengths"),
    (spoilt(sex={"text": TEXT, "ends": np.array([1, 3])}), "words that are no UTF-8"),
    (spoilt(sex={"text": TEXT, "ends": np.array([2, 1])}), "words that do not fit their ends"),
    (spoilt(sex={"text": TEXT, "ends": np.array([1, 2])}), "words that do not fit their ends"),
    (spoilt(sex={"text": TEXT, "ends": np.array([1, 99])}), "words that do not fit their ends"),
    (value(*[(i, 1.0, "f", None) for i in range(9)]), "more rows than were asked for"),
]


@pytest.mark.parametrize(("sent", "reason"), LIES, ids=[why for _, why in LIES])
def test_what_is_no_table_harms_only_its_sender(sent, reason):
    method = co.Samples(SCHEMA, most=8)
    run = co.Collaboration(method, {**members(2), "bad": Sends(sent)}, evaluate=False).run(rounds=1)
    alone = co.Collaboration(method, members(2), evaluate=False).run(rounds=1)
    assert run.state["contributors"]["bad"]["reasons"] == {reason: 1}
    assert method.reputation(run.state)["bad"] == pytest.approx(1 / 3)
    assert method.versions(run.state) == method.versions(alone.state)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.one_of(st.none(), st.text(max_size=5))))
def test_words_survive_the_journey(words):
    column = values_of(words, "w", "word")
    back = unpacked(decode_tree(encode_tree(tree_of({"w": column})))["w"])
    assert back.x.tolist() == [w or "" for w in words]
    assert back.known.tolist() == [bool(w) for w in words]


@pytest.mark.parametrize("make", [dict, pandas.DataFrame, polars.DataFrame])
def test_frames_are_rows_too(make):
    plain = {"x": [1.5, None, 3.0], "w": ["a", None, "c"], "n": [1, 2, 3], "more": [1, 2, 3]}
    method = co.Samples({"x": co.Field(missing=1), "w": co.Field("word", missing=1), "n": co.Field("whole")})
    table = method.table(co.Collaboration(method, {"a": co.Contributor(make(plain))}).run(rounds=1).state)
    np.testing.assert_array_equal(table["x"], [1.5, np.nan, 3.0])
    assert table["w"] == ["a", None, "c"]
    assert table["n"].tolist() == [1, 2, 3]


def test_a_contributor_hears_of_nobody_elses_rows_and_the_recipe_of_none():
    method = co.Samples(SCHEMA)
    state = taken(method, {"ann": value(GOOD), "bob": value(ALSO, (200, 1.0, "f", "secret"))})
    told = method.share(state, "ann", HERE).value
    assert set(told) == {"schema", "most", "report"}
    assert (told["report"]["accepted"], told["report"]["reasons"]) == (1, {})
    assert method.share(state, "new", HERE).value["report"]["accepted"] == 0
    assert "käse" not in str(co.recipe(co.Collaboration(method, {"a": co.Contributor(rows(THIRD))})))


def test_another_combiner_is_refused_with_the_one_to_use():
    fed = co.Collaboration(co.Samples({"x": co.Field()}), {"a": co.Contributor({"x": [1]})}, combine=co.Median())
    with pytest.raises(co.ConfigError, match=r"Use co\.Collect"):
        fed.run(rounds=1)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        *((lambda k=k: co.Field(k), "kind") for k in ("numbr", 1, None)),
        (lambda: co.Field(low=2, high=1), "high"),
        (lambda: co.Field(low="a"), "low"),
        (lambda: co.Field(missing=1.5), "missing"),
        *((lambda w=w: co.Field("word", words=w), "words") for w in ("ab", [1], [""], 3)),
        (lambda: co.Field("word", low=0), "kind"),
        (lambda: co.Field(words=("a",)), "kind"),
        *((lambda s=s: co.Samples(s), "schema") for s in ({}, None, {"x": 1}, {1: co.Field()}, {"reason": co.Field()})),
        *((lambda m=m: co.Samples(SCHEMA, most=m), "most") for m in (0, 1.5, None)),
        *((lambda z=z: co.Samples(SCHEMA, outliers=z), "outliers") for z in (0, -1, "x", np.inf)),
        *((lambda p=p: co.Samples(SCHEMA, prior=p), "prior") for p in ((0, 1), 1, (1,), None)),
        *((lambda r=r: co.Contributor(r), "rows") for r in (None, [1], "x")),
    ],
)
def test_settings_have_a_range(make, name):
    with pytest.raises(co.ConfigError, match=f"The '{name}' of (Field|Samples|Contributor) must"):
        make()
