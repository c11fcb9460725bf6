"""The laws of channels."""

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from comity.core.contribution import RANK, Contribution
from comity.core.errors import ChannelError, ConfigError
from comity.core.parts import Channel
from comity.core.rng import keyed
from comity.core.tree import leaves, tree_map
from comity.core.wire import encode_tree
from comity.testing.common import LawBroken, alike, bits, broken, said, usual_cohort
from comity.testing.walk import Walk

_MOST = 6
_UNIT = 1009.0
_STRANGE = (None, "text", {"odd": 1}, np.zeros(3), b"\x00\x01")


def check_channel(channel: Channel, example: Sequence[Contribution] | None = None, *, least: int | None = None) -> None:
    """Hold a channel to its laws, with every set of members that drop out at every step.

    It is driven as the loop does, over bytes: `setup` with its phases, `seal`, `open` with its phases. Laws:
    `setup` and `open` ask only the cohort, by one phase at a time; every member has a view; views, memories
    and answers are Trees that survive the wire; `answer` and `seal` change nothing that they were given and
    give the same bits when asked again. What is opened is what was sealed: each as it was and by its sender
    ("each"), their sum ("sum"), or sums of groups of two and more with no member in two ("groups"). A channel
    that does not reveal each seals nothing that can be read, anew in each round and attempt. Below its
    threshold it refuses; strange phases and answers are a ChannelError or are left out.

    A channel may say three things of itself: `threshold`, the share of the cohort that must answer; `ring`,
    that it adds integers exactly; `tolerance`, the largest error of a number that it opens (0 by default:
    "each" and a ring are exact to the bit, sums of floats but for rounding).

    Args:
        channel: what to check.
        example: three to six lifted contributions of different senders; by default four, float32, or int64
            for a ring. Weights and metrics become numbers that are found again: weights are told apart
            in any sum.
        least: how many must answer for it to open; by default the threshold's share, else 1, or 2 where it
            does not reveal each: a sum of one is that one.

    Raises:
        AssertionError: names the channel, the law and what was found.
        ConfigError: an example of another size.

    Example:
        >>> import comity as co
        >>> co.testing.check_channel(co.Plain())
    """
    if channel.reveals not in RANK:
        broken(channel, "reveals", f"`reveals` must be one of {', '.join(RANK)}. Got {channel.reveals!r}.")
    cohort = _cohort(channel, example)
    if least is None:
        usual = 1 if channel.reveals == "each" else 2
        least = max(usual, math.ceil(getattr(channel, "threshold", 0.0) * len(cohort)))
    _complete(channel, cohort)
    _drop_outs(channel, cohort, least)
    for law in (_hidden, _phases, _strange, _transparent):
        law(channel, cohort)


def _cohort(channel: Channel, example: Sequence[Contribution] | None) -> list[Contribution]:
    cohort = list(example) if example is not None else usual_cohort(None)[:4]
    if not 3 <= len(cohort) <= _MOST or len({c.sender for c in cohort}) < len(cohort):
        raise ConfigError(f"An example must hold three to {_MOST} contributions of different senders.")
    if example is None and getattr(channel, "ring", False):
        rng = keyed(0, "ring")
        cohort = [replace(c, value=tree_map(lambda x: rng.integers(-999, 999, np.shape(x)), c.value)) for c in cohort]
    counted = [replace(c, metrics={k: _pair(i) for k in c.metrics}) for i, c in enumerate(cohort)]
    if all(isinstance(c.weight, float | int) for c in cohort):
        return [replace(c, weight=_UNIT * 2**i) for i, c in enumerate(counted)]
    if channel.reveals == "groups":
        raise ConfigError("The weights of an example must be numbers: groups are told apart by them.")
    return counted


def _pair(i: int) -> tuple[float, float]:
    """Numbers that nothing else has, exact in binary."""
    return 1013.5 + 1001 * i, 2017.0 + 1003 * i


def _complete(channel: Channel, cohort: list[Contribution]) -> None:
    """Nobody drops out: everything is opened."""
    walk = Walk(channel, cohort)
    opened = said(channel, "open", walk.through)
    if len(walk.sealed) < len(cohort):
        broken(channel, "seal", f"Every member must seal. Got {', '.join(walk.sealed) or 'none'}.")
    _right(channel, walk.came(), opened)
    if channel.reveals == "groups" and round(sum(map(_number, opened))) != sum(map(_number, cohort)):
        broken(channel, "groups", "Where nobody drops out every member must be in a group.")


