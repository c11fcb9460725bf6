"""The collaborations that are killed and lied to, the engine that loses, and what a folder holds afterwards."""

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

import comity as co
from comity.core.wire import decode_tree, encode_tree
from comity.ledger.store import Store
from comity.loop.site import Drawer, tree_drawer
from comity.methods.ditto import Ditto

RNG = np.random.default_rng(1)
NAMES = tuple(f"p{i}" for i in range(6))
DATA = {n: (RNG.normal(size=(12, 3)).astype("float32"), RNG.integers(0, 2, 12)) for n in NAMES}
MODEL = co.Linear(3, 2, rate=0.3, batch=4)
GRID = np.float32(2.0**18)
SECRET = bytes(range(32))


def halves(name: str) -> tuple[Any, Any]:
    """A member's examples: to learn from, and to be scored on."""
    x, y = DATA[name]
    return (x[:8], y[:8]), (x[8:], y[8:])


@dataclass(frozen=True)
class Exact:
    """Trains, and rounds its delta to a grid on which every later sum is exact; its drawer adds up what it meant."""

    data: Any = field(metadata={"data": True}, repr=False)
    valid: Any = field(default=None, metadata={"data": True}, repr=False)
    meant: ClassVar[dict[tuple[int, int, str], Any]] = {}

    def contribute(self, shared, local, round, secret):
        c, _ = co.Trainer(MODEL, self.data, valid=self.valid).contribute(shared, {}, round, secret)
        if shared.kind == "score":
            return c, {"wrong": 1}
        noise = secret.rng("noise", str(round.number))
        value = {k: on_grid(v + noise.normal(0, 1e-3, v.shape)) for k, v in c.value.items()}
        self.meant[round.number, round.attempt, round.me] = value
        return replace(c, value=value), {"meant": plus(local.get("meant", {}), value)}


def on_grid(x):
    return (np.round(x * GRID) / GRID).astype("float32")


def plus(total: Mapping[str, Any], value: Mapping[str, Any]) -> dict[str, Any]:
    """A sum in float64."""
    return {**total, **{k: total.get(k, 0.0) + np.asarray(v, float) for k, v in value.items()}}


@dataclass(frozen=True)
class TopK:
    """Sends the largest coordinates of each leaf and holds the others back until the next time.

    The site keeps what it held back and the sum of what it sent; the hub keeps for each member the sum of
    what it decoded. The two sums are the same when hub and site agree.
    """

    share: float = 0.3
    decodes: ClassVar[str] = "each"
    contracts: ClassVar[bool] = False

    def init(self):
        return {"seen": 0, "sum": {}}

    def encode(self, c, public, local, round, secret):
        held, sent, out = {}, {}, {}
        for name, value in c.value.items():
            x = (value + local["held"][name] if "held" in local else np.array(value)).ravel()
            at = np.sort(np.argsort(-np.abs(x), kind="stable")[: max(1, int(self.share * x.size))])
            out[name] = {"at": at, "x": x[at], "shape": np.array(value.shape)}
            sent[name] = dense(out[name])
            held[name] = x.reshape(value.shape) - sent[name]
        return replace(c, value=out), {"held": held, "sent": plus(local.get("sent", {}), sent)}

    def decode(self, c, state, round, secret):
        value = {name: dense(leaf) for name, leaf in c.value.items()}
        return replace(c, value=value), {"seen": state["seen"] + 1, "sum": plus(state["sum"], value)}


def dense(leaf):
    shape = tuple(leaf["shape"].tolist())
    x = np.zeros(int(np.prod(shape)), leaf["x"].dtype)
    x[leaf["at"]] = leaf["x"]
    return x.reshape(shape)


@dataclass(frozen=True)
class Adding:
    """The uniform mean, which also adds up all that was accepted."""

    needs: ClassVar[str] = "sum"
    denominator: ClassVar[str] = "answered"

    def init(self):
        return {"accepted": {}}

    def lift(self, c):
        return co.Mean(uniform=True).lift(c)

    def lower(self, gathered, state, round):
        combined, _ = co.Mean(uniform=True).lower(gathered, None, round)
        return combined, {"accepted": plus(state["accepted"], gathered.value)}


