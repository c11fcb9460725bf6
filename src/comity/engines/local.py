"""The engine of one process: asks participants one after the other, in cohort order. The reference."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

from comity.core.checks import part, shown, whole, word
from comity.core.envelope import Envelope
from comity.core.errors import ConfigError
from comity.core.fits import contributes
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
        if self.executor is not None:
            word("executor", "Local", self.executor, EXECUTORS)
        object.__setattr__(self, "workers", whole("workers", "Local", self.workers, 1))
        if self.workers != 1:
            raise ConfigError(f"The 'workers' of Local must be 1: there is one process. Got {shown(self.workers)}.")

    @property
    def choice(self) -> Mapping[str, Any]:
        """How the work is done: a fact for the ledger."""
        return {"executor": self.executor or "sequential", "workers": self.workers, "reason": "the only executor"}

    def connect(self, roster: Roster, answer: Callable[[Envelope], Envelope]) -> Engine:
        """The engine over these participants.

        Args:
            roster: who there is.
            answer: the sites' door; where it has `many(questions)`, all of a cohort are asked through that.
        """
        return _InProcess(roster, answer, getattr(answer, "many", None))


@dataclass(frozen=True)
class _InProcess:
    names: Roster
    answer: Callable[[Envelope], Envelope]
    many: Callable[[Iterable[Envelope]], Iterator[Envelope]] | None = None

    def roster(self) -> Roster:
        return self.names

    def ask(self, cohort: Sequence[str], message: Callable[[str], Envelope], until: Until) -> Iterator[Envelope]:
        questions = (message(self._known(name)) for name in cohort)
        return self.many(questions) if self.many else map(self.answer, questions)

    def _known(self, name: str) -> str:
        if name not in self.names:
            raise ConfigError(f"The selection asked '{name}', who is not a participant.")
        return name


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
        object.__setattr__(self, "size", whole("size", "Population", self.size))
        if not callable(self.make):
            part("make", "Population", self.make, ("()",), "a function of a number")

    def __len__(self) -> int:
        return self.size

    @property
    def names(self) -> "Numbers":
        """The names, as a sequence that holds none of them."""
        return Numbers(self.size)

    def find(self, name: str) -> Participant:
        """Make the participant of this name.

        Raises:
            KeyError: nobody has it.
            ConfigError: `make` raised an error, or gave no participant.
        """
        if name not in self.names:
            raise KeyError(name)
        try:
            made = self.make(int(name))
        except Exception as error:
            said = f"{type(error).__name__}: {error}".rstrip(".")[:200]
            raise ConfigError(f"The 'make' of Population must give a participant. Got {said} (for {name}).") from error
        contributes(name, made)
        return made


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