def _drop_outs(channel: Channel, cohort: list[Contribution], least: int) -> None:
    """Every set of survivors; the others fall silent early, or once they have sealed."""
    for silent in _silences(channel, cohort):
        walk = Walk(channel, cohort, silent=silent)
        stay = {name for name, since in silent.items() if since is None}
        opened = _opened(channel, walk, "drop-outs", f"silent from step {silent}")
        grouped = channel.reveals == "groups"  # who is left of a group may be too few where the cohort is not
        if len(stay) >= (max(least, len(cohort) - 1) if grouped else least):
            if opened is None:
                broken(channel, "drop-outs", f"{len(stay)} of {len(cohort)} must be enough. It refused {silent}.")
            if not grouped and not stay <= set(walk.sealed):
                broken(channel, "drop-outs", f"Who does not drop out must seal. Got {sorted(walk.sealed)}, {silent}.")
        if opened is None:
            continue
        if len(walk.sealed) < least and opened:
            broken(channel, "threshold", f"Below {least} answers it must raise a ChannelError. It opened {silent}.")
        _right(channel, walk.came(), opened)


def _silences(channel: Channel, cohort: list[Contribution]) -> Iterator[dict[str, int | None]]:
    """Who falls silent, and when: at each step until sealing, or after it where the channel then still asks."""
    names = [c.sender for c in cohort]
    probe = Walk(channel, cohort)
    said(channel, "open", probe.through)
    one_less = Walk(channel, cohort, silent={names[0]: probe.sealing})
    _opened(channel, one_less, "drop-outs", f"without {names[0]}")
    asks = max(probe.step, one_less.step) > probe.sealing + 1
    for early in range(probe.sealing + 1):
        late = (probe.sealing + 1,) if asks else ()
        for since in product((None, early, *late), repeat=len(names)):
            if early in since or (early == 0 and any(s is not None for s in since)):
                yield dict(zip(names, since, strict=True))


def _opened(channel: Channel, walk: Walk, law: str, case: str) -> list[Contribution] | None:
    """What was opened, or None where it was refused as it should be."""
    try:
        return walk.through()
    except ChannelError:
        return None
    except LawBroken:
        raise
    except Exception as error:  # noqa: BLE001  that is the law
        broken(channel, law, f"It must open or raise a ChannelError. Got {error!r}, {case}.")


def _right(channel: Channel, sealed: list[Contribution], opened: list[Contribution]) -> None:
    """Is what was opened what was sealed, and no more than the channel says that it reveals?"""
    if channel.reveals == "each":
        if [c.sender for c in opened] != [c.sender for c in sealed]:
            broken(
                channel, "each", f"Each must be opened once, by sender, as it came. Got {[c.sender for c in opened]}."
            )
        for got, want in zip(opened, sealed, strict=True):
            _same(channel, "each", got, [want])
        return
    if any(c.sender for c in opened):
        broken(channel, "reveals", "A sum must have no sender.")
    if channel.reveals == "sum" and sealed:
        if len(opened) != 1:
            broken(channel, "reveals", f"It says 'sum', and must open one item. Got {len(opened)}.")
        _same(channel, "sum", opened[0], sealed)
    elif channel.reveals == "groups":
        _groups(channel, sealed, opened)


def _groups(channel: Channel, sealed: list[Contribution], opened: list[Contribution]) -> None:
    free = {_number(c): c for c in sealed}
    for c in opened:
        if not math.isfinite(_number(c)):
            broken(channel, "groups", "The weight of a sum of numbers must be a number.")
        total = round(_number(c))
        members = [w for w in free if total & round(w)]
        if len(members) < 2:
            broken(channel, "reveals", f"It says 'groups', and must open sums of two or more. Got {len(members)}.")
        if sum(members) != total:
            broken(channel, "groups", "A member must be in one group only, and only who sealed.")
        _same(channel, "groups", c, [free.pop(w) for w in members])


def _same(channel: Channel, law: str, got: Contribution, want: list[Contribution]) -> None:
    """Is this the sum of those, within what the channel says of its exactness?"""
    slack = float(getattr(channel, "tolerance", 0.0))
    if len(want) == 1 and channel.reveals == "each" and not slack:
        if bits(got) != bits(want[0]):
            broken(channel, law, f"{want[0].sender} must be opened bit by bit as it was sealed.")
        return
    if got.kind != want[0].kind:
        broken(channel, law, f"The kind must stay '{want[0].kind}'. Got '{got.kind}'.")
    metrics = {k: (sum(c.metrics[k][0] for c in want), sum(c.metrics[k][1] for c in want)) for k in want[0].metrics}
    total = Contribution("", _sum([c.value for c in want]), _sum([c.weight for c in want]), metrics)
    _near(channel, law, _all(got), _all(total), slack)


