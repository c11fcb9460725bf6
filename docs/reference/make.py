"""Write the pages of docs/reference: every public name with its signature and its docstring.

    python docs/reference/make.py           write them
    python docs/reference/make.py --check   say with the exit status whether they are current

The sources are read, not imported: no optional library is needed. Pages that this does not write are left alone.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import comity

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from reading import Thing, module_doc, modules, names_of, thing_of  # noqa: E402
from writing import anchor, body, entry  # noqa: E402


@dataclass(frozen=True)
class Group:
    """A page: its file, its title, what it says first, and the rooms or names on it."""

    file: str
    title: str
    opening: str
    rooms: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()


GROUPS = (
    Group(
        "comparison",
        "The main job",
        "Is it worth joining? And what to do with the answer.",
        ("comparison", "summary", "report"),
    ),
    Group(
        "collaboration",
        "Putting it together",
        "The parts put together, who carries, who is asked.",
        ("collaboration", "racing", "region", "engines", "service", "loop", "listeners"),
    ),
    Group(
        "methods", "What is learnt", "Methods, the participants that go with them, and how the hub steps.", ("methods",)
    ),
    Group("crowd", "Crowds", "Labels from many who err, and how far each is to be trusted.", ("crowd",)),
    Group("models", "Models", "Ordinary models behind one face.", ("adapters",)),
    Group(
        "deploy",
        "Putting it to use",
        "A network made small: in a file, in memory, on a device.",
        ("deploy",),
        modules=("adapters.torch.fold", "adapters.torch.shrink"),
    ),
    Group("combine", "How it is combined", "Many contributions to one.", ("combine",)),
    Group("travel", "How it travels", "Channels, protection and compression.", ("channels", "privacy", "compress")),
    Group("data", "Data", "Tables, and how they are shared out.", ("data",)),
    Group("ledger", "What happened", "The record of a run, and its audit.", ("ledger",)),
    Group("contributions", "What moves", "Contributions, rounds, and what they must look like.", ("core",)),
    Group(
        "errors", "What is refused", "What comity says no to, and what can be done about it.", modules=("core.errors",)
    ),
    Group(
        "parts",
        "Writing a part of your own",
        "A part is any object that has the methods of its kind. `co.testing` holds it to the laws that comity's own "
        "parts are held to: call the `check_` function of its kind in a test of yours.",
        ("testing",),
        modules=("core.parts",),
    ),
)
"""A module named in `modules` goes to that page whole, its protocols included, whatever its room."""


def page_of(name: str) -> Group | None:
    """The page of a public name."""
    module = comity._HOME.get(name, f"comity.{name}").removeprefix("comity.")
    whole = next((g for g in GROUPS if module in g.modules), None)
    return whole or next((g for g in GROUPS if module.split(".")[0] in g.rooms), None)


def things(group: Group) -> list[Thing]:
    """What stands on a page, in order: what is public by name, then the protocols of its modules."""
    public = [thing_of(name) for name in comity.__all__ if name != "testing" and page_of(name) == group]
    own = [t for module in group.modules for t in names_of(module) if t.name not in comity.__all__]
    laws = [t for module in modules("testing") for t in names_of(module)] if "testing" in group.rooms else []
    return [*sorted(public, key=lambda t: t.name.casefold()), *own, *laws]


def page(group: Group) -> str:
    """The text of one page."""
    out = [f"# {group.title}", "", group.opening, ""]
    found = things(group)
    for module in group.modules:
        out += body(module_doc(module))
    if group.file == "parts":
        found = [t for t in found if t.kind == "protocol"] + [t for t in found if t.kind != "protocol"]
    return "\n".join(out + [line for thing in found for line in entry(thing)]).rstrip("\n") + "\n"


def index(lines: dict[str, str]) -> str:
    """The page that leads to all others, from name to first line."""
    out = [
        "# Reference",
        "",
        f"The public names of comity {comity.__version__}, as `import comity as co` gives them.",
        "",
    ]
    for group in GROUPS:
        names = [n for n in sorted(lines, key=str.casefold) if page_of(n) == group]
        out += [f"## {group.title}", "", f"{group.opening} [All of it]({group.file}.md).", ""]
        out += ["| name | what it is |", "|---|---|"] if names else []
        for name in names:
            where = f"{group.file}.md" + (f"#{anchor(name)}" if name != "testing" else "")
            out.append(f"| [`{name}`]({where}) | {lines[name].replace('|', '&#124;')} |")
        out += [""] if names else []
    written = {"index.md", *(f"{g.file}.md" for g in GROUPS)}
    other = sorted(p for p in HERE.glob("*.md") if p.name not in written)
    titles = [(p.read_text(encoding="utf-8").split("\n")[0].lstrip("# "), p.name) for p in other]
    out += ["## Formats", "", *[f"- [{title}]({name})" for title, name in titles], ""] if titles else []
    return "\n".join(out).rstrip("\n") + "\n"


def pages() -> dict[Path, str]:
    """Every page that this writes."""
    lines = {name: thing_of(name).doc.split("\n")[0] for name in comity.__all__}
    return {HERE / "index.md": index(lines), **{HERE / f"{g.file}.md": page(g) for g in GROUPS}}


def main() -> int:
    """Write or check the pages; 1 when one is not current or a name has no docstring or no page."""
    missing = [name for name in comity.__all__ if not thing_of(name).doc]
    lost = [name for name in comity.__all__ if page_of(name) is None]
    for said, wrong in (("no file or no docstring", missing), ("on no page of make.py", lost)):
        if wrong:
            print(f"docs/reference: {said}: {', '.join(wrong)}", file=sys.stderr)
    if missing or lost:
        return 1
    stale = [path for path, text in pages().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" not in sys.argv:
        for path, text in pages().items():
            path.write_text(text, encoding="utf-8")
        return 0
    if stale:
        print(
            f"docs/reference: not current: {', '.join(p.name for p in stale)}. Write them anew: make docs",
            file=sys.stderr,
        )
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main())
