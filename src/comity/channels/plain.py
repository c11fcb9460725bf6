"""Contributions travel as they are: the hub sees each one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from comity.core.contribution import Contribution, Tree, View
from comity.core.errors import ChannelError
from comity.core.fits import Unchanged
from comity.core.parts import Ask, Secret, Until
from comity.core.round import Round


@dataclass(frozen=True)
class Plain:
    """No protection beyond the transport's: the hub sees every contribution, fellow participants none.

    Example:
        >>> import comity as co
        >>> co.Plain().reveals
        'each'
    """

    reveals: ClassVar[View] = "each"
    transparent: ClassVar[Any] = Unchanged("setup", "seal", "open")

    def setup(self, cohort: Sequence[str], ask: Ask, round: Round) -> "NoSession":
        """Nothing to agree on."""
        return NoSession()

    def answer(self, message: Contribution, memory: Tree, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """Plain has no phases of its own.

        Raises:
            ChannelError: always.
        """
        raise ChannelError(f"Plain has no phase '{message.kind}'. The hub runs another channel than this site.")

    def seal(
        self, c: Contribution, view: Tree, memory: Tree, round: Round, secret: Secret
    ) -> tuple[Contribution, Tree]:
        """As it is."""
        return c, memory

    def open(self, sealed: Iterator[Contribution], session: object, ask: Ask, until: Until) -> Iterator[Contribution]:
        """As they come."""
        return sealed


@dataclass(frozen=True)
class NoSession:
    """A channel without set-up."""

    def view(self, member: str) -> Tree:
        """Nothing travels."""
        return None
