"""What a hub keeps, and what it heard."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from comity.core.contribution import Metrics
from comity.core.envelope import Owed
from comity.core.round import Round


@dataclass(frozen=True)
class HubState:
    """What a hub keeps between rounds.

    Attributes:
        method: the method's state.
        combiner: the combiner's.
        transforms: one for each transform; for one decoded one by one, member to its own entry.
    """

    method: Any
    combiner: Any
    transforms: tuple[Any, ...]


@dataclass
class Heard:
    """What one hub heard in one attempt of a round: facts for the ledger, never values.

    At the end of `asked` are those who `owed` an answer to an earlier question, and were asked nothing now; `owed` is
    None where nobody may be late. `size` is that of the cohort as it was selected, `seconds` are simulated.
    """

    hub: str
    asked: Sequence[str]
    turn: tuple[int, int] | None = None
    up: dict[str, int] = field(default_factory=dict)
    down: dict[str, int] = field(default_factory=dict)
    accepted: set[str] = field(default_factory=set)
    refused: list[tuple[str, str]] = field(default_factory=list)
    dropped: list[tuple[str, str]] = field(default_factory=list)
    metrics: Metrics = field(default_factory=dict)
    failed: str = ""
    answered: set[str] = field(default_factory=set)
    unread: set[str] = field(default_factory=set)
    owed: Mapping[str, Owed] | None = None
    size: int = -1
    seconds: float | None = None
    asked_set: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.asked_set = frozenset(self.asked)
        self.size = len(self.asked) if self.size < 0 else self.size

    def late(self, who: str) -> Owed | None:
        """What this member owes since an earlier turn."""
        return self.owed.get(who) if self.owed else None

    def turn_of(self, who: str) -> tuple[int, int] | None:
        """Which turn an answer of this member is for."""
        owed = self.late(who)
        return (owed.round.number, owed.round.attempt) if owed else self.turn


@dataclass(frozen=True)
class Event:
    """Something that happened: "round" (closed or not) or "score".

    Attributes:
        kind: what happened.
        round: in which round.
        closed: did the round close?
        heard: by hub.
    """

    kind: str
    round: Round
    closed: bool
    heard: Mapping[str, Heard]


def add_metrics(total: dict[str, tuple[float, float]], metrics: Metrics) -> None:
    """Add (sum, count) pairs into a total, name by name."""
    for name, (s, n) in metrics.items():
        before = total.get(name, (0.0, 0.0))
        total[name] = (before[0] + s, before[1] + n)
