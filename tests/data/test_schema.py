import json

import polars as pl
import pytest

from comity.core.errors import ConfigError
from comity.data.schema import Column, Schema, agree, describe
from comity.data.tables import parties_of, read_table


def schema_of(target="y", **tables):
    return agree({p: describe(read_table(pl.DataFrame(t, strict=False)), target) for p, t in tables.items()}, target)


def test_describe_says_no_value_that_differs_between_rows():
    table = read_table(pl.DataFrame({"a": [5, 7, None], "b": ["u", "u", "u"], "n": [None, None, None], "y": [1, 0, 1]}))
    said = describe(table, "y")
    assert said["rows"] == 3
    assert said["columns"]["a"] == {
        "kind": "number", "present": 2, "missing": 1, "distinct": 2, "only": None, "serial": 0,
    }  # fmt: skip
    assert said["columns"]["b"]["only"] == "u"
    assert said["columns"]["n"]["kind"] == "empty"
    assert said["target"] == {"kind": "number", "distinct": 2, "values": {"0": 1, "1": 2}}
    json.dumps(said)
    with pytest.raises(ConfigError, match="Did you mean 'y'"):
        describe(table, "Y")


def test_columns_of_some_parties_are_left_out_by_name():
    schema = schema_of(
        Basel={"a": [1, 2], "c": [1, 2], "y": ["p", "q"]},
        Bern={"a": [1, 2], "c": [1, 2], "y": ["p", "q"]},
        Lyon={"a": [1, 2], "b": ["u", "v"], "y": ["p", "q"]},
    )
    assert schema.columns == (Column("a", "number"),)
    assert schema.left_out == {"b": "only in Lyon", "c": "only in Basel and Bern"}
    many = {f"p{i}": {"a": [1, 2], "y": [0, 1]} | ({"b": [1, 2]} if i > 0 else {}) for i in range(6)}
    assert schema_of(**many).left_out == {"b": "not in p0"}


def test_words_at_one_party_make_a_category_and_nothing_at_one_does_not():
    schema = schema_of(
        A={"a": ["1", "2"], "b": [1, 2], "c": [None, None], "y": [0, 1]},
        B={"a": ["1", "x"], "b": [3, 4], "c": [5, 6], "y": [0, 1]},
    )
    assert schema.columns == (Column("a", "category"), Column("b", "number"), Column("c", "number"))


def test_constant_and_empty_columns_are_left_out_but_not_what_differs_between_parties():
    schema = schema_of(
        A={"same": ["u", "u"], "own": ["u", "u"], "gap": ["u", None], "none": [None, None], "y": [0, 1]},
        B={"same": ["u", "u"], "own": ["v", "v"], "gap": ["u", "u"], "none": [None, None], "y": [0, 1]},
    )
    assert [c.name for c in schema.columns] == ["gap", "own"]
    assert schema.left_out == {"none": "empty", "same": "constant (u)"}


def test_identifiers_are_left_out():
    n = 60
    table = {
        "code": [f"x{i}" for i in range(n)],
        "patient_id": [(i * 37) % 997 for i in range(n)],
        "row": list(range(n)),
        "weight": [(i * 37) % 997 for i in range(n)],
        "ward": [f"w{i % 30}" for i in range(n)],
        "y": [i % 2 for i in range(n)],
    }
    schema = schema_of(A=table)
    assert schema.left_out == dict.fromkeys(["code", "patient_id", "row"], "an identifier")
    assert [c.name for c in schema.columns] == ["ward", "weight"]
    short = {k: v[:45] for k, v in table.items()}
    assert schema_of(A=short).left_out == {}
    assert set(schema_of(A=short, B=short).left_out) == {"code", "patient_id", "row"}


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        (["yes", "no", "yes"], "classification", ("no", "yes")),
        ([True, False, True], "classification", ("false", "true")),
        ([10, 2, 9], "classification", ("2", "9", "10")),
        ([1.0, 0.0, None], "classification", ("0", "1")),
        (["b", "10", "9"], "classification", ("10", "9", "b")),
        (list(range(10)), "classification", tuple(map(str, range(10)))),
        (list(range(11)), "regression", ()),
        ([0.5, 1.0, 2.0], "regression", ()),
    ],
)
def test_the_task_follows_from_the_target(values, task, classes):
    schema = schema_of(A={"x": [i % 2 for i in range(len(values))], "y": values})
    assert (schema.task, schema.classes) == (task, classes)


def test_the_task_follows_from_all_parties_together():
    def of(*ys):
        return schema_of(**{f"p{i}": {"x": [i % 2 for i in range(len(y))], "y": y} for i, y in enumerate(ys)})

    assert of(["p", "p"], ["q", "q"]).classes == ("p", "q")
    assert of(list(range(6)), list(range(5, 10))).classes == tuple(map(str, range(10)))
    assert of(list(range(6)), list(range(5, 11))).task == "regression"
    assert of([0, 1], [0.5, 1]).task == "regression"
    assert of([0, 1], ["0", "x"]).classes == ("0", "1", "x")
    assert of([0, 1], [None, None]).classes == ("0", "1")


def test_bad_targets():
    for tables, said in [
        ({"A": {"x": [1, 2], "y": ["p", "p"]}, "B": {"x": [1, 2], "y": ["p", None]}}, "'y' is 'p' in every row"),
        ({"A": {"x": [1, 2], "y": [None, None]}}, "empty at every party"),
        ({"A": {"x": [1, 2], "y": ["p", "q"]}, "B": {"x": [1, 2], "y": [0.5, 1]}}, "words at A and measurements at B"),
        ({"A": {"x": [i % 2 for i in range(101)], "y": [f"c{i}" for i in range(101)]}}, "at most 100 classes"),
        ({"A": {"x": [1, 1], "y": ["p", "q"]}}, r"Got none: x: constant \(1\)"),
        ({"A": {"y": ["p", "q"]}}, "Got none: there is none"),
    ]:
        with pytest.raises(ConfigError, match=said):
            schema_of(**tables)
    with pytest.raises(ConfigError, match="at least one party"):
        agree({}, "y")


def test_the_schema_is_json_in_any_order():
    schema = schema_of(A={"b": [1, 2], "a": ["u", "v"], "k": [1, 1], "y": [10, 9]})
    again = json.loads(json.dumps(schema.to_tree(), sort_keys=True))
    assert Schema.from_tree(again) == schema
    assert again["columns"] == {"a": "category", "b": "number"}
    assert (schema.numbers, schema.categories) == (("b",), ("a",))
    assert hash(schema)


def test_an_adult_like_table(tmp_path):
    path = tmp_path / "adult.data"
    path.write_text(
        "age, workclass, gain, Y\n39, State-gov, 2174, <=50K\n50, ?, 0, >50K\n"
        "38, Private, 0, <=50K\n53, Private, ?, >50K\n"
    )
    tables, aside = parties_of(path, "workclass")
    assert (list(tables), aside) == (["Private", "State-gov"], 1)
    schema = agree({p: describe(t, "Y") for p, t in tables.items()}, "Y")
    assert schema.classes == ("<=50K", ">50K")
    assert schema.numbers == ("age", "gain")
