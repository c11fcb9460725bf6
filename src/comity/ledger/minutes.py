"""How long a run would take over declared links: the bytes that a ledger counted, as minutes a round."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from comity.core.checks import number, refusal
from comity.core.contribution import Array
from comity.core.errors import ConfigError
from comity.ledger.links import Link
from comity.ledger.record import Entry

LOT = 1 << 20
"""Members that are timed at once."""
NAMED = 5


@dataclass(frozen=True, slots=True, eq=False)
class Minutes:
    """How long a run would take.

    Attributes:
        rounds: (rounds,) int64, those that were tried, counted from 1; one that never closed too.
        each: (rounds,) float64, minutes of each, attempts that failed included.
        attempts: (rounds,) int64, how often each was tried.
        slowest: (rounds,) names: who was last in the longest attempt of each; "" where nobody was asked.
        last: name to the share of the rounds in which it was the slowest, the greatest first; who never was is not in
            it.
        scores: minutes that taking scores took, all together.
    """

    rounds: Array
    each: Array
    attempts: Array
    slowest: tuple[str, ...]
    last: Mapping[str, float]
    scores: float

    @property
    def total(self) -> float:
        """Minutes of all rounds and scores."""
        return float(self.each.sum()) + self.scores

    @property
    def mean(self) -> float:
        """Minutes a round, without scores; 0.0 where there was none."""
        return float(self.each.mean()) if len(self.each) else 0.0

    def __str__(self) -> str:
        """Three lines: minutes a round, in all, and who was waited for."""
        most = max(self.each.tolist(), default=0.0)
        waited = [f"{name} in {100 * share:.3g} %" for name, share in list(self.last.items())[:NAMED]]
        more = f" and {len(self.last) - NAMED:,} more" if len(self.last) > NAMED else ""
        failed = int(self.attempts.sum()) - len(self.rounds)
        return "\n".join(
            (
                f"a round    {figure(self.mean)} minutes, {figure(most)} at most",
                f"in all     {figure(self.total)} minutes: {len(self.rounds):,} rounds, {failed:,} more attempts, "
                f"{figure(self.scores)} for scores",
                f"waited for {', '.join(waited) or 'nobody'}{more}",
            )
        )


def figure(minutes: float) -> str:
    """Minutes to three digits: `0.0123`, `12.3`, `12,345`."""
    return f"{minutes:,.0f}" if minutes >= 100 else f"{minutes:.3g}"


Links: TypeAlias = Link | Mapping[str, Link]


def minutes(
    ledger: Iterable[Entry],
    links: Links,
    *,
    compute: float | Mapping[str, float] | None = None,
    default: Link | None = None,
) -> Minutes:
    """How long a run would have taken if each participant had been connected by the link that is declared for it.

    A round ends when the last of those who were asked is done: with its question, its own work and its answer.
    All go at the same time, and the hub's own link is wide. Bytes are those of the ledger, whole messages, in either
    direction. An attempt that failed takes its time too. Who gave no answer is waited for until its question has
    arrived; a deadline is not known to the ledger. What goes to one participant for several hubs goes over its one
    link. Scores are asked for after a round, and take no work here.

    Args:
        ledger: of a run, or its entries in order.
        links: one for all, or by name.
        compute: seconds of work for an answer, for all or by name; who is not named, and None, needs 0.
        default: the link of those whom `links` does not name.

    Raises:
        ConfigError: somebody who was asked has no link; names them.

    Example:
        Ten sites send a dense model and a ticket of the same model over 1 Mbit/s.

        >>> import numpy as np, comity as co
        >>> rng = np.random.default_rng(0)
        >>> data = [(rng.normal(size=(20, 50)).astype("float32"), np.arange(20) % 2) for _ in range(10)]
        >>> model = co.MLP(inputs=50, classes=2, hidden=(400,), rate=0.1)
        >>> def run(method, trainer, *transforms):
        ...     sites = {f"site {i}": trainer(model, own) for i, own in enumerate(data)}
        ...     return co.Collaboration(method, sites, transforms=transforms, evaluate=False).run(rounds=6)
        >>> dense = run(co.FedAvg(model), co.Trainer)
        >>> small = co.Once(least=512), co.Quantize(up=4, down=8, block=256), co.Deflate()
        >>> ticket = run(co.Tickets(model, rounds=6, density=0.3, scope="layer"), co.SharedTicketTrainer, *small)
        >>> slow = co.Link(up=1e6, down=10e6, delay=0.05)
        >>> before, after = (co.minutes(r.ledger, slow) for r in (dense, ticket))
        >>> round(before.mean, 3), before.total > 5 * after.total
        (0.013, True)
        >>> fast = {f"site {i}": co.Link(up=50e6, down=50e6) for i in range(1, 10)}
        >>> co.minutes(dense.ledger, {"site 0": slow} | fast).last
        {'site 0': 1.0}
    """
    people = _People(links, compute, default)
    rounds, scores = _Clock(people), _Clock(people)
    for kind, where, heard in _attempts(ledger):
        (rounds if kind == "round" else scores).add(where, people.exchanged(heard))
    turn, seconds, who = rounds.done()
    tried, place, attempts = np.unique(turn, return_inverse=True, return_counts=True)
    order = np.lexsort((-seconds, place))
    _, longest = np.unique(place[order], return_index=True)
    waited = who[order[longest]]
    return Minutes(
        rounds=tried + 1,
        each=np.bincount(place, seconds, len(tried)) / 60,
        attempts=attempts.astype(np.int64),
        slowest=tuple(people.names[i] for i in waited.tolist()),
        last=_shares(people, waited),
        scores=float(scores.done()[1].sum()) / 60,
    )


def _shares(people: "_People", waited: Array) -> dict[str, float]:
    who, times = np.unique(waited[waited > 0], return_counts=True)
    order = np.argsort(-times, kind="stable")
    return {people.names[who[i]]: float(times[i] / len(waited)) for i in order.tolist()}


def _attempts(ledger: Any) -> Iterator[tuple[str, int, list[Any]]]:
    """Kind, round and what each hub heard: a ledger may hold the same attempt twice, if the run was taken up again."""
    if isinstance(ledger, str | bytes | Mapping) or not isinstance(ledger, Iterable):
        raise refusal("ledger", "minutes", "a Ledger, or its entries", ledger, "Use run.ledger.")
    key: tuple[str, int, int] = "", 0, 0
    heard: dict[str, Any] = {}
    for entry in ledger:
        if not isinstance(entry, Entry):
            raise refusal("ledger", "minutes", "a Ledger, or its entries", entry, "Use run.ledger.")
        facts: Any = entry.facts
        if entry.kind not in ("round", "score"):
            continue
        here = entry.kind, int(facts.get("round", 0)), int(facts.get("attempt", 0))
        hub = str(facts.get("hub", ""))
        if heard and (here != key or hub in heard):
            yield key[0], key[1], list(heard.values())
            heard = {}
        key, heard[hub] = here, facts
    if heard:
        yield key[0], key[1], list(heard.values())


_Exchange: TypeAlias = tuple[Array, Array, Array]
"""(members,) each: whose, int64; bytes up and down, float64."""


class _People:
    """Those who are asked, numbered as they appear; 0 is nobody."""

    def __init__(self, links: Any, compute: Any, default: Any) -> None:
        one = isinstance(links, Link)
        if not one and not isinstance(links, Mapping):
            raise refusal("links", "minutes", "a Link, or one for each name", links, "Use co.Link(up=5e6, down=50e6).")
        if default is not None and not isinstance(default, Link):
            raise refusal("default", "minutes", "a Link, or None", default)
        self._links: Mapping[str, Any] = {} if one else links
        self._else = links if one else default
        self._work = compute if isinstance(compute, Mapping) else {}
        named = isinstance(compute, Mapping) or compute is None
        self._same = 0.0 if named else float(number("compute", "minutes", compute, "[0, inf)"))
        self.names, self._code = [""], dict[str, int]()
        self._rows: list[tuple[float, float, float, float]] = [(0.0, 0.0, 0.0, 0.0)]
        self._table = np.array(self._rows)
        self._latest = "", np.zeros(1, np.int64)

    @property
    def table(self) -> Array:
        """(people, 4) float64: seconds for a question, a byte up, a byte down, and the work."""
        if len(self._table) < len(self._rows):
            self._table = np.array(self._rows)
        return self._table

    def exchanged(self, heard: list[Any]) -> _Exchange:
        """Who exchanged how much in an attempt, over all hubs."""
        who, up, down = zip(*map(self._at, heard), strict=True)
        if len(heard) == 1:
            return who[0], up[0], down[0]
        members, place = np.unique(np.concatenate(who), return_inverse=True)
        n = len(members)
        return members, np.bincount(place, np.concatenate(up), n), np.bincount(place, np.concatenate(down), n)

    def _at(self, facts: Any) -> _Exchange:
        asked = facts.get("asked") or ""
        if not asked:
            return np.zeros(1, np.int64), np.zeros(1), np.zeros(1)
        if asked != self._latest[0]:
            self._latest = asked, self._numbered(asked.split("\n"))
        who = self._latest[1]
        up, down = (np.asarray(facts.get(name, np.zeros(len(who))), float) for name in ("up", "down"))
        return who, up, down

    def _numbered(self, names: list[str]) -> Array:
        new = [name for name in dict.fromkeys(names) if name not in self._code]
        if lacking := [name for name in new if name not in self._links] if self._else is None else []:
            more = f" and {len(lacking) - NAMED:,} more" if len(lacking) > NAMED else ""
            said = ", ".join(f"'{name[:40]}'" for name in lacking[:NAMED])
            raise ConfigError(f"Every participant must have a link. Got none for {said}{more}. Use default=co.Link().")
        alike = not self._links and not self._work
        self._rows += [self._row(new[0])] * len(new) if alike and new else map(self._row, new)
        self._code.update(zip(new, range(len(self.names), len(self._rows)), strict=True))
        self.names += new
        return np.fromiter(map(self._code.__getitem__, names), np.int64, len(names))

    def _row(self, name: str) -> tuple[float, float, float, float]:
        link = self._links.get(name, self._else)
        if not isinstance(link, Link):
            raise refusal("links", "minutes", f"a Link for '{name[:40]}'", link, "Use co.Link(up=5e6, down=50e6).")
        sent = 8 / (1 - link.loss)
        return link.delay, sent / link.up, sent / link.down, self._worked(name)

    def _worked(self, name: str) -> float:
        if name not in self._work:
            return self._same
        return float(number("compute", "minutes", self._work[name], "[0, inf)", hint=f"It is that of '{name[:40]}'."))


class _Clock:
    """Attempts, many of them timed at once."""

    def __init__(self, people: _People) -> None:
        self._people = people
        self._turns: list[int] = []
        self._waiting: list[_Exchange] = []
        self._held = 0
        self._seconds: list[Array] = []
        self._last: list[Array] = []

    def add(self, turn: int, exchange: _Exchange) -> None:
        self._turns.append(turn)
        self._waiting.append(exchange)
        self._held += len(exchange[0])
        if self._held >= LOT:
            self._time()

    def done(self) -> _Exchange:
        """(attempts,) each: round, seconds, and who was last."""
        if self._waiting:
            self._time()
        seconds, last = (np.concatenate([np.zeros(0), *x]) for x in (self._seconds, self._last))
        return np.array(self._turns, np.int64), seconds, last.astype(np.int64)

    def _time(self) -> None:
        lengths = np.array([len(who) for who, _, _ in self._waiting])
        who, up, down = (np.concatenate(column) for column in zip(*self._waiting, strict=True))
        delay, each_up, each_down, work = self._people.table[who].T
        taken = delay * (up + down > 0) + each_down * down + work * (up > 0) + each_up * up
        longest = np.maximum.reduceat(taken, np.cumsum(lengths) - lengths)
        attempt = np.repeat(np.arange(len(lengths)), lengths)
        at = np.flatnonzero(taken == longest[attempt])
        _, first = np.unique(attempt[at], return_index=True)
        self._seconds.append(longest)
        self._last.append(who[at[first]])
        self._waiting, self._held = [], 0
