"""What `comity show` and `comity audit` say of a folder: lines of (text, style) pieces."""

import json
import shlex
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from comity.comparison.saved import files_of, holds_outcome, read_model, read_results, within
from comity.core.errors import ConfigError, LedgerError, WireError
from comity.core.tree import leaves
from comity.core.wire import decode_tree
from comity.ledger.audit import Audit, audit_of
from comity.ledger.history import history
from comity.ledger.links import Link
from comity.ledger.minutes import figure, minutes
from comity.ledger.peek import peek
from comity.ledger.record import Entry
from comity.report.numbers import count, fixed, metric_name, plural, size

Line = tuple[tuple[str, str], ...]
"""Pieces of a line: what it says, and "bold", "dim", "ok", "alarm", "joint" or "" for how."""

MARGIN = 11
WIDTH = 80
BARS = "▁▂▃▄▅▆▇█"
LONGEST = 40
MOST = 30
"""More parties than this are counted, not listed."""
ROWS = {"test_": ", test rows", "valid_": ", validation rows", "train_": ", training rows", "": ""}
SCORES = ("roc_auc", "accuracy", "r2", "log_loss", "mse", "loss")


def labelled(label: str, *lines: str, style: str = "") -> list[Line]:
    """A word in the margin and what it stands for; further lines below it."""
    return [(((label if not i else "").ljust(MARGIN), ""), (text, style)) for i, text in enumerate(lines)]


def show_run(found: Audit, link: Link | None = None) -> list[Line]:
    """A run: how far it is, score, bytes, minutes over a link, state, parties, and what to do next."""
    seen = peek(found.folder)
    rounds = history(seen.entries[: found.intact])
    last = f"   last written {_moment(found.times[1])}" if found.times else ""
    out: list[Line] = [
        (
            (found.folder.resolve().name, "bold"),
            (f"   {found.rounds} {plural('round', found.rounds)} closed{last}", ""),
        ),
        (),
        *_score(rounds),
        *labelled("bytes", _bytes(found)),
        *(labelled("minutes", _minutes(seen.entries[: found.intact], link)) if link is not None else []),
        *[line for said in _work(seen.entries[: found.intact]) for line in labelled("work", said)],
        *labelled(
            "state", _state(seen.state("last")) if "last" in seen.files and found.ok else "none that can be read"
        ),
        *[line for fault in found.faults for line in labelled("broken", fault, style="alarm")],
        (),
        *_parties(found),
        (),
    ]
    return out + _next([(f"comity audit {_path(found.folder)}", "checks the ledger")])


def _work(entries: Sequence[Entry]) -> list[str]:
    """How the work was done, as the ledger has it: by whom, and how those who are alike did theirs."""
    begun: Any = entries[0].facts if entries else {}
    how = begun.get("choice", {})
    many = int(how.get("workers") or 1)
    by = {"ray": f"{many} {plural('actor', many)} of Ray {how.get('ray', '')}"}.get(str(how.get("engine")), "")
    by = by or (f"{many} processes" if many > 1 else "")
    facts: list[Any] = [e.facts for e in entries if e.kind == "choice"]
    chosen = {f["who"]: f for f in facts}
    plans = [f"{f['executor']}: {f['reason']}" for f in chosen.values()] or [str(how.get("executor", ""))]
    return [part for part in (by, *plans) if part]


def show_comparison(folder: Path) -> list[Line]:
    """What a comparison's folder holds beside its results, and what to do with it."""
    folder = within(folder)
    files, place = files_of(folder), _path(folder)
    out: list[Line] = []
    if "joint" in files[""]:
        joint = read_model(folder)
        out += labelled("joint", f"{joint.family}, {_parameters(joint.params)}")
    own = {party: ways for party, ways in files.items() if party}
    for i, (party, ways) in enumerate(list(own.items())[:MOST]):
        named = [f"{party}, {way}: {path.relative_to(folder)}" for way, path in ways.items()]
        out += [*labelled("models" if not i else "", *named)]
    if len(own) > MOST:
        out += labelled("", f"and those of {count(len(own) - MOST)} more parties", style="dim")
    todo = [
        (f"comity predict {place} NEW.csv", "applies the joint model to new rows"),
        (f"comity report {place} --out report.html", "writes the page"),
    ]
    runs = runs_of(folder)
    if runs:
        out += labelled("runs", f"{count(len(runs))} joint {plural('training', len(runs))} with their ledgers")
        todo.append((f"comity audit {_path(runs[0])}", "checks the ledger of the chosen one"))
    return [*out, (), *_next(todo)]