def _near(channel: Channel, law: str, got: Any, want: Any, slack: float) -> None:
    must = "What is opened must be the sum of what was sealed."
    if not slack and not getattr(channel, "ring", False):
        return alike(channel, law, want, got, must)
    if [p for p, _ in leaves(got)] != [p for p, _ in leaves(want)]:
        broken(channel, law, f"{must} Got other names.")
    for (path, x), (_, y) in zip(leaves(got), leaves(want), strict=True):
        if np.shape(x) != np.shape(y) or not (np.abs(np.asarray(x, float) - np.asarray(y, float)) <= slack).all():
            broken(channel, law, f"{must} Got a difference in {'.'.join(path)}.")
    return None


def _hidden(channel: Channel, cohort: list[Contribution]) -> None:
    """What does not reveal each cannot be read, and is fresh in each round and attempt."""
    if channel.reveals == "each":
        return
    walks = [Walk(channel, cohort, turn=turn) for turn in ((0, 0), (1, 0), (0, 1))]
    for walk in walks:
        said(channel, "open", walk.through)
    for c in cohort:
        seen = walks[0].sealed[c.sender]
        for path, x in leaves(_all(c)):
            if np.any(x) and any(_equal(x, y) for _, y in leaves(_all(seen))):
                broken(channel, "reveals", f"It does not reveal each, and must hide {'.'.join(path)} of {c.sender}.")
        if any(encode_tree(w.sealed[c.sender].value) == encode_tree(seen.value) for w in walks[1:]):
            broken(channel, "fresh", "The same contribution must be sealed anew in each round and attempt.")


def _equal(x: Any, y: Any) -> bool:
    """The same numbers, whatever their type and shape?"""
    a, b = np.asarray(x), np.asarray(y)
    return b.dtype.kind in "fiub" and a.size == b.size and bool(np.array_equal(a.ravel(), b.ravel()))


def _phases(channel: Channel, cohort: list[Contribution]) -> None:
    """A phase that is not the channel's own is refused; its own with strange words, answered or refused."""
    walk = Walk(channel, cohort)
    said(channel, "open", walk.through)
    for value in _STRANGE:
        try:
            walk.answered(cohort[0].sender, Contribution("no such phase", value))
        except ChannelError:
            pass
        else:
            broken(channel, "phases", "'no such phase' must be refused by a ChannelError. It was answered.")
        for kind in {message.kind for message in walk.asked}:
            with suppress(ChannelError):
                walk.answered(cohort[0].sender, Contribution(kind, value))


def _strange(channel: Channel, cohort: list[Contribution]) -> None:
    """A member that answers a phase, or seals, with what is none is left out, or the cohort is refused."""
    probe = Walk(channel, cohort)
    said(channel, "open", probe.through)
    silent, who = {cohort[0].sender: probe.sealing}, cohort[1].sender
    walk = Walk(channel, cohort, silent=silent)
    _opened(channel, walk, "strange", f"without {cohort[0].sender}")
    for step in range(walk.step):
        if channel.reveals == "each" and step == walk.sealing:
            continue
        for value in _STRANGE:
            odd = Walk(channel, cohort, silent=silent, strange={who: (step, value)})
            opened = _opened(channel, odd, "strange", f"where {who} answers {value!r} in step {step}")
            if opened is None:
                continue
            without = [c for c in odd.came() if c.sender != who]
            try:
                _right(channel, without, opened)
            except LawBroken:
                if step == odd.sealing:
                    broken(channel, "strange", f"{value!r} is no seal. It must be left out or refused.")
                _right(channel, odd.came(), opened)


def _transparent(channel: Channel, cohort: list[Contribution]) -> None:
    """One that says so can be left out: it asks nothing, tells nothing, and opens what was sealed."""
    if not getattr(channel, "transparent", False):
        return
    walk = Walk(channel, cohort)
    opened = said(channel, "transparent", walk.through)
    if channel.reveals != "each" or [bits(c) for c in opened] != [bits(c) for c in cohort]:
        broken(channel, "transparent", "It says `transparent`, and must open each contribution as it was sealed.")


def _all(c: Contribution) -> dict[str, Any]:
    return {"value": c.value, "weight": c.weight, "metrics": _flat(c.metrics)}


def _flat(metrics: Any) -> dict[str, Any]:
    return {k: {"sum": float(s), "count": float(n)} for k, (s, n) in metrics.items()}


def _number(c: Contribution) -> float:
    """The weight in units."""
    return float(c.weight) / _UNIT if isinstance(c.weight, float | int | np.number) else math.nan


def _sum(trees: list[Any]) -> Any:
    return tree_map(lambda *xs: sum(np.asarray(x, float) for x in xs), *trees)
