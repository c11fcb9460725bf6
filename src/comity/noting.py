"""What the ledger keeps of a round."""

from collections.abc import Sequence
from typing import Any

import numpy as np

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
    }
