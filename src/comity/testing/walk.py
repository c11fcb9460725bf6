"""A channel driven as the loop drives it, over bytes, with members that fall silent or answer strangely."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from comity.core.contribution import Contribution
from comity.core.errors import ChannelError
from comity.core.parts import Channel, Until
from comity.core.round import Round
from comity.core.tree import frozen
from comity.core.wire import decode, decode_tree, encode, encode_tree
from comity.testing.common import bits, broken, said
from comity.testing.secret import fixed_secret

RESERVED = ("contribute", "score", "error")


class Walk:
    """One cohort of one round: set-up, sealing, opening, each question of the channel one step."""

    def __init__(
        self,
        channel: Channel,
        cohort: Sequence[Contribution],
        *,
        silent: Mapping[str, int | None] | None = None,
        strange: Mapping[str, tuple[int, Any]] | None = None,
        turn: tuple[int, int] = (0, 0),
    ) -> None:
        """Put a cohort together.

        Args:
            channel: what is driven.
            cohort: what each member seals.
            silent: member to the step from which it says nothing more; None for never.
            strange: member to a step and the value that it answers there.
            turn: number of the round and of the attempt.
        """
        self.channel, self.cohort = channel, list(cohort)
        self.silent, self.strange = silent or {}, strange or {}
        n = len(self.cohort)
        number, attempt = turn
        self.turn = Round("check", 0, number, attempt, roster=n, asked=n, expected=float(n))
        self.names = [c.sender for c in self.cohort]
        self.memories: dict[str, Any] = {name: {} for name in self.names}
        self.step = self.sealing = 0
        self.asked: list[Contribution] = []
        self.sealed: dict[str, Contribution] = {}

    def through(self) -> list[Contribution]:
        """Set up, seal and open.

        Returns:
            What was opened.
        """
        session = self.channel.setup(tuple(self.names), self.ask, self.turn)
        views = {}
        for name in self.names:
            held = said(self.channel, "view", lambda name=name: encode_tree(session.view(name)))  # type: ignore[misc]
            views[name] = decode_tree(held)
        self.sealing, self.step = self.step, self.step + 1
        sealed = self._sealed(views)
        opened = list(self.channel.open(sealed, session, self.ask, Until(1)))
        list(sealed)
        return opened

    def came(self) -> list[Contribution]:
        """What those contributed whose seals came, in that order."""
        return [c for c in self.cohort if c.sender in self.sealed]

    def ask(self, cohort: Sequence[str], body: Callable[[str], Contribution], until: Until) -> Iterator[Contribution]:
        """A question of the channel's own, as the loop puts it."""
        step, self.step = self.step, self.step + 1
        kinds = set()
        for name in cohort:
            if name not in self.memories:
                broken(self.channel, "cohort", f"Only the cohort may be asked. It asked '{name}'.")
            message: Any = said(self.channel, "phases", lambda name=name: decode(encode(body(name))))  # type: ignore[misc]
            kinds.add(message.kind)
            if len(kinds) > 1 or message.kind in RESERVED:
                broken(
                    self.channel, "phases", f"A question must be one phase, none of {RESERVED}. Got {sorted(kinds)}."
                )
            self.asked.append(message)
            if self._silent(name, step):
                continue
            try:
                answer = self.answered(name, message)
            except ChannelError:
                continue
            if self.strange.get(name, (None,))[0] == step:
                answer = replace(answer, value=self.strange[name][1])
            yield replace(answer, sender=name)

    def answered(self, name: str, message: Contribution) -> Contribution:
        """A member's answer to a phase, asked twice: the same bits, and nothing that it was given is changed."""
        held = encode_tree(self.memories[name])
        out = []
        for _ in range(2):
            memory = frozen(decode_tree(held))
            given = replace(message, value=frozen(message.value))
            with _Own(self.channel, "answer"):
                answer, after = self.channel.answer(given, memory, self._here(name), fixed_secret().side(name))
            out.append(self._stable("answer", (answer, after), (message, given), (held, memory)))
        return self._same("answer", name, out)

    def _sealed(self, views: Mapping[str, Any]) -> Iterator[Contribution]:
        for c in self.cohort:
            name = c.sender
            if self._silent(name, self.sealing):
                continue
            try:
                sealed = self._seal(c, views[name])
            except ChannelError:
                continue
            if self.strange.get(name, (None,))[0] == self.sealing:
                sealed = replace(sealed, value=self.strange[name][1])
            self.sealed[name] = sealed
            yield replace(sealed, sender=name)

    def _seal(self, c: Contribution, view: Any) -> Contribution:
        name, held = c.sender, encode_tree(self.memories[c.sender])
        out = []
        for _ in range(2):
            memory = frozen(decode_tree(held))
            given = replace(c, value=frozen(c.value), metrics=dict(c.metrics))
            with _Own(self.channel, "seal"):
                sealed, after = self.channel.seal(given, view, memory, self._here(name), fixed_secret().side(name))
            out.append(self._stable("seal", (sealed, after), (c, given), (held, memory)))
        return self._same("seal", name, out)

    def _stable(self, law: str, made: Any, given: Any, memory: Any) -> tuple[bytes, bytes]:
        """What was made, as bytes; refuses changes to what was given."""
        if bits(given[0]) != bits(given[1]) or encode_tree(memory[1]) != memory[0]:
            broken(self.channel, "inputs", f"`{law}` must change neither what it is given nor the memory.")
        answer = said(self.channel, "wire", lambda: encode(made[0]))
        return answer, said(self.channel, "memory", lambda: encode_tree(made[1]))

    def _same(self, law: str, name: str, out: list[tuple[bytes, bytes]]) -> Contribution:
        if out[0] != out[1]:
            broken(self.channel, "repeat", f"`{law}` must give the same bits when it is asked the same again.")
        self.memories[name] = decode_tree(out[0][1])
        made: Any = decode(out[0][0])
        if made.sender not in ("", name):
            broken(self.channel, "sender", f"A sender must be '' or '{name}'. Got '{made.sender}'.")
        if made.kind == "error":
            broken(self.channel, "phases", "An answer must not be of kind 'error'.")
        answer: Contribution = made
        return answer

    def _silent(self, name: str, step: int) -> bool:
        since = self.silent.get(name)
        return since is not None and step >= since

    def _here(self, name: str) -> Round:
        return replace(self.turn, me=name)


class _Own:
    """Lets a ChannelError through, by which a site refuses; any other error is that law's."""

    def __init__(self, channel: Channel, law: str) -> None:
        self.channel, self.law = channel, law

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, ChannelError):
            broken(self.channel, self.law, f"It must work or raise a ChannelError. Got {error!r}.")
