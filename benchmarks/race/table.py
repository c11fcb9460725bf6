"""The figures as rows, in a terminal and in docs/benchmarks.md."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

WANTED: Mapping[tuple[str, str], str] = {
    ("digits-least-2", "flower"): ">= 120",
    ("digits", "pfl"): ">= 4",
    ("digits-all", "pfl"): ">= 10",
    ("cnn-5x5", "flower"): ">= 3",
    ("cnn", "pfl"): ">= 1",
    ("cnn", "comity, 2 processes"): "<= 0.59",
    ("resnet", "pfl"): ">= 1",
    ("whole", "flower"): ">= 10 and 5",
}
"""What we want of a ratio to ours, by wall time; for whole processes by memory too."""
HEAD = ("workload", "who", "wall ms", "CPU ms", "wall ratio", "CPU ratio", "wanted", "CPU over limit")
WHOLE = (
    "50 rounds of digits-least-2",
    "wall s",
    "CPU s",
    "peak MB",
    "wall ratio",
    "memory ratio",
    "wanted",
)
GROWTH = ("clients in all", "asked a round", "CPU ms a round", "CPU us a client", "wall ms", "peak MB")


def number(x: float) -> str:
    """Three digits that mean something."""
    return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}"


def work_rows(found: Mapping[str, Any], limits: Mapping[str, float]) -> list[Sequence[str]]:
    """One row for each who did a workload; the last columns are ratios to ours, the default engine."""
    rows: list[Sequence[str]] = []
    for work, by in found.items():
        ours = by.get("comity", {})
        for who, got in by.items():
            mine = who == "comity"
            times = ["", ""] if mine else [number(got[k] / ours[k]) if got.get(k) else "" for k in ("wall", "cpu")]
            cells = [number(got[k]) if got.get(k) else "" for k in ("wall", "cpu")]
            over = number(got["cpu"] / limits[work]) if work in limits else ""
            rows.append((work, got.get("label", who), *cells, *times, WANTED.get((work, who), ""), over))
    return rows


def whole_rows(found: Mapping[str, Any]) -> list[Sequence[str]]:
    """One row for each whole process."""
    if "comity" not in found:
        return []
    ours, rows = found["comity"], []
    for who, got in found.items():
        times = ["", ""] if who == "comity" else [number(got[k] / ours[k]) for k in ("wall", "peak")]
        cells = [number(got["wall"]), number(got["cpu"]), number(got["peak"] / 2**20)]
        rows.append((got.get("label", who), *cells, *times, WANTED.get(("whole", who), "")))
    return rows


def growth_rows(found: Sequence[Mapping[str, float]]) -> list[Sequence[str]]:
    """One row for each size."""
    return [
        (
            f"{g['total']:,.0f}",
            f"{g['asked']:,.0f}",
            number(g["cpu"]),
            number(g["cpu"] * 1e3 / g["asked"]),
            number(g["wall"]),
            number(g["peak"] / 2**20),
        )
        for g in found
    ]


def text(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """For a terminal."""
    width = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        cells = zip(row, width, strict=True)
        return "  ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(cells))

    return "\n".join(map(line, (head, *rows)))


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """For a page."""
    return "\n".join("| " + " | ".join(r) + " |" for r in (head, ["---"] * len(head), *rows))


def write(page: Path, parts: Mapping[str, str]) -> None:
    """Put each part between its markers, `<!-- name -->` and `<!-- /name -->`.

    Raises:
        ValueError: the page has no such markers.
    """
    body = page.read_text(encoding="utf-8")
    for name, part in parts.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if body.count(begin) != 1 or body.count(end) != 1:
            raise ValueError(f"{page} must have {begin} and {end} once.")
        before, after = body.partition(begin)[0], body.partition(end)[2]
        body = f"{before}{begin}\n\n{part}\n\n{end}{after}"
    page.write_text(body, encoding="utf-8")
