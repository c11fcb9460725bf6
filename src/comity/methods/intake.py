"""How contributed rows get into a data set or into quarantine: the hub's side of `Samples`, a round at a time."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from comity.core.contribution import Array
from comity.methods.fields import DIGEST, Field, Values, digests, far, joined, tree_of, unpacked, wrong

TWICE, COPIED = "given twice at once", "given by another before"
COUNTS = ("accepted", "quarantined", "repeated", "copied")


class Taking(Protocol):
    """By what rows are judged."""

    @property
    def schema(self) -> Mapping[str, Field]:
        """Name to field."""
        ...

    @property
    def most(self) -> int:
        """Rows of one contribution."""
        ...

    @property
    def outliers(self) -> float | None:
        """The largest robust z-score."""
        ...


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows with what is known of them: hash, giver (a place among the contributors) and round."""

    columns: Mapping[str, Values]
    digest: Array
    giver: Array
    round: Array

    def tree(self) -> dict[str, Any]:
        """As they are kept."""
        own = {"digest": self.digest, "giver": self.giver, "round": self.round}
        return {"columns": tree_of(self.columns), **own}

    @classmethod
    def none(cls, kinds: Mapping[str, str]) -> "Rows":
        """No rows of columns of these kinds."""
        held = {
            name: Values(np.zeros(0, object if k == "word" else float), np.zeros(0, bool)) for name, k in kinds.items()
        }
        return cls(held, np.zeros((0, DIGEST), np.uint8), np.zeros(0, np.int64), np.zeros(0, np.int64))

    @classmethod
    def of(cls, tree: Any) -> "Rows":
        """Those that were kept."""
        columns = {name: unpacked(c) for name, c in tree["columns"].items()}
        return cls(columns, tree["digest"], tree["giver"], tree["round"])

    def __getitem__(self, at: Any) -> "Rows":
        columns = {name: c[at] for name, c in self.columns.items()}
        return Rows(columns, self.digest[at], self.giver[at], self.round[at])


def _added(parts: list[Rows]) -> Rows:
    columns = {name: joined([p.columns[name] for p in parts]) for name in parts[0].columns}
    own = (np.concatenate([getattr(p, name) for p in parts]) for name in ("digest", "giver", "round"))
    return Rows(columns, *own)


