"""Samples: contributors give rows, the hub looks at each, and a data set grows that never changes what it holds.

participant  sends its next rows, at most `most`, and counts in its drawer how many are gone: kind "sample"
hub          checks every row; it joins the data set, or goes to quarantine with a reason, or was there before
never leaves the rows not sent yet; what others gave: a contributor is told only what became of its own rows
bytes        up: 9 for each number, 8 and its UTF-8 for each word; down: the schema and a few counts
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from comity.combine.collect import Collect
from comity.core.checks import number, part, refusal, shown, whole
from comity.core.contribution import Array, Contribution, Tree
from comity.core.errors import ConfigError
from comity.core.parts import Combiner, Secret
from comity.core.round import Round
from comity.core.spec import Spec
from comity.methods.fields import Field, expected, plain, table_of, tree_of, unpacked
from comity.methods.intake import Intake, Rows, nobody, version_of

OWN = ("contributor", "reason", "round")
"""Names that the tables add."""


@dataclass(frozen=True)
class Samples:
    """A data set that contributors build together, row by row, with a quarantine and reputations.

    A row joins the data set if each of its values passes its `Field` (and, with `outliers`, is not far from the
    others), and nobody has given the same row. Else it goes to quarantine with all that is wrong with it. Rows are
    the same if their hashes are (BLAKE2b of the values). A row that the same contributor has given in an earlier
    round, late or sent again, changes nothing and is only counted; given twice at once, or by another before, it is in
    quarantine and counts neither for nor against its contributor.

    A contributor has the reputation Beta(a + accepted, b + quarantined) (Jøsang & Ismail, Bled eConference 2002),
    with what was quarantined for its values. Nobody is shut out by it: use `weights` to train, `reputation` to select.

    A version of the data set is named by the sha256 of the hashes of its rows in order; later versions only add rows
    at the end, so that the first ones of any are those of the versions before. Where several give in one round, they
    are heard in the order of their names. What is malformed as a whole, other names or dtypes, is refused by the hub
    and stands in the ledger; the metrics of a score are counts of rows, as the hub told them to each contributor.

    Attributes:
        schema: name to `Field`, at least one; "contributor", "reason" and "round" are taken.
        most: rows that one contributor is asked for in a round, >= 1.
        outliers: the largest robust z-score of a number, > 0, such as 3.5: 0.6745·|x - median| / MAD (Iglewicz &
            Hoaglin, 1993) over the values accepted before and those of this round that pass their fields, of which
            there must be more than 20; None does not look.
        prior: (a, b), accepted and quarantined rows that everybody begins with, each > 0.
        combiner: must keep each contribution by its sender's name, as `Collect` does.

    Raises:
        ConfigError: a setting out of its range.

    Example:
        >>> import comity as co
        >>> schema = {"age": co.Field("whole", low=0, high=120), "sick": co.Field("word", words=("no", "yes"))}
        >>> ann = co.Contributor({"age": [40, 61, 200], "sick": ["no", "yes", "no"]})
        >>> bob = co.Contributor({"age": [61, 35], "sick": ["yes", "perhaps"]})
        >>> samples = co.Samples(schema)
        >>> run = co.Collaboration(samples, {"ann": ann, "bob": bob}).run(rounds=1)
        >>> samples.table(run.state)["sick"], samples.quarantine(run.state)["reason"]
        (['no', 'yes'], ['age is above 120', 'given by another before', 'sick is none of its words'])
        >>> samples.reputation(run.state)
        {'ann': 0.6, 'bob': 0.3333333333333333}
    """

    schema: Mapping[str, Field]
    most: int = 1000
    outliers: float | None = None
    prior: tuple[float, float] = (1.0, 1.0)
    combiner: Combiner = field(default_factory=Collect)

    def __post_init__(self) -> None:
        named = isinstance(self.schema, Mapping) and all(isinstance(n, str) and n for n in self.schema)
        if not named or not self.schema or not all(isinstance(f, Field) for f in self.schema.values()):
            raise refusal("schema", "Samples", "{name: co.Field(...)}", self.schema)
        if taken := [name for name in OWN if name in self.schema]:
            raise ConfigError(
                f"The 'schema' of Samples must not have a column '{taken[0]}': the tables add one. Got it."
            )
        whole("most", "Samples", self.most, 1)
        if self.outliers is not None:
            number("outliers", "Samples", self.outliers, "(0, inf)", hint="Use 3.5, for one, or None to look at none.")
        if not isinstance(self.prior, tuple | list) or len(self.prior) != 2:
            raise refusal("prior", "Samples", "two finite numbers > 0", self.prior, "Use (1.0, 1.0), for one.")
        for x in self.prior:
            number("prior", "Samples", x, "(0, inf)")
        part("combiner", "Samples", self.combiner, ("needs", "init()", "lift()", "lower()"), "co.Collect()")

    def init(self, round: Round) -> Any:
        """No rows."""
        empty = Rows.none({name: f.kind for name, f in self.schema.items()}).tree()
        return {
            "accepted": empty,
            "quarantine": {**empty, "reason": np.zeros(0, np.int64)},
            "reasons": {},
            "contributors": {},
            "versions": {},
        }

    def share(self, state: Any, to: str, round: Round) -> Contribution:
        """To a contributor: what to send, and what became of its rows. To all: the data set and its version."""
        if not to:
            names = {who: said["place"] for who, said in state["contributors"].items()}
            rows = {"columns": state["accepted"]["columns"], "contributor": state["accepted"]["giver"], "names": names}
            return Contribution("sample", {**rows, "version": version_of(state["accepted"]["digest"])})
        kinds = {name: f.kind for name, f in self.schema.items()}
        known = state["contributors"].get(to, nobody(-1))
        return Contribution("sample", {"schema": kinds, "most": self.most, "report": known})

    def expect(self, state: Any, to: str, round: Round) -> Spec:
        """The columns of the schema with their dtypes; ranges and words are looked at row by row."""
        columns = {name: expected(f.kind) for name, f in self.schema.items()}
        return Spec(columns, kind="sample", metrics=frozenset({"rows"}))

    def update(self, state: Any, combined: Contribution, round: Round) -> Any:
        """Look at every row of everybody, in the order of their names."""
        if not isinstance(combined.value, Mapping) or not isinstance(combined.weight, Mapping):
            raise ConfigError("Samples needs a combiner that keeps each contribution. Got one value. Use co.Collect().")
        return Intake(self, state, round.number).after(combined.value)

    def table(self, state: Any, version: str | None = None) -> dict[str, Any]:
        """The data set as columns, each (rows,): float64 with NaN, or words with None; and `contributor`, names.

        Args:
            state: the method's, `run.state`.
            version: an earlier one by its hash; None for the last.

        Raises:
            ConfigError: there is no such version.
        """
        return _shown(state["accepted"], state["contributors"], self._length(state, version))

    def quarantine(self, state: Any) -> dict[str, Any]:
        """The rows in quarantine, as `table`, with `reason` and `round`."""
        held = state["quarantine"]
        why = {i: said for said, i in state["reasons"].items()}
        out = _shown(held, state["contributors"], len(held["giver"]))
        return {**out, "reason": [why[i] for i in held["reason"].tolist()], "round": held["round"]}

    def versions(self, state: Any) -> list[tuple[str, int, int]]:
        """(sha256, rows, round) of each version that there was, in order."""
        held = sorted(state["versions"].items(), key=lambda pair: int(pair[0]))
        return [(said["version"], said["rows"], said["round"]) for _, said in held]

    def reputation(self, state: Any) -> dict[str, float]:
        """The mean of each contributor's Beta: the share of its rows expected to be good, in (0, 1)."""
        a, b = self.prior
        out = {}
        for who, said in sorted(state["contributors"].items()):
            out[who] = (a + said["accepted"]) / (a + b + said["accepted"] + said["quarantined"])
        return out

    def weights(self, state: Any, version: str | None = None) -> Array:
        """(rows,) float64, the reputation of each row's contributor: to train with.

        Args:
            state: the method's, `run.state`.
            version: as for `table`.
        """
        rho = self.reputation(state)
        by_place = {said["place"]: rho[who] for who, said in state["contributors"].items()}
        givers = state["accepted"]["giver"][: self._length(state, version)]
        return np.array([by_place[i] for i in givers.tolist()], float)

    def _length(self, state: Any, version: str | None) -> int:
        if version is None:
            return len(state["accepted"]["giver"])
        known = {said["version"]: said["rows"] for said in state["versions"].values()}
        if version not in known:
            raise ConfigError(f"The 'version' must be one that there was. Got {shown(version)}. See versions(state).")
        return int(known[version])


