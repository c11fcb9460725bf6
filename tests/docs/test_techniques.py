"""The README's tables say what the code says: each technique once, what it sends, what the hub needs, where it runs."""

import importlib
import inspect
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

import comity as co
from comity.cli.commands import app

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests" / "laws"))
PARTS = importlib.import_module("public_parts").public_parts()
README = (ROOT / "README.md").read_text(encoding="utf-8")
FITS = {"sum": ("sums", "sums, noise"), "groups": ("sums of groups",), "each": ("nothing: each is seen",)}
ROW = re.compile(r"^\| (.*) \|$", re.M)
NAME = re.compile(r"`(\w+)`")
KNOWN = set(co.__all__)


def methods() -> dict[str, Any]:
    """One of each public method, with its default combiner."""
    x, model = np.eye(2, dtype="float32"), co.MLP(inputs=2, classes=2, hidden=(3,))
    plain = (co.FedAvg, co.FedSGD, co.Scaffold, co.FedDyn, co.QFedAvg, co.IFCA)
    made = [
        *(method(model) for method in plain),
        co.FedRep(model, head=("2",)),
        co.FedBN(normed()),
        co.FedLTN(model),
        co.LotteryFL(model),
        co.Tickets(model, 4),
        co.PersonalTickets(model, 4),
        co.FedProto(classes=2, width=3),
        co.Ridge(co.ColumnFeatures(2)),
        co.Boosting(inputs=2),
        co.Query({"x": x}),
        co.Distill(model, x, temperature=1.0),
        co.FedMD(x, classes=2),
        co.FedDF(model, x),
        co.Labelling(["is it?"], classes=2),
        co.Samples({"age": co.Field()}),
        co.Relay({"x": x}),
        co.Pool(co.QLearning(inputs=2, actions=2)),
    ]
    return {type(method).__name__: method for method in made}


def normed() -> Any:
    """A model with a layer that has running statistics."""
    torch = pytest.importorskip("torch")
    layers = torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2)
    return co.TorchModel(torch.nn.Sequential(*layers), torch.nn.functional.cross_entropy)


def tables(text: str) -> tuple[list[list[str]], list[list[str]]]:
    """The cells of the table of techniques, and of the table of what a combiner needs."""
    section = re.split(r"^## ", text.split("\n## Every technique\n")[1], maxsplit=1, flags=re.M)[0]
    blocks = re.findall(r"(?:^\|.*\n)+", section, re.M)
    techniques, needs = ([line.split(" | ") for line in ROW.findall(block)][1:] for block in blocks)
    return techniques, needs


def first(cell: str) -> list[str]:
    """The techniques that a row is about: what is named before its paper."""
    return NAME.findall(cell.split(" (")[0])


def complaints(text: str) -> list[str]:
    """What the tables say that the code does not."""
    techniques, needs = tables(text)
    made = methods()
    wrong = [f"{cell}: no such name" for row in [*techniques, *needs] for cell in _names(row) if cell not in KNOWN]
    for name in sorted(n for n, role in PARTS.items() if role in ("method", "participant")):
        times = sum(name in first(row[0]) for row in techniques)
        wrong += [] if times == 1 else [f"{name} stands in {times} rows"]
    for row in techniques:
        wrong += [f"{row[0]}: {said}" for said in _row(row, made)]
    for name, role in sorted(PARTS.items()):
        if role in ("combiner", "transform"):
            seen = getattr(getattr(co, name), "needs" if role == "combiner" else "decodes")
            there = [row[0] for row in needs if name in NAME.findall(row[1])]
            wrong += [] if there == [seen] else [f"{name} needs {seen}, and stands under {there}"]
    return wrong


def _row(row: list[str], made: dict[str, Any]) -> list[str]:
    """What is wrong with one row."""
    if len(row) != 7:
        return [f"{len(row)} cells"]
    technique, sent, combined, need, fits = row[:5]
    named = NAME.findall(combined)
    default = getattr(co, named[0])
    wrong = [] if default.needs == need else [f"{named[0]} needs {default.needs}, not {need}"]
    wrong += [] if fits in FITS[need] else [f"what needs {need} may not be protected with: {fits}"]
    for method in (made[name] for name in first(technique) if name in made):
        own = type(method.combiner).__name__
        wrong += [] if own == named[0] else [f"its combiner is {own}"]
        uniform = getattr(method.combiner, "uniform", False)
        wrong += [] if uniform == ("uniform" in combined) else [f"its mean is {'' if uniform else 'not '}uniform"]
        here = co.Round("r", 0)
        kind = method.expect(method.init(here), "ann", here).kind
        wrong += [] if sent.startswith(kind or "any kind") else [f"its kind is {kind!r}"]
    return wrong