class Intake:
    """One round's rows on their way into a state."""

    def __init__(self, method: Taking, state: Any, number: int) -> None:
        self.method, self.state, self.number = method, state, number
        self.accepted, self.held = Rows.of(state["accepted"]), Rows.of(state["quarantine"])
        self.people = {who: {**said, "reasons": dict(said["reasons"])} for who, said in state["contributors"].items()}
        self.reasons = dict(state["reasons"])

    def after(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The state with what was given."""
        batches = [b for who in sorted(given) for b in [self._read(who, given[who])] if b is not None]
        notes = [self._faults(b) for b in batches]
        self._mark_far(batches, notes)
        owner = dict(zip(_keys(self.accepted.digest), self.accepted.giver.tolist(), strict=True))
        seen = {*owner.items(), *zip(_keys(self.held.digest), self.held.giver.tolist(), strict=True)}
        taken, set_aside, why = [self.accepted], [self.held], [self.state["quarantine"]["reason"]]
        for batch, faults in zip(batches, notes, strict=True):
            good, bad = self._sorted(batch, faults, owner, seen)
            taken.append(batch[good])
            set_aside.append(batch[[i for i, _ in bad]])
            why.append(np.array([self.reasons.setdefault(r, len(self.reasons)) for _, r in bad], np.int64))
        accepted = _added(taken)
        return {
            "accepted": accepted.tree(),
            "quarantine": {**_added(set_aside).tree(), "reason": np.concatenate(why)},
            "reasons": self.reasons,
            "contributors": self.people,
            "versions": self._versions(accepted),
        }

    def _read(self, who: str, value: Any) -> Rows | None:
        """A contributor's rows; None, and one row in quarantine more, where they are no table."""
        person = self.people.setdefault(who, nobody(len(self.people)))
        try:
            columns = {name: unpacked(value[name]) for name in self.method.schema}
            lengths = {len(c.known) for c in columns.values()}
            if len(lengths) > 1:
                raise ValueError("columns of unlike lengths")
            (rows,) = lengths
            if rows > self.method.most:
                raise ValueError("more rows than were asked for")
        except ValueError as error:
            person["quarantined"] += 1
            _count(person, str(error))
            return None
        giver = np.full(rows, person["place"], np.int64)
        return Rows(columns, digests(columns, rows), giver, np.full(rows, self.number, np.int64))

    def _faults(self, batch: Rows) -> list[list[str]]:
        out: list[list[str]] = [[] for _ in batch.giver]
        for name, f in self.method.schema.items():
            for own, found in zip(out, wrong(name, f, batch.columns[name]), strict=True):
                own.extend(found)
        return out

    def _mark_far(self, batches: list[Rows], notes: list[list[list[str]]]) -> None:
        """Note numbers far from all that are good so far, whoever gave them."""
        numbers = [name for name, f in self.method.schema.items() if f.kind != "word"]
        if self.method.outliers is None:
            return
        good = [np.array([not own for own in faults], bool) for faults in notes]
        for name in numbers:
            parts = [self.accepted.columns[name], *(b.columns[name][ok] for b, ok in zip(batches, good, strict=True))]
            reference = np.concatenate([c.x[c.known] for c in parts])
            for batch, faults in zip(batches, notes, strict=True):
                column = batch.columns[name]
                away = far(column.x, reference, self.method.outliers) & column.known
                for i in np.flatnonzero(away).tolist():
                    faults[i].append(f"{name} is far from the others")

    def _sorted(
        self, batch: Rows, faults: list[list[str]], owner: dict[bytes, int], seen: set[tuple[bytes, int]]
    ) -> tuple[list[int], list[tuple[int, str]]]:
        """Which rows join, and which are set aside and why; repeated ones do neither."""
        good, bad, now = [], [], set()
        by_place = {said["place"]: said for said in self.people.values()}
        for i, (key, place) in enumerate(zip(_keys(batch.digest), batch.giver.tolist(), strict=True)):
            person = by_place[place]
            if (key, place) in seen:
                person["repeated"] += 1
                continue
            said, word = "; ".join(faults[i]), "quarantined"
            if not said and (key in now or key in owner):
                said, word = (TWICE if key in now else COPIED), "copied"
            elif said and key in now:
                said, word = TWICE, "copied"
            now.add(key)
            person[word if said else "accepted"] += 1
            if said:
                bad.append((i, said))
                _count(person, said)
            else:
                good.append(i)
                owner[key] = place
        seen.update((key, int(p)) for key, p in zip(_keys(batch.digest), batch.giver, strict=True))
        return good, bad

    def _versions(self, accepted: Rows) -> dict[str, Any]:
        before = self.state["versions"]
        if len(accepted.giver) == len(self.accepted.giver):
            return dict(before)
        said = {"version": version_of(accepted.digest), "rows": len(accepted.giver), "round": self.number}
        return {**before, str(len(before)): said}


def nobody(place: int) -> dict[str, Any]:
    """What is known of a contributor who has given nothing."""
    return {"place": place, **dict.fromkeys(COUNTS, 0), "reasons": {}}


def _count(person: dict[str, Any], reason: str) -> None:
    person["reasons"][reason] = person["reasons"].get(reason, 0) + 1


def _keys(digest: Array) -> list[bytes]:
    held = np.ascontiguousarray(digest).tobytes()
    return [held[i : i + DIGEST] for i in range(0, len(held), DIGEST)]


def version_of(digest: Array) -> str:
    """The sha256 (hex) of the hashes of rows, in their order."""
    return hashlib.sha256(np.ascontiguousarray(digest).tobytes()).hexdigest()
