"""What a comparison says in a terminal: the same words in a pipe, without colours."""

import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.style import Style
from rich.text import Text

from comity.report import beside, fairness, numbers, view
from comity.report.view import Results

WIDTH = 100
MARGIN = 11
WAY = {"alone": "#d08700", "ensemble": "#c965a3", "joint": "#2b8fd0", "personal": "#109f75", "private": "#8a78e0"}
"""The hues of the report, at steps that can be read on light and on dark terminals."""
ALARM = "#e0602a"
DROPPED_FIRST = ("pooled", "ensemble", "personal", "verdict")


def print_results(
    results: Results, console: Console, *, report_path: str | Path | None = None, width: int | None = None
) -> None:
    """Print a comparison: header, verdict, table, cost, what was revealed, how to run it again.

    Args:
        results: what a comparison gives, version 1.
        console: where to; standard output as a rule.
        report_path: where the page lies, if it was written.
        width: columns; the terminal's, at most 100, if not given (100 where there is no terminal).

    Raises:
        ConfigError: results of another version.
    """
    view.check(results)
    columns = width or (min(console.width, WIDTH) if console.is_terminal else WIDTH)
    for line in lines(results, columns, report_path=report_path):
        console.print(line, soft_wrap=True, highlight=False)


def lines(results: Results, width: int = WIDTH, *, report_path: str | Path | None = None) -> list[Text]:
    """The lines of a comparison, each at most `width` columns wide."""
    headline, lead = view.verdict(results)
    out = [*_header(results, width), Text()]
    out += _wrapped(headline, width, "bold") + _wrapped(lead, width)
    out += _wrapped(" ".join(f"{n} loses {points} points." for n, points in view.unsaid_losers(results)), width)
    out += [Text(), *table(results, width), Text(), *_notes(results, width)]
    for label, text in _found(results):
        out += _labelled(label, text, width)
    out.append(Text())
    if report_path is not None:
        out.append(Text("report".ljust(MARGIN) + clean(report_path)))
    return out + _labelled("again", _again(results), width, "dim")


def print_demo(results_by_title: Mapping[str, Results], console: Console, paths: Mapping[str, str | Path]) -> None:
    """Print one verdict for each comparison of the demo, where its page lies, and what to do next.

    Args:
        results_by_title: what each comparison gives, by the title to print.
        console: where to; standard output as a rule.
        paths: where each page lies, by the same titles.
    """
    width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    indent = max((cell_len(clean(t)) for t in results_by_title), default=0) + 3
    for title, results in results_by_title.items():
        headline, _ = view.verdict(view.check(results))
        gain = f"Mean gain {numbers.points(results['gain'])} points of {numbers.metric_name(results['metric'])}."
        for i, line in enumerate(_wrapped(f"{headline} {gain}", max(20, width - indent))):
            line.stylize("bold", 0, max(0, len(clean(headline)) if not i else 0))
            console.print(Text(_fit(title if not i else "", indent)) + line, soft_wrap=True, highlight=False)
    console.print()
    for title in results_by_title:
        if title in paths:
            console.print(Text("report   " + clean(paths[title])), soft_wrap=True, highlight=False)
    again = Text("next     comity compare YOUR.csv --target COLUMN --party COLUMN", "dim")
    console.print(again, soft_wrap=True, highlight=False)


@contextmanager
def progress(console: Console | None = None) -> Iterator[Callable[[str, float], None]]:
    """A bar with what is being done, how far it is, and the time left once that can be told.

    Args:
        console: where to; standard error if not given. Nothing is shown where it is no terminal,
            where TERM is dumb, or where colours are off.

    Yields:
        `update(text, done)`: what is being done, as "repeat 3/5   joint   round 17/30", and the share
        that is done, in [0, 1]. The bar is gone when the block ends.

    Example:
        >>> import io
        >>> with progress(Console(file=io.StringIO())) as update:
        ...     update("repeat 1/5   alone", 0.1)
    """
    where = console or Console(stderr=True)
    silent = not where.is_terminal or where.is_dumb_terminal or where.no_color
    bar = BarColumn(bar_width=None, complete_style=WAY["joint"], finished_style=WAY["joint"], style="dim")
    text, share = (
        TextColumn("{task.description}", markup=False),
        TextColumn("{task.fields[share]}   {task.fields[left]}"),
    )
    began = time.monotonic()
    with Progress(text, bar, share, console=where, transient=True, disable=silent, expand=True) as shown:
        task = shown.add_task("", total=1.0, share="", left="")

        def update(text: str, done: float) -> None:
            done = min(1.0, max(0.0, done))
            left = time_left(time.monotonic() - began, done)
            shown.update(task, description=clean(text), completed=done, share=f"{int(100 * done):3} %", left=left)

        yield update


