"""What the ledger keeps of a round."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from comity.core.envelope import Owed
from comity.core.round import Round
from comity.loop.hub import Event, Heard


def _named(reasons: Sequence[tuple[str, str]], asked: Sequence[str]) -> dict[str, Any]:
    """Who and why, in the order of the cohort; strangers at the end."""
    place = {who: i for i, who in enumerate(asked)} if reasons else {}
    ordered = sorted(reasons, key=lambda r: place.get(r[0], len(asked)))
    return {str(i): {"sender": who, "reason": why} for i, (who, why) in enumerate(ordered)}


def facts_of(event: Event, heard: Heard) -> dict[str, Any]:
    """What the ledger keeps of one hub's round: names, bytes and reasons, never values."""
    asked = list(heard.asked)
    strangers = sorted({*heard.up, *heard.down} - set(asked))
    return {
        "round": event.round.number,
        "attempt": event.round.attempt,
        "hub": heard.hub,
        "closed": event.closed,
        **({"failed": heard.failed} if heard.failed else {}),
        "asked": "\n".join(asked),
        "accepted": np.array([who in heard.accepted for who in asked], bool),
        "up": np.array([heard.up.get(who, 0) for who in asked], np.int64),
        "down": np.array([heard.down.get(who, 0) for who in asked], np.int64),
        "strangers": "\n".join(strangers),
        "refused": _named(heard.refused, asked),
        "dropped": _named(heard.dropped, asked),
        "metrics": {k: np.array(v, float) for k, v in heard.metrics.items()},
        **({} if heard.seconds is None else {"seconds": heard.seconds}),
        **({"late": _late(heard.owed)} if heard.owed else {}),
    }


def _late(owed: Mapping[str, Owed]) -> dict[str, Any]:
    """Of which rounds and attempts the questions were whose answers the last of those asked still owed."""
    turns = np.array([(o.round.number, o.round.attempt) for o in owed.values()], np.int64)
    return {"round": turns[:, 0].copy(), "attempt": turns[:, 1].copy()}


def heard_in(facts: Any, base: Round) -> Heard:
    """What a hub had heard, as far as a run that goes on needs it.

    Args:
        facts: of an entry of kind "round" or "score".
        base: what all rounds of the run have in common.
    """
    asked = facts["asked"].split("\n") if facts["asked"] else []
    owed, late = {}, facts.get("late")
    if late:
        of = zip(asked[-len(late["round"]) :], late["round"].tolist(), late["attempt"].tolist(), strict=True)
        owed = {who: Owed(replace(base, number=number, attempt=attempt), "") for who, number, attempt in of}
    heard = Heard(facts["hub"], asked, turn=(facts["round"], facts["attempt"]), owed=owed)
    heard.accepted = {who for who, accepted in zip(asked, facts["accepted"], strict=True) if accepted}
    heard.down = dict(zip(asked, facts["down"].tolist(), strict=True))
    heard.refused = [(r["sender"], r["reason"]) for r in facts["refused"].values()]
    heard.dropped = [(r["sender"], r["reason"]) for r in facts["dropped"].values()]
    heard.seconds = facts.get("seconds")
    return heard
