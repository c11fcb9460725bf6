"""The engine of one process: asks participants one after the other, in cohort order. The reference."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

from comity.core.envelope import Envelope
from comity.core.errors import ConfigError
from comity.core.parts import Engine, Participant, Roster, Until

EXECUTORS = ("sequential",)


@dataclass(frozen=True)
class Local:
    """Runs all participants in this process.

    Attributes:
        executor: "sequential" asks one participant after the other: any module, any user code, always
            right. None chooses, which is "sequential" as long as there is no other.
        workers: processes; 1 is this one.

    Raises:
        ConfigError: another executor, or more than one worker.

    Example:
        >>> import comity as co
        >>> co.Local(executor="sequential").workers
        1
    """

    executor: str | None = None
    workers: int = 1

    def __post_init__(self) -> None:
        if self.executor is not None and self.executor not in EXECUTORS:
            raise ConfigError(f"The 'executor' of Local must be None or one of {EXECUTORS}. Got {self.executor!r}.")
        if self.workers != 1:
            raise ConfigError(f"The 'workers' of Local must be 1: there is one process. Got {self.workers!r}.")

    @property
    def choice(self) -> Mapping[str, Any]:
        """How the work is done: a fact for the ledger."""
        return {"executor": self.executor or "sequential", "workers": self.workers, "reason": "the only executor"}

    def connect(self, roster: Roster, answer: Callable[[Envelope], Envelope]) -> Engine:
        """The engine over these participants.

        Args:
            roster: who there is.
            answer: the sites' door.
        """
        return _InProcess(roster, answer)


@dataclass(frozen=True)
class _InProcess:
    names: Roster
    answer: Callable[[Envelope], Envelope]

    def roster(self) -> Roster:
        return self.names

    def ask(self, cohort: Sequence[str], message: Callable[[str], Envelope], until: Until) -> Iterator[Envelope]:
        for name in cohort:
            if name not in self.names:
                raise ConfigError(f"The selection asked '{name}', who is not a participant.")
            yield self.answer(message(name))


@dataclass(frozen=True)
class Population:
    """Very many participants, each made when it is drawn.

    Attributes:
        size: how many there are.
        make: number in 0..size-1 to Participant; called again whenever that one is drawn, so it must give
            the same participant each time.

    Names are "0" to "size-1", padded with zeros.

    Example:
        >>> import comity as co
        >>> many = co.Population(1_000_000, lambda i: co.Trainer(None, ([[i]], [0])))
        >>> len(many), many.names[41]
        (1000000, '000041')
    """

    size: int
    make: Callable[[int], Participant]

    def __post_init__(self) -> None:
        if not (isinstance(self.size, int) and self.size >= 0):
            raise ConfigError(f"The 'size' of Population must be an int >= 0. Got {self.size!r}.")

    def __len__(self) -> int:
        return self.size

    @property
    def names(self) -> "Numbers":
        """The names, as a sequence that holds none of them."""
        return Numbers(self.size)

    def find(self, name: str) -> Participant:
        """Make the participant of this name."""
        return self.make(int(name))


@dataclass(frozen=True)
class Numbers:
    """The names "0" to "n-1" padded with zeros, without a list of them."""

    size: int

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, index: int, /) -> str: ...
    @overload
    def __getitem__(self, index: slice, /) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice, /) -> str | Sequence[str]:
        """The name of a number."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.size))]
        if not -self.size <= index < self.size:
            raise IndexError(index)
        return str(index % self.size).zfill(len(str(self.size - 1)))

    def __contains__(self, name: object, /) -> bool:
        return isinstance(name, str) and name.isdecimal() and int(name) < self.size and self[int(name)] == name