def time_left(elapsed: float, done: float) -> str:
    """The time left, `0:01:31 left`, or nothing before a twentieth and two seconds are behind us.

    Args:
        elapsed: seconds since the start.
        done: the share that is done, in [0, 1].
    """
    if done < 0.05 or elapsed < 2.0:
        return ""
    return f"{numbers.clock(elapsed * (1 - done) / done)} left"


def table(results: Results, width: int = WIDTH) -> list[Text]:
    """Rows, scores and gain of each party and their mean, at most `width` columns wide.

    On a narrow terminal columns are left out (pooled, ensemble, personal, the verdict's word); name, rows,
    alone, joint and gain stay.
    """
    entries = _entries(results)
    columns = {"rows": ["rows", *(e.rows for e in entries)]}
    for way in view.shown(results):
        columns[way] = [
            view.head(results, way),
            *(numbers.value(view.at(e.ways, way, results["metric"]), results["metric"]) for e in entries),
        ]
    columns["gain"] = ["gain from joining", *(numbers.points(e.gain) for e in entries)]
    columns["verdict"] = ["", *(e.verdict for e in entries)]
    names = [numbers.metric_name(results["metric"]), *(clean(e.name) for e in entries)]
    names_width, gap = _fitted(names, columns, width)
    out = []
    for i, name in enumerate(names):
        line = Text(_fit(name, names_width))
        for key, cells in columns.items():
            line.append(
                " " * gap + _aligned(cells, i, left=key == "verdict"), _style(key, entries[i - 1] if i else None)
            )
        line.rstrip()
        out.append(line)
    out[0].stylize_before("dim")
    out[-1].stylize_before("bold")
    return out


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    rows: str
    ways: Mapping[str, Any]
    gain: numbers.Interval
    verdict: str


def _entries(results: Results) -> list[_Entry]:
    found = []
    for name in view.ordered(results):
        party = results["parties"][name]
        found.append(_Entry(name, numbers.count(party["rows"]), party["ways"], party["gain"], party["verdict"]))
    gain = results["gain"]
    return [*found, _Entry("mean", "", results["parties_mean"], gain, view.judged(gain))]


def _fitted(names: Sequence[str], columns: dict[str, list[str]], width: int) -> tuple[int, int]:
    """The width of the names and the gap with which the table fits; columns are left out in place where none does."""
    longest, short = min(24, max(map(cell_len, names))), False
    while True:
        taken = sum(max(map(cell_len, cells)) for cells in columns.values())
        for gap, least in ((3, longest), (2, longest), (2, min(12, longest))):
            room = width - taken - gap * len(columns)
            if room >= least:
                return min(longest, room), gap
        dropped = next((key for key in DROPPED_FIRST if key in columns), None)
        if not short:
            short, columns["gain"][0] = True, "gain"
        elif dropped is None:
            return max(4, width - taken - len(columns)), 1
        else:
            del columns[dropped]


def _aligned(cells: Sequence[str], i: int, *, left: bool) -> str:
    pad = " " * (max(map(cell_len, cells)) - cell_len(cells[i]))
    return cells[i] + pad if left else pad + cells[i]


def _style(column: str, entry: _Entry | None) -> Style:
    """A way's hue in the head; in a row, gain and word in the colour of what they say."""
    if entry is None:
        return Style(color=WAY.get(column) or None)
    if column not in ("gain", "verdict"):
        return Style()
    if entry.verdict == "gains":
        return Style(color=WAY.get(view.way_of(entry.gain)) or None)
    return Style(color=ALARM) if entry.verdict == "loses" else Style(dim=True)


def _header(results: Results, width: int) -> list[Text]:
    question = results["question"]
    parties, classes = len(results["parties"]), question.get("classes") or ()
    target = "a number" if question.get("task") == "regression" else f"{len(classes)} classes"
    if 0 < len(classes) <= 5:
        target = ", ".join(map(str, classes))
    text = (
        f"{numbers.count(question['rows'])} records, {numbers.count(parties)} {view.noun(results, parties)}, "
        f"{numbers.count(question['inputs'])} {numbers.plural('input', question['inputs'])}. "
        f"Target: {question['target']} ({target})."
    )
    aside = []
    if left := results.get("left_out"):
        aside.append(
            "Left out: "
            + ", ".join(f"{e['name']} ({e['why']})" if e.get("why") else str(e["name"]) for e in left)
            + "."
        )
    if n := question.get("set_aside"):
        aside.append(f"Set aside: {numbers.count(n)} {numbers.plural('record', n)} without a {view.noun(results, 1)}.")
    return _wrapped(text, width) + _wrapped(" ".join(aside), width, "dim")


