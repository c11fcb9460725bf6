"""One attempt at one round: ask once, open, decode, check, fold, lower, update."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import tee
from typing import Any

from comity.core.contribution import Contribution
from comity.core.envelope import Envelope, Owed
from comity.core.errors import ChannelError, ContributionError
from comity.core.parts import Ask, Secret, Transform
from comity.core.round import Round
from comity.core.rules import Parts
from comity.core.spec import Spec, check, zeros
from comity.core.tree import frozen
from comity.core.wire import as_tree
from comity.loop.adding import adds
from comity.loop.asking import Asking
from comity.loop.fold import Fold
from comity.loop.hub import Heard, HubState
from comity.loop.late import aged


class Attempt:
    """One attempt at one round."""

    def __init__(
        self,
        asking: Asking,
        secret: Secret,
        turn: Round,
        members: Mapping[str, Sequence[str]],
        idle: frozenset[str] = frozenset(),
        owed: Mapping[str, Owed] | None = None,
    ) -> None:
        """Put an attempt together.

        Args:
            asking: how to ask.
            secret: the hub's.
            turn: the round.
            members: hub to the members it hears.
            idle: who of them sends zeros.
            owed: who still owes an earlier answer: asked nothing now, and heard; None where nobody may be late.
        """
        self.idle = idle
        chosen = members
        if owed:
            members = {h: [who for who in ps if who not in owed] for h, ps in members.items()}
        self.asking, self.parts, self.secret = asking, asking.parts, secret
        self.turns = {h: replace(turn, hub=h, asked=len(ps)) for h, ps in members.items()}
        self.members = members
        self.heard = {}
        for h, ps in members.items():
            mine = None if owed is None else {who: o for who, o in owed.items() if o.round.hub == h}
            now, size = (turn.number, turn.attempt), len(chosen[h])
            self.heard[h] = Heard(h, [*ps, *mine] if mine else ps, turn=now, owed=mine, size=size)
        self.homes = homes_of(members)
        self.hears: dict[str, list[str]] = {}
        for hub, cohort in members.items():
            for who in cohort:
                self.hears.setdefault(who, []).append(hub)
        self.hears.update((who, [o.round.hub]) for who, o in (owed or {}).items())
        self._told: tuple[str, Contribution, Mapping[str, Any], Contribution] | None = None
        self.sessions: dict[str, Any] = {}
        self.public: dict[str, Any] = {}
        self.states: Mapping[str, HubState] = {}

    def run(self, states: Mapping[str, HubState]) -> tuple[bool, Mapping[str, Heard], dict[str, HubState]]:
        """Ask, gather and combine.

        Returns:
            Did every hub reach its quorum; what each heard; and the states, changed only if so. Where channel
            or combiner could make nothing of what came, no hub did: each is told why.
        """
        self.states = states
        try:
            return self._closed(states)
        except (ChannelError, ContributionError) as error:
            for heard in self.heard.values():
                heard.failed = str(error)
            return False, self.heard, dict(states)

    def _closed(self, states: Mapping[str, HubState]) -> tuple[bool, Mapping[str, Heard], dict[str, HubState]]:
        for hub, cohort in self.members.items():
            self.sessions[hub] = self.parts.channel.setup(cohort, self._channel_ask(hub), self.turns[hub])
            self.public[hub] = self._published(self.states[hub], self.turns[hub])
        near = self._is_near()
        streams = tee(iter(()) if near else self._answers(), len(self.members))
        after = dict(self.states)
        closed = True
        for hub, stream in zip(self.members, streams, strict=True):
            gathered, entries = self._added(hub) if near else self._gather(hub, stream)
            h = self.heard[hub]
            if len(h.accepted) < self.parts.needed(h.size):
                closed = False
            elif closed:
                after[hub] = self._combine(hub, gathered, entries)
        return closed, self.heard, after if closed else dict(self.states)

    def _is_near(self) -> bool:
        """Are contributions added near the work? One hub hears each member once, and nobody needs to see each."""
        once = all(len(h.asked) == len(h.asked_set) and not h.owed for h in self.heard.values())
        return len(self.members) == 1 and once and adds(self.parts) and self.asking.total is not None

    def _answers(self) -> Iterator[Envelope]:
        """Ask each participant once, as its home."""
        by_home: dict[str, list[str]] = {hub: [] for hub, h in self.heard.items() if h.owed}
        for who, home in self.homes.items():
            by_home.setdefault(home, []).append(who)
        for home, cohort in by_home.items():
            yield from self.asking.ask(self.turns[home], cohort, self.heard[home], "contribute", self._question)

    def _question(self, to: str) -> Contribution:
        home = self.homes[to]
        state, turn = self.states[home], self.turns[home]
        shared = packed(self.parts, self.parts.method.share(state.method, to, turn), state, to, turn)
        views = {h: self.sessions[h].view(to) for h in self.hears[to]}
        if self._told is None or not _same(self._told, home, shared, views):
            told = as_tree(replace(shared, value=frozen(shared.value)))
            question = Contribution("question", {"shared": told, "public": self.public[home], "views": views})
            self._told = (home, shared, views, question)
        question = self._told[-1]
        if to in self.idle:
            return replace(question, value={**question.value, "idle": True})  # type: ignore[dict-item]
        return question

    def _published(self, state: HubState, turn: Round) -> dict[str, Any]:
        out = {}
        for i, t in enumerate(self.parts.transforms):
            if publish := getattr(t, "publish", None):
                out[str(i)] = publish(state.transforms[i], turn)
        return out

    def _channel_ask(self, hub: str) -> Ask:
        return self.asking.phases(self.turns[hub], self.heard[hub])

    def _sealed(self, hub: str, answers: Iterator[Envelope]) -> Iterator[Contribution]:
        """The sealed contributions that a hub hears."""
        here = (a for a in answers if hub in self.hears.get(a.sender, (hub,)))
        return self.asking.sealed(here, self.heard[hub], "contribute")

    def _gather(self, hub: str, answers: Iterator[Envelope]) -> tuple[Any, list[dict[str, Any]]]:
        """What the combiner needs: the sum, or the list in cohort order; and the members' new entries."""
        heard, state, parts = self.heard[hub], self.states[hub], self.parts
        place = {who: i for i, who in enumerate(heard.asked)}
        fold = Fold(len(heard.asked))
        kept: dict[int, Contribution] = {}
        entries: list[dict[str, Any]] = [{} for _ in parts.transforms]
        opened = parts.channel.open(
            self._sealed(hub, answers), self.sessions[hub], self._channel_ask(hub), self.asking.until(heard.asked)
        )
        for n, c in enumerate(opened):
            at = place.get(c.sender, n)
            try:
                c, news = self._decoded(c, state, hub)
                if parts.combiner.needs == "sum":
                    fold.add(at, c)
                else:
                    kept[at] = c
            except ContributionError as error:
                heard.refused.append((c.sender, f"{c.sender}: {error}"))
                fold.add(at, None)
                continue
            heard.accepted.add(c.sender)
            for mine, new in zip(entries, news, strict=True):
                mine.update(new)
        if parts.channel.reveals != "each":
            self.asking.in_sums(self.sessions[hub], heard)
        return (fold.total() if parts.combiner.needs == "sum" else [kept[i] for i in sorted(kept)]), entries

    def _added(self, hub: str) -> tuple[Any, list[dict[str, Any]]]:
        """The sum of contributions that are added near the work."""
        heard, state, turn = self.heard[hub], self.states[hub], self.turns[hub]
        fold, anyone = Fold(len(heard.asked)), next(iter(heard.asked), "")
        shared = self.parts.method.share(state.method, anyone, turn)
        told = as_tree(replace(shared, value=frozen(shared.value)))
        views = {hub: None}
        body = Contribution("question", {"shared": told, "public": self.public[hub], "views": views})
        for part in self.asking.added(turn, heard, body, self._spec(state, anyone, turn)):
            fold.take(part.first, part.last, part.sum)
        return fold.total(), [{} for _ in self.parts.transforms]

    def _decoded(self, c: Contribution, state: HubState, hub: str) -> tuple[Contribution, list[dict[str, Any]]]:
        """One contribution, decoded where that is done one by one, and checked where the hub sees each."""
        parts, turn, who = self.parts, self.turns[hub], c.sender
        late = self.heard[hub].late(who)
        made = replace(late.round, me="") if late else turn
        news: list[dict[str, Any]] = [{} for _ in parts.transforms]
        if parts.channel.reveals != "each":
            return c, news
        for i in reversed(range(len(news))):
            t = parts.transforms[i]
            if t.decodes == "each":
                c, news[i][who] = self._undone(t, c, entry_of(t, state, i, who), made)
        check(c, self._spec(state, who, turn), lifted=parts.combiner.needs != "each")
        return aged(c, turn.number - made.number, parts.staleness), news

    def _undone(self, t: Transform, c: Contribution, entry: Any, turn: Round) -> tuple[Contribution, Any]:
        try:
            return t.decode(c, entry, turn, self.secret)
        except Exception as error:
            raise ContributionError(
                f"{type(t).__name__} cannot decode it ({type(error).__name__}: {error})."
            ) from error

    def _spec(self, state: HubState, who: str, turn: Round) -> Spec:
        return self.parts.method.expect(state.method, who, turn)

    def _combine(self, hub: str, gathered: Any, entries: list[dict[str, Any]]) -> HubState:
        """Decode on the sum, or on those of groups; lower, update.

        An empty sum is a release too; of an empty list nothing can be learnt.
        """
        parts, state, heard = self.parts, self.states[hub], self.heard[hub]
        if parts.combiner.needs != "sum" and not gathered:
            return state
        turn = replace(self.turns[hub], answered=len(heard.accepted))
        if gathered is None:
            gathered = self._nothing(state, turn)
        after = list(state.transforms)
        for i, t in reversed(list(enumerate(parts.transforms))):
            if t.decodes == "sum" and isinstance(gathered, list):
                gathered = [t.decode(some, after[i], turn, self.secret)[0] for some in gathered]
            elif t.decodes == "sum":
                gathered, after[i] = t.decode(gathered, after[i], turn, self.secret)
            elif entries[i]:
                after[i] = {**after[i], **{who: entries[i][who] for who in heard.asked if who in entries[i]}}
        combined, combiner = parts.combiner.lower(gathered, state.combiner, turn)
        heard.metrics = dict(combined.metrics)
        if parts.hides_draw:
            combined = replace(combined, weight=turn.expected)
            turn = replace(turn, asked=round(turn.expected), answered=round(turn.expected))
        method = parts.method.update(state.method, combined, turn)
        return HubState(method, combiner, tuple(after))

    def _nothing(self, state: HubState, turn: Round) -> Contribution:
        """The sum of an empty cohort."""
        spec = self._spec(state, "", turn)
        return Contribution(spec.kind or "", zeros(spec.value), 0.0)


