"""The sites of one process, behind one door."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from comity.core.checks import shown
from comity.core.contribution import Tree
from comity.core.envelope import Envelope, Receipt
from comity.core.errors import ConfigError
from comity.core.parts import Participant, Secret
from comity.core.rules import Parts
from comity.core.tree import leaves
from comity.loop.site import EMPTY, Done, Drawer, Site, Work, committed, drawer_of

TOGETHER, BYTES_TOGETHER = 64, 2**25
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
    """

    def __init__(
        self,
        find: Callable[[str], Participant],
        parts: Parts,
        secret: Callable[[str], Secret],
        stored: Callable[[str], Drawer | None],
    ) -> None:
        """Put the sites behind one door."""
        self._find, self._parts, self._secret, self._stored = find, parts, secret, stored
        self._drawers: dict[str, Drawer] = {}
        self._touched: set[str] = set()

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
                most = most if group else _most(begun)
                group.append(begun)
        yield from self._together(group)

    def _site(self, name: str) -> Site:
        participant = self._find(name)
        if not callable(getattr(participant, "contribute", None)):
            kind = shown(participant)
            raise ConfigError(f"Participant '{name}' must have a contribute method. Got {kind}. Use co.Trainer.")
        return Site(name, participant, self._parts, self._secret(name))

    def _alone(self, site: Site, asked: Envelope) -> Envelope:
        before = self.drawer(site.name)
        reply, after = site.answer(asked, before)
        return self._kept(site.name, before, after, reply)

    def _together(self, group: Sequence[Begun]) -> Iterator[Envelope]:
        given = _done([b.work for b in group if b.work is not None]) if len(group) > 1 else None
        for i, begun in enumerate(group):
            reply, after = begun.alone() if given is None else begun.take(given[i])
            yield self._kept(begun.name, begun.before, after, reply)

    def _kept(self, name: str, before: Drawer, after: Drawer, reply: Envelope) -> Envelope:
        if after is not before:
            self._drawers[name] = after
            self._touched.add(name)
        return reply

    def drawer(self, name: str) -> Drawer:
        """A site's drawer as it is now."""
        if name not in self._drawers and (stored := self._stored(name)) is not None:
            self._drawers[name] = stored
        return self._drawers.get(name, EMPTY)

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

    def touched(self) -> Mapping[str, Drawer]:
        """The drawers that changed since `forget`."""
        return {name: self._drawers[name] for name in sorted(self._touched)}

    def forget(self) -> None:
        """They are saved: begin to note anew which drawers change."""
        self._touched = set()


def _joins(begun: Begun, group: Sequence[Begun]) -> bool:
    """Can this one do its work together with these?"""
    first, work = group[0].work, begun.work
    if first is None or work is None or first.alike is None or work.alike != first.alike:
        return False
    return begun.name not in [b.name for b in group]


def _most(begun: Begun) -> int:
    """How many may do their work together with this one."""
    held = sum(getattr(x, "nbytes", 0) for _, x in leaves(begun.work.shared.value)) if begun.work else 0
    return max(1, min(TOGETHER, BYTES_TOGETHER // max(1, held)))


def _done(works: Sequence[Work]) -> Sequence[Done] | None:
    """What they do together; None where that fails, so that each is told its own fault alone."""
    many: Any = getattr(works[0].participant, "contribute_many", None)
    if many is None:
        return None
    people, shared, locals_, rounds, secrets = zip(*works, strict=True)
    try:
        found = many(people, shared, locals_, rounds, secrets)
    except Exception:  # noqa: BLE001  user code may raise anything
        return None
    return found if len(found) == len(works) else None
