"""The import table: which room may import what. Imports inside functions count as well."""

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src" / "comity"
FLOOR = {"core": 1, "__main__": 5, "crowd": 3, "methods": 3, "ledger": 3, "cli": 5, "service": 5}
FLOOR |= dict.fromkeys(("combine", "privacy", "compress", "channels", "data", "adapters", "engines", "loop"), 2)
FLOOR |= dict.fromkeys(
    (
        "checking",
        "collaboration",
        "running",
        "racing",
        "completing",
        "charging",
        "noting",
        "comparison",
        "region",
        "listeners",
    ),
    4,
)
FLOOR |= dict.fromkeys(("figures", "secure_stats", "summary", "demo", "testing", "report", "deploy"), 4)
ALSO = {"methods": {"core", "combine"}, "crowd": {"core", "data"}}
ALSO |= {"ledger": {"core"}, "ledger/audit": {"core", "privacy"}}
NOT = {"cli": {"methods"}, "service": {"methods"}}
LIBRARIES = {
    "numpy": ("",),
    "msgspec": ("",),
    "cloudpickle": ("engines/",),
    "ray": ("engines/ray",),
    "torch": ("adapters/torch/", "listeners/tensorboard"),
    "tensorboardX": ("listeners/tensorboard",),
    "mlflow": ("listeners/mlflow",),
    "scipy": ("comparison/intervals.py",),
    "sklearn": ("adapters/",),
    "threadpoolctl": ("adapters/",),
    "skops": ("adapters/",),
    "polars": ("data/",),
    "narwhals": ("data/",),
    "sqlalchemy": ("ledger/", "service/"),
    "cryptography": ("ledger/keys", "ledger/stream", "channels/", "service/keys", "service/peers"),
    "dp_accounting": ("privacy/accountants",),
    "fsspec": ("ledger/objects.py",),
    "tenseal": ("channels/ckks",),
    "httpx": ("channels/remote", "service/"),
    "starlette": ("service/",),
    "uvicorn": ("service/",),
    "rich": ("cli", "report/", "listeners/progress", "comparison/shown"),
    "typer": ("cli",),
    "jinja2": ("report/", "service/pages/"),
}
NO_CLOCK = {"logging", "time", "datetime", "random", "secrets", "uuid"}
PURE = {"core": NO_CLOCK, "loop": NO_CLOCK | {"os", "io", "pathlib", "socket", "sqlite3", "tempfile", "subprocess"}}


def imported(source: str, file: str) -> set[str]:
    """Every module that a file of the package imports, by any spelling."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            here = ["comity", *Path(file).parts][: -node.level] if node.level else []
            base = ".".join([*here, *filter(None, [node.module])])
            found |= {f"{base}.{alias.name}" for alias in node.names} if base == "comity" else {base}
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__", "need"):
                found.add(str(node.args[0].value))
    return found


def room_of(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


def refusals(source: str, file: str) -> list[str]:
    """What the import table refuses in a file; `file` is relative to src/comity."""
    room, wrong = room_of(file), []
    for name in sorted(imported(source, file)):
        top, _, rest = name.partition(".")
        if top == "comity":
            fault = inside(room, file, rest.split(".")[0])
        elif top in sys.stdlib_module_names:
            fault = f"{room} does no input or output and reads no clock" if top in PURE.get(room, ()) else ""
        else:
            homes = LIBRARIES.get(top, ())
            fault = "" if file.startswith(homes) else f"only {homes or 'the table in this test'} may"
        wrong += [f"{file} imports {name}: {fault}"] if fault else []
    return wrong


def inside(room: str, file: str, to: str) -> str:
    if to in (room, "") or to.startswith("__"):
        return "" if to else "import from the room, not from the front page"
    if room == "__init__":
        return "" if to in ("core", "testing") else "the front page loads the rest on first use"
    if to not in FLOOR or room not in FLOOR:
        return f"'{to if room in FLOOR else room}' has no floor yet: put it into FLOOR"
    if FLOOR[room] in (2, 3):
        may = ALSO.get(file.removesuffix(".py"), ALSO.get(room, {"core"}))
        return "" if to in may else f"{room} may import {sorted(may)}"
    return "" if FLOOR[to] <= FLOOR[room] and to not in NOT.get(room, ()) else f"{room} lies below {to} or beside it"


FILES = {path.relative_to(SRC).as_posix(): path.read_text(encoding="utf-8") for path in sorted(SRC.rglob("*.py"))}


@pytest.mark.parametrize("file", FILES)
def test_a_file_imports_only_what_its_room_may(file: str) -> None:
    assert not refusals(FILES[file], file)


def test_no_circle_between_rooms() -> None:
    graph: dict[str, set[str]] = {}
    for file, source in FILES.items():
        rooms = {name.split(".")[1] for name in imported(source, file) if name.startswith("comity.")}
        graph.setdefault(room_of(file), set()).update(rooms - {room_of(file)})
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as circle:
        pytest.fail(f"Rooms import each other: {' -> '.join(circle.args[1])}")


def test_the_rooms_of_the_table_exist() -> None:
    assert {"core", "combine", "channels", "data", "adapters", "engines", "loop", "methods", "ledger"} <= {
        room_of(file) for file in FILES
    }


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("loop/fold.py", "from comity.combine.mean import Mean"),
        ("loop/fold.py", "import pathlib"),
        ("engines/local.py", "def f():\n    from comity.methods import fedavg"),
        ("adapters/sklearn.py", "from comity import methods"),
        ("adapters/sklearn.py", "import torch"),
        ("methods/fedavg.py", "from ..adapters import numpy"),
        ("data/tables.py", "import comity as co"),
        ("data/tables.py", "need('torch', 'torch')"),
        ("cli.py", "from comity.methods.fedavg import FedAvg"),
        ("core/tree.py", "import time"),
        ("core/wire.py", "import yaml"),
        ("report/page.py", "import comity.cli"),
        ("__init__.py", "from comity.data import tables"),
    ],
)
def test_what_the_table_refuses(file: str, source: str) -> None:
    assert len(refusals(source, file)) == 1


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("adapters/torch/model.py", "import torch.nn.functional as F\nfrom comity.adapters.common import flat"),
        ("methods/fedavg.py", "from comity.combine.mean import Mean\nfrom .scaffold import Scaffold"),
        ("ledger/audit.py", "from comity.privacy.accounting import epsilon"),
        ("cli.py", "from comity import __version__\nimport typer"),
    ],
)
def test_what_the_table_allows(file: str, source: str) -> None:
    assert not refusals(source, file)
