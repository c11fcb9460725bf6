"""Write docs/reference/index.md: every public name with the first line of its docstring.

    python docs/reference/make.py           write it
    python docs/reference/make.py --check   say with the exit status whether it is current

The sources are read, not imported: no optional library is needed.
"""

import ast
import sys
from pathlib import Path

import comity

HERE = Path(__file__).parent
SRC = Path(comity.__file__).parent.parent
GROUPS = {
    "The main job": ("comparison", "summary"),
    "Putting it together": ("collaboration", "engines", "loop", "testing"),
    "What is learnt": ("methods", "adapters"),
    "How it is combined": ("combine",),
    "How it travels": ("channels", "privacy", "compress"),
    "Data": ("data",),
    "What happened": ("ledger", "report"),
    "What moves, and what is refused": ("core",),
}


def source_of(name: str) -> Path:
    """The file that holds a public name."""
    module = comity._HOME.get(name, f"comity.{name}")
    path = SRC.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def first_line(name: str) -> str:
    """The first line of the docstring of a public name; "" when there is none."""
    tree = ast.parse(source_of(name).read_text(encoding="utf-8"))
    kinds = ast.ClassDef | ast.FunctionDef
    found = [n for n in tree.body if isinstance(n, kinds) and n.name == name] if name in comity._HOME else [tree]
    text = ast.get_docstring(found[0]) if found else None
    return (text or "").split("\n")[0]


def room_of(name: str) -> str:
    """The room of a public name."""
    return comity._HOME.get(name, f"comity.{name}").split(".")[1]


def page(lines: dict[str, str]) -> str:
    """The page, from name to first line."""
    opening = f"The public names of comity {comity.__version__}, as `import comity as co` gives them."
    out = ["# Reference", "", opening, ""]
    for title, rooms in GROUPS.items():
        names = [name for name in sorted(lines, key=str.casefold) if room_of(name) in rooms]
        if names:
            out += [f"## {title}", "", "| name | what it is |", "|---|---|"]
            out += [f"| `{name}` | {lines[name].replace('|', '&#124;')} |" for name in names] + [""]
    other = sorted(p for p in HERE.glob("*.md") if p.name != "index.md")
    titles = [(p.read_text(encoding="utf-8").split("\n")[0].lstrip("# "), p.name) for p in other]
    out += ["## Formats", "", *[f"- [{title}]({name})" for title, name in titles], ""] if titles else []
    return "\n".join(out).rstrip("\n") + "\n"


def main() -> int:
    """Write or check the page; 1 when it is not current or a name has no docstring."""
    lines = {name: first_line(name) for name in comity.__all__ if source_of(name).exists()}
    missing = [name for name in comity.__all__ if not lines.get(name)]
    lost = [name for name in lines if not any(room_of(name) in rooms for rooms in GROUPS.values())]
    text, index = page({k: v for k, v in lines.items() if v}), HERE / "index.md"
    if "--check" not in sys.argv:
        index.write_text(text, encoding="utf-8")
    stale = not index.exists() or index.read_text(encoding="utf-8") != text
    for said, wrong in (("no file or no docstring", missing), ("in no group of make.py", lost)):
        if wrong:
            print(f"docs/reference/index.md: {said}: {', '.join(wrong)}", file=sys.stderr)
    if stale:
        print("docs/reference/index.md is not current. Write it anew: make docs", file=sys.stderr)
    return int(bool(stale or missing or lost))


if __name__ == "__main__":
    sys.exit(main())
