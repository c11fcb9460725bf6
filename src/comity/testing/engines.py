"""The laws of engines."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from comity.adapters.numpy import Linear
from comity.collaboration import Collaboration
from comity.combine.mean import Mean
from comity.core.contribution import Contribution, Tree
from comity.core.envelope import Envelope
from comity.core.errors import ConfigError
from comity.core.parts import Secret, Until
from comity.core.rng import keyed
from comity.core.round import Round
from comity.core.spec import Leaf, Spec
from comity.core.together import Part, Task
from comity.core.tree import leaves, tree_map
from comity.core.wire import as_tree, encode, encode_tree
from comity.engines.local import Population
from comity.ledger.keys import SideSecret
from comity.loop.fold import BLOCKS
from comity.loop.sites import Sites
from comity.methods.fedavg import FedAvg, Trainer
from comity.running import Names
from comity.testing.common import broken, said, summed

_NAMES = tuple(f"p{i:03}" for i in range(150))
_MODEL = Linear(inputs=3, classes=2, rate=0.3, batch=4)


def check_engine(engine: Any) -> None:
    """Hold an engine to its laws.

    Its `choice` is a Tree for the ledger. Connected, it has the roster in order: sized, indexable, with
    slices, and told who is in it. It asks each member of a cohort once, no matter in what order, and gives
    each answer as it was, by who sent it; nobody else's. One that answers with an error is passed on, an
    empty cohort is none, a stranger is a ConfigError. An interrupt passes through, a hub that stops
    listening breaks nothing, and it can be asked again. `total`, where it has one, gives each block of the fold once:
    its sum, and what became of each member. A small collaboration with members that fail and members that remember
    comes to the same as with `Local`: the same facts in the ledger, numbers to rtol 1e-4, atol 1e-5.

    Args:
        engine: what is given to `run(engine=...)`: it has `choice` and `connect(roster, answer)`.

    Raises:
        AssertionError: names the engine, the law and what was found.

    Example:
        >>> import comity as co
        >>> co.testing.check_engine(co.Local())
    """
    choice = said(engine, "choice", lambda: dict(engine.choice))
    said(engine, "choice", lambda: encode_tree(choice))
    for law in (_roster, _asks, _failure, _strangers, _interrupt, _stops_listening, _total, _learns):
        law(engine)


@contextmanager
def _connected(engine: Any, answer: Any) -> Iterator[Any]:
    """The engine over the usual names; closed at the end, where it can be."""
    connected = said(engine, "connect", lambda: engine.connect(Names(dict.fromkeys(_NAMES)), answer))
    try:
        yield connected
    finally:
        if close := getattr(connected, "close", None):
            said(engine, "close", close)


def _roster(engine: Any) -> None:
    with _connected(engine, _echo) as connected:
        roster = said(engine, "roster", connected.roster)
    must = "The roster must be the names that it was given, in order: sized, indexable, with slices and `in`."
    same = said(engine, "roster", lambda: [len(roster), [roster[i] for i in range(len(roster))], list(roster[2:9:3])])
    if same != [len(_NAMES), list(_NAMES), list(_NAMES[2:9:3])] or roster[-1] != _NAMES[-1]:
        broken(engine, "roster", must)
    if not all(name in roster for name in _NAMES) or "nobody" in roster:
        broken(engine, "roster", must)
    many = said(engine, "roster", lambda: engine.connect(Population(10**7, _nobody).names, _echo).roster())
    if (len(many), many[41], "9999999" in many) != (10**7, "0000041", True):
        broken(engine, "roster", "The roster of a Population must not be a list of its own.")


def _nobody(number: int) -> Any:
    raise AssertionError(number)


def _echo(asked: Envelope) -> Envelope:
    """Says who was asked what."""
    value = {"me": asked.round.me, "heard": asked.body.value, "x": np.array([len(asked.round.me)], "float32")}
    body = Contribution("said", value, 2.5, {"n": (1.0, 2.0)})
    return Envelope(asked.round, asked.phase, asked.round.me, asked.recipe, body)


class _Question:
    """The hub's side of a question: what each member is asked, and how often it was asked."""

    def __init__(self, number: int = 3) -> None:
        self.turn = Round("check", 0, number, roster=len(_NAMES), asked=len(_NAMES), expected=1.0)
        self.asked: list[str] = []

    def __call__(self, to: str) -> Envelope:
        self.asked.append(to)
        return self.envelope(to)

    def envelope(self, to: str) -> Envelope:
        body = Contribution("question", {"for": to, "w": np.arange(4, dtype="float32")})
        return Envelope(replace(self.turn, me=to), "contribute", "hub", "ab" * 32, body)