def show_audit(found: Audit) -> list[Line]:
    """An audit: chain, head, recipe, who was heard when, spends, what was revealed."""
    when = f", {_moment(found.times[0])} to {_moment(found.times[1])}" if found.times else ""
    entries = f"{count(found.entries)} {plural('entry', found.entries)}, "
    out: list[Line] = []
    for i, fault in enumerate(found.faults):
        out += labelled("ledger" if not i else "", fault.removeprefix("ledger "), style="alarm")
    if found.faults:
        out += labelled(
            "", f"Compare with the copy of another party: comity audit {_path(found.folder)} --against FILE"
        )
    else:
        out.append((("ledger".ljust(MARGIN), ""), (entries, ""), ("chain intact", "ok"), (when, "")))
    out += labelled("head", f"{found.head}") + (labelled("kept", found.kept, style="ok") if found.kept else [])
    out += labelled("recipe", _recipe(found)) if found.recipe else []
    for label, those in (("refused", found.refused), ("dropped", found.dropped)):
        told = [f"{r.sender}, round {r.round + 1}: {r.reason.removeprefix(r.sender + ': ')}" for r in those[:MOST]]
        more = [f"and {count(len(those) - MOST)} more"] if len(those) > MOST else []
        out += labelled(label, *([f"{count(len(those))}   {told[0]}", *told[1:], *more] if those else ["none"]))
    return [*out, (), *_heard(found), (), *labelled("privacy", found.privacy, *_spent(found)), *_revealed(found)]


def show_party(founds: Sequence[Audit], name: str) -> list[Line]:
    """What one party's own spends and everybody's guarantee over several runs.

    Raises:
        ConfigError: no run knows the party, or epsilon cannot be computed.
    """
    told = [str(found) for found in audit_of(founds, name)] or ["nothing was spent"]
    over = f"{name}, over {count(len(founds))} {plural('run', len(founds))}"
    return [(), *labelled("party", over, *told)]


def _spent(found: Audit) -> list[str]:
    """A sentence for each guarantee, or why there is none."""
    try:
        told = [str(g) for g in found.guarantees]
    except ConfigError as error:
        return [f"epsilon cannot be computed: {error}"]
    return [*told[:MOST], *([f"and {count(len(told) - MOST)} more"] if len(told) > MOST else [])]


def runs_of(folder: Path) -> list[Path]:
    """The runs in a comparison's folder, the one whose joint model was chosen first."""
    recipe = str(read_results(folder).get("settings", {}).get("recipe") or "").removeprefix("sha256:")
    runs = sorted(path.parent for path in folder.rglob("run.db"))

    def other(run: Path) -> bool:
        text = (run / "recipe.json").read_text(encoding="utf-8") if (run / "recipe.json").exists() else ""
        return not recipe or recipe not in text

    return sorted(runs, key=other)


def run_of(folder: Path) -> Path:
    """The run to be audited: this folder, or where it holds a comparison the run whose joint model was chosen.

    Raises:
        ConfigError: the comparison kept no run.
    """
    place = within(folder)
    if not holds_outcome(place):
        return folder
    runs = runs_of(place)
    if not runs:
        raise ConfigError(f"An audit must be of a run. The comparison in {folder} kept none: it had no joint way.")
    return runs[0]


def sparkline(values: Sequence[float], width: int = LONGEST) -> str:
    """Values as bars, from the least to the greatest.

    Example:
        >>> sparkline([1.0, 2.0, 3.0]), sparkline([2.0, 2.0]), sparkline([])
        ('▁▅█', '▄▄', '')
    """
    if len(values) > width:
        values = [values[i] for i in np.linspace(0, len(values) - 1, width).round().astype(int)]
    low, high = (min(values), max(values)) if values else (0.0, 0.0)
    if high <= low:
        return BARS[3] * len(values)
    return "".join(BARS[round((v - low) / (high - low) * (len(BARS) - 1))] for v in values)


def _score(rounds: dict[str, list[Any]]) -> list[Line]:
    """The last score with its course."""
    for name in (f"{rows}{score}" for rows in ROWS for score in SCORES):
        taken = [v for v in rounds.get(name, ()) if v is not None and np.isfinite(v)]
        if taken:
            rows = next(r for r in ROWS if name.startswith(r))
            said = f"{fixed(taken[-1])} {metric_name(name.removeprefix(rows))}{ROWS[rows]}   "
            return [(("score".ljust(MARGIN), ""), (said, ""), (sparkline(taken), "joint"))]
    return labelled("score", "none was taken")


def _bytes(found: Audit) -> str:
    up, down = found.bytes
    asked = max(1, sum(p.asked for p in found.parties.values()))
    each = f"{size(up / asked)} and {size(down / asked)} per round and party"
    return f"{size(up)} up   {size(down)} down   {each}"


