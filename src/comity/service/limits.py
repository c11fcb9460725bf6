"""What a site agrees to, and whether it is still within it: counted by the site itself, in what it wrote down."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from comity.charging import Charging
from comity.core.checks import number, refusal, whole
from comity.core.envelope import Envelope
from comity.core.errors import ConfigError, ContributionError
from comity.core.parts import Participant, Spend
from comity.core.round import Round
from comity.privacy.budget import Budget
from comity.privacy.releases import Purse
from comity.service.diary import Diary

HOUR = 3600.0
SPARE = 8
"""Attempts beside twice the rounds that a site agreed to."""
_HASH = re.compile("(sha256:)?[0-9a-f]{16,64}")


@dataclass(frozen=True)
class Limits:
    """What a site agrees to; beyond it, it answers with a refusal, and the run goes on without it.

    The site counts for itself, in its own folder, whatever the hub says. What a hub could ask for again under another
    name counts together: epsilon over all runs of the folder. The others are of each run.

    Attributes:
        recipe: the hash of the recipe that was approved, "sha256:..." or its first 16 digits or more; "" for that of
            the site's own copy.
        cohort: the fewest that are asked together, >= 1.
        rounds: how many at most; None for any number. Attempts that did not close may be that many again, and 8.
        epsilon: the most that may be spent of its participants' privacy, > 0, in nats; None for any. It is of all that
            the site has answered in all runs with this folder, at `delta`, by PLD: data that are asked by way of two
            folders need two limits that are enough together.
        delta: in [0, 1).
        bytes: the most that travel, both ways together, without headers of HTTP; None for any number.
        hours: how long it answers, from when it agreed; None for ever.

    Raises:
        ConfigError: a number out of range.

    Example:
        >>> import comity as co
        >>> co.Limits(cohort=5, epsilon=4.0).cohort
        5
    """

    recipe: str = ""
    cohort: int = 1
    rounds: int | None = None
    epsilon: float | None = None
    delta: float = 1e-5
    bytes: int | None = None
    hours: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.recipe, str) or (self.recipe and not _HASH.fullmatch(self.recipe)):
            hint = "Give 16 to 64 digits, as co.recipe(fed) says."
            raise refusal("recipe", "Limits", "the sha256 of a recipe in hex, or its beginning", self.recipe, hint)
        object.__setattr__(self, "cohort", whole("cohort", "Limits", self.cohort, 1))
        object.__setattr__(self, "delta", float(number("delta", "Limits", self.delta, "[0, 1)")))
        for name in ("rounds", "bytes"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, whole(name, "Limits", getattr(self, name)))
        for name in ("epsilon", "hours"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, float(number(name, "Limits", getattr(self, name), "(0, inf)")))

    def check(self, asked: Envelope) -> None:
        """Is a question within what can be seen of it alone: cohort and rounds?

        Raises:
            ContributionError: it is not; the hub is told.
        """
        turn = asked.round
        if turn.asked < self.cohort:
            raise ContributionError(f"This site answers in cohorts of at least {self.cohort}. Got {turn.asked}.")
        last = turn.number - (asked.phase == "score")
        if self.rounds is not None and last >= self.rounds:
            raise ContributionError(f"This site takes part in at most {self.rounds} rounds.")

    def told(self) -> dict[str, Any]:
        """As a hub is told them."""
        return asdict(self)


class Meter:
    """How far a site has gone in one run, and whether it may go on.

    Args:
        limits: how far.
        charging: of the site's own copy of the collaboration, its own participant alone in it.
        name: the site's.
        diary: what was written down before this.
        elapsed: gives the seconds since the site agreed.
        before: entries of what was spent in other runs, which counts too.
    """

    def __init__(
        self,
        limits: Limits,
        charging: Charging,
        name: str,
        *,
        diary: Diary,
        elapsed: Callable[[], float],
        before: Sequence[Any] = (),
    ) -> None:
        """Nothing is asked yet.

        Raises:
            ConfigError: a limit of epsilon where nothing adds noise.
        """
        self.limits, self.diary, self._charging, self._name = limits, diary, charging, name
        self._elapsed, self._before = elapsed, before
        self._budget = None if limits.epsilon is None else Budget(limits.epsilon, limits.delta)
        if self._budget is not None and not charging.spends:
            raise ConfigError(
                "A limit of epsilon wants something that adds noise. This recipe has nothing that does. "
                "Leave the limit out, or agree on another recipe."
            )

    def check(self, asked: Envelope, size: int, charged: Sequence[Mapping[str, Any]]) -> None:
        """Would this answer be within the limits?

        Args:
            asked: the question.
            size: its bytes.
            charged: what answering it would spend.

        Raises:
            ContributionError: it would not; the hub is told.
        """
        limits = self.limits
        limits.check(asked)
        if limits.hours is not None and self._elapsed() > limits.hours * HOUR:
            raise ContributionError(f"This site takes part for at most {limits.hours:g} hours.")
        self.check_bytes(size)
        self._check_attempts(asked)
        past: Any = [*self._before, *self.diary.spent] if self._before else self.diary.spent
        if self._budget is not None and charged and self._budget(past, list(charged)):  # type: ignore[arg-type]
            raise ContributionError(
                f"This site spends at most ε = {limits.epsilon:g} at δ = {limits.delta:g}. This answer would pass it."
            )

    def _check_attempts(self, asked: Envelope) -> None:
        """A round may be asked again; without an end that would be rounds by another name."""
        most = self.limits.rounds
        if most is None or asked.phase != "contribute":
            return
        taken = sum(one.phase == "contribute" for one in self.diary.notes)
        if taken >= 2 * most + SPARE:
            raise ContributionError(f"This site takes part in at most {most} rounds. It was asked {taken} times.")

    def check_bytes(self, size: int) -> None:
        """Would so many more be within the limits?

        Raises:
            ContributionError: they would not.
        """
        most = self.limits.bytes
        if most is not None and self.diary.bytes + size > most:
            raise ContributionError(f"This site sends and receives at most {most} bytes.")

    def owed(self, asked: Envelope) -> list[dict[str, Any]]:
        """What answering a question spends.

        Where a chance draw of the cohort is credited, rounds for which this site was not drawn count too, and so do
        earlier attempts at this one.
        """
        if asked.phase != "contribute":
            return []
        turn, hubs = asked.round, max(1, len(_views(asked)))
        facts = self._charging.of(turn, [self._name] * hubs)
        drawn = [one for one in facts if not one["who"] and one["sampling"] != "none"]
        missed = self.diary.missed(turn.number, turn.attempt) if drawn else ()
        return [*facts, *({**one, "round": n, "attempt": a} for n, a in missed for one in drawn)]


def declared(participant: Participant, run: str, seed: int, name: str) -> list[dict[str, Any]]:
    """What one round costs the examples of a participant, as it tells the hub: spends, the same in every round.

    Raises:
        ConfigError: they differ from round to round, or are none that can be accounted for.
    """
    if not (spend := getattr(participant, "spend", None)):
        return []
    turns = [Round(run, seed, number=n, attempt=a, me=name) for n, a in ((0, 0), (1, 0), (7, 2))]
    said = [_listed(spend(turn)) for turn in turns]
    if any(one != said[0] for one in said[1:]):
        raise ConfigError(
            f"What {type(participant).__name__} spends over a network must be the same in every round: the hub charges "
            "what was declared. It differs. Use a constant noise, rate and number of steps."
        )
    Purse(said[0])
    return [asdict(replace(one, who="")) for one in said[0]]


def _listed(given: Any) -> list[Spend]:
    return [given] if isinstance(given, Spend) else list(given)


def _views(asked: Envelope) -> Mapping[str, Any]:
    told: Any = asked.body.value
    views = told.get("views") if isinstance(told, Mapping) else None
    return views if isinstance(views, Mapping) else {}
