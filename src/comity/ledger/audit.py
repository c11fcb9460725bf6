"""An audit of a run: is its ledger whole, is it the one that was kept, who was heard when, what was spent."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from comity.core.checks import number, path
from comity.core.errors import ConfigError, LedgerError, nearest
from comity.core.recipe import canonical
from comity.ledger.copies import seen_in
from comity.ledger.peek import Seen
from comity.ledger.record import GENESIS, Entry, Ledger, Refusal, check_chain, digest
from comity.privacy.accounting import Privacy, spent

NO_MECHANISM = "no privacy mechanism in this recipe"
LISTED = 10
"""Names in a message at most."""
_HASH = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


@dataclass(frozen=True, slots=True)
class Heard:
    """What the ledger says of one participant.

    Attributes:
        up: bytes that came from it, scores included.
        down: bytes that went to it.
        asked: how often it was asked to contribute, failed attempts included.
        answered: how often its contribution was accepted.
        first: Unix seconds of the first accepted one; None where there was none.
        last: of the last.
        error: why it was last refused or dropped, with the round counted from 1; "" where it never was.
    """

    up: int = 0
    down: int = 0
    asked: int = 0
    answered: int = 0
    first: float | None = None
    last: float | None = None
    error: str = ""


@dataclass(frozen=True)
class Audit:
    """What an audit of a run's folder found. Where the ledger is broken, the rest is of its intact part.

    Attributes:
        folder: of the run.
        faults: what is wrong, a sentence or two each; () where everything fits.
        intact: so many entries from the first on can be trusted.
        entries: how many there are.
        head: the hash of the last intact entry. Whoever keeps it can later show what was in the ledger.
        recipe: sha256 of the recipe, hex; "" where the folder has none.
        rounds: closed ones.
        parties: by name, sorted.
        refused: contributions that broke what was asked for; their rounds are counted from 0.
        dropped: participants that did not answer, with the error; their rounds are counted from 0.
        times: Unix seconds of the first and the last entry; None where there is none.
        spends: the facts of each use of privacy budget.
        kept: what the comparison with a kept copy showed; "" where there was none.
        delta: at which `epsilon` and `guarantees` are.
    """

    folder: Path
    faults: tuple[str, ...]
    intact: int
    entries: int
    head: str
    recipe: str = ""
    rounds: int = 0
    parties: Mapping[str, Heard] = field(default_factory=dict, hash=False)
    refused: tuple[Refusal, ...] = ()
    dropped: tuple[Refusal, ...] = ()
    times: tuple[float, float] | None = None
    spends: tuple[Any, ...] = field(default=(), hash=False)
    kept: str = ""
    delta: float = 1e-5

    @property
    def ok(self) -> bool:
        """Did everything fit?"""
        return not self.faults

    @property
    def bytes(self) -> tuple[int, int]:
        """Up and down, over all participants."""
        return sum(p.up for p in self.parties.values()), sum(p.down for p in self.parties.values())

    @property
    def privacy(self) -> str:
        """What was spent, in words."""
        n = len(self.spends)
        return f"{n} {'spend' if n == 1 else 'spends'} recorded" if n else NO_MECHANISM

    @property
    def guarantees(self) -> tuple[Privacy, ...]:
        """What the recorded spends guarantee: for each unit, and each party that spent of its own; () for none.

        Raises:
            ConfigError: a spend that is unknown here, or dp-accounting is missing.
        """
        return spent(self.spends, self.delta)

    @property
    def epsilon(self) -> float:
        """The largest epsilon of the guarantees; infinite where there is none.

        Raises:
            ConfigError: as of `guarantees`.
        """
        return max((found.epsilon for found in self.guarantees), default=math.inf)


def audit(folder: str | Path, *, against: str | Path | None = None, delta: float = 1e-5) -> Audit:
    """Check a run's folder, which may be in use, without a lock, its recipe or a write.

    A chain shows every change inside it, but not one that was made anew from some entry on: only a head that
    somebody else kept shows that. So keep `audit(folder).head`, and give it back as `against`.

    A site of a network keeps a copy of its hub's ledger: its folder of the run can be audited as the hub's can, and
    each against the other.

    Args:
        folder: of a run, or of the copy that a site keeps of one.
        against: a text file with the 64 digits of a head that was kept, or the folder of a copy of the run.
        delta: in [0, 1): epsilon is computed at it.

    Raises:
        ConfigError: no run there, `against` is neither, or an impossible `delta`.
        LedgerError: the database cannot be read at all.

    Example:
        >>> import tempfile, numpy as np, comity as co
        >>> data = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
        >>> model = co.Linear(inputs=4, classes=2, rate=0.5)
        >>> fed = co.Collaboration(co.FedAvg(model), {name: co.Trainer(model, data) for name in ("ada", "bob")})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = fed.run(rounds=3, folder=folder)
        ...     found = co.audit(folder)
        >>> found.ok, found.rounds, found.parties["bob"].answered, found.head == run.ledger.head
        (True, 3, 3, True)
        >>> found.privacy
        'no privacy mechanism in this recipe'
    """
    delta = float(number("delta", "audit", delta, "[0, 1)"))
    seen = seen_in(path("folder", "audit", folder), thorough=True)
    intact, broken = _chain(seen.entries, seen.head)
    good = seen.entries[:intact]
    kept, differs = _against(seen, path("against", "audit", against)) if against is not None else ("", "")
    recipe, other = _recipe(seen, good)
    faults = [broken, other, *_states(seen), *seen.faults, differs]
    ledger = Ledger.restore(good)
    return Audit(
        folder=seen.folder,
        faults=tuple(fault for fault in faults if fault),
        intact=intact,
        entries=len(seen.entries),
        head=good[-1].hash if good else GENESIS,
        recipe=recipe,
        rounds=ledger.rounds,
        parties=_parties(good),
        refused=tuple(ledger.refused),
        dropped=tuple(ledger.dropped),
        times=(good[0].time, good[-1].time) if good else None,
        spends=tuple(entry.facts for entry in good if entry.kind == "spend"),
        kept=kept,
        delta=delta,
    )


def audit_of(founds: Sequence[Audit], name: str) -> tuple[Privacy, ...]:
    """What one party's own spends and everybody's guarantee over several runs, at the delta of the first.

    Raises:
        ConfigError: no run knows the party, or as of `Audit.guarantees`.
    """
    spends: list[Any] = [facts for found in founds for facts in found.spends]
    owners = [str(facts.get("who", "")).split("\n") for facts in spends]
    known = {who for found in founds for who in found.parties} | {who for names in owners for who in names}
    if not name or name not in known:
        hint = nearest(name, known - {""})
        names = ", ".join(sorted(known - {""})[:LISTED]) + (", ..." if len(known - {""}) > LISTED else "")
        raise ConfigError(
            f"The party must be one of these runs. Got '{name}', which is none of them.{hint} They have {names}."
        )
    mine = [{**facts, "who": ""} for facts, names in zip(spends, owners, strict=True) if {"", name} & {*names}]
    return tuple(replace(found, who=name) for found in spent(mine, founds[0].delta))


def _chain(entries: Sequence[Entry], head: str) -> tuple[int, str]:
    """How many entries can be trusted, and what is wrong after them."""
    try:
        check_chain(entries, head)
        return len(entries), ""
    except LedgerError as error:
        return _sound(entries), str(error)


def _sound(entries: Sequence[Entry]) -> int:
    """How many entries from the first on match their own hash and the one in the next."""
    before = GENESIS
    for n, entry in enumerate(entries):
        if entry.number == n + 1 and entry.previous != before:
            return max(n - 1, 0)
        if entry.number != n + 1 or digest(entry) != entry.hash:
            return n
        before = entry.hash
    return len(entries)


def _recipe(seen: Seen, entries: Sequence[Entry]) -> tuple[str, str]:
    """The hash of the recipe in the folder, and what is wrong with it."""
    facts: Any = entries[0].facts if entries else {}
    agreed = str(facts.get("recipe") or "")
    try:
        body = json.loads(seen.recipe)
        told = body.pop("hash", None)
        found = sha256(canonical(body).encode()).hexdigest()
    except (ValueError, AttributeError, RecursionError):
        return agreed, f"{seen.folder / 'recipe.json'} cannot be read. Restore it from a copy."
    if agreed and found != agreed:
        return agreed, f"recipe.json does not match the hash that the ledger began with. Got {found[:12]}."
    return (found, "") if told in (None, found) else (found, "recipe.json does not match the hash in it.")


def _states(seen: Seen) -> Iterable[str]:
    """What is wrong with the saved states."""
    for name in seen.files:
        try:
            seen.state(name)
        except LedgerError as error:
            yield str(error)


def _parties(entries: Sequence[Entry]) -> dict[str, Heard]:
    """Totals by participant."""
    found: dict[str, dict[str, Any]] = {}
    for entry in entries:
        facts: Any = entry.facts
        names = facts["asked"].split("\n") if facts.get("asked") else []
        nothing = np.zeros(len(names), np.int64)
        columns = (facts.get(key, nothing) for key in ("up", "down", "accepted"))
        for name, up, down, accepted in zip(names, *columns, strict=True):
            mine = found.setdefault(name, {"up": 0, "down": 0, "asked": 0, "answered": 0})
            mine["up"], mine["down"] = mine["up"] + int(up), mine["down"] + int(down)
            if entry.kind == "round":
                mine["asked"] += 1
                _answered(mine, bool(accepted), entry.time)
        for why in (*(facts.get("refused") or {}).values(), *(facts.get("dropped") or {}).values()):
            if why["sender"] in found:
                told = str(why["reason"]).removeprefix(f"{why['sender']}: ")
                found[why["sender"]]["error"] = f"round {int(facts.get('round', 0)) + 1}: {told}"
    return {name: Heard(**found[name]) for name in sorted(found)}


def _answered(mine: dict[str, Any], accepted: bool, time: float) -> None:
    if accepted:
        mine["answered"] += 1
        mine["last"] = time
        mine.setdefault("first", time)


def _against(seen: Seen, copy: Path) -> tuple[str, str]:
    """What a comparison with a kept copy shows: (in words, "") where it fits, else ("", the fault)."""
    if copy.is_dir():
        return _beside(seen, seen_in(copy))
    try:
        heads = sorted(set(_HASH.findall(copy.read_text(encoding="utf-8", errors="replace").lower())))
    except OSError as error:
        raise ConfigError(f"A kept head must be in a file or a run's folder. Got {copy}: {error.strerror}.") from None
    if len(heads) != 1:
        raise ConfigError(
            f"A kept head must be one hash of 64 digits in a text file. {copy} holds {len(heads)}. "
            "Keep what comity audit prints as head."
        )
    place = {entry.hash: entry.number for entry in seen.entries} | {GENESIS: 0}
    if heads[0] in place and place[heads[0]] <= _sound(seen.entries):
        return f"the kept head is that of entry {place[heads[0]]} of {len(seen.entries)}", ""
    return "", f"No intact entry has the hash that was kept in {copy} ({heads[0][:12]}). {_CHANGED}"


_CHANGED = "The ledger was changed since, or is that of another run. Ask who keeps another copy."


def _beside(seen: Seen, copy: Seen) -> tuple[str, str]:
    """The ledger beside another one, entry by entry."""
    fault = _chain(copy.entries, copy.head)[1]
    if fault:
        return "", f"The copy in {copy.folder} is broken itself: {fault}"
    n = min(len(seen.entries), len(copy.entries))
    for mine, theirs in zip(seen.entries[:n], copy.entries[:n], strict=True):
        if mine.hash != theirs.hash:
            return "", f"Entry {mine.number} differs from that in {copy.folder}. {_CHANGED}"
    more = len(copy.entries) - n
    if more:
        return "", f"The copy in {copy.folder} has {more} more entries: the ledger was cut short, or is behind it."
    return f"the copy's {n} entries are the first of {len(seen.entries)}", ""