def _notes(results: Results, width: int) -> list[Text]:
    text, pooled = view.interval_words(results), "pooled" in view.shown(results)
    text += " Pooled would need moving data." if pooled else " Pooled is not available: the data stay."
    parties = results["parties"]
    gaps = [n for n in view.ordered(results) if parties[n]["verdict"] == "undefined"]
    return _wrapped(text, width, "dim") + [
        line for name in gaps for line in _wrapped(f"{name}: {view.reason(parties[name])}.", width, "dim")
    ]


def _found(results: Results) -> list[tuple[str, str]]:
    """What stands below the table, each with its label; what was not asked for is left out."""
    found = [
        ("Fairness", fairness.line(results)),
        ("Fair", _fair(results)),
        ("Private", _private(results)),
        ("Newcomers", _unseen(results)),
        ("Cost", _cost(results)),
        ("Revealed", _revealed(results)),
    ]
    return [(label, text) for label, text in found if text]


def _fair(results: Results) -> str:
    got = fairness.fair(results)
    if got is None:
        return ""
    return f"{got['column']} gap {got['joint']} joint, {got['fair']} fair ({got['how']}). {got['told']}"


def _private(results: Results) -> str:
    got = beside.private(results)
    return "" if got is None else f"{got['told']} {got['guarantee']} {got['covers']} {got['beyond']}"


def _unseen(results: Results) -> str:
    told = beside.unseen_line(results)
    return f"joint without it: {told}" if told else ""


def _cost(results: Results) -> str:
    up, down = view.per_party(results)
    text = f"{numbers.size(up)} up and {numbers.size(down)} down per {view.noun(results, 1)}"
    seconds = beside.computing(results)
    return (
        f"{text}; {numbers.duration(seconds)} of computing for one training"
        if seconds is not None
        else (f"{text} for one joint training")
    )


def _revealed(results: Results) -> str:
    """What is seen by somebody, and after a semicolon what nobody sees."""
    seen: list[str] = []
    unseen: list[str] = []
    for entry in results["revealed"]:
        hidden = entry["hub"] == entry["parties"] == "nothing"
        summed = "" if hidden or entry["hub"] != "sum" else " (summed)"
        (unseen if hidden else seen).append(_lowered(str(entry["what"])) + summed)
    return ", ".join(seen) + (f"; no {', no '.join(unseen)}" if unseen else "")


def _again(results: Results) -> str:
    settings, wall = results["settings"], (results.get("seconds") or {}).get("wall")
    parts = [f"seed {settings.get('seed')}"]
    if recipe := settings.get("recipe"):
        head, _, tail = str(recipe).rpartition(":")
        parts.append(f"recipe {head}:{tail[:8]}" if head else f"recipe {tail[:8]}")
    if wall is not None:
        cores = settings.get("cores")
        parts.append(numbers.duration(wall) + (f" on {cores} {numbers.plural('core', cores)}" if cores else ""))
    return ", ".join(parts)


def _lowered(text: str) -> str:
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]


def clean(text: object) -> str:
    """Text that cannot steer a terminal: what is not printable becomes a question mark."""
    return "".join(c if c.isprintable() else "?" for c in str(text))


def folded(pieces: Sequence[tuple[str, str]], width: int) -> list[list[tuple[str, str]]]:
    """A line with a word in its margin, broken at words where it is too wide; columns and commands stay as they are.

    Args:
        pieces: of the line, as (text, style).
        width: of the terminal, in columns.
    """
    whole = "".join(text for text, _ in pieces)
    label, said, style = whole[:MARGIN], whole[MARGIN:], pieces[-1][1] if pieces else ""
    prose = label[-1:] == " " and "   " not in said.strip() and style != "dim" and width > 2 * MARGIN
    if cell_len(whole) <= width or not prose:
        return [list(pieces)]
    parts = textwrap.wrap(said, width - MARGIN, break_long_words=False, break_on_hyphens=False)
    return [[(label if not i else " " * MARGIN, ""), (part, style)] for i, part in enumerate(parts)]


def _fit(text: str, width: int) -> str:
    """Exactly that many columns: padded, or cut with an ellipsis."""
    return set_cell_size(text, width) if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"


def _wrapped(text: str, width: int, style: str = "") -> list[Text]:
    return [Text(line, style) for line in _split(text, width)]


def _labelled(label: str, text: str, width: int, style: str = "") -> list[Text]:
    found = _split(text, max(20, width - MARGIN))
    return [Text((label if not i else "").ljust(MARGIN) + line, style) for i, line in enumerate(found)]


def _split(text: str, width: int) -> list[str]:
    """Lines of that many characters at most; a figure stays with its interval."""
    whole = clean(text).replace(" ± ", "\u00a0±\u00a0")
    return [line.replace("\u00a0", " ") for line in textwrap.wrap(whole, width, break_on_hyphens=False)]
