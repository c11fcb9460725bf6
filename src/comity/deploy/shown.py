"""What `comity show` says of a ticket file."""

from pathlib import Path

from comity.deploy.format import MAGIC, Contents
from comity.deploy.ticket import Ticket, made, opened
from comity.report.numbers import count, fixed, metric_name, plural, size

Line = tuple[tuple[str, str], ...]
MARGIN, MOST = 11, 30
KINDS = {"int8": "int8 in blocks of 64", "bfloat16": "bfloat16", "float32": "float32"}


def holds_ticket(path: Path) -> bool:
    """Does a file begin as a ticket does?"""
    try:
        if not path.is_file():  # a pipe would wait
            return False
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def show_ticket(path: Path) -> list[Line]:
    """A ticket: its size, what is known of it, density for each layer.

    Raises:
        WireError: it is damaged.
    """
    found = opened(path)
    ticket = made(found)
    numbers = sum(x.size for x in ticket.params.values())
    kept = numbers - sum(m.size - int(m.sum()) for m in ticket.mask.values())
    written, dense = path.stat().st_size, 4 * numbers
    smaller = f"{size(written)}   {dense / written:.1f} times smaller than {size(dense)}, dense in float32"
    out: list[Line] = [
        ((path.name, "bold"), (f"   a ticket of {count(numbers)} {plural('number', numbers)}, {count(kept)} kept", "")),
        (),
        _said("size", smaller),
        _said("values", _values(found)),
        *(
            _said("" if i else "known", f"{metric_name(k)} {fixed(v)}")
            for i, (k, v) in enumerate(found.metrics.items())
        ),
        _said("model", f"sha256 {found.model[:16]}" if found.model else "not held to one"),
        (),
        _said("density", f"{100 * ticket.density:.1f} %"),
    ]
    return out + _layers(ticket)


def _values(found: Contents) -> str:
    return f"{KINDS[found.values]}, the rest in {found.rest}"


def _layers(ticket: Ticket) -> list[Line]:
    """The kept share of each leaf with a mask."""
    rows = list(ticket.densities().items())
    width = max((len(name) for name, _ in rows[:MOST]), default=0)
    out = []
    for name, share in rows[:MOST]:
        mask = ticket.mask[name]
        out.append(
            _said("", f"{name:<{width}}   {100 * share:5.1f} %   {count(int(mask.sum()))} of {count(mask.size)}")
        )
    more = len(rows) - MOST
    return [*out, _said("", f"and {count(more)} more {plural('layer', more)}")] if more > 0 else out


def _said(label: str, text: str) -> Line:
    return ((label.ljust(MARGIN), ""), (text, ""))
