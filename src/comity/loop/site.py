"""The participant's side of the wall: its data, its drawer, and what becomes of a question."""

import hashlib
import traceback
from collections.abc import Generator, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from comity.core.contribution import Contribution, Tree
from comity.core.envelope import Envelope, Key, Receipt
from comity.core.errors import ComityError, ContributionError
from comity.core.parts import Participant, Secret
from comity.core.round import Round
from comity.core.rules import Parts
from comity.core.tree import is_branch, owned, tree_map
from comity.core.wire import as_tree, encode, from_tree


@dataclass(frozen=True, slots=True)
class Pending:
    """An answer whose fate the site does not know yet.

    Attributes:
        key: what it answers.
        question: the body that was asked (or its sha256), to tell a repetition from another question.
        reply: what was sent; sent again when asked the same again.
        local: the drawer after it, which counts once the hub has accepted the reply.
    """

    key: Key
    question: Contribution | bytes
    reply: Contribution
    local: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Drawer:
    """What a site keeps between rounds. It never leaves the site.

    Attributes:
        local: part to its Tree: "participant", "transforms.0", "channel", or a drawer that parts share.
        pending: the last answer, until a receipt settles it.
    """

    local: Mapping[str, Any]
    pending: Pending | None = None


class Work(NamedTuple):
    """What a site asks its participant to do."""

    participant: Participant
    shared: Contribution
    local: Tree
    round: Round
    secret: Secret

    def done(self) -> tuple[Contribution, Tree]:
        """Do it: the plain way."""
        return self.participant.contribute(self.shared, self.local, self.round, self.secret)

    @property
    def alike(self) -> Hashable:
        """Participants for whom this is the same, and not None, can do their work together."""
        return getattr(self.participant, "alike", None) if self.shared.kind != "score" else None


Done: TypeAlias = tuple[Contribution, Tree]
Answering: TypeAlias = Generator[Work, Done, tuple[Envelope, Drawer]]
EMPTY = Drawer({})
MOST_SAID = 1000


