"""The engine of one machine: asks participants in cohort order, in this process or in several. The reference."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

from comity.core.checks import part, whole, word
from comity.core.envelope import Envelope
from comity.core.errors import ConfigError
from comity.core.fits import contributes
from comity.core.parts import Engine, Participant, Roster, Until
from comity.core.together import Part, Task

EXECUTORS = ("sequential", "batched")


@dataclass(frozen=True)
class Local:
    """Runs all participants on this machine.

    Attributes:
        executor: "sequential" (one participant after the other: any module, any user code, always right) or "batched"
            (the steps of many at once, where their model can, else sequential). None measures which is faster, once,
            where so much is to be done that it pays; what was chosen is an entry of kind "choice" in the ledger.
        workers: processes that share the work; 1 is this one alone. Participants must then be such that they can be
            sent to another process.
        chunk: of how many the steps are done at once, with "batched"; None measures. A run that is to come to the same
            bits as another pins both.

    Raises:
        ConfigError: another executor, fewer than one worker, or a chunk without "batched".

    Example:
        >>> import comity as co
        >>> co.Local(executor="sequential").workers
        1
    """

    executor: str | None = None
    workers: int = 1
    chunk: int | None = None

    def __post_init__(self) -> None:
        if self.executor is not None:
            word("executor", "Local", self.executor, EXECUTORS)
        if self.chunk is not None:
            hint = "Use None to measure."
            object.__setattr__(self, "chunk", whole("chunk", "Local", self.chunk, 1, hint=hint))
            if self.executor != "batched":
                raise ConfigError("The 'chunk' of Local goes with executor=\"batched\". Add that, or leave it out.")
        object.__setattr__(self, "workers", whole("workers", "Local", self.workers, 1))

    @property
    def choice(self) -> Mapping[str, Any]:
        """How the work is done: a fact for the ledger."""
        chosen = "asked for" if self.executor else "sequential until measured"
        return {"executor": self.executor or "sequential", "workers": self.workers, "reason": chosen}

    def connect(self, roster: Roster, answer: Callable[[Envelope], Envelope]) -> Engine:
        """The engine over these participants.

        Args:
            roster: who there is.
            answer: the sites' door; where it has more than `__call__` (core.together.Door), that is used.
        """
        if self.workers == 1:
            return _InProcess(roster, answer)
        from comity.engines.workers import Workers

        engine: Engine = Workers(roster, answer, self.workers)
        return engine


@dataclass(frozen=True)
class _InProcess:
    names: Roster
    answer: Any

    def roster(self) -> Roster:
        return self.names

    def ask(self, cohort: Sequence[str], message: Callable[[str], Envelope], until: Until) -> Iterator[Envelope]:
        questions = (message(self._known(name)) for name in cohort)
        many = getattr(self.answer, "many", None)
        return many(questions) if many else map(self.answer, questions)

    @property
    def total(self) -> Callable[[Sequence[str], Task, Until], Iterator[Part]] | None:
        """Ask and add near the work, where the door can."""
        return self._total if hasattr(self.answer, "total") else None

    def _total(self, cohort: Sequence[str], task: Task, until: Until) -> Iterator[Part]:
        if not all(map(self.names.__contains__, cohort)):
            for name in cohort:
                self._known(name)
        parts: Iterator[Part] = self.answer.total(task)
        return parts

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

    @cached_property
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
        return str(index % self.size).zfill(self._width)

    def __contains__(self, name: object, /) -> bool:
        known = isinstance(name, str) and len(name) == self._width and name.isascii() and name.isdecimal()
        return known and int(name) < self.size  # type: ignore[call-overload]

    @cached_property
    def _width(self) -> int:
        return len(str(self.size - 1))


class Names:
    """A roster of names in their order."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        """Args: names, in order."""
        self._set, self._list = set(names), list(names)

    def __len__(self) -> int:
        return len(self._list)

    def __getitem__(self, index: Any, /) -> Any:
        """The name at a position."""
        return self._list[index]

    def __contains__(self, name: object, /) -> bool:
        return name in self._set