def _until(cohort: Sequence[str]) -> Until:
    return Until(max(1, len(cohort)), 60.0)


def _asks(engine: Any) -> None:
    with _connected(engine, _echo) as connected:
        for cohort in (_NAMES[:5], _NAMES, tuple(reversed(_NAMES[3:80])), ("p042",), ()):
            question = _Question()
            answers = said(engine, "ask", lambda q=question, c=cohort: list(connected.ask(c, q, _until(c))))  # type: ignore[misc]
            _heard(engine, cohort, question, answers)


def _heard(engine: Any, cohort: Sequence[str], question: _Question, answers: list[Envelope]) -> None:
    if sorted(question.asked) != sorted(cohort):
        broken(engine, "once", f"Each of {len(cohort)} must be asked once. Got {len(question.asked)} questions.")
    senders = [a.sender for a in answers]
    if sorted(senders) != sorted(cohort):
        extra = sorted({s for s in senders if senders.count(s) > 1 or s not in cohort})
        lost = sorted(set(cohort) - set(senders))
        broken(engine, "answers", f"Each must answer once, by name. Lost: {lost[:3]}; twice or unasked: {extra[:3]}.")
    for a in answers:
        if encode(a) != encode(_echo(question.envelope(a.sender))):
            broken(engine, "answers", f"The answer of '{a.sender}' must come as it was sent, to what it was asked.")


def _failing(asked: Envelope) -> Envelope:
    answer = _echo(asked)
    return replace(answer, body=Contribution("error", {"reason": "away"})) if asked.round.me == "p002" else answer


def _failure(engine: Any) -> None:
    with _connected(engine, _failing) as connected:
        answers = said(engine, "failure", lambda: list(connected.ask(_NAMES[:4], _Question(), _until("abcd"))))
    kinds = {a.sender: a.body.kind for a in answers}
    if kinds != {"p000": "said", "p001": "said", "p002": "error", "p003": "said"}:
        broken(
            engine, "failure", f"A member that answers with an error must be passed on like the others. Got {kinds}."
        )


def _strangers(engine: Any) -> None:
    try:
        with _connected(engine, _echo) as connected:
            answers = list(connected.ask(("p001", "nobody"), _Question(), _until("ab")))
    except ConfigError:
        return
    except Exception as error:  # noqa: BLE001  that is the law
        broken(engine, "strangers", f"Who is not in the roster must be a ConfigError. Got {error!r}.")
    broken(engine, "strangers", f"Who is not in the roster must be a ConfigError. Got {len(answers)} answers.")


def _interrupted(asked: Envelope) -> Envelope:
    if asked.round.me == "p001":
        raise KeyboardInterrupt
    return _echo(asked)


def _interrupt(engine: Any) -> None:
    with _connected(engine, _interrupted) as connected:
        try:
            list(connected.ask(_NAMES[:4], _Question(), _until("abcd")))
        except KeyboardInterrupt:
            pass
        except Exception as error:  # noqa: BLE001  that is the law
            broken(engine, "interrupt", f"A KeyboardInterrupt must pass through. Got {error!r}.")
        else:
            broken(engine, "interrupt", "A KeyboardInterrupt must pass through. It was swallowed.")
        again = said(engine, "interrupt", lambda: list(connected.ask(_NAMES[2:4], _Question(), _until("ab"))))
    if len(again) != 2:
        broken(engine, "interrupt", "After an interrupt it must be possible to ask again.")


def _stops_listening(engine: Any) -> None:
    with _connected(engine, _echo) as connected:
        answers = iter(connected.ask(_NAMES[:9], _Question(), _until(_NAMES[:9])))
        said(engine, "listen", lambda: next(answers))
        if close := getattr(answers, "close", None):
            said(engine, "listen", close)
        question = _Question(4)
        again = said(engine, "listen", lambda: list(connected.ask(_NAMES[:9], question, _until(_NAMES))))
        _heard(engine, _NAMES[:9], question, again)


def _delta(who: str) -> Contribution:
    rng = keyed("total", who)
    return Contribution("delta", {"w": rng.normal(size=5).astype("float32")}, float(rng.integers(1, 9)))


