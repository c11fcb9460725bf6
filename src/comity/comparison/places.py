"""Where the desks of a comparison are: in this process, or (see `away`) each at its own party."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from comity.collaboration import Run
from comity.comparison.desk import Desk
from comity.comparison.jobs import Job
from comity.core.contribution import Tree
from comity.listeners.telling import Listener


class Place(Protocol):
    """Carries jobs to desks."""

    @property
    def names(self) -> Sequence[str]:
        """The parties, sorted; none while it is not known who takes part."""
        ...

    @property
    def desks(self) -> Mapping[str, Desk]:
        """The desks by party, where they are in this process."""
        ...

    def run(self, job: Job, names: Sequence[str], *, folder: Path | None = None, listen: Listener | None = None) -> Run:
        """Run a job with some parties.

        Raises:
            TooFewParticipants: what somebody sent was refused: of a training, it diverged.
        """
        ...

    def kept(self, what: Mapping[str, Any], make: Callable[[], Tree]) -> Any:
        """What came of a job, made now or taken from where it was kept."""
        ...

    def models(self, repeat: int) -> Mapping[str, Mapping[str, Any]]:
        """Party to the models of a split that it keeps, where they can be had."""
        ...


@dataclass(frozen=True)
class Here:
    """Desks in this process.

    Attributes:
        desks: by party.
    """

    desks: Mapping[str, Desk]

    @property
    def names(self) -> Sequence[str]:
        """The parties."""
        return list(self.desks)

    def run(self, job: Job, names: Sequence[str], *, folder: Path | None = None, listen: Listener | None = None) -> Run:
        """Run a job with some desks."""
        fed = job.build({p: job.seat(self.desks[p]) for p in names})
        return fed.run(job.rounds, folder=folder, listen=listen)

    def kept(self, what: Mapping[str, Any], make: Callable[[], Tree]) -> Any:
        """Made now."""
        return make()

    def models(self, repeat: int) -> Mapping[str, Mapping[str, Any]]:
        """They lie here."""
        return {p: desk.kept(repeat) for p, desk in self.desks.items()}
