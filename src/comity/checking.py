"""What in a party's table does not fit the data dictionary, said at the party and nowhere else."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from comity.core.contribution import Array
from comity.core.errors import nearest
from comity.data.dates import ambiguous_dates, days
from comity.data.dictionary import Dictionary, Entry
from comity.data.tables import column, numbers, read_typed, words
from comity.data.toml import date_of
from comity.data.units import Conversion, guess
from comity.report.numbers import percent, plural

SHOWN = 3
"""A finding shows at most this many examples."""
MANY = 0.05
"""More than this share of values outside the range is an error, not a warning."""
MOST_EXTRA = 10
"""More columns than this that the dictionary does not have are one finding."""
PLACEHOLDERS = frozenset({-999.0, -99.0, -9.0, -8.0, -7.0, -1.0, 9.0, 88.0, 99.0, 888.0, 999.0, 9999.0, 99999.0})
"""Numbers that people write where a value is missing."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that does not fit.

    Attributes:
        column: where; "" for the table as a whole.
        problem: what was found, with counts.
        example: at most three values, as they read; "" where there is nothing to show.
        what_to_do: in one sentence or two.
        severity: "error" or "warning".
    """

    column: str
    problem: str
    example: str
    what_to_do: str
    severity: str


def check_table(table: Any, dictionary: Dictionary) -> list[Finding]:
    """Everything in a table that does not fit a dictionary.

    For use at the party that has the table: findings hold counts and up to three values each. Columns come in
    the order of the dictionary, then those it does not have, then the table as a whole. The party column may
    be there or not; an identifier need not be there.

    Args:
        table: a path or a frame, as `read_typed` takes it; in a table already read, dates are numbers.
        dictionary: as agreed.

    Raises:
        ConfigError: the table cannot be read.

    Example:
        >>> import polars
        >>> from comity.data.dictionary import Entry
        >>> sex = Entry("sex", "category", codes={"f": "female", "m": "male"})
        >>> agreed = Dictionary((Entry("age", "number", range=(0, 120)), sex))
        >>> print(report(check_table(polars.DataFrame({"age": [61, 47, 999], "sex": ["f", "F", "m"]}), agreed)))
        error      age: 1 of 3 values (33 %) lies outside 0 to 120, such as 999.
                   999 looks like a code for a missing value. Leave these cells empty.
        error      sex: 1 of 3 values (33 %) is none of the 2 codes, such as 'F'.
                   Write 'f' for 'F'.
        checked    2 errors, 0 warnings
    """
    typed = read_typed(table)
    agreed = [entry.name for entry in dictionary.columns]
    extra = [name for name in typed.columns if name not in (*agreed, dictionary.target, dictionary.party)]
    unclear = ambiguous_dates(typed.select([n for n in agreed if n in typed.columns]))
    found: list[Finding] = []
    for entry in dictionary.columns:
        if entry.name in typed.columns:
            found += _column(column(typed, entry.name), entry, unclear.get(entry.name))
        elif entry.type != "identifier":
            found.append(_absent(entry.name, extra))
    if dictionary.target and dictionary.target not in (*agreed, *typed.columns):
        found.append(_absent(dictionary.target, extra))
    return [*found, *_extra(extra), *_repeated(typed)]


def report(findings: Sequence[Finding]) -> str:
    """Findings as lines of plain text, errors first."""
    if not findings:
        return "fits       Nothing in the table contradicts the dictionary."
    lines = []
    for severity in ("error", "warning"):
        for one in (f for f in findings if f.severity == severity):
            where = f"{one.column}: " if one.column else ""
            such = f", such as {one.example}" if one.example else ""
            lines += [f"{severity:<11}{where}{one.problem}{such}.", f"{'':<11}{one.what_to_do}"]
    errors = sum(f.severity == "error" for f in findings)
    warnings = len(findings) - errors
    counts = f"{errors:,} {plural('error', errors)}, {warnings:,} {plural('warning', warnings)}"
    return "\n".join([*lines, f"checked    {counts}"])


def _column(series: Any, entry: Entry, unclear: str | None) -> list[Finding]:
    present = series.drop_nulls()
    if not len(present):
        severity = "error" if entry.required else "warning"
        return [Finding(entry.name, "every value is missing", "", "Fill the column, or leave it out.", severity)]
    found = []
    if entry.required and len(present) < len(series):
        gone = len(series) - len(present)
        problem = f"a value is required and missing in {gone:,} {plural('row', gone)} ({percent(gone / len(series))})"
        found.append(Finding(entry.name, problem, "", "Fill these cells, or leave the rows out.", "error"))
    if entry.type in ("number", "date"):
        return found + (_number(present, entry) if entry.type == "number" else _date(present, entry, unclear))
    return found if entry.type == "identifier" else found + _words(present, entry)


def _number(present: Any, entry: Entry) -> list[Finding]:
    if present.dtype.is_temporal():
        return [_wrong(present, entry.name, "a number", "dates where numbers are expected")]
    x = numbers(present)
    bad = present.filter(x.is_null())
    found = []
    if len(bad):
        told = f"{_of(len(bad), len(present))} no {plural('number', len(bad))}"
        todo = "Write numbers only, with a decimal point, and leave cells without a value empty."
        found.append(Finding(entry.name, told, _quoted(bad), todo, "error"))
    return found + _range(x.drop_nulls().to_numpy(), entry, _plain)


def _date(present: Any, entry: Entry, unclear: str | None) -> list[Finding]:
    if unclear:
        told = "day and month cannot be told apart"
        return [Finding(entry.name, told, _quoted(present), "Write dates as 2024-03-05.", "error")]
    if present.dtype.is_temporal() or present.dtype.is_float():
        x = days(present) if present.dtype.is_temporal() else present
        return _range(x.to_numpy(), entry, _day)
    what = "numbers" if present.dtype.is_numeric() else "words"
    return [_wrong(present, entry.name, "a date such as 2024-03-05", f"{what} where dates are expected")]


def _range(x: Array, entry: Entry, shown: Any) -> list[Finding]:
    if entry.range is None or not x.size:
        return []
    low, high = entry.range
    outside = x[(x < low) | (x > high)]
    if not outside.size:
        return []
    examples = list(dict.fromkeys(outside.tolist()))
    told = f"{_of(outside.size, x.size, 'lies', 'lie')} outside {shown(low)} to {shown(high)}"
    example = _listed([shown(v) for v in examples[:SHOWN]])
    other = guess(x, entry) if entry.type == "number" else None
    severity = "error" if other or outside.size > MANY * x.size else "warning"
    return [Finding(entry.name, told, example, _advice(examples, entry, other), severity)]


def _advice(examples: list[float], entry: Entry, other: tuple[Conversion, float] | None) -> str:
    if other is not None:
        conversion, share = other
        return f"This looks like another unit: {conversion} would fit {percent(share)} of the values{_into(entry)}."
    if entry.type == "number" and len(examples) <= SHOWN and set(examples) <= PLACEHOLDERS:
        codes = _listed([_plain(v) for v in examples])
        one = len(examples) == 1
        looks = "looks like a code for a missing value" if one else "look like codes for missing values"
        return f"{codes} {looks}. Leave these cells empty."
    unit = f" {entry.unit}" if entry.unit else ""
    return f"Correct them, or ask the others to widen the range{' in' if unit else ''}{unit}."


def _into(entry: Entry) -> str:
    return f". Give them in {entry.unit}" if entry.unit else ". Give them in the agreed unit"


def _words(present: Any, entry: Entry) -> list[Finding]:
    codes = ("false", "true") if entry.type == "boolean" else tuple(entry.codes)
    counted = words(present) if not present.dtype.is_temporal() else present.cast(str)
    if not codes:
        odd = present.dtype.is_numeric() or present.dtype.is_temporal()
        what = "dates" if present.dtype.is_temporal() else "numbers"
        told = f"{what} where words are expected"
        return [_wrong(present, entry.name, "the words that were agreed", told, "warning")] if odd else []
    unknown = counted.filter(~counted.is_in(codes))
    if not len(unknown):
        return []
    if present.dtype.is_numeric() and len(unknown) == len(present) and not any(map(_numeric, codes)):
        told = f"numbers where words are expected, {len(set(unknown)):,} different"
        return [_wrong(present, entry.name, f"one of {_listed(_quotes(codes[:8]))}", told)]
    often = [word for word, _ in _most_common(unknown)[:SHOWN]]
    told = f"{_of(len(unknown), len(present))} none of the {len(codes)} codes"
    return [Finding(entry.name, told, _listed(_quotes(often)), _rewrite(often, codes, entry), "error")]


def _rewrite(often: list[str], codes: Sequence[str], entry: Entry) -> str:
    """Which code a word may stand for: one of that meaning, of that name, or a like one."""
    meant = {meaning.casefold(): code for code, meaning in entry.codes.items() if meaning}
    if entry.type == "boolean":
        meant |= dict.fromkeys(("yes", "1", "y", "t"), "true") | dict.fromkeys(("no", "0", "n", "f"), "false")
    for_ = {word: meant.get(word.casefold()) or nearest(word, codes)[len(" Did you mean '") : -2] for word in often}
    pairs = [f"'{code}' for '{word}'" for word, code in for_.items() if code]
    if pairs:
        return f"Write {_listed(pairs)}."
    return f"Write one of {_listed(_quotes(codes[:8]))}{', ...' if len(codes) > 8 else ''}, or ask to add a code."


def _wrong(present: Any, name: str, must: str, told: str, severity: str = "error") -> Finding:
    return Finding(name, told, _quoted(present), f"Write {must} in this column.", severity)


def _absent(name: str, extra: Iterable[str]) -> Finding:
    near = nearest(name, extra).strip().replace("Did you mean", "Is it")
    return Finding(name, "the column is missing", "", f"{near} Rename it." if near else "Add it.", "error")


def _extra(extra: list[str]) -> list[Finding]:
    todo = "Leave it out, or ask to add it to the dictionary."
    if len(extra) <= MOST_EXTRA:
        return [Finding(name, "the dictionary has no such column", "", todo, "warning") for name in extra]
    names = _listed([f"'{name}'" for name in extra[:SHOWN]])
    return [Finding("", f"the dictionary does not have {len(extra):,} of the columns", names, todo, "warning")]


def _repeated(typed: Any) -> list[Finding]:
    again = typed.height - typed.n_unique()
    if not again:
        return []
    rows = f"{again:,} {plural('row', again)} ({percent(again / typed.height)})"
    told = f"{rows} {_verb(again, 'repeats', 'repeat')} another in every column"
    return [Finding("", told, "", "Leave out rows that were exported twice.", "warning")]


def _of(some: int, all_: int, one: str = "is", more: str = "are") -> str:
    return f"{some:,} of {all_:,} {plural('value', all_)} ({percent(some / all_)}) {_verb(some, one, more)}"


def _verb(count: int, one: str, more: str) -> str:
    return one if count == 1 else more


def _most_common(unknown: Any) -> list[tuple[str, int]]:
    values, counts = np.unique(unknown.to_numpy().astype(str), return_counts=True)
    return sorted(zip(values.tolist(), counts.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0]))


def _quoted(series: Any) -> str:
    shown = series.unique(maintain_order=True).head(SHOWN)
    numeric = shown.dtype.is_numeric()
    return _listed([_plain(v) for v in shown.to_list()] if numeric else _quotes(str(v) for v in shown.to_list()))


def _quotes(values: Iterable[str]) -> list[str]:
    return [f"'{v[:40]}'" for v in values]


def _listed(parts: Sequence[str]) -> str:
    return ", ".join(parts)


def _numeric(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _plain(value: float) -> str:
    return f"{value:.10g}"


def _day(day: float) -> str:
    moment = date_of(day)
    return moment.date().isoformat() if moment.time().isoformat() == "00:00:00" else moment.isoformat(" ", "minutes")
