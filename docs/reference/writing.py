"""A name as Markdown: heading, signature, and its Google-style docstring in lists and fenced code."""

import re
import textwrap

from reading import Thing

SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises", "Example", "Examples")
HEAD = re.compile(rf"^({'|'.join(SECTIONS)}):(.*)$")
ITEM = re.compile(r"^(\*{0,2}[\w., `\"|]+?)(?: \([^)]*\))?:\s+(.*)$")


def anchor(name: str) -> str:
    """The anchor of a heading, as Markdown sites make it."""
    return re.sub(r"[^\w\- ]", "", name.lower()).replace(" ", "-")


def entry(thing: Thing) -> list[str]:
    """The lines of one name."""
    out = [
        f"## {thing.name}",
        "",
        *_signature(thing, "co." if thing.kind in ("class", "function") else ""),
        *body(thing.doc),
    ]
    for method in thing.methods:
        called = method.name.replace("__call__", "(called)")
        out += [f"### {thing.name}.{called}", "", *_signature(method, ""), *body(method.doc)]
    return [*out, f"Source: [`{thing.file}`](../../{thing.file})", ""]


def _signature(thing: Thing, before: str) -> list[str]:
    if not thing.signature:
        return []
    return ["```python", thing.signature.replace("__call__(", "("), "```", ""]


def body(doc: str) -> list[str]:
    """A docstring as Markdown."""
    out: list[str] = []
    title, held = "", []
    for line in [*doc.split("\n"), "Returns:"]:
        head = HEAD.match(line)
        if head is None:
            held.append(line)
            continue
        out += _section(title, "\n".join(held))
        title, held = head[1], [head[2].strip()] if head[2].strip() else []
    return out


def _section(title: str, text: str) -> list[str]:
    text = textwrap.dedent(text).strip("\n")
    if not text.strip():
        return []
    if not title:
        return _prose(text)
    if title.startswith("Example"):
        return ["**Example**", "", *_prose(text)]
    if title in ("Returns", "Yields"):
        return [f"**{title}**", "", *_prose(text)]
    return [f"**{'Arguments' if title == 'Args' else title}**", "", *_items(text)]


def _items(text: str) -> list[str]:
    """`name: what it is` as a list; what goes on below an item stays in it, what follows is prose."""
    out: list[str] = []
    lines, tail = text.split("\n"), []
    for i, line in enumerate(lines):
        item = ITEM.match(line)
        if item is not None and not line.startswith(" "):
            out.append(f"- `{item[1]}`: {_escaped(item[2])}")
        elif line.startswith(" ") and out:
            out.append("  " + _escaped(line.strip()))
        elif line.strip():
            tail = lines[i:]
            break
    return [*out, *([""] if out else []), *(_prose("\n".join(tail)) if tail else [])]


def _prose(text: str) -> list[str]:
    """Paragraphs; doctests and indented blocks as fenced code."""
    out: list[str] = []
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        code = textwrap.dedent(block)
        if code.lstrip().startswith(">>>"):
            out += ["```python", code, "```", ""]
        elif all(line.startswith("    ") for line in block.split("\n")):
            out += ["```text", code, "```", ""]
        else:
            out += [*map(_escaped, textwrap.dedent(block).split("\n")), ""]
    return out


def _escaped(line: str) -> str:
    """Text outside of back quotes that Markdown would take for a tag or emphasis."""
    if re.fullmatch(r"\*[^*`<]+\*", line):
        return line
    parts = re.split(r"(`[^`]*`)", line)
    return "".join(p if p.startswith("`") else re.sub(r"([<*])", r"\\\1", p) for p in parts)