@dataclass(frozen=True)
class Faulty:
    """An engine that loses, repeats and delays by a rule of (round, attempt, member) only.

    Of every five questions one meets each of the `fates`: "reply" is lost, "question" is lost, "twice" is
    answered twice, "asked" is asked twice, "late" is answered when the next question is asked, "" is well.

    Attributes:
        fates: five words.
        ever: a late reply comes whenever something is asked next; else only to the same round and phase.
    """

    fates: tuple[str, ...]
    ever: bool = False
    choice: ClassVar[Mapping[str, Any]] = {"executor": "faulty"}

    def connect(self, roster, answer, *_):
        return _Faulty(self, roster, answer)

    def fate(self, round) -> str:
        return self.fates[(NAMES.index(round.me) + 2 * round.number + 3 * round.attempt) % 5]


class _Faulty:
    def __init__(self, rule, names, answer):
        self.rule, self.names, self.answer = rule, names, answer
        self.late: list[Any] = []

    def roster(self):
        return self.names

    def ask(self, cohort, message, until):
        first = True
        for name in cohort:
            question = message(name)
            if first:
                yield from self.due(question)
                first = False
            yield from self.reply(question)

    def due(self, question):
        came, self.late = self.late, []
        where = question.phase, question.round.number
        yield from (r for r in came if self.rule.ever or (r.phase, r.round.number) == where)

    def reply(self, question):
        fate = self.rule.fate(question.round)
        if fate == "question":
            return
        reply = self.answer(question)
        if fate == "asked":
            reply = self.answer(question)
        if fate == "late":
            self.late.append(reply)
        elif fate != "reply":
            yield reply
        if fate == "twice":
            yield reply


MIXED = ("reply", "question", "twice", "late", "asked")


def fedavg() -> co.Collaboration:
    sites = {n: co.Trainer(MODEL, halves(n)[0], valid=halves(n)[1]) for n in NAMES}
    return _of(co.FedAvg(MODEL, co.Adam(0.1)), sites, select=co.poisson(0.6), quorum=0.1)


def ditto() -> co.Collaboration:
    sites = {n: Ditto(MODEL, halves(n)[0], strength=0.1, valid=halves(n)[1]) for n in NAMES}
    return _of(co.FedAvg(MODEL), sites, select=co.sample(0.5))


def feedback() -> co.Collaboration:
    return lossy().replace(select=co.sample(0.7))


def lossy() -> co.Collaboration:
    sites = {n: Exact(*halves(n)) for n in NAMES}
    method = co.FedAvg(MODEL, co.Momentum(0.5, 0.9))
    return _of(method, sites, transforms=[TopK()], combine=Adding(), retries=9, quorum=0.5)


def _of(method: Any, sites: Any, **parts: Any) -> co.Collaboration:
    return co.Collaboration(method, sites, evaluate=co.every(2), seed=3, **parts)


WORKERS = (type(MODEL), co.Trainer, Ditto, Exact)
WORKS = {"fedavg": (fedavg, None), "ditto": (ditto, None), "feedback": (feedback, None)}
WORKS["lossy"] = (lossy, Faulty(MIXED))


def fresh(folder: Path) -> Path:
    """A folder for a run whose secret is known: folders draw theirs from the OS."""
    folder.mkdir(parents=True)
    (folder / "secret").write_bytes(SECRET)
    (folder / "secret").chmod(0o600)
    return folder