@dataclass(frozen=True)
class _Summand:
    """Gives the same whatever is asked."""

    name: str

    def contribute(self, shared: Contribution, local: Any, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        if self.name == _AWAY:
            raise RuntimeError("away")
        return _delta(self.name), local


_AWAY = "p007"


def _total(engine: Any) -> None:
    people = {name: _Summand(name) for name in _NAMES}
    door = Sites(people.__getitem__, _collaboration().parts, SideSecret(bytes(32)).side, _nothing)
    cohort = tuple(reversed(_NAMES))
    body = {
        "shared": as_tree(Contribution("model", {"w": np.zeros(5, "float32")})),
        "public": {},
        "views": {"hub": None},
    }
    question = Envelope(_Question().turn, "contribute", "hub", "ab" * 32, Contribution("question", body))
    task = Task(question, cohort, 0, {}, Spec({"w": Leaf((5,), "float32")}, kind="delta"))
    with _connected(engine, door) as connected:
        if (total := getattr(connected, "total", None)) is None:
            return
        parts = said(engine, "total", lambda: list(total(cohort, task, _until(cohort))))
    blocks = [n for p in parts for n in range(p.first, p.last + 1)]
    size = math.ceil(len(cohort) / BLOCKS)
    if sorted(blocks) != list(range(math.ceil(len(cohort) / size))) or any(p.first and p.first < p.last for p in parts):
        broken(engine, "total", f"It must give each of {math.ceil(len(cohort) / size)} blocks once. Got {blocks}.")
    for p in parts:
        _part(engine, p, cohort[p.first * size : (p.last + 1) * size])


def _part(engine: Any, part: Part, members: Sequence[str]) -> None:
    """Is this what becomes of these members?"""
    there = [w for w in members if w != _AWAY]
    want, got = summed([Mean().lift(_delta(w)) for w in there]), part.sum
    if got is None or not _close({"v": got.value, "w": got.weight}, {"v": want.value, "w": want.weight}):
        broken(engine, "total", f"Blocks {part.first} to {part.last} must be the sum of their members.")
    if part.accepted != [w != _AWAY for w in members] or len(part.up) != len(members) or not all(part.up):
        broken(engine, "total", f"Blocks {part.first} to {part.last} must say of each member whether it counts.")
    if [w for w, _ in part.dropped] != [w for w in members if w == _AWAY] or part.refused:
        broken(engine, "total", "Who fails must be dropped, and nobody else.")


def _nothing(name: str) -> None:
    return None


@dataclass(frozen=True)
class _Member:
    """Trains, counts in its drawer how often, and is away in some rounds."""

    data: Any = field(metadata={"data": True}, repr=False)
    away: tuple[int, ...] = ()

    def contribute(self, shared: Contribution, local: Any, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        if shared.kind != "score" and round.number in self.away:
            raise RuntimeError("away")
        c, _ = Trainer(_MODEL, self.data).contribute(shared, {}, round, secret)
        times = local.get("times", 0) + 1
        slower = np.float32(1 / times)
        return replace(c, value=tree_map(lambda x: x * slower, c.value)), {"times": times}


def _collaboration() -> Collaboration:
    rng = keyed(0, "members")
    data = [(rng.normal(size=(7, 3)).astype("float32"), rng.integers(0, 2, 7)) for _ in range(5)]
    members = {f"m{i}": _Member(d, (1,) if i == 2 else ()) for i, d in enumerate(data)}
    return Collaboration(FedAvg(_MODEL), members, seed=0)


def _learns(engine: Any) -> None:
    want = _collaboration().run(rounds=3)
    got = said(engine, "learn", lambda: _collaboration().run(rounds=3, engine=engine))
    if not _close(got.state, want.state) or not _close(got.metrics, want.metrics):
        broken(engine, "learn", "A collaboration must come to the same state and scores as with co.Local().")
    for name in ("dropped", "refused", "bytes_up", "bytes_down"):
        here, there = getattr(got.ledger, name), getattr(want.ledger, name)
        if here != there:
            broken(engine, "learn", f"The ledger must say the same as with co.Local(): {name} is {here}, not {there}.")
    if [got.local(m) for m in ("m0", "m2")] != [want.local(m) for m in ("m0", "m2")]:
        broken(engine, "learn", "What members keep must be the same as with co.Local().")


def _close(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    x, y = list(leaves(a)), list(leaves(b))
    return [p for p, _ in x] == [p for p, _ in y] and all(
        np.shape(v) == np.shape(w) and np.allclose(v, w, rtol=1e-4, atol=1e-5)
        for (_, v), (_, w) in zip(x, y, strict=True)
    )
