"""An event as plain numbers, over all hubs."""

from collections.abc import Mapping

from comity.core.contribution import Metrics
from comity.loop.hub import Event, add_metrics


def counts(event: Event) -> dict[str, int]:
    """Whom an event is of, and what travelled in it.

    Returns:
        `asked` and `accepted` (participants, each once however many hubs hear it), `bytes_up` and `bytes_down`.
    """
    heard = event.heard.values()
    return {
        "asked": len({who for h in heard for who in h.asked}),
        "accepted": len({who for h in heard for who in h.accepted}),
        "bytes_up": sum(sum(h.up.values()) for h in heard),
        "bytes_down": sum(sum(h.down.values()) for h in heard),
    }


def values(event: Event) -> Mapping[str, float]:
    """The metrics that were taken, sum over count, by name; {} where a round did not close."""
    total: dict[str, tuple[float, float]] = {}
    for heard in event.heard.values() if event.closed else ():
        add_metrics(total, _plain(heard.metrics))
    return {name: s / n for name, (s, n) in sorted(total.items()) if n}


def _plain(metrics: Metrics) -> Metrics:
    return {name: (float(s), float(n)) for name, (s, n) in metrics.items()}


def steps(event: Event) -> int:
    """Rounds that were closed when it happened: a round and the scores taken after it have the same number."""
    return event.round.number + (event.kind == "round" and event.closed)
