"""The sites of one process, behind one door."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from comity.core.checks import shown
from comity.core.contribution import Contribution, Tree
from comity.core.envelope import Envelope, Owed, Receipt
from comity.core.errors import ConfigError
from comity.core.parts import Participant, Secret
from comity.core.round import Turns
from comity.core.rules import Parts
from comity.core.together import Lazy, Part, Plan, Task, Together, Works
from comity.core.tree import leaves
from comity.core.wire import from_tree
from comity.loop.adding import Adding
from comity.loop.plans import Plans
from comity.loop.site import EMPTY, Done, Drawer, Pending, Site, Work, committed, drawer_of

TOGETHER, BYTES_TOGETHER = 128, 2**25
"""The most sites in a group, and the most bytes that what they were given has together."""


class Begun:
    """An answer that waits for the participant's work, or is complete without it."""

    def __init__(self, site: Site, asked: Envelope, before: Drawer) -> None:
        """Go on to the participant's work."""
        self.name, self.before, self._answering = site.name, before, site.answering(asked, before)
        self.work: Work | None = None
        self.answer: tuple[Envelope, Drawer] | None = None
        self._take(None)

    def alone(self) -> tuple[Envelope, Drawer]:
        """Do the work the plain way, where there is any left to do."""
        while self.answer is None and self.work is not None:
            try:
                given = self.work.done()
            except Exception as error:  # noqa: BLE001  user code may raise anything; the hub is told
                self._take(error)
            else:
                self._take(given)
        assert self.answer is not None
        return self.answer

    def take(self, given: Done) -> tuple[Envelope, Drawer]:
        """The answer, once the work was done."""
        self._take(given)
        assert self.answer is not None
        return self.answer

    def _take(self, given: Done | Exception | None) -> None:
        try:
            if isinstance(given, Exception):
                self.work = self._answering.throw(given)
            elif given is None:
                self.work = next(self._answering)
            else:
                self.work = self._answering.send(given)
        except StopIteration as end:
            self.answer = end.value