class Site:
    """Answers the hub for one participant: asks it to contribute, lifts, encodes and seals.

    A drawer commits in two steps: what an answer changes is pending until the hub's receipt says that
    the answer was accepted; refused or lost, it is dropped.
    """

    def __init__(self, name: str, participant: Participant, parts: Parts, secret: Secret) -> None:
        """Put the participant's side together."""
        self.name, self.participant, self.parts, self.secret = name, participant, parts, secret

    def answer(self, asked: Envelope, drawer: Drawer) -> tuple[Envelope, Drawer]:
        """Answer a question.

        Args:
            asked: the envelope from the hub, `asked.round.me` this site's name.
            drawer: as it was after the last answer.

        Returns:
            The answer, and the drawer after it. Where the participant's own code fails, the answer's
            body is of kind "error" and the drawer is as it was.
        """
        answering = self.answering(asked, drawer)
        try:
            work = next(answering)
            while True:
                try:
                    given = work.done()
                except Exception as error:  # noqa: BLE001  user code may raise anything; the hub is told
                    work = answering.throw(error)
                else:
                    work = answering.send(given)
        except StopIteration as end:
            answer: tuple[Envelope, Drawer] = end.value
            return answer

    def answering(self, asked: Envelope, drawer: Drawer) -> Answering:
        """As `answer`, but the participant's own work is yielded, to be done by whoever asks: alone or with others."""
        drawer = settle(drawer, asked)
        pending = drawer.pending
        if pending is not None and pending.key == asked.key:
            return self._again(asked, pending), drawer
        open_score = asked.phase == "score" and not _is_sealed(asked.body)
        held = drawer.local if pending is None or open_score else pending.local
        try:
            if asked.phase in ("contribute", "score"):
                work, local = self._asked(asked, held)
                given, after = yield work
                body, local = self._given(asked, given, after, local)
            else:
                body, local = self._channel(asked, held)
        except Exception as error:  # noqa: BLE001  user code may raise anything; the hub is told, the run goes on
            return self._reply(asked, failure(error, hidden=self._is_hidden)), drawer
        if open_score or local is held:
            return self._reply(asked, body), drawer
        return self._reply(asked, body), Drawer(drawer.local, Pending(asked.key, asked.body, body, local))

    def _again(self, asked: Envelope, pending: Pending) -> Envelope:
        question = pending.question
        if question is asked.body or fingerprint(question) == fingerprint(asked.body):
            return self._reply(asked, pending.reply)
        text = f"{self.name} was asked something else for the same round and attempt, and refuses to answer twice."
        return self._reply(asked, failure(ContributionError(text)))

    @property
    def _is_hidden(self) -> bool:
        """Must the hub learn no more of what is here than sums, or what was noised?"""
        noised = [part for part in (self.participant, *self.parts.transforms) if hasattr(part, "spend")]
        return self.parts.channel.reveals != "each" or bool(noised)

    def _reply(self, asked: Envelope, body: Contribution) -> Envelope:
        return Envelope(asked.round, asked.phase, self.name, asked.recipe, body)

    def _asked(self, asked: Envelope, local: Mapping[str, Any]) -> tuple[Work, Mapping[str, Any]]:
        """What the participant is to do, and the drawers after what came down was unpacked."""
        shared, told = asked.body, asked.body.value
        if shared.kind == "question":
            shared = from_tree(_fresh(told["shared"]))  # type: ignore[index, call-overload]
            shared, local = self._unpack(shared, asked.round, local)
        if (shared.kind == "score") != (asked.phase == "score"):
            raise ContributionError(f"A question must be of its phase, '{asked.phase:.20}'. Got another kind of it.")
        if asked.phase == "score" and self.parts.channel.reveals != "each" and not _is_sealed(asked.body):
            raise ContributionError("Scores must be sealed where the channel hides what is sent. They were not to be.")
        return Work(self.participant, shared, _own(local, self._mine), asked.round, self.secret), local

    def _given(
        self, asked: Envelope, given: Contribution, after: Tree, local: Mapping[str, Any]
    ) -> tuple[Contribution, Mapping[str, Any]]:
        """What the participant gave, as it travels, and the drawers after it. A score writes none of its own."""
        told: Any = asked.body.value
        if asked.phase == "score":
            if not _is_sealed(asked.body):
                return from_tree(as_tree(given)), local
            return self._seal(self._score(given, asked.round), told["views"], asked.round, local)
        local = _put(local, self._mine, after)
        c = self.parts.combiner.lift(given)
        c = _idle(c) if told.get("idle") else c
        c, local = self._encode(c, told["public"], asked.round, local)
        if c.value is given.value:
            c = replace(c, value=owned(c.value))
        return self._seal(c, told["views"], asked.round, local)

    def _channel(self, asked: Envelope, local: Mapping[str, Any]) -> tuple[Contribution, Mapping[str, Any]]:
        """One phase of the channel's own."""
        memory = _own(local, "channel")
        c, after = self.parts.channel.answer(asked.body, memory, asked.round, self.secret)
        return c, _put(local, "channel", after)

    @property
    def _mine(self) -> str:
        return drawer_of(self.participant, "participant")

    def _unpack(
        self, c: Contribution, round: Round, local: Mapping[str, Any]
    ) -> tuple[Contribution, Mapping[str, Any]]:
        for i in reversed(range(len(self.parts.transforms))):
            t = self.parts.transforms[i]
            if unpack := getattr(t, "unpack", None):
                name = drawer_of(t, f"transforms.{i}")
                c, after = unpack(c, _own(local, name), round)
                local = _put(local, name, after)
        return c, local

    def _encode(
        self, c: Contribution, public: Mapping[str, Any], round: Round, local: Mapping[str, Any]
    ) -> tuple[Contribution, Mapping[str, Any]]:
        for i, t in enumerate(self.parts.transforms):
            name = drawer_of(t, f"transforms.{i}")
            c, after = t.encode(c, public.get(str(i)), _own(local, name), round, self.secret)
            local = _put(local, name, after)
        return c, local

    def _score(self, given: Contribution, round: Round) -> Contribution:
        """Scores as they are sealed: what makes integers of a contribution makes them of its metrics."""
        c = Contribution("score", {}, 0.0, given.metrics)
        for t in self.parts.transforms:
            if getattr(t, "integers", False):
                c, _ = t.encode(c, None, {}, round, self.secret)
        return c

    def _seal(
        self, c: Contribution, views: Mapping[str, Any], round: Round, local: Mapping[str, Any]
    ) -> tuple[Contribution, Mapping[str, Any]]:
        sealed = {}
        for hub, view in views.items():
            out, after = self.parts.channel.seal(c, view, _own(local, "channel"), round, self.secret)
            local = _put(local, "channel", after)
            sealed[hub] = as_tree(out)
        return Contribution("sealed", sealed), local