@dataclass(frozen=True)
class Kept:
    """What a folder holds.

    Attributes:
        entries: of the ledger.
        states: hub states by name, encoded.
        drawers: by participant, encoded.
        meta: of the last generation.
    """

    entries: tuple[Any, ...]
    states: Mapping[str, bytes]
    drawers: Mapping[str, bytes]
    meta: Any

    def bits(self) -> dict[str, str]:
        """The sha256 of every piece, but of no time."""
        facts = {f"entry {e.number}": encode_tree({"kind": e.kind, "facts": e.facts}) for e in self.entries}
        states = {f"state {name}": data for name, data in self.states.items()}
        drawers = {f"drawer {name}": data for name, data in self.drawers.items()}
        pieces = {**facts, **states, **drawers, "meta": encode_tree(self.meta)}
        return {name: hashlib.sha256(data).hexdigest()[:16] for name, data in pieces.items()}

    def hub(self) -> Any:
        """The last state of the only hub."""
        return decode_tree(self.states["last"])["hub"]

    def drawer(self, name: str) -> Mapping[str, Any]:
        """What a site has for good, by what the ledger says became of its last answer."""
        if name not in self.drawers:
            return {}
        drawer: Drawer = tree_drawer(decode_tree(self.drawers[name]))
        if drawer.pending and (name, *drawer.pending.key[1:3]) in self.accepted():
            return drawer.pending.local
        return drawer.local

    def accepted(self) -> list[tuple[str, int, int]]:
        """(member, round, attempt) of every contribution that counts."""
        rounds = [e.facts for e in self.entries if e.kind == "round" and e.facts["closed"]]
        return [
            (who, *turn)
            for f in rounds
            for who, turn, ok in zip(f["asked"].split("\n") if f["asked"] else [], turns(f), f["accepted"], strict=True)
            if ok
        ]


def turns(facts: Any) -> list[tuple[int, int]]:
    """The round and attempt that each of those asked was to answer: the last of them, who were late, an earlier one."""
    late = facts.get("late", {"round": np.zeros(0, int), "attempt": np.zeros(0, int)})
    now = len(facts["accepted"]) - len(late["round"])
    earlier = zip(late["round"].tolist(), late["attempt"].tolist(), strict=True)
    return [(facts["round"], facts["attempt"])] * now + list(earlier)


def kept(folder: Path) -> Kept | None:
    """What a folder holds now, read from a copy; None before the first save."""
    recipe = folder / "recipe.json"
    if not recipe.exists():
        return None
    with tempfile.TemporaryDirectory() as aside:
        copy = shutil.copytree(folder, Path(aside) / "copy")
        with Store.open(copy, recipe.read_text()) as store:
            g = store.load()
            drawers = {n: store.drawer(n) or b"" for n in store.drawer_names()}
    return None if g is None else Kept(tuple(g.entries), g.states, drawers, g.meta)


def disagreements(found: Kept) -> list[str]:
    """Where hub and sites differ about what was sent, what was accepted and what is held back, to the last bit."""
    entries, wrong = found.hub()["transforms"]["0"], []
    counted = [who for who, *_ in found.accepted()]
    left: dict[str, Any] = {}
    meant: dict[str, Any] = {}
    for name in NAMES:
        local, entry = found.drawer(name), entries.get(name, {"seen": 0, "sum": {}})
        mine = local.get("transforms.0", {"held": {}, "sent": {}})
        if entry["seen"] != counted.count(name):
            wrong.append(f"{name}: the hub decoded {entry['seen']}, the ledger counts {counted.count(name)}")
        if not same(entry["sum"], mine["sent"]):
            wrong.append(f"{name}: the hub decoded other values than it sent")
        left, meant = plus(left, mine["held"]), plus(meant, local.get("participant", {}).get("meant", {}))
    if not same(plus(left, found.hub()["combiner"]["accepted"]), meant):
        wrong.append("what was accepted and what is held back is not what was meant")
    return wrong


def one_moment(found: Kept | None, bits: Mapping[str, str], work: str) -> bool:
    """Is what a folder holds a moment of the run that left these bits, with hub and sites in agreement?"""
    if found is None:
        return True
    agree = work not in ("feedback", "lossy") or disagreements(found) == []
    return agree and all(bits[name] == b for name, b in found.bits().items() if name.startswith("entry"))


def same(a: Any, b: Any) -> bool:
    """The same Tree, bit for bit."""
    return encode_tree(a) == encode_tree(b)