class Sites:
    """The sites of one process: each is built when it is drawn, and its drawer kept when it holds something.

    Args:
        find: name to participant.
        parts: the parts that both sides agreed on.
        secret: name to that side's own secret.
        stored: name to a drawer kept earlier, or None.
        plans: how those who are alike do their work; by default one after the other.
    """

    def __init__(
        self,
        find: Callable[[str], Participant],
        parts: Parts,
        secret: Callable[[str], Secret],
        stored: Callable[[str], Drawer | None],
        plans: Plans | None = None,
    ) -> None:
        """Put the sites behind one door."""
        self._find, self.parts, self.secret, self._stored = find, parts, secret, stored
        self.plans = plans or Plans()
        self._drawers: dict[str, Drawer] = {}
        self._touched: set[str] = set()
        self._drawn: dict[str, Participant] = {}
        self.keeping: set[Hashable] = set()

    def answer(self, asked: Envelope) -> Envelope:
        """Answer as the site named in `asked.round.me`."""
        return self._alone(self._site(asked.round.me), asked)

    def __call__(self, asked: Envelope) -> Envelope:
        """As `answer`: a door is what an engine calls."""
        return self.answer(asked)

    def many(self, asked: Iterable[Envelope]) -> Iterator[Envelope]:
        """Answer in the order of the questions; sites whose participants are `alike` do their work in one call.

        The answers are those that `answer` gives one by one. A group is as many as hold little memory together.
        """
        group: list[Begun] = []
        most = 0
        for envelope in asked:
            site = self._site(envelope.round.me)
            alone = getattr(site.participant, "alike", None) is None
            begun = None if alone else Begun(site, envelope, self.drawer(site.name))
            if group and (begun is None or len(group) >= most or not _joins(begun, group)):
                yield from self._together(group)
                group = []
            if begun is None:
                yield self._alone(site, envelope)
            else:
                most = most if group else self.most(begun.work.shared) if begun.work else 1
                group.append(begun)
        yield from self._together(group)

    def total(self, task: Task) -> Iterator[Part]:
        """Ask a run of neighbours and add what they give."""
        return Adding(self, task).parts_of()

    def planned(self, task: Task) -> Task:
        """The same task with a plan for those who are alike at its beginning."""
        told: Any = task.question.body.value
        shared = from_tree(told["shared"])
        names = list(task.names[: min(self.most(shared), TOGETHER)])
        people = [self.person(name) for name in names]
        alike = getattr(people[0], "alike", None) if people else None
        group = [i for i, p in enumerate(people) if alike is not None and getattr(p, "alike", None) == alike]
        if len(group) > 1:
            chosen = [names[i] for i in group]
            n, rounds = len(group), Turns(task.question.round, chosen)
            secrets = Lazy(self.secret, chosen)
            self.plans.of(Works([people[i] for i in group], [shared] * n, [{}] * n, rounds, secrets))
        return replace(task, plans=dict(self.plans.known))

    def work(self, works: Works, plans: Mapping[str, Plan]) -> Any:
        """What those who are alike give when they do their work together."""
        return works.who[0].contribute_many(works, self.plans.of(works, plans))

    def person(self, name: str) -> Participant:
        """The participant of this name.

        Raises:
            ConfigError: it cannot contribute.
        """
        participant = self._drawn.pop(name) if name in self._drawn else self._find(name)
        if not callable(getattr(participant, "contribute", None)):
            kind = shown(participant)
            raise ConfigError(f"Participant '{name}' must have a contribute method. Got {kind}. Use co.Trainer.")
        return participant

    def drawn(self, names: Sequence[str], people: Sequence[Participant]) -> None:
        """These were found already and are asked next: some are made anew whenever they are found."""
        self._drawn = dict(zip(names, people, strict=True))

    def most(self, shared: Contribution) -> int:
        """How many may do their work together with what they are given."""
        held = sum(getattr(x, "nbytes", 0) for _, x in leaves(shared.value))
        return max(1, min(TOGETHER, BYTES_TOGETHER // max(1, held)))

    def _site(self, name: str) -> Site:
        return Site(name, self.person(name), self.parts, self.secret(name))

    def _alone(self, site: Site, asked: Envelope) -> Envelope:
        before = self.drawer(site.name)
        reply, after = site.answer(asked, before)
        return self._kept(site.name, before, after, reply)

    def _together(self, group: Sequence[Begun]) -> Iterator[Envelope]:
        given = self._done([b.work for b in group if b.work is not None]) if len(group) > 1 else None
        for i, begun in enumerate(group):
            reply, after = begun.alone() if given is None else begun.take(given[i])
            yield self._kept(begun.name, begun.before, after, reply)

    def _done(self, works: Sequence[Work]) -> Sequence[Done] | None:
        """What they do together; None where that fails, so that each is told its own fault alone."""
        if not hasattr(works[0].participant, "contribute_many"):
            return None
        people, shared, locals_, rounds, secrets = zip(*works, strict=True)
        turns = Turns(rounds[0], [r.me for r in rounds])
        try:
            found: Sequence[Done] = self.work(Works(people, shared, locals_, turns, secrets), {})
        except Exception:  # noqa: BLE001  user code may raise anything
            return None
        torn = isinstance(found, Together) and not found.is_whole()
        return found if len(found) == len(works) and not torn else None

    def _kept(self, name: str, before: Drawer, after: Drawer, reply: Envelope) -> Envelope:
        if after is not before:
            self._drawers[name] = after
            self._touched.add(name)
        return reply

    def drawer(self, name: str) -> Drawer:
        """A site's drawer as it is now."""
        known = self._drawers.get(name)
        if known is None and (known := self._stored(name)) is not None:
            self._drawers[name] = known
        return known or EMPTY

    def kept(self, name: str, receipt: Receipt | None) -> Tree:
        """What a site has kept once it is told what became of its last answer.

        Raises:
            ConfigError: there is no such participant.
        """
        try:
            participant = self._find(name)
        except (KeyError, ValueError):
            raise ConfigError(f"There is no participant '{name}'. Use a name of the roster.") from None
        drawer = self.drawer(name)
        local = committed(drawer, receipt) or drawer.local
        return dict(local.get(drawer_of(participant, "participant"), {}))

    def hold(self, asked: Envelope, reply: Envelope) -> None:
        """Keep an answer that is late until a receipt says what became of it."""
        name = asked.round.me
        drawer = self.drawer(name)
        if drawer.pending is None or drawer.pending.key != asked.key:
            self._drawers[name] = Drawer(drawer.local, Pending(asked.key, asked.body, reply.body, drawer.local))
            self._touched.add(name)

    def held(self, owed: Owed) -> Envelope | None:
        """The answer that a site holds to an earlier question; None where it is lost."""
        turn, pending = owed.round, self.drawer(owed.round.me).pending
        question = Envelope(turn, "contribute", turn.me, owed.recipe, Contribution("question", None))
        return None if pending is None or pending.key != question.key else replace(question, body=pending.reply)

    def touched(self) -> Mapping[str, Drawer]:
        """The drawers that changed since `forget`."""
        return {name: self._drawers[name] for name in sorted(self._touched)}

    def away(self) -> "Sites":
        """The same sites without drawers or measuring, to be sent to another process of the same owner."""
        return Sites(self._find, self.parts, self.secret, _none)

    def lend(self, names: Iterable[str]) -> Mapping[str, Drawer]:
        """The drawers of these sites that hold something."""
        found = ((name, self.drawer(name)) for name in names)
        return {name: drawer for name, drawer in found if drawer is not EMPTY}

    def visit(self, drawers: Mapping[str, Drawer]) -> None:
        """Hold exactly these drawers, none of them touched."""
        self._drawers, self._touched = dict(drawers), set()

    def keep(self, drawers: Mapping[str, Drawer]) -> None:
        """Take back drawers that changed elsewhere."""
        self._drawers.update(drawers)
        self._touched.update(drawers)

    def forget(self) -> None:
        """They are saved: begin to note anew which drawers change."""
        self._touched = set()


def _none(name: str) -> None:
    """No drawer was kept earlier."""


def _joins(begun: Begun, group: Sequence[Begun]) -> bool:
    """Can this one do its work together with these?"""
    first, work = group[0].work, begun.work
    if first is None or work is None or first.alike is None or work.alike != first.alike:
        return False
    return begun.name not in [b.name for b in group]
