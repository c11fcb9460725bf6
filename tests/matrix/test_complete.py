"""Every public name, and each of its parameters, has rows, or stands here with a reason."""

import importlib.util
import inspect
from pathlib import Path

import matrix_law
import pytest

import comity as co

RECORDS = {
    "Audit": "a record that audit gives",
    "Contribution": "a record of the protocol: the hub checks it against the Spec",
    "Leaf": "a record of the protocol: what a method asks for",
    "Private": "a record of the protocol: what a step asks for",
    "Race": "a record that race gives",
    "Round": "a record of the protocol: the loop makes it",
    "Spec": "a record of the protocol: what a method asks for",
    "Spend": "a record of the protocol: what a transform spends",
    "Step": "a record of the protocol: each model refuses what it does not offer",
    "Until": "a record of the protocol: the loop makes it",
    "Plain": "nothing to set; it only passes on",
}
TO_COME: set[str] = set()
"""New names whose rows are still to be written: this list only gets shorter."""
OTHERWISE = {
    "model": "a participant's model is that of its method; its data show whether it fits",
    "start": "parameters of another run; the first fit refuses others",
    "results": "what compare gives",
    "running": "what a collaboration's run gives",
    "data": "looked at as those of Trainer",
    "test": "looked at as those of Trainer",
    "valid": "looked at as those of Trainer",
}
METHODS = {
    "Collaboration": ("replace", "run"),
    "Comparison": ("report", "json"),
    "Ledger": ("append", "restore", "verify", "bytes_of", "metric", "since"),
    "Run": ("local",),
    "Shards": ("of", "cut", "open", "save"),
    "testing": ("check_combiner", "check_method", "check_transform"),
}


@pytest.fixture(scope="module")
def seen():
    """Name and parameter of every row of every room."""
    for file in sorted(Path(__file__).parent.glob("test_*.py")):
        if file != Path(__file__):
            spec = importlib.util.spec_from_file_location(f"matrix_{file.stem}", file)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            for made in getattr(module, "LATER", ()):
                list(made(None))
    return matrix_law.SEEN


def an_error(name):
    thing = getattr(co, name)
    return inspect.isclass(thing) and issubclass(thing, Exception)


@pytest.mark.parametrize(
    "name", [n for n in co.__all__ if n not in RECORDS | dict.fromkeys(TO_COME) and not an_error(n)]
)
def test_a_public_name_has_rows(name, seen):
    assert {n for n, _ in seen} >= {name}, f"Write rows for {name} in tests/matrix, or say in RECORDS why not."
    thing = getattr(co, name)
    if name in ("testing", "Ledger", "Run"):
        return
    wanted = set(inspect.signature(thing).parameters) - {p for n, p in seen if n == name} - set(OTHERWISE)
    assert not wanted, f"Write rows for {sorted(wanted)} of {name} in tests/matrix."


@pytest.mark.parametrize(("name", "method"), [(n, m) for n, ms in METHODS.items() for m in ms])
def test_a_public_method_has_rows(name, method, seen):
    parameters = set(inspect.signature(getattr(getattr(co, name), method)).parameters) - {"self", "seed"}
    rows = {p for n, p in seen if n == name}
    assert rows & (parameters | {method}), f"Write rows for {name}.{method} in tests/matrix."


def test_the_reasons_are_of_public_names(seen):
    assert set(RECORDS) <= set(co.__all__)
    written = TO_COME & {n for n, _ in seen}
    assert not written, f"Take {sorted(written)} out of TO_COME: there are rows now."


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("The 'x' must be 1. Got 2", "full stop"),
        ("The 'x' must be 1.", "what was got"),
        ("Got NoneType.", "plain words"),
        ("Got <matrix_law.Thing object at 0x7f84a1940110>.", "plain words"),
        ("Got [Errno 2] No such file.", "plain words"),
        (f"Got {'x' * 600}.", "short"),
        ("Got a\0b.", "printable"),
        ("Got 1. " * 5 + "Got 2.", "few sentences"),
    ],
)
def test_the_grammar_refuses(message, fault):
    with pytest.raises(AssertionError, match=fault):
        matrix_law.grammar(message)


def test_the_law_refuses(tmp_path):
    def wrote(value):
        (tmp_path / "x").write_text(value)
        raise co.ConfigError("The 'x' must be y. Got z.")

    def silent(value):
        raise co.ConfigError("It must be y. Got z.")

    for call, bad, good, fault in (
        (wrote, ("a",), (), "Something was written"),
        (str, (1,), (), "must be refused"),
        (silent, (), (1,), "must work"),
        (silent, (1,), (), "must say"),
    ):
        (row,) = matrix_law.rows("law", "x", call, bad=bad, good=good)
        with pytest.raises(AssertionError, match=fault):
            matrix_law.hold(row, tmp_path)
    with pytest.raises(ZeroDivisionError):
        matrix_law.hold(matrix_law.rows("law", "x", lambda v: 1 / v, bad=(0,))[0], tmp_path)