@dataclass(frozen=True)
class Contributor:
    """Who gives rows, each once, as many in a round as the hub asks for.

    Its drawer keeps how many were accepted on the way, `{"sent": rows}`: with more rows at the end than before, a
    later run sends what is new. Its score says what became of its rows: `accepted` and `quarantined` of those it gave,
    and `repeated`.

    Attributes:
        rows: name to column, each of one length, or a frame of pandas or polars. Columns that the hub does not ask
            for stay where they are.

    Raises:
        ConfigError: `rows` are neither.

    Example:
        >>> import comity as co
        >>> co.Contributor({"age": [40, 61], "sick": ["no", None]})
        Contributor()
    """

    rows: Any = field(repr=False, metadata={"data": True})

    def __post_init__(self) -> None:
        if not isinstance(self.rows, Mapping) and not hasattr(self.rows, "columns"):
            raise refusal("rows", "Contributor", "{name: column} or a frame", self.rows)

    def contribute(self, shared: Contribution, local: Tree, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """The next rows; or what became of those before, when asked for scores."""
        asked: Any = shared.value
        if shared.kind == "score":
            return Contribution("score", None, metrics=_told(asked["report"])), local
        mine: Any = local
        columns = table_of(self.rows, asked["schema"])
        rows = len(next(iter(columns.values())).known)
        start = min(int(mine.get("sent", 0)), rows)
        end = min(start + int(asked["most"]), rows)
        sent = tree_of({name: c[start:end] for name, c in columns.items()})
        return Contribution("sample", sent, metrics={"rows": (float(end - start), 1.0)}), {"sent": end}


def _told(report: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Counts of rows over those that were looked at."""
    new = sum(report[name] for name in ("accepted", "quarantined", "copied"))
    return {
        "accepted": (float(report["accepted"]), float(new)),
        "quarantined": (float(report["quarantined"] + report["copied"]), float(new)),
        "repeated": (float(report["repeated"]), float(new + report["repeated"])),
    }


def _shown(tree: Any, people: Mapping[str, Any], rows: int) -> dict[str, Any]:
    names = {said["place"]: who for who, said in people.items()}
    out = {name: plain(unpacked(c)[:rows]) for name, c in tree["columns"].items()}
    return {**out, "contributor": [names[i] for i in tree["giver"][:rows].tolist()]}