def drawer_of(part: object, usual: str) -> str:
    """The name of a part's drawer: its own, or the one it says that it shares."""
    return getattr(part, "drawer", usual)


def settle(drawer: Drawer, asked: Envelope) -> Drawer:
    """What a drawer is once the receipt of a new question is known."""
    pending = drawer.pending
    if pending is None:
        return drawer
    if (local := committed(drawer, asked.receipt)) is not None:
        return Drawer(local)
    same_round = (asked.round.number, asked.round.attempt) == pending.key[1:3]
    return drawer if same_round else Drawer(_dropped(drawer.local, pending))


def committed(drawer: Drawer, receipt: Receipt | None) -> Mapping[str, Any] | None:
    """What a drawer holds for good once this receipt is known; None where it says nothing about a pending answer."""
    pending = drawer.pending
    if pending is None or receipt is None or (receipt.number, receipt.attempt) != pending.key[1:3]:
        return None
    return pending.local if receipt.accepted else _dropped(drawer.local, pending)


def _dropped(local: Mapping[str, Any], pending: Pending) -> Mapping[str, Any]:
    """A drawer without what was pending, but for what the channel remembers: nobody makes a site forget a signature."""
    return {**local, "channel": pending.local["channel"]} if "channel" in pending.local else local


def failure(error: BaseException, *, hidden: bool = False) -> Contribution:
    """What a site answers when it cannot contribute: the error's own words.

    Words of other code may hold data: where the hub is to see none, they stay here, and it is told what and where.
    """
    if hidden and not isinstance(error, ComityError):
        return Contribution("error", {"reason": f"{type(error).__name__} {_place(error)}."})
    try:
        said = str(error)
    except Exception:  # noqa: BLE001  even the words of an error are user code
        said = "(it cannot say what is wrong)"
    text = said if isinstance(error, ContributionError) else f"{type(error).__name__}: {said}"
    return Contribution("error", {"reason": text.encode(errors="replace").decode()[:MOST_SAID]})


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"in {frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else "at the site"


def fingerprint(question: Contribution | bytes) -> bytes:
    """The sha256 of a question as it travels."""
    return question if isinstance(question, bytes) else hashlib.sha256(encode(question)).digest()


def drawer_tree(drawer: Drawer) -> Tree:
    """A drawer as a Tree, to be kept on disk."""
    tree: dict[str, Any] = {"local": dict(drawer.local)}
    if p := drawer.pending:
        run, number, attempt, phase, me = p.key
        key = {"run": run, "number": number, "attempt": attempt, "phase": phase, "me": me}
        said = {"question": fingerprint(p.question), "reply": as_tree(p.reply), "local": dict(p.local)}
        tree["pending"] = {"key": key, **said}
    return tree


def tree_drawer(tree: Any) -> Drawer:
    """A drawer read back from its Tree."""
    if "pending" not in tree:
        return Drawer(tree["local"])
    p = tree["pending"]
    key = tuple(p["key"][k] for k in ("run", "number", "attempt", "phase", "me"))
    return Drawer(tree["local"], Pending(key, p["question"], from_tree(p["reply"]), p["local"]))


def _own(local: Mapping[str, Any], name: str) -> Any:
    """A part's drawer as it may change it: fresh dicts, and arrays that are read only."""
    return _fresh(local[name]) if name in local else {}


def _is_sealed(question: Contribution) -> bool:
    """Does the channel seal the answer?"""
    told: Any = question.value
    return question.kind == "question" and bool(told["views"])


def _idle(c: Contribution) -> Contribution:
    """Nothing, in the form of a contribution."""
    weight = tree_map(_zero, c.weight) if is_branch(c.weight) or np.ndim(c.weight) else 0.0  # type: ignore[arg-type]
    return replace(c, value=tree_map(_zero, c.value), weight=weight, metrics={})


def _zero(x: Any) -> Any:
    return x * 0


def _fresh(tree: Any) -> Any:
    return {k: _fresh(v) if is_branch(v) else v for k, v in tree.items()} if is_branch(tree) else tree


def _put(local: Mapping[str, Any], name: str, after: Any) -> Mapping[str, Any]:
    """The drawers with one changed; the same object when it was and stays empty."""
    empty = name not in local and not after and (type(after) is dict or isinstance(after, Mapping))
    return local if empty else {**local, name: owned(after)}
