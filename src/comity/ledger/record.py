"""The ledger: an append-only chain of facts about a run, never a model's values, and the totals that follow from it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple, overload

import numpy as np

from comity.core.checks import number, refusal, text
from comity.core.contribution import Tree
from comity.core.errors import LedgerError
from comity.core.tree import tree_map
from comity.core.wire import encode_tree

GENESIS = "0" * 64
"""The `previous` of the first entry, and the head of an empty ledger."""


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One fact, chained to the one before it.

    Attributes:
        number: its position in the ledger, counted from 1.
        kind: "start" "round" "score" "choice" "spend" "end", or another word.
        time: Unix seconds.
        facts: a Tree of names, numbers and arrays; never model values or data.
        previous: the hash of the entry before, 64 hex digits; `GENESIS` at the first.
        hash: sha256, 64 hex digits, over the wire bytes of all the other fields.
    """

    number: int
    kind: str
    time: float
    facts: Tree
    previous: str
    hash: str


class Refusal(NamedTuple):
    """Who was left out of a round, and why.

    Attributes:
        round: the round's number.
        sender: the participant's name.
        reason: one sentence.
    """

    round: int
    sender: str
    reason: str

    def __str__(self) -> str:
        named = self.reason.startswith(self.sender)
        return f"round {self.round}: {self.reason if named else f'{self.sender}: {self.reason}'}"


def digest(entry: Entry) -> str:
    """The hash that an entry must have, 64 hex digits."""
    named = {"number": entry.number, "kind": entry.kind, "time": entry.time, "facts": entry.facts}
    return sha256(encode_tree({**named, "previous": entry.previous})).hexdigest()


def check_chain(entries: Iterable[Entry], head: str | None = None) -> None:
    """Refuse a chain in which anything was changed, left out, put in or moved.

    A chain cut short at its end is still a chain: only a `head` that was kept elsewhere shows it.

    Args:
        entries: from the first one on.
        head: the hash that the last entry must have.

    Raises:
        LedgerError: names the first entry that does not match.
    """
    last, before, sound = 0, GENESIS, True
    for e in entries:
        if e.number != last + 1:
            raise LedgerError(f"ledger entry {last + 1} is missing: entry {e.number} stands there.{_intact(last)}")
        here = digest(e) == e.hash
        if not sound or (e.previous != before and here and last):
            raise LedgerError(f"ledger entry {last} does not match the hash in entry {e.number}.{_intact(last - 1)}")
        if e.previous != before:
            raise LedgerError(f"ledger entry {e.number} does not match what came before it.{_intact(last)}")
        last, before, sound = e.number, e.hash, here
    if not sound:
        raise LedgerError(f"ledger entry {last} does not match its own hash.{_intact(last - 1)}")
    if head is not None and head != before:
        raise LedgerError(f"the ledger must end with the hash {head[:12]}. Got {before[:12]} at entry {last}.")


def _intact(last: int) -> str:
    """What can still be trusted, with a leading space."""
    if last < 1:
        return ""
    return f" Entries 1 to {last} are intact." if last > 1 else " Entry 1 is intact."


