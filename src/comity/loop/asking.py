"""Ask a cohort through the engine: count the bytes, keep the receipts, admit each answer once."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import compress
from typing import Any

from comity.core.contribution import Contribution
from comity.core.envelope import Envelope, Receipt
from comity.core.errors import ConfigError, WireError
from comity.core.parts import Ask, Engine, Until
from comity.core.round import Round
from comity.core.rules import Parts
from comity.core.spec import Spec
from comity.core.together import Part, Task
from comity.core.wire import from_tree, size
from comity.loop.hub import Heard


class Asking:
    """The hub's side of every question, whatever it is about."""

    def __init__(self, parts: Parts, engine: Engine, recipe: str) -> None:
        """Args: parts, engine and the recipe's sha256, hex."""
        self.parts, self.engine, self.recipe = parts, engine, recipe
        self.receipts: dict[str, Receipt] = {}

    def until(self, cohort: Sequence[str], heard: Heard | None = None) -> Until:
        """How long to wait for a cohort; and for whom else, where those who are late still count."""
        late = heard is not None and heard.owed is not None
        size = heard.size if heard is not None and late else len(cohort)
        return Until(max(1, self.parts.needed(size)), self.parts.deadline, owed=heard.owed if heard else None)

    def ask(
        self, round: Round, cohort: Sequence[str], heard: Heard, phase: str, body: Callable[[str], Contribution]
    ) -> Iterator[Envelope]:
        """Ask each member once and yield the answers as they come, counting the bytes both ways.

        An answer that cannot be laid out as bytes is refused, as no other engine would have brought it.
        """
        measure = _Measure()

        def message(to: str) -> Envelope:
            out = Envelope(round.to(to), phase, round.hub, self.recipe, body(to), self.receipts.get(to))
            heard.down[to] = heard.down.get(to, 0) + measure(out)
            return out

        for answer in self.engine.ask(cohort, message, self.until(cohort, heard)):
            try:
                n = size(answer)
            except ConfigError as error:
                heard.refused.append((answer.sender, f"{answer.sender}: {error}"))
                continue
            heard.up[answer.sender] = heard.up.get(answer.sender, 0) + n
            yield answer

    def phases(self, round: Round, heard: Heard) -> Ask:
        """How a channel asks its own questions in this round."""

        def ask(cohort: Sequence[str], body: Callable[[str], Contribution], until: Until) -> Iterator[Contribution]:
            kind = body(cohort[0]).kind if cohort else ""
            for answer in self.ask(round, cohort, heard, kind, body):
                if answer.sender not in heard.asked_set:
                    continue
                if answer.body.kind != "error":
                    yield replace(answer.body, sender=answer.sender)
                elif all(answer.sender != gone for gone, _ in heard.dropped):
                    heard.dropped.append((answer.sender, reason(answer.body)))

        return ask

    def sealed(self, answers: Iterable[Envelope], heard: Heard, phase: str) -> Iterator[Contribution]:
        """The sealed contributions among the answers to a question, by their authenticated senders."""
        for answer in answers:
            if not self.admitted(answer, heard, phase):
                continue
            try:
                c = from_tree(answer.body.value[heard.hub], answer.sender)  # type: ignore[index, call-overload]
            except (TypeError, KeyError, IndexError, ValueError, WireError):
                heard.refused.append((answer.sender, f"{answer.sender} sent no contribution for hub '{heard.hub}'."))
                heard.unread.add(answer.sender)
                continue
            if c.sender != answer.sender:
                heard.unread.add(answer.sender)
                heard.refused.append((answer.sender, f"{answer.sender} claims to be '{c.sender}'."))
                continue
            yield c

    def in_sums(self, session: Any, heard: Heard) -> None:
        """Who is in a sum: all who answered something that could be read, but those whom the channel left out."""
        left = {who: why for who, why in getattr(session, "left_out", {}).items() if who in heard.answered}
        heard.refused += [(who, f"{who}: {why}") for who, why in left.items()]
        heard.accepted = heard.answered - left.keys() - heard.unread

    @property
    def total(self) -> Any:
        """How the engine asks a whole cohort and adds near the work; None where it cannot."""
        return getattr(self.engine, "total", None)

    def added(self, round: Round, heard: Heard, body: Contribution, spec: Spec) -> Iterator[Part]:
        """Ask a whole cohort, whose contributions are added near the work, and note what became known of each."""
        names = list(heard.asked)
        question = Envelope(round, "contribute", round.hub, self.recipe, body)
        heard.down = dict(zip(names, self._told(question, names), strict=True))
        for part in self.total(names, Task(question, names, 0, self.receipts, spec), self.until(names)):
            members = names[part.start : part.start + len(part.up)]
            heard.up.update((who, n) for who, n in zip(members, part.up, strict=True) if n)
            heard.accepted.update(compress(members, part.accepted))
            heard.refused += part.refused
            heard.dropped += part.dropped
            yield part
        gone = {who for who, _ in heard.dropped}
        heard.answered.update(who for who in heard.up if who not in gone)

    def _told(self, question: Envelope, names: Sequence[str]) -> Iterator[int]:
        """The bytes of a question to each of these, all of whom are told the same."""
        sizes: dict[tuple[int, int, int], int] = {}
        for name in names:
            receipt = self.receipts.get(name)
            key = (_letters(name), *((0, 0) if receipt is None else (_width(receipt.number), _width(receipt.attempt))))
            if (n := sizes.get(key)) is None:
                n = sizes[key] = size(replace(question, round=question.round.to(name), receipt=receipt))
            yield n

    def admitted(self, answer: Envelope, heard: Heard, phase: str) -> bool:
        """Is this the first answer of a member to this question? `heard` says why it is not."""
        who, body = answer.sender, answer.body
        wrong = None
        if who not in heard.asked_set:
            wrong = "was not asked in this round"
        elif (answer.round.me, answer.phase, answer.recipe) != (who, phase, self.recipe):
            wrong = f"answered as '{answer.round.me}' to '{answer.phase}' of recipe {answer.recipe[:8]}"
        elif who in heard.answered or any(who == gone for gone, _ in heard.dropped):
            wrong = "answered twice"
        elif body.sender not in ("", who):
            wrong = f"claims to be '{body.sender}'"
        elif heard.turn and (answer.round.number, answer.round.attempt) != heard.turn_of(who):
            wrong = f"answered for round {answer.round.number + 1}, attempt {answer.round.attempt + 1}"
        if wrong:
            heard.refused.append((who, f"{who} {wrong}."))
            return False
        if body.kind == "error":
            heard.dropped.append((who, reason(body)))
            return False
        heard.answered.add(who)
        return True

    def settle(self, turn: Round, heard: Mapping[str, Heard], closed: bool) -> None:
        """Keep for each member the last answer that counts: every later question says which, as any may be lost.

        A site that holds another answer, newer ones included, drops it.
        """
        if closed:
            receipt = Receipt(turn.number, turn.attempt, True)
            for h in heard.values():
                self.receipts.update(dict.fromkeys(h.accepted, receipt))
                late = {who: o.round for who, o in (h.owed or {}).items() if who in h.accepted}
                self.receipts.update((who, Receipt(r.number, r.attempt, True)) for who, r in late.items())


def reason(error: Contribution) -> str:
    """What a site says that went wrong."""
    return str(error.value.get("reason") if isinstance(error.value, Mapping) else error.value)


class _Measure:
    """The size of each question: measured once for all who are told the same under names and receipts of one length."""

    def __init__(self) -> None:
        self._known: tuple[Contribution | None, dict[tuple[int, Any], int]] = (None, {})

    def __call__(self, out: Envelope) -> int:
        body, sizes = self._known
        if body is not out.body:
            sizes = {}
            self._known = (out.body, sizes)
        r = out.receipt
        key = (_letters(out.round.me), None if r is None else (_width(r.number), _width(r.attempt)))
        if key not in sizes:
            sizes[key] = size(out)
        return sizes[key]


def _letters(name: str) -> int:
    """The bytes of a name."""
    return len(name) if name.isascii() else len(name.encode())


def _width(n: int) -> int:
    """Whole numbers of one width take as many bytes on the wire."""
    return 7 if n < 128 else 8 if n < 256 else 16 if n < 65536 else 32 if n < 2**32 else 64