def _same(told: tuple[str, Contribution, Any, Contribution], home: str, shared: Contribution, views: Any) -> bool:
    """Is this the question that was put last? Then it is laid out, and measured, once."""
    was_home, was, was_views, _ = told
    if shared.value is not was.value or home != was_home or shared.kind != was.kind or views.keys() != was_views.keys():
        return False
    plain = type(shared.weight) in _NUMBERS and type(was.weight) in _NUMBERS and shared.weight == was.weight
    if not plain or shared.metrics or was.metrics:
        return False
    return _silent(views) and _silent(was_views)


def _silent(views: Mapping[str, Any]) -> bool:
    return not [view for view in views.values() if view is not None]


_NUMBERS = (float, int)


def packed(parts: Parts, shared: Contribution, state: HubState, to: str, turn: Round) -> Contribution:
    """What is shared, as it travels down to one member."""
    for i, t in enumerate(parts.transforms):
        if pack := getattr(t, "pack", None):
            shared = pack(shared, entry_of(t, state, i, to), to, turn)
    return shared


def entry_of(t: Transform, state: HubState, i: int, who: str) -> Any:
    """The state of the i-th transform; where it decodes one by one, that of this member."""
    entries = state.transforms[i]
    if t.decodes != "each":
        return entries
    return entries[who] if who in entries else t.init()


def homes_of(members: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Who is told what which hub shares: the hub of one's own name, else the first that hears one."""
    homes: dict[str, str] = {}
    for hub, cohort in members.items():
        for who in cohort:
            homes.setdefault(who, hub)
            if who == hub:
                homes[who] = hub
    return homes
