"""Keep every contribution by its sender's name."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from comity.combine.mean import added
from comity.core.contribution import Contribution, View
from comity.core.round import Round


@dataclass(frozen=True)
class Collect:
    """All contributions side by side: the combined value and weight are `{sender: value}` and `{sender: weight}`.

    For what does not add: schemas, vocabularies, samples, whole models. It discloses each to the hub.

    Example:
        >>> import comity as co
        >>> said = [co.Contribution("text", "yes", sender="a"), co.Contribution("text", "no", sender="b")]
        >>> co.Collect().lower(said, None, co.Round(run="", seed=0))[0].value
        {'a': 'yes', 'b': 'no'}
    """

    needs: ClassVar[View] = "each"

    def init(self) -> None:
        """No state."""

    def lift(self, c: Contribution) -> Contribution:
        """As it is."""
        return c

    def lower(self, gathered: Sequence[Contribution], state: None, round: Round) -> tuple[Contribution, None]:
        """One Tree with a branch for each sender."""
        kind = gathered[0].kind if gathered else "collection"
        value = {c.sender: c.value for c in gathered}
        weight = {c.sender: c.weight for c in gathered}
        return Contribution(kind, value, weight, added([c.metrics for c in gathered])), state