def _names(row: list[str]) -> list[str]:
    return [name for cell in row for name in NAME.findall(cell)]


def test_the_tables_say_what_the_code_says() -> None:
    assert not complaints(README)


def test_there_is_an_instance_of_every_public_method() -> None:
    assert sorted(methods()) == sorted(name for name, role in PARTS.items() if role == "method")


def test_a_default_that_the_hub_must_see_one_by_one_is_not_promised_sums() -> None:
    techniques, _ = tables(README)
    rows = {name: row for row in techniques for name in first(row[0])}
    assert [rows[n][3] for n in ("FedAvg", "Region", "Predictor", "Relay", "Labelling")] == ["sum"] * 3 + ["each"] * 2


def places(text: str) -> list[list[str]]:
    """The cells of the table of where a collaboration runs."""
    section = text.split("\n## Where it runs, and who waits for whom\n")[1].split("\n## ")[0]
    return [line.split(" | ") for line in ROW.findall(section)][1:]


def unknown(rows: list[list[str]]) -> list[str]:
    """What the table names that is neither public, nor in a module, nor a setting, nor a command with its options."""
    commands = dict(_commands())
    wrong = []
    for said in re.findall(r"`([^`]+)`", " ".join(cell for row in rows for cell in row)):
        setting = re.fullmatch(r"(\w+)=\"\w+\"", said)
        module, _, name = said.rpartition(".")
        words = said.split()
        if words[0] == "comity":
            named, asked = " ".join(w for w in words[1:] if w[0] != "-"), {w for w in words if w[0] == "-"}
            known = named in commands and asked <= commands[named]
        elif setting:
            known = setting[1] in inspect.signature(co.Collaboration).parameters
        elif module:
            known = hasattr(importlib.import_module(f"comity.{module}"), name)
        else:
            known = said in KNOWN
        wrong += [] if known else [said]
    return wrong


def _commands() -> list[tuple[str, set[str]]]:
    """Each command with its options."""
    group: Any = typer.main.get_command(app)
    return [(name, {o for p in command.params for o in p.opts}) for name, command in group.commands.items()]


def test_every_engine_stands_in_the_table_of_places() -> None:
    rows = places(README)
    assert not unknown(rows)
    assert {len(row) for row in rows} == {3}
    named = NAME.findall(" ".join(row[1] for row in rows))
    assert sorted(n for n, role in PARTS.items() if role == "engine" and n not in named) == []


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("| `Ray` |", "| `Rey` |", ["Rey"]),
        ('`late="next"`', '`lete="next"`', ['lete="next"']),
        ("`comity serve --compare`", "`comity serve --compere`", ["comity serve --compere"]),
        ("`service.peers.peer`", "`service.peers.pear`", ["service.peers.pear"]),
    ],
)
def test_what_is_wrong_with_the_table_of_places_is_told(old: str, new: str, says: list[str]) -> None:
    assert README.count(old) == 1
    assert unknown(places(README.replace(old, new))) == says


def test_the_readme_says_what_protects() -> None:
    section = README.split("\n## Every technique\n")[1].split("\n## ")[0]
    for name, role in PARTS.items():
        if role == "channel" or hasattr(getattr(co, name), "spend"):
            assert f"`{name}`" in section, name


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("| `Ditto` (Ditto; with", "| `Dito` (Ditto; with", "Dito: no such name"),
        ("| `Ditto` (Ditto; with", "| `Ditto`, `APFL` (Ditto; with", "APFL stands in 2 rows"),
        (
            "| `Collect` | each | nothing: each is seen | its table",
            "| `Collect` | sum | sums | its table",
            "Collect needs",
        ),
        (
            "| `Collect` | each | nothing: each is seen | its table",
            "| `Collect` | each | sums | its table",
            "may not be",
        ),
        ("`Mean`, uniform | sum | sums, noise | twice", "`Mean` | sum | sums, noise | twice", "is uniform"),
        ("| gradient: the mean one", "| delta: the mean one", "its kind is 'gradient'"),
        ("| `Average`, by class counts |", "| `LogPool` |", "its combiner is Average"),
        ("| sum | `Mean`, `Vote`,", "| sum | `Mean`, `Krum`, `Vote`,", "Krum needs groups, and stands under"),
        ("; the transforms `Once`, ", "; the transforms ", "Once needs each, and stands under []"),
        (" | its head |", " |", "6 cells"),
    ],
)
def test_what_is_wrong_with_a_table_is_told(old: str, new: str, says: str) -> None:
    assert README.count(old) == 1
    wrong = complaints(README.replace(old, new))
    assert any(says in said for said in wrong), wrong
