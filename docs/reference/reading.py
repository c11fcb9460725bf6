"""The public names of the package, read from its sources."""

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import comity

SRC = Path(comity.__file__).parent.parent


@dataclass(frozen=True)
class Thing:
    """A name with what its source says.

    Attributes:
        name: as it is imported.
        kind: "class", "protocol", "function" or "module".
        file: relative to the root.
        signature: as it is called; "" for a module.
        doc: the docstring, unindented.
        methods: the public ones of a class.
    """

    name: str
    kind: str
    file: str
    signature: str
    doc: str
    methods: tuple["Thing", ...] = ()


def file_of(module: str) -> Path:
    """The source of a module, named below comity."""
    path = SRC.joinpath("comity", *module.split(".")) if module else SRC / "comity"
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def modules(room: str) -> list[str]:
    """The modules of a room, its own `__init__` left out."""
    return [f"{room}.{p.stem}" for p in sorted(file_of(room).parent.glob("*.py")) if p.stem != "__init__"]


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def thing_of(name: str) -> Thing:
    """A public name of the front page."""
    home = comity._HOME.get(name)
    path = file_of((home or f"comity.{name}").removeprefix("comity."))
    where = path.relative_to(SRC.parent).as_posix()
    if home is None:
        return Thing(name, "module", where, "", ast.get_docstring(_tree(path)) or "")
    found = [n for n in _tree(path).body if isinstance(n, ast.ClassDef | ast.FunctionDef) and n.name == name]
    return _thing(found[0], where) if found else Thing(name, "module", where, "", "")


def names_of(module: str) -> list[Thing]:
    """The public classes and functions of a module that is shown whole, as far as `__all__` or the front has them."""
    path = file_of(module)
    where = path.relative_to(SRC.parent).as_posix()
    shown = _exported(module)
    nodes = [
        n for n in _tree(path).body if isinstance(n, ast.ClassDef | ast.FunctionDef) and not n.name.startswith("_")
    ]
    return [_thing(n, where) for n in nodes if shown is None or n.name in shown]


def module_doc(module: str) -> str:
    """What a module says of itself."""
    return ast.get_docstring(_tree(file_of(module))) or ""


def _exported(module: str) -> set[str] | None:
    """What a room's `__init__` hands on from its modules; None where it hands on nothing."""
    room = file_of(module.split(".")[0])
    if room.name != "__init__.py":
        return None
    found = {alias.asname or alias.name for n in _tree(room).body if isinstance(n, ast.ImportFrom) for alias in n.names}
    return found or None


def _thing(node: ast.ClassDef | ast.FunctionDef, where: str) -> Thing:
    doc = ast.get_docstring(node) or ""
    if isinstance(node, ast.FunctionDef):
        return Thing(node.name, "function", where, _call(node.name, node, method=False), doc)
    bases = [ast.unparse(b) for b in node.bases]
    kind = "protocol" if "Protocol" in bases else "class"
    own = [
        n for n in node.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_") and ast.get_docstring(n)
    ]
    called = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__call__" and ast.get_docstring(n)]
    methods = tuple(_method(n, where) for n in [*called, *own])
    return Thing(node.name, kind, where, _made(node, kind), doc, methods)


def _method(node: ast.FunctionDef, where: str) -> Thing:
    marks = {ast.unparse(d) for d in node.decorator_list}
    if "property" in marks:
        gives = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        return Thing(
            node.name, "property", where, f"{node.name}{gives}".replace("'", ""), ast.get_docstring(node) or ""
        )
    return Thing(
        node.name,
        "method",
        where,
        _call(node.name, node, method="staticmethod" not in marks),
        ast.get_docstring(node) or "",
    )


def _made(node: ast.ClassDef, kind: str) -> str:
    """How an instance is made: by its fields, or by its `__init__`."""
    if kind == "protocol":
        return ""
    if any("dataclass" in ast.unparse(d) for d in node.decorator_list):
        fields = [n for n in node.body if isinstance(n, ast.AnnAssign) and _is_field(n)]
        return _folded(node.name, [_field(n) for n in fields], "")
    init = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    return _call(node.name, init, method=True) if init else ""


def _is_field(node: ast.AnnAssign) -> bool:
    said = ast.unparse(node.annotation)
    hidden = node.value is not None and "init=False" in ast.unparse(node.value)
    return not said.startswith("ClassVar") and not ast.unparse(node.target).startswith("_") and not hidden


def _field(node: ast.AnnAssign) -> str:
    default = ""
    if node.value is not None:
        text = ast.unparse(node.value)
        given = next(
            (k.value for k in getattr(node.value, "keywords", []) if k.arg in ("default", "default_factory")), None
        )
        if not text.startswith("field("):
            default = f" = {text}"
        elif given is not None:
            default = f" = {ast.unparse(given)}" + ("()" if "default_factory" in text else "")
    return f"{ast.unparse(node.target)}: {ast.unparse(node.annotation)}{default}"


def _call(name: str, node: ast.FunctionDef, *, method: bool) -> str:
    a = node.args
    first = [*a.posonlyargs, *a.args]
    defaults = [None] * (len(first) - len(a.defaults)) + list(a.defaults)
    said = [_argument(x, d) for x, d in zip(first, defaults, strict=True)][1 if method else 0 :]
    said += [f"*{_argument(a.vararg, None)}"] if a.vararg else ["*"] if a.kwonlyargs else []
    said += [_argument(x, d) for x, d in zip(a.kwonlyargs, a.kw_defaults, strict=True)]
    said += [f"**{_argument(a.kwarg, None)}"] if a.kwarg else []
    gives = f" -> {ast.unparse(node.returns)}" if node.returns and name != "__init__" and not _is_none(node) else ""
    return _folded(name, said, gives)


def _is_none(node: ast.FunctionDef) -> bool:
    return isinstance(node.returns, ast.Constant) and node.returns.value is None


def _argument(x: ast.arg, default: ast.expr | None) -> str:
    said = f"{x.arg}: {ast.unparse(x.annotation)}" if x.annotation else x.arg
    return said if default is None else f"{said} = {ast.unparse(default)}"


def _folded(name: str, said: list[str], gives: str) -> str:
    line = f"{name}({', '.join(said)}){gives}".replace("'", '"')
    if len(line) <= 100:
        return line
    return "\n".join([f"{name}(", *(f"    {one},".replace("'", '"') for one in said), f"){gives}".replace("'", '"')])
