"""A cohort that speaks with a hub of secure aggregation, a phase at a time, and a hub that may lie."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

import comity as co
from comity.core.contribution import Contribution
from comity.core.errors import ChannelError
from comity.core.parts import Until
from comity.core.round import Round
from comity.core.wire import decode, decode_tree, encode, encode_tree

ROOT = co.testing.fixed_secret(7)
SAID: dict[tuple[bytes, ...], tuple[bytes, bytes] | str] = {}


def names(n: int) -> list[str]:
    return [f"p{i:02d}" for i in range(n)]


def numbers(n: int, size: int = 5, seed: int = 0) -> list[Contribution]:
    """Contributions at the bounds of the ring."""
    rng, most = np.random.default_rng(seed), (2**31 - 1) // n
    values = rng.integers(-most, most, (n, size), endpoint=True)
    weights, losses = rng.integers(1, 1000, n), rng.normal(size=n)
    return [
        Contribution("delta", {"w": x}, float(w), {"loss": (float(y), float(w))}, name)
        for name, x, w, y in zip(names(n), values, weights, losses, strict=True)
    ]


def plain(cohort: list[Contribution]) -> tuple[list[int], float, tuple[float, float]]:
    """The fixed-point sum of these, by ordinary integers."""
    units = [[round(float(x) * 2**20) for x in (c.weight, *c.metrics["loss"])] for c in cohort]
    weight, loss, count = (sum(u) / 2**20 for u in zip(*units, strict=True))
    return np.sum([c.value["w"] for c in cohort], 0).tolist(), weight, (loss, count)


def same(got: Contribution, cohort: list[Contribution]) -> bool:
    return (got.value["w"].tolist(), got.weight, got.metrics["loss"]) == plain(cohort)


class Cohort:
    """Members with their memories, over bytes. What each said before to the same is not worked out again."""

    def __init__(
        self, channel, cohort, *, turn=(0, 0), hub="hub", memories=None, gone=None, spoil=None, lie=None, run="run"
    ):
        """Whoever drops out in a phase; what liars answer, and what a lying hub asks: `(kind, name, body) -> body`."""
        self.channel, self.cohort = channel, {c.sender: c for c in cohort}
        number, attempt = turn
        n = len(cohort)
        self.turn = Round(run, 0, number, attempt, hub, roster=n, asked=n, expected=float(n))
        self.memories = memories or {name: {} for name in self.cohort}
        self.gone, self.spoil, self.lie = gone or {}, spoil, lie
        self.silent: set[str] = set()
        self.heard: list[tuple[str, str, Contribution]] = []
        self.sealed: dict[str, Contribution] = {}
        self.refused: dict[str, str] = {}

    def ask(self, who, body: Callable[[str], Contribution], until):
        for name in who:
            message = body(name)
            message = self.lie(message.kind, name, message) if self.lie else message
            if self.dropped(message.kind, name):
                continue
            try:
                answer = self.answer(name, message)
            except ChannelError as error:
                self.refused[name] = str(error)
                continue
            if self.spoil:
                answer = self.spoil(message.kind, name, answer)
            self.heard.append((message.kind, name, answer))
            yield replace(answer, sender=name)

    def dropped(self, kind, name):
        self.silent |= set(self.gone.get(kind, ()))
        return name in self.silent

    def answer(self, name, message):
        side = ROOT.side(name)
        return self.kept(name, encode(message), lambda m, r: self.channel.answer(message, m, r, side))

    def kept(self, name, question, work):
        here = replace(self.turn, me=name)
        held = encode_tree(self.memories[name])
        key = (repr((self.channel, here)).encode(), question, held)
        if key not in SAID:
            try:
                answer, after = work(decode_tree(held), here)
                SAID[key] = encode(answer), encode_tree(after)
            except ChannelError as error:
                SAID[key] = error
        if isinstance(SAID[key], ChannelError):
            raise SAID[key]
        answer, after = SAID[key]
        self.memories[name] = decode_tree(after)
        return decode(answer)

    def after(self, other):
        """Goes on where another had shared."""
        self.session, self.memories = other.session, dict(other.memories)
        return self

    def told(self, name, kind, **value):
        """What a member answers when a lying hub asks; the refusal is raised."""
        return self.answer(name, Contribution(kind, value)).value

    def set_up(self):
        self.session = self.channel.setup(list(self.cohort), self.ask, self.turn)
        return self.session

    def seal(self, name, view=None, c=None):
        view, c = self.session.view(name) if view is None else view, c or self.cohort[name]
        question = encode_tree({"view": view}) + encode(c)
        made = self.kept(name, question, lambda m, r: self.channel.seal(c, view, m, r, ROOT.side(name)))
        return replace(made, sender=name)

    def seals(self):
        for name in self.cohort:
            if self.dropped("contribute", name):
                continue
            try:
                sealed = self.seal(name)
            except ChannelError as error:
                self.refused[name] = str(error)
                continue
            self.sealed[name] = self.spoil("contribute", name, sealed) if self.spoil else sealed
            yield self.sealed[name]

    def opened(self):
        return list(self.channel.open(self.seals(), self.session, self.ask, Until(1)))

    def through(self):
        if not hasattr(self, "session"):
            self.set_up()
        return self.opened()

    def survivors(self):
        return [self.cohort[name] for name in self.sealed]


def refused(walk: Cohort):
    """The error of a cohort that is not opened, or None; then what was opened is exact."""
    try:
        (got,) = walk.through()
    except ChannelError as error:
        return error
    assert same(got, walk.survivors())
    return None
