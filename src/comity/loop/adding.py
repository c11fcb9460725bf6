"""Answers added where they are made: of a run of neighbours in a cohort only the sums of its blocks leave."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from comity.core.contribution import Contribution
from comity.core.envelope import Envelope
from comity.core.errors import ConfigError, ContributionError, WireError
from comity.core.fits import has_many
from comity.core.parts import Participant
from comity.core.round import Turns
from comity.core.rules import Parts
from comity.core.spec import check
from comity.core.together import Lazy, Part, Stack, Task, Together, Works, faults
from comity.core.wire import as_tree, from_tree, size
from comity.loop.fold import Fold
from comity.loop.site import EMPTY

if TYPE_CHECKING:
    from comity.loop.sites import Sites


Answering: TypeAlias = Callable[[Iterable[Envelope]], Iterator[Envelope]]


def adds(parts: Parts) -> bool:
    """May contributions be added near the work? Where the hub needs no more than their sum, and all are told the same.

    A channel says so by `transparent` (what it opens is what was sealed), a method by `tells = "all"`.
    """
    near = all(t.decodes == "sum" and not hasattr(t, "pack") for t in parts.transforms)
    summed = parts.combiner.needs == "sum" and getattr(parts.channel, "transparent", False)
    return summed and near and getattr(parts.method, "tells", "each") == "all"


class Adding:
    """Asks a run of neighbours and adds what they give.

    Those who are alike and keep nothing do their work together, and their contributions are lifted, encoded, checked
    and added by the stack; all others are asked as ever. Either way the sum is the same to the bit.
    """

    def __init__(self, sites: "Sites", task: Task) -> None:
        """Args: who answers, and what is asked of whom."""
        self.sites, self.task, self.parts, self.turn = sites, task, sites.parts, task.question.round
        told: Any = task.question.body.value
        self.shared, self.public = from_tree(told["shared"]), told["public"]
        self.most = sites.most(self.shared)
        self.fold = Fold(self.turn.asked)
        self.up, self.accepted = [0] * len(task.names), [False] * len(task.names)
        self.refused: list[tuple[str, str]] = []
        self.dropped: list[tuple[str, str]] = []
        self._sizes: dict[Any, dict[int, int]] = {}
        self._sent = 0
        encoded = all(has_many(t, "encode_many", "encode") for t in self.parts.transforms)
        self._stacks = has_many(self.parts.combiner, "lift_many", "lift") and encoded

    def parts_of(self) -> Iterator[Part]:
        """What came of it: one Part where the run begins at block 0, else one for each block."""
        first = self.task.start == 0
        for at, people, alike in self._groups():
            names = self.task.names[at : at + len(people)]
            if alike is None or len(names) == 1:
                self._one_by_one(at, names, people, self.sites.many)
            elif (failed := self._joint(at, names, people)) is not None:
                self._one_by_one(at, names, people, failed)
            if not first:
                for number, total in self.fold.finished():
                    yield self._part(number, number, total)
        if first and self.task.names:
            yield self._part(0, (len(self.task.names) - 1) // self.fold.size, self.fold.total())

    def _part(self, first: int, last: int, total: Contribution | None) -> Part:
        """The sum of these blocks, with all that became known of their members."""
        a, b = self._sent, min((last + 1) * self.fold.size - self.task.start, len(self.task.names))
        self._sent = b
        mine = frozenset(self.task.names[a:b])
        refused, dropped = ([x for x in said if x[0] in mine] for said in (self.refused, self.dropped))
        return Part(first, last, total, self.task.start + a, self.up[a:b], self.accepted[a:b], refused, dropped)

    def _groups(self) -> Iterator[tuple[int, list[Participant], Any]]:
        """Neighbours: the place of the first in the run, who they are, and what those who keep nothing are alike in."""
        group: list[Participant] = []
        begun: Any = None
        for at, name in enumerate(self.task.names):
            person = self.sites.person(name)
            alike = self._alike(person) if self.sites.drawer(name) is EMPTY else None
            if group and (alike != begun or len(group) >= self.most):
                yield at - len(group), group, begun
                group = []
            begun = alike
            group.append(person)
        if group:
            yield len(self.task.names) - len(group), group, begun

    def _alike(self, person: Participant) -> Any:
        """What a participant is alike in, where that is of use here."""
        alike = getattr(person, "alike", None) if self._stacks else None
        return None if alike in self.sites.keeping else alike

    def _joint(self, at: int, names: Sequence[str], people: Sequence[Participant]) -> Answering | None:
        """They do their work together; where that cannot be, nothing has happened: how to ask them then."""
        n = len(names)
        works = Works(people, [self.shared] * n, [{}] * n, Turns(self.turn, names), Lazy(self.sites.secret, names))
        try:
            stack = self._encoded(works)
        except Exception:  # noqa: BLE001  user code may raise anything; each is asked alone, and told its own fault
            return partial(map, self.sites.answer)
        if stack is None:
            return self.sites.many
        wrong = faults(stack, self.task.spec)
        self._measure(at, names, stack)
        begin = 0
        for i in [*wrong, n]:
            self._add_many(at + begin, names[begin:i], stack.part(begin, i))
            if i < n:
                self._add(at + i, names[i], stack.one(i))
            begin = i + 1
        return None

    def _add_many(self, at: int, names: Sequence[str], stack: Stack) -> None:
        """Add what was found to be as it should."""
        if not names:
            return
        try:
            self.fold.add_many(self.task.start + at, stack)
        except ContributionError:
            for i, name in enumerate(names):
                self._add(at + i, name, stack.one(i))
        else:
            self.accepted[at : at + len(names)] = [True] * len(names)

    def _encoded(self, works: Works) -> Stack | None:
        """Their lifted and encoded contributions; None where they have no common form, or drawers to keep."""
        found = self.sites.work(works, self.task.plans)
        if not isinstance(found, Together) or len(found) != len(works) or any(found.local):
            self.sites.keeping.add(works.who[0].alike)
            return None
        stack: Stack = self.parts.combiner.lift_many(_whole(found))  # type: ignore[attr-defined]
        for i, t in enumerate(self.parts.transforms):
            out = t.encode_many(stack, self.public.get(str(i)), works)  # type: ignore[attr-defined]
            if not isinstance(out, Together) or any(out.local):
                return None
            stack = _whole(out)
        return stack

    def _one_by_one(self, at: int, names: Sequence[str], people: Sequence[Participant], answering: Answering) -> None:
        """Each is asked, and heard, as by a hub that sees every answer."""
        self.sites.drawn(names, people)
        for i, answer in enumerate(answering(map(self._question, names)), at):
            who, body = answer.sender, answer.body
            try:
                self.up[i] = size(answer)
            except ConfigError as error:
                self._refuse(i, who, str(error))
                continue
            if body.kind == "error":
                self.dropped.append((who, str(body.value["reason"])))  # type: ignore[index, call-overload]
                self.fold.add(self.task.start + i, None)
                continue
            try:
                c = from_tree(body.value[self.turn.hub], who)  # type: ignore[index, call-overload]
            except (TypeError, KeyError, WireError):
                self._refuse(i, who, f"{who} sent no contribution for hub '{self.turn.hub}'.")
            else:
                self._add(i, who, c) if c.sender == who else self._refuse(i, who, f"{who} claims to be '{c.sender}'.")

    def _add(self, at: int, who: str, c: Contribution) -> None:
        """Check one contribution and add it."""
        try:
            check(c, self.task.spec, lifted=True)
            self.fold.add(self.task.start + at, c)
        except ContributionError as error:
            self._refuse(at, who, str(error))
        else:
            self.accepted[at] = True

    def _refuse(self, at: int, who: str, why: str) -> None:
        self.refused.append((who, why if why.startswith(who) else f"{who}: {why}"))
        self.fold.add(self.task.start + at, None)

    def _question(self, name: str) -> Envelope:
        asked = self.task.question
        return replace(asked, round=self.turn.to(name), receipt=self.task.receipts.get(name))

    def _measure(self, at: int, names: Sequence[str], stack: Stack) -> None:
        """The bytes of their answers: contributions of one form differ in no more than the names."""
        sizes = self._sizes.setdefault((stack.kind, stack.layout, *stack.metrics), {})
        for i, name in enumerate(names, at):
            width = len(name) if name.isascii() else len(name.encode())
            if (n := sizes.get(width)) is None:
                asked = self.task.question
                body = Contribution("sealed", {self.turn.hub: as_tree(stack.one(0))})
                n = sizes[width] = size(Envelope(self.turn.to(name), asked.phase, name, asked.recipe, body))
            self.up[i] = n


def _whole(found: Together) -> Stack:
    if not found.is_whole():
        raise ContributionError("What they gave together does not fit together.")
    return found.stack
