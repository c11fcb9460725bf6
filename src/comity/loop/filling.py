"""A sampled cohort that is too small to be hidden in is filled with others, who send zeros."""

from collections.abc import Mapping, Sequence

from comity.core.parts import Roster, Secret
from comity.core.round import Round
from comity.core.rules import Parts


def filled(
    members: Mapping[str, Sequence[str]], parts: Parts, roster: Roster, turn: Round, secret: Secret
) -> tuple[Mapping[str, Sequence[str]], frozenset[str]]:
    """The cohorts, and who is in them only to fill them up.

    Only for a selection that says `fills`, one whose cohorts may by chance be too small for the channel's `minimum`.

    Args:
        members: hub to cohort, as selected.
        parts: of the collaboration.
        roster: who there is.
        turn: the round.
        secret: the hub's.
    """
    least = getattr(parts.channel, "minimum", 0) if getattr(parts.select, "fills", False) else 0
    if all(len(cohort) >= least for cohort in members.values()):
        return members, frozenset()
    out: dict[str, Sequence[str]] = {}
    idle: set[str] = set()
    for hub, cohort in members.items():
        more = _others(cohort, least - len(cohort), roster, turn, secret)
        idle.update(more)
        inside = {*cohort, *more}
        out[hub] = [name for name in roster[: len(roster)] if name in inside] if more else cohort
    return out, frozenset(idle)


def _others(cohort: Sequence[str], missing: int, roster: Roster, turn: Round, secret: Secret) -> list[str]:
    """So many of the roster who are not in the cohort, as far as there are."""
    if missing <= 0:
        return []
    rng = secret.rng("fill", str(turn.number), str(turn.attempt))
    here = set(cohort)
    found: list[str] = []
    for i in rng.permutation(len(roster)):
        if len(found) == missing:
            break
        if roster[int(i)] not in here:
            found.append(roster[int(i)])
    return found
