"""What would leave a site, read from its own copy of the code: before anything is agreed to."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeAlias

import numpy as np

from comity.charging import Charging
from comity.core.recipe import describe, differences, recipe
from comity.core.round import Round
from comity.core.spec import Leaf
from comity.core.tree import leaves
from comity.loop.select import Every
from comity.privacy.accounting import spent
from comity.service.offers import Offer

Line: TypeAlias = tuple[str, str]
"""A word in the margin, and what it stands for."""
SHOWN, LONGEST = 12, 160
"""Lines of differences, and characters of a setting, at most."""
_SEES = {
    "each": "the hub sees the contribution of each party",
    "groups": "the hub sees sums over groups of parties, and no party's own",
    "sum": "the hub sees the sum over all parties, and no party's own",
}


@dataclass(frozen=True)
class Inspected:
    """A run as a party's own copy describes it.

    Attributes:
        lines: what is to be read.
        hash: the sha256 (hex) to approve.
        differences: between the own copy and what the hub offers; () where they are the same.
    """

    lines: tuple[Line, ...]
    hash: str
    differences: tuple[str, ...] = ()


def inspected(
    offer: Offer, fed: Any, participant: Any, *, name: str, rounds: int = 0, delta: float = 1e-5
) -> Inspected:
    """What a run would ask of a party, by the party's own copy.

    Args:
        offer: of the hub.
        fed: the own copy of the collaboration; None shows what the hub says, unchecked.
        participant: the own one, with its data; None where it is not made yet.
        name: of the party.
        rounds: as planned; 0 where nobody said.
        delta: at which epsilon is computed.
    """
    if fed is None:
        told = [("recipe", f"sha256:{offer.recipe.get('hash')!s:.64}, as the hub says; no copy was compared")]
        return Inspected((*_run(offer), *told, *_unread(offer)), str(offer.recipe.get("hash", "")))
    ours = recipe(fed.replace(participants={}))
    wrong = tuple(differences(ours, dict(offer.recipe)))
    if not wrong and offer.recipe.get("hash") != ours["hash"]:
        wrong = (f"hash: {ours['hash']} → {offer.recipe.get('hash')!s:.64}",)
    said = "the same as this copy" if not wrong else "ANOTHER than this copy (ours → theirs):"
    lines = [*_run(offer), ("recipe", f"sha256:{ours['hash']}"), ("", said), *(("", line) for line in wrong[:SHOWN])]
    me = fed.replace(participants={} if participant is None else {name: participant})
    lines += [*_data(participant), *_leaves(me, name), *_protected(me), *_scored(me, name)]
    lines += [*_privacy(me, participant, name, rounds, delta), *_cohort(me, offer)]
    return Inspected(tuple(lines), ours["hash"], wrong)


def _run(offer: Offer) -> Iterator[Line]:
    yield "run", f"{offer.run}   {offer.title}".rstrip()
    for key, value in sorted(offer.about.items()):
        yield "", f"{key}: {value!s:.{LONGEST}}"


def _unread(offer: Offer) -> Iterator[Line]:
    parts: Any = offer.recipe.get("parts")
    for n, (key, value) in enumerate(sorted(parts.items()) if isinstance(parts, Mapping) else ()):
        yield "parts" if not n else "", f"{key}: {value!s:.{LONGEST}}"


def _data(participant: Any) -> Iterator[Line]:
    if participant is None:
        yield "data", "not looked at: name a study and --data to see what is read of them"
        return
    kind = type(participant)
    yield "data", f"read by {kind.__module__}.{kind.__qualname__}; they stay here"
    for f in fields(participant) if is_dataclass(participant) else ():
        if f.metadata.get("data") and (found := getattr(participant, f.name)) is not None:
            yield "", f"{f.name}: {_sized(found)}"


def _sized(x: Any) -> str:
    """Data in a few words, none of them a value."""
    if isinstance(x, tuple | list) and len(x) == 2 and all(hasattr(part, "__len__") for part in x):
        return f"{len(x[0]):,} examples, inputs of shape {tuple(np.shape(x[0]))[1:]}"
    return f"a {type(x).__name__}" + (f" of {len(x):,}" if hasattr(x, "__len__") else "")


def _leaves(fed: Any, name: str) -> Iterator[Line]:
    turn = Round("", fed.seed, hub="hub", me=name)
    spec = fed.method.expect(fed.method.init(Round("", fed.seed)), name, turn)
    found = [leaf for _, leaf in leaves(spec.value)]
    shapes = [x.shape for x in found if isinstance(x, Leaf) and x.shape is not None]
    sizes = [math.prod(n for n in shape if n is not None) for shape in shapes if None not in shape]
    what = f"{sum(sizes):,} numbers" if len(sizes) == len(found) and sizes else "of any form"
    yield "leaves", f"{spec.kind or 'anything'} of {_short(fed.method)}: {what}, each round"
    metrics = "any" if spec.metrics is None else ", ".join(sorted(spec.metrics)) or "none"
    yield "", f"metrics beside it: {metrics}"


def _protected(fed: Any) -> Iterator[Line]:
    parts = fed.parts
    yield "protected", f"{_SEES[parts.channel.reveals]} ({_short(parts.channel)})"
    for one in parts.transforms:
        yield "", f"{_short(one)}, before it leaves" + (", noise added at the hub" if _central(one) else "")
    yield "", f"combined by {_short(parts.combiner)}"


def _central(one: Any) -> bool:
    return bool(getattr(one, "central", False) and hasattr(one, "spend"))


def _scored(fed: Any, name: str) -> Iterator[Line]:
    charging = Charging(fed.parts, fed.participants)
    if fed.evaluate is False or charging.spends:
        yield "scores", "none are asked for"
        return
    when = f"after every {fed.evaluate.rounds} rounds" if _every(fed.evaluate) else "at the end"
    hidden = "" if fed.parts.channel.reveals == "each" else ", as sums over parties"
    yield "scores", f"{when}{hidden}, on what the participant keeps aside"


def _every(when: Any) -> bool:
    return isinstance(when, Every) and bool(getattr(when, "rounds", 0))


def _privacy(fed: Any, participant: Any, name: str, rounds: int, delta: float) -> Iterator[Line]:
    charging = Charging(fed.parts, fed.participants)
    facts = charging.of(Round("", fed.seed, me=name), [name] if participant is not None else [])
    if not facts:
        yield "privacy", "no noise is added: nothing bounds what the model tells of the data"
        return
    yield "privacy", f"a round: {_sentences(facts, 1, delta)[0]}"
    for more in _sentences(facts, 1, delta)[1:]:
        yield "", f"         {more}"
    for n, said in enumerate(_sentences(facts, rounds, delta) if rounds else ()):
        yield "", f"{rounds} rounds: {said}" if not n else f"         {said}"


def _sentences(facts: Sequence[Mapping[str, Any]], rounds: int, delta: float) -> list[str]:
    many = [{**one, "count": int(one["count"]) * rounds} for one in facts]
    return [str(found) for found in spent(many, delta)]


def _cohort(fed: Any, offer: Offer) -> Iterator[Line]:
    least = getattr(fed.parts.channel, "minimum", None)
    wants = f"; the channel wants {least}" if isinstance(least, int) else ""
    yield "cohort", f"begins when {offer.minimum} have agreed; {_short(fed.parts.select)}{wants}"
    yield "", f"a round counts with {fed.parts.quorum:.0%} of those asked"


def _short(part: Any) -> str:
    """A part by its class and the settings that are plain."""
    told = describe(part)
    kind = str(told.get("class") or told.get("function") or type(part).__name__) if isinstance(told, Mapping) else "?"
    plain = {
        k: v for k, v in told.items() if isinstance(v, bool | int | float | str) and k not in ("class", "function")
    }
    settings = ", ".join(f"{k}={v}" for k, v in plain.items())
    return f"{kind.rpartition('.')[2]}({settings})"[:LONGEST] if settings else kind.rpartition(".")[2]
