"""Accuracy against bytes as a picture: one dot for each row, bytes on a scale of tens."""

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from shots.figures import Found

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860, 520, 60, 240, 24, 56
LINE = 13
HIGH, LOW = "#0b6e4f", "#555555"


def picture(split: str, rows: Sequence[Found]) -> str:
    """The rows of one split as SVG; those that send nothing are left out."""
    dots = [(row.line.name, sent / 1e6, 100 * mean) for row in rows for sent, mean in [_place(row)] if sent]
    low, high = math.floor(min(y for *_, y in dots)) - 1, math.ceil(max(y for *_, y in dots)) + 1
    first, last = (f(math.log10(v)) for f, v in ((math.floor, min(_x(dots))), (math.ceil, max(_x(dots)))))

    def at(megabytes: float, accuracy: float) -> tuple[float, float]:
        x = LEFT + (math.log10(megabytes) - first) / (last - first) * (WIDTH - LEFT - RIGHT)
        return x, TOP + (high - accuracy) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']
    for power in range(first, last + 1):
        x, _ = at(10.0**power, low)
        parts += [_rule(x, TOP, x, HEIGHT - BOTTOM), _word(x, HEIGHT - BOTTOM + 18, f"{10.0**power:g}", "middle")]
    step = max(1, round((high - low) / 8))
    for tick in range(low, high + 1, step):
        _, y = at(10.0**first, tick)
        parts += [_rule(LEFT, y, WIDTH - RIGHT, y), _word(LEFT - 8, y + 4, str(tick), "end")]
    parts += _dots([(name, *at(x, y)) for name, x, y in dots])
    parts += [
        _word((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, "MB sent up and down in all (scale of tens)", "middle"),
        _word(LEFT - 40, TOP - 8, f"{split}: mean accuracy of the clients, %", "start"),
    ]
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n' + "\n".join(parts) + "\n</svg>\n"


def draw(path: Path, split: str, rows: Sequence[Found]) -> None:
    """Write the picture where there is something to show."""
    if any(_place(row)[0] for row in rows):
        path.write_text(picture(split, rows), encoding="utf-8")


def _place(row: Found) -> tuple[float, float]:
    facts = row.facts.values()
    return float(np.mean([f["up"] + f["down"] for f in facts])), float(np.mean([*map(np.mean, row.accuracy.values())]))


def _x(dots: Sequence[tuple[str, float, float]]) -> list[float]:
    return [x for _, x, _ in dots]


def _dots(dots: Sequence[tuple[str, float, float]]) -> list[str]:
    """Dots, and their names in a column at the right, no two on one line, each with a thin line to its dot."""
    out = []
    inside = sorted(dots, key=lambda d: d[2])
    for (name, x, y), line in zip(inside, _lines([y for *_, y in inside]), strict=True):
        colour = HIGH if name.startswith("Tickets") else LOW
        out += [
            f'<polyline points="{x:.1f},{y:.1f} {WIDTH - RIGHT:.1f},{line:.1f}" fill="none" stroke="{colour}" '
            'stroke-width="0.4"/>',
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>',
            _word(WIDTH - RIGHT + 6, line + 4, name, "start", colour),
        ]
    return out


def _lines(heights: Sequence[float]) -> list[float]:
    """Where names stand: each at its dot or below the one before, and none below the picture's last line."""
    last = HEIGHT - BOTTOM - LINE / 2
    apart = min(LINE, (last - TOP) / max(1, len(heights) - 1))
    down, free = [], float(TOP)
    for y in heights:
        down.append(max(y, free))
        free = down[-1] + apart
    return [min(y, last - apart * left) for y, left in zip(down, range(len(down) - 1, -1, -1), strict=True)]


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#dddddd"/>'


def _word(x: float, y: float, text: str, anchor: str, colour: str = "#222222") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'
