"""Tell several listeners of a run; one that fails hears no more, and the run goes on."""

import warnings
from collections.abc import Callable, Sequence
from typing import TypeAlias

from comity.loop.hub import Event

Listener: TypeAlias = Callable[[Event], None]


class Telling:
    """Passes events on to listeners.

    A listener watches a run and is no part of it: what it raises is reported as a RuntimeWarning, once, and it is
    told no more. Ctrl-C (any exception that is no `Exception`) goes through and ends the run, which can be resumed; so
    does the warning where warnings are errors.

    Example:
        >>> from comity.core.round import Round
        >>> heard = []
        >>> tell = Telling([heard.append])
        >>> tell(Event("round", Round("r", 0), True, {}))
        >>> heard[0].kind
        'round'
    """

    def __init__(self, listeners: Sequence[Listener]) -> None:
        """Args: listeners, told in this order."""
        self._listeners = list(listeners)

    def __call__(self, event: Event) -> None:
        """Tell all that are left."""
        for listener in list(self._listeners):
            try:
                listener(event)
            except Exception as error:  # noqa: BLE001  whatever it is, the run is not spoilt by it
                self._listeners.remove(listener)
                warnings.warn(_said(listener, event, error), RuntimeWarning, stacklevel=2)


def _said(listener: Listener, event: Event, error: Exception) -> str:
    name = getattr(listener, "__qualname__", type(listener).__name__)
    return (
        f"The listener {name} failed at the event '{event.kind}' of round {event.round.number}: "
        f"{type(error).__name__}: {error}. It is told no more; the run goes on."
    )
