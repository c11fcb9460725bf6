"""How participants who are alike do their work: measured once, told to the ledger, and read from it again."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from comity.core.recipe import canonical, kinds
from comity.core.together import Plan, Wish, Works

MOST = 64


class Plans:
    """The plans of one process.

    Args:
        known: label to plan: those that the ledger holds.
        found: is told each plan that was measured, with its label.
    """

    def __init__(
        self, known: Mapping[str, Plan] | None = None, found: Callable[[str, Plan], None] | None = None
    ) -> None:
        """Begin with what is known."""
        self.known: dict[str, Plan] = dict(known or {})
        self.wish: Wish | None = None
        self._found = found
        self._of: dict[Any, tuple[Any, str, Plan]] = {}

    def of(self, works: Works, told: Mapping[str, Plan] | None = None) -> Plan:
        """The plan for these, who are alike.

        Args:
            works: what they are asked.
            told: label to plan, by whoever handed out the work; it comes first.
        """
        first = works.who[0]
        if not hasattr(first, "plan"):
            return Plan()
        held = self._of.get(first.alike)
        label = label_of(first) if held is None else held[1]
        plan = (told or {}).get(label) or (held and held[2]) or self.known.get(label) or self._made(label, works)
        if held is None:
            if len(self._of) >= MOST:
                self._of.clear()
            self._of[first.alike] = (first, label, plan)
        return plan

    def _made(self, label: str, works: Works) -> Plan:
        """Measure, where there is a wish to."""
        if self.wish is None:
            return Plan()
        try:
            plan: Plan = works.who[0].plan(works, self.wish)
        except Exception as error:  # noqa: BLE001  user code may raise anything; the plain way tells who is at fault
            return Plan(reason=f"measuring ended with {type(error).__name__}: {error}"[:200])
        if plan.measured:
            self.known[label] = plan
            if self._found is not None:
                self._found(label, plan)
        return plan


def label_of(participant: Any) -> str:
    """What those who are alike have in common, as 16 hex digits: the same in every process and every run."""
    return hashlib.sha256(canonical(kinds([participant])).encode()).hexdigest()[:16]


def choice(label: str, plan: Plan) -> dict[str, Any]:
    """A plan as the ledger keeps it."""
    return {"who": label, **asdict(plan), "numpy": np.__version__}


def chosen(past: Iterable[Any]) -> dict[str, Plan]:
    """The plans that a ledger holds, by label."""
    names = [f.name for f in fields(Plan)]
    facts = (entry.facts for entry in past if entry.kind == "choice")
    return {f["who"]: Plan(**{name: f[name] for name in names}) for f in facts}