class Ledger:
    """An append-only chain of facts, in memory, with running totals.

    A "round" entry holds, for one hub: `round`, `attempt`, `hub`, `asked` (names joined by newlines),
    `accepted` (asked,) bool, `up` and `down` (asked,) int64 bytes, `refused` and `dropped`
    ({"0": {"sender": ..., "reason": ...}}), `metrics` ({name: (2,) float64, sum and count}) and `closed`.
    Any other kind may hold the same names, and counts in the same totals. It satisfies
    `core.parts.Past`.

    Example:
        >>> ledger = Ledger()
        >>> facts = {"round": 0, "asked": "ada\\nbob", "up": np.array([40, 50]), "down": np.array([9, 9])}
        >>> facts |= {"metrics": {"loss": np.array([3.0, 6.0])}, "closed": True}
        >>> ledger.append("round", facts, time=0.0).number
        1
        >>> ledger.rounds, ledger.bytes_up, ledger.bytes_of("bob"), ledger.metric("loss")
        (1, 90, (50, 9), [0.5])
        >>> ledger.verify()
    """

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._refused: list[Refusal] = []
        self._dropped: list[Refusal] = []
        self._up = self._down = 0
        self._closed: set[int] = set()
        self._metrics: dict[tuple[str, str], dict[int, tuple[float, float]]] = {}
        self._by_name: dict[str, tuple[int, int]] = {}
        self._named = 0

    @classmethod
    def restore(cls, entries: Iterable[Entry]) -> "Ledger":
        """A ledger that goes on after `entries`, the first one included. They are not verified here.

        Raises:
            ConfigError: something else is among them.
        """
        ledger = cls()
        if isinstance(entries, str | bytes) or not isinstance(entries, Iterable):
            raise refusal("entries", "Ledger.restore", "entries of a ledger", entries)
        for entry in entries:
            if not isinstance(entry, Entry):
                raise refusal("entries", "Ledger.restore", "entries of a ledger", entry)
            ledger._add(entry)
        return ledger

    def append(self, kind: str, facts: Mapping[str, Any], *, time: float) -> Entry:
        """Add one fact at the end.

        Args:
            kind: what sort of fact.
            facts: a Tree; it is copied.
            time: Unix seconds.

        Raises:
            LedgerError: `up` or `down` does not have one number for each name in `asked`.
            ConfigError: no word, no Tree, or no time.
        """
        text("kind", "Ledger.append", kind)
        if not isinstance(facts, Mapping):
            raise refusal("facts", "Ledger.append", "a Tree of facts by name", facts)
        time = float(number("time", "Ledger.append", time))
        _check_members(facts)
        bare = Entry(len(self) + 1, kind, time, tree_map(_frozen, facts), self.head, "")
        entry = Entry(bare.number, kind, bare.time, bare.facts, bare.previous, digest(bare))
        self._add(entry)
        return entry

    @property
    def head(self) -> str:
        """The hash of the last entry: whoever keeps it can later prove what was in the ledger."""
        return self._entries[-1].hash if self._entries else GENESIS

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    @overload
    def __getitem__(self, index: int, /) -> Entry: ...
    @overload
    def __getitem__(self, index: slice, /) -> list[Entry]: ...
    def __getitem__(self, index: int | slice, /) -> Entry | list[Entry]:
        """As in a list: entry number n is at index n - 1."""
        return self._entries[index]

    def since(self, position: int) -> Sequence[Entry]:
        """The entries after the first `position` ones: what is new since the ledger was that long."""
        return self._entries[position:]

    @property
    def rounds(self) -> int:
        """Rounds closed so far, each counted once however many hubs it has."""
        return len(self._closed)

    @property
    def refused(self) -> list[Refusal]:
        """Contributions that broke what was asked for."""
        return list(self._refused)

    @property
    def dropped(self) -> list[Refusal]:
        """Participants that did not answer, with the error where their code raised one."""
        return list(self._dropped)

    @property
    def bytes_up(self) -> int:
        """Bytes that came from participants, over all entries."""
        return self._up

    @property
    def bytes_down(self) -> int:
        """Bytes that went to participants, over all entries."""
        return self._down

    def bytes_of(self, name: str) -> tuple[int, int]:
        """Bytes from and to one participant; (0, 0) for one who was never asked."""
        for entry in self.since(self._named):
            self._count_names(entry.facts)
        self._named = len(self)
        return self._by_name.get(name, (0, 0))

    def metric(self, name: str) -> list[float]:
        """Sum over count of a metric, all hubs together, for each closed round that has it, in order.

        A metric of this name in "score" entries comes before one that participants reported while they trained.
        """
        found = self._metrics.get(("score", name)) or self._metrics.get(("round", name)) or {}
        return [s / n for s, n in found.values() if n]

    def verify(self, head: str | None = None) -> None:
        """Check the whole chain, and that it ends with `head` where one was kept.

        Raises:
            LedgerError: names the first entry that does not match.
        """
        check_chain(self._entries, head if head is None else text("head", "verify", head, what="a hash in hex digits"))

    def _add(self, entry: Entry) -> None:
        facts: Any = entry.facts
        self._entries.append(entry)
        number = int(facts.get("round", 0))
        self._up += int(np.sum(facts.get("up", 0)))
        self._down += int(np.sum(facts.get("down", 0)))
        for into, name in ((self._refused, "refused"), (self._dropped, "dropped")):
            into.extend(Refusal(number, r["sender"], r["reason"]) for r in _in_order(facts.get(name)))
        if entry.kind == "round" and facts.get("closed"):
            self._closed.add(number)
        if entry.kind == "score" or facts.get("closed"):
            self._add_metrics(entry.kind, number, facts.get("metrics") or {})

    def _add_metrics(self, kind: str, number: int, metrics: Mapping[str, Any]) -> None:
        for name, (total, count) in metrics.items():
            rounds = self._metrics.setdefault((kind, name), {})
            old = rounds.get(number, (0.0, 0.0))
            rounds[number] = (old[0] + float(total), old[1] + float(count))

    def _count_names(self, facts: Any) -> None:
        names = _members(facts)
        if not names:
            return
        zeros = np.zeros(len(names), np.int64)
        for name, up, down in zip(names, facts.get("up", zeros), facts.get("down", zeros), strict=True):
            before = self._by_name.get(name, (0, 0))
            self._by_name[name] = (before[0] + int(up), before[1] + int(down))


def _members(facts: Mapping[str, Any]) -> list[str]:
    asked = facts.get("asked") or ""
    return asked.split("\n") if asked else []


def _check_members(facts: Mapping[str, Any]) -> None:
    if "asked" not in facts:
        return
    n = len(_members(facts))
    for name in ("up", "down"):
        if name in facts and np.shape(facts[name]) != (n,):
            got = np.shape(facts[name])
            raise LedgerError(f"'{name}' must have one number for each of the {n} names in 'asked'. Got shape {got}.")


def _in_order(rows: Mapping[str, Any] | None) -> list[Any]:
    return [rows[k] for k in sorted(rows, key=int)] if rows else []


def _frozen(leaf: Any) -> Any:
    if isinstance(leaf, np.ndarray):
        leaf = leaf.copy()
        leaf.flags.writeable = False
    return leaf
