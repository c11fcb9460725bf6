"""A collaboration, its run, and the data that its participants bring."""

import os
from pathlib import Path

import numpy as np
import pytest
from matrix_law import NO_PATH, NO_WHOLE, NONE_NUMBERS, WHOLE, Thing, hold, rows

import comity as co

INF = float("inf")
X = np.random.default_rng(0).normal(size=(6, 2)).astype("float32")
Y = np.array([0, 1, 0, 1, 0, 1])
MODEL = co.Linear(inputs=2, classes=2)
METHOD = co.FedAvg(MODEL)
SITE = co.Trainer(MODEL, (X, Y))
SITES = {"a": SITE, "b": SITE}
FED = co.Collaboration(METHOD, SITES)
NO_PART = (1, True, "FedAvg", [], {}, Thing(), int, len, SITE)


class NoShare:
    """A method that lacks `share`."""

    combiner = co.Mean()
    init = expect = update = len


class Half:
    """A transform without the way back."""

    decodes, contracts = "each", True
    init = encode = len


class Whole(Half):
    """A transform that says something odd."""

    decodes = "some"
    decode = len


def fed(name):
    return lambda v: FED.replace(**{name: v})


def run(name):
    return lambda v: FED.run(**{"rounds": 1, name: v})


def data(v):
    return co.Collaboration(METHOD, {"a": SITE, "b": co.Trainer(MODEL, v)}).run(1, folder="new")


def spoil(x, value):
    x = np.array(x)
    x.flat[0] = value
    return x


def raises(i):
    raise FileNotFoundError("no disk")


def run_many(make):
    return co.Collaboration(METHOD, co.Population(3, make)).run(1, folder="new")


def sound(root, name):
    """Paths that a run can use."""
    (root / name).mkdir()
    return root / name


BAD_DATA = {
    "None": None,
    "text": "data",
    "number": 5,
    "array": X,
    "triple": (X, Y, Y),
    "dict": {"X": X, "y": Y},
    "lengths": (X, Y[:-1]),
    "empty": (X[:0], Y[:0]),
    "scalars": (1, 2),
    "nothing": (None, None),
    "words": ("ab", "cd"),
    "NaN": (spoil(X, np.nan), Y),
    "inf": (spoil(X, np.inf), Y),
    "wide": (X[:, [0, 1, 1]], Y),
    "flat": (X[:, 0], Y),
    "three axes": (X[:, :, None], Y),
    "texts": (X.astype(str), Y),
    "complex": (X.astype(complex), Y),
    "objects": (np.array([["a", {}]] * 6, object), Y),
    "dates": (np.zeros((6, 2), "M8[s]"), Y),
    "ragged": ([[1.0], [1.0, 2.0]] * 3, Y),
    "class beyond": (X, Y + 1),
    "class below": (X, Y - 1),
    "half": (X, Y + 0.5),
    "NaN label": (X, spoil(Y.astype(float), np.nan)),
    "label text": (X, np.array(["a", "b"] * 3)),
    "label objects": (X, np.array([0, None] * 3, object)),
    "label columns": (X, np.zeros((6, 3))),
    "soft NaN": (X, np.full((6, 2), np.nan)),
}
GOOD_DATA = {
    "arrays": (X, Y),
    "lists": (X.tolist(), Y.tolist()),
    "list pair": [X, Y],
    "float64": (X.astype(float), Y),
    "ints": ((X * 9).astype(int), Y),
    "bools": (X > 0, Y > 0),
    "float labels": (X, Y.astype(float)),
    "uint8": (X, Y.astype("uint8")),
    "soft": (X, np.full((6, 2), 0.5)),
    "objects": (X.astype(object), Y),
    "read only": (np.broadcast_to(X, X.shape), Y),
    "strided": (X[::-1], Y[::-1]),
    "Fortran": (np.asfortranarray(X), Y),
}