def _minutes(entries: Sequence[Entry], link: Link) -> str:
    """How long the run would take if everybody had this link."""
    took = minutes(entries, link)
    return f"{figure(took.mean)} a round   {figure(took.total)} in all, {figure(took.scores)} of them for scores"


def _state(data: bytes) -> str:
    """Bytes of a saved state, and what the first hub's model holds."""
    try:
        hubs: Any = decode_tree(data)
        method = next(iter(hubs.values()))["method"]
    except (WireError, StopIteration, KeyError, TypeError, AttributeError):
        return size(len(data))
    return _parameters(method["params"] if isinstance(method, dict) and "params" in method else method, len(data))


def _parameters(tree: Any, weight: int | None = None) -> str:
    arrays = [x for _, x in leaves(tree) if isinstance(x, np.ndarray)]
    raw = sum(len(x) for _, x in leaves(tree) if isinstance(x, bytes))
    told = [size(sum(x.nbytes for x in arrays) + raw if weight is None else weight)]
    if arrays:
        n = sum(x.size for x in arrays)
        told += [f"{count(n)} {plural('parameter', n)}", "/".join(sorted({x.dtype.name for x in arrays}))]
    return ", ".join(told)


def _parties(found: Audit) -> list[Line]:
    rows = [
        (name, f"{p.answered} / {p.asked}", size(p.up), size(p.down), p.error or "none")
        for name, p in found.parties.items()
    ]
    return _table(("party", "answered", "up", "down", "last error"), rows)


def _heard(found: Audit) -> list[Line]:
    def moment(at: float | None) -> str:
        return "never" if at is None else _moment(at)

    rows = [
        (name, f"{p.answered} / {p.asked}", size(p.up), size(p.down), moment(p.first), moment(p.last))
        for name, p in found.parties.items()
    ]
    return _table(("party", "answered", "up", "down", "first heard", "last heard"), rows)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[Line]:
    """Columns as wide as what stands in them; what is wrong in the last one stands out."""
    from rich.cells import cell_len

    wide = [max(cell_len(row[i]) for row in (head, *rows)) for i in range(len(head))]

    def line(row: Iterable[str]) -> str:
        return "   ".join(cell + " " * (w - cell_len(cell)) for cell, w in zip(row, wide, strict=True))

    out: list[Line] = [((line(head).rstrip(), "dim"),)]
    for row in rows[:MOST]:
        text, last = line((*row[:-1], ""))[: -wide[-1]], row[-1]
        out.append(((text, ""), (last, "alarm" if last.startswith("round ") else "")))
    if len(rows) > MOST:
        out.append(((f"and {count(len(rows) - MOST)} more", "dim"),))
    return out


def _recipe(found: Audit) -> str:
    """Its hash and the names of its parts."""
    parts = [str(p.get("class", "")).rpartition(".")[2] for p in _parts(found) if isinstance(p, dict)]
    return "   ".join([f"sha256:{found.recipe[:8]}", ", ".join(p for p in parts if p)]).rstrip()


def _parts(found: Audit) -> list[Any]:
    try:
        parts = json.loads(peek(found.folder).recipe)["parts"]
        return [parts[k] for k in ("method", "combine", "channel", "select")] + list(parts["transforms"])
    except (ValueError, KeyError, TypeError, RecursionError, LedgerError):
        return []


def _revealed(found: Audit) -> list[Line]:
    """What a plain channel shows to whom; of others nothing is claimed."""
    channels = [p.get("class") for p in _parts(found) if isinstance(p, dict)]
    if "comity.channels.plain.Plain" not in channels:
        return []
    to_hub = "to the hub: each party's contribution, who answered, bytes"
    return labelled("revealed", to_hub, "to parties: what the hub shares")


def _next(todo: Sequence[tuple[str, str]]) -> list[Line]:
    """Commands and what they do: side by side where all fit, else one below the other."""
    wide = max(len(command) for command, _ in todo)
    if MARGIN + wide + 3 + max(len(why) for _, why in todo) <= WIDTH:
        return labelled("next", *(f"{command.ljust(wide)}   {why}" for command, why in todo), style="dim")
    return labelled("next", *(line for command, why in todo for line in (command, f"  {why}")), style="dim")


def _path(path: Path) -> str:
    return shlex.quote(str(path))


def _moment(at: float) -> str:
    """A moment in local time, to the minute."""
    when = datetime.fromtimestamp(at).astimezone()
    return f"{when.day} {when:%b %Y, %H:%M}"