ROWS = (
    *rows(
        "Collaboration",
        "method",
        lambda v: co.Collaboration(v, SITES),
        bad=(None, *NO_PART, co.FedAvg, NoShare(), co.Mean(), SITES),
        good=(METHOD, co.Query({"ask": "x"})),
    ),
    *rows(
        "Collaboration",
        "participants",
        fed("participants"),
        says="[Pp]articipant",
        bad={
            "None": None,
            "number": 1,
            "text": "ab",
            "list": [SITE],
            "one": SITE,
            "set": {"a"},
            "class": {"a": co.Trainer},
            "no name": {"": SITE},
            "number name": {1: SITE},
            "line": {"a\nb": SITE},
            "nobody": {"a": None},
            "a method": {"a": METHOD},
            "a pair": {"a": (X, Y)},
            "function": {"a": len},
            "population": co.Population,
        },
        good={"none": {}, "two": SITES, "population": co.Population(2, lambda i: SITE)},
    ),
    *rows(
        "Collaboration",
        "combine",
        fed("combine"),
        bad=(*NO_PART, co.Mean, METHOD, co.Plain()),
        good=(None, co.Mean(), co.Median()),
    ),
    *rows(
        "Collaboration",
        "transforms",
        fed("transforms"),
        says="transforms|decodes",
        bad=(
            None,
            1,
            "abc",
            b"ab",
            Thing(),
            [None],
            [1],
            [Thing()],
            [co.Mean()],
            [Half()],
            [Half],
            [Whole()],
            {"a": 1},
        ),
        good=((), [], iter(())),
    ),
    *rows("Collaboration", "channel", fed("channel"), bad=(None, *NO_PART, co.Plain, co.Mean()), good=(co.Plain(),)),
    *rows(
        "Collaboration",
        "select",
        fed("select"),
        bad=(None, *NO_PART, co.everyone, type(co.everyone())),
        good=(co.everyone(), co.sample(1), co.poisson(0.5)),
    ),
    *rows(
        "Collaboration",
        "stop",
        fed("stop"),
        bad=(1, True, "now", [], {}, Thing(), int),
        good=(None, len, lambda past, ahead: False),
    ),
    *rows(
        "Collaboration",
        "evaluate",
        fed("evaluate"),
        bad=(None, 0, 1, 5, "always", [], Thing(), co.every, len, 1.0),
        good=(True, False, co.every(2)),
    ),
    *rows(
        "Collaboration",
        "quorum",
        fed("quorum"),
        bad=(*NONE_NUMBERS, -0.1, 1.1, 2, INF),
        good=(0, 1, 0.5, np.float32(0.5), np.int64(1)),
    ),
    *rows("Collaboration", "retries", fed("retries"), bad=(*NO_WHOLE, -1), good=(0, *WHOLE, 10**30)),
    *rows(
        "Collaboration",
        "deadline",
        fed("deadline"),
        bad=(*NONE_NUMBERS[1:], 0, -1, INF),
        good=(None, 1, 0.5, np.float32(0.5)),
    ),
    *rows("Collaboration", "seed", fed("seed"), bad=(*NO_WHOLE, 10**30, 2**63), good=(0, -1, 2**63 - 1, *WHOLE)),
    *rows(
        "Collaboration",
        "replace",
        lambda v: FED.replace(**v),
        says="Did you mean '(combine|channel|seed)'",
        bad=({"combiner": co.Mean()}, {"chanel": co.Plain()}, {"sead": 1}),
        good=({}, {"seed": 1}),
    ),
    *rows("Collaboration", "rounds", run("rounds"), bad=(*NO_WHOLE, -1), good=(0, 1, np.int64(1), np.uint8(1))),
    *rows("Collaboration", "folder", run("folder"), bad=NO_PATH, good=(None, "runs/one", Path("two"), "ünï cödé")),
    *rows(
        "Collaboration",
        "engine",
        run("engine"),
        bad=(1, True, "local", [], Thing(), co.Local, METHOD, len),
        good=(None, co.Local()),
    ),
    *rows(
        "Collaboration",
        "listen",
        run("listen"),
        bad=(1, True, "x", [1], [len, int], {}, Thing(), int),
        good=(None, [], lambda event: None, [lambda event: None, lambda event: None]),
    ),
    *rows(
        "Collaboration",
        "nobody",
        lambda v: FED.replace(participants=v).run(1, folder="new"),
        says="needs participants",
        bad=({}, co.Population(0, lambda i: SITE)),
    ),
    *rows(
        "Population",
        "make",
        run_many,
        says="'make' of Population|Participant '0'",
        bad={
            "raises": raises,
            "None": lambda i: None,
            "class": lambda i: co.Trainer,
            "pair": lambda i: (X, Y),
            "arguments": lambda: SITE,
            "two": lambda a, b: SITE,
            "method": lambda i: METHOD,
        },
        good={"site": lambda i: SITE},
    ),
    *rows(
        "Population",
        "data",
        lambda v: run_many(lambda i: co.Trainer(MODEL, v)),
        bad=BAD_DATA,
        good=GOOD_DATA,
        says="data of participant '0'",
    ),
    *rows("Trainer", "data", data, bad=BAD_DATA, good=GOOD_DATA, says="data of participant 'b'"),
    *rows(
        "Trainer",
        "test",
        lambda v: co.Collaboration(METHOD, {"b": co.Trainer(MODEL, (X, Y), test=v)}).run(1),
        bad={"wide": (X[:, [0, 1, 1]], Y), "NaN": (spoil(X, np.nan), Y), "class": (X, Y + 1), "text": "test"},
        good={"None": None, "rows": (X, Y), "no rows": (X[:0], Y[:0])},
        says="test of participant 'b'",
    ),
    *rows(
        "Trainer",
        "valid",
        lambda v: co.Collaboration(METHOD, {"b": co.Trainer(MODEL, (X, Y), valid=v)}).run(1),
        bad={"wide": (X[:, [0, 1, 1]], Y), "NaN": (spoil(X, np.nan), Y), "class": (X, Y + 1), "number": 3},
        good={"None": None, "rows": (X, Y), "no rows": (X[:0], Y[:0])},
        says="valid of participant 'b'",
    ),
    *rows(
        "Run",
        "name",
        lambda v: FED.run(1).local(v),
        bad=(None, 1, True, [], {}, b"a", Thing(), "", "zed", "a\0"),
        good=("a", "b"),
        says="participant",
    ),
    *rows(
        "Run",
        "population",
        lambda v: co.Collaboration(METHOD, co.Population(2, lambda i: SITE)).run(1).local(v),
        bad=("2", "-1", "x", "01", "", 1),
        good=("0", "1"),
        says="participant",
    ),
    *rows("recipe", "collaboration", co.recipe, bad=(None, *NO_PART, METHOD, co.Collaboration), good=(FED,)),
)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_collaboration(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hold(row, tmp_path)


FOLDERS = {
    "a file": lambda p: p.write_text("x"),
    "in a file": lambda p: p.parent.joinpath("f").write_text("x") and p.parent / "f" / "sub",
    "a broken link": lambda p: p.symlink_to("nowhere/at/all"),
    "a link to itself": lambda p: p.symlink_to(p.name),
    "a very long name": lambda p: p.parent / ("x" * 300),
    "no such device": lambda p: Path("/proc/comity"),
    "a lock that is a folder": lambda p: (p / "lock").mkdir(parents=True),
    "a database that is a folder": lambda p: (p / "run.db").mkdir(parents=True),
    "a recipe that is a folder": lambda p: (p / "recipe.json").mkdir(parents=True),
    "a recipe that is no JSON": lambda p: p.mkdir() or (p / "recipe.json").write_bytes(b"\xff\x00"),
    "a database of garbage": lambda p: p.mkdir() or (p / "run.db").write_bytes(os.urandom(5000)),
}


@pytest.mark.parametrize("how", FOLDERS)
def test_a_folder_that_cannot_be_used(how, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = FOLDERS[how](tmp_path / "run")
    folder = made if isinstance(made, Path) else tmp_path / "run"
    (row,) = rows("Collaboration", "folder", run("folder"), bad={how: folder}, says="folder|" + folder.name[:20])
    hold(row, tmp_path)


def test_a_generator_of_transforms_is_kept():
    """Empty at its second use, it would leave out what protects."""

    class Fine(Half):
        decodes = "each"
        decode = len

    fed = FED.replace(transforms=(one for one in (Fine(),)))
    assert len(fed.parts.transforms) == len(fed.parts.transforms) == 1


def test_numpy_scalars_are_the_plain_recipe():
    plain = FED.replace(seed=3, quorum=0.5, retries=1, deadline=2.0)
    scalar = FED.replace(seed=np.int64(3), quorum=np.float32(0.5), retries=np.int8(1), deadline=np.float64(2))
    assert co.recipe(plain)["hash"] == co.recipe(scalar)["hash"]
    a, b = (fed.replace(select=co.sample(1)).run(np.int64(2)) for fed in (plain, scalar))
    assert all((a.shared[k] == b.shared[k]).all() for k in a.shared)
