"""The laws of combiners."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from comity.core.checks import part, shown
from comity.core.contribution import RANK, Contribution
from comity.core.errors import ConfigError, ContributionError
from comity.core.parts import Combiner
from comity.core.round import Round
from comity.core.tree import frozen, leaves, tree_map
from comity.core.wire import decode, encode, encode_tree
from comity.testing.common import alike, bits, broken, paths, said, stackable, stacked, summed, usual_cohort


def check_combiner(combiner: Combiner, example: Sequence[Contribution] | None = None) -> None:
    """Hold a combiner to its laws.

    Whatever it `needs`: it does not depend on the order of the cohort, changes neither inputs nor state,
    gives the same bits when asked again and after a journey over the wire, keeps names and shapes (unless
    it needs each), gives finite floats for floats, copes with contributions without metrics, adds metrics
    if it keeps them, and refuses text with a ContributionError or ConfigError if it refuses it. One that
    needs groups, or divides by the weight, does not mind the scale of the weights; one that needs groups
    takes the mean of each. One that needs the sum takes that of an empty cohort: zeros of weight 0. `lift_many`, where
    it has one, gives the bits of `lift`.

    Args:
        combiner: what to check.
        example: a cohort of three or more with different senders, as participants make it; by default
            seven float32 deltas, or seven voters where the combiner takes no deltas.

    Raises:
        AssertionError: names the combiner, the law and what was found.

    Example:
        >>> import comity as co
        >>> co.testing.check_combiner(co.Mean())
        >>> co.testing.check_combiner(co.Vote())
    """
    part("combiner", "check_combiner", combiner, ("needs", "lift()", "lower()"), "co.Mean()")
    me = _Combining(combiner)
    if combiner.needs not in RANK:
        broken(combiner, "needs", f"`needs` must be one of {', '.join(RANK)}. Got {combiner.needs!r}.")
    said(combiner, "state", lambda: encode_tree(combiner.init()))
    cohort: Sequence[Any] = usual_cohort(combiner) if example is None else example
    if not isinstance(cohort, Sequence) or len({getattr(c, "sender", "") for c in cohort}) < max(3, len(cohort)):
        got = shown(example)
        raise ConfigError(f"An example must hold at least three contributions of different senders. Got {got}.")
    for law in (_order, _repeat, _inputs, _wire, _shape, _metrics, _scale, _agree, _empty, _text, _stacks):
        law(me, cohort)


class _Combining:
    """Lifts and lowers a cohort as the loop does."""

    def __init__(self, combiner: Combiner) -> None:
        self.part, self.needs = combiner, combiner.needs
        self.divides = self.needs == "groups" or getattr(combiner, "denominator", None) == "weight"

    def lifted(self, cohort: Sequence[Contribution]) -> list[Contribution]:
        return [self.part.lift(replace(c, value=frozen(c.value), metrics=dict(c.metrics))) for c in cohort]

    def gather(self, lifted: Sequence[Contribution]) -> Any:
        if self.needs != "sum":
            return list(lifted)
        return summed(lifted)

    def lower(self, gathered: Any, answered: int, state: Any = None) -> Any:
        n = float(answered)
        turn = Round("check", 0, roster=answered, asked=answered, expected=n, answered=answered)
        state = self.part.init() if state is None else state
        return said(self.part, "lower", lambda: self.part.lower(gathered, state, turn)[0])

    def __call__(self, cohort: Sequence[Contribution]) -> Any:
        lifted = said(self.part, "lift", lambda: self.lifted(cohort))
        return self.lower(self.gather(lifted), len(cohort))

    def mean_like(self, cohort: Sequence[Contribution]) -> bool:
        """Does it give the names that it takes, divided by something?"""
        names = paths(self(cohort).value) == paths(cohort[0].value)
        return names and (self.needs == "groups" or hasattr(self.part, "denominator"))


def _order(me: _Combining, cohort: Sequence[Contribution]) -> None:
    straight = me(cohort)
    for other in (list(reversed(cohort)), [*cohort[1:], cohort[0]]):
        alike(me.part, "order", straight.value, me(other).value, "The order of the cohort must not matter.")
        alike(me.part, "order", straight.weight, me(other).weight, "The order of the cohort must not matter.")


def _repeat(me: _Combining, cohort: Sequence[Contribution]) -> None:
    if bits(me(cohort)) != bits(me(cohort)):
        broken(me.part, "repeat", "The same cohort must give the same bits.")


def _inputs(me: _Combining, cohort: Sequence[Contribution]) -> None:
    before = [bits(c) for c in cohort]
    lifted = [me.part.lift(c) for c in cohort]
    if [bits(c) for c in cohort] != before:
        broken(me.part, "inputs", "`lift` must not change the contribution.")
    state = me.part.init()
    gathered = me.gather(lifted)
    held = [bits(c) for c in (gathered if me.needs != "sum" else [gathered])], encode_tree(state)
    me.lower(gathered, len(cohort), state)
    if ([bits(c) for c in (gathered if me.needs != "sum" else [gathered])], encode_tree(state)) != held:
        broken(me.part, "inputs", "`lower` must change neither what was gathered nor the state.")


def _wire(me: _Combining, cohort: Sequence[Contribution]) -> None:
    lifted = me.lifted(cohort)
    sent = [said(me.part, "wire", lambda c=c: decode(encode(c))) for c in lifted]  # type: ignore[misc]
    here, there = me.lower(me.gather(lifted), len(cohort)), me.lower(me.gather(sent), len(cohort))
    if bits(here) != bits(there):
        broken(me.part, "wire", "What was lifted must give the same result after a journey over the wire.")


def _shape(me: _Combining, cohort: Sequence[Contribution]) -> None:
    given, got = dict(leaves(cohort[0].value)), dict(leaves(me(cohort).value))
    if me.needs != "each" and not set(given) <= set(got):
        broken(me.part, "shape", f"The result must have the names {sorted(given)}. Got {sorted(got)}.")
    for path, x in got.items():
        if isinstance(x, np.ndarray) and x.dtype.kind == "f" and not np.isfinite(x).all():
            broken(me.part, "shape", f"{'.'.join(path)} must be finite.")
        if path in given and np.shape(x) != np.shape(given[path]):
            broken(me.part, "shape", f"{'.'.join(path)} must be {np.shape(given[path])}. Got {np.shape(x)}.")
        if path in given and np.asarray(given[path]).dtype.kind == "f" and np.asarray(x).dtype.kind != "f":
            broken(me.part, "shape", f"{'.'.join(path)} must stay a float. Got {np.asarray(x).dtype}.")


def _metrics(me: _Combining, cohort: Sequence[Contribution]) -> None:
    me([replace(c, metrics={}) for c in cohort])
    counted = [replace(c, metrics={"loss": (float(i), 2.0)}) for i, c in enumerate(cohort)]
    got = me(counted).metrics
    want = {"loss": (float(sum(range(len(cohort)))), 2.0 * len(cohort))}
    if got and dict(got) != want:
        broken(me.part, "metrics", f"Metrics must add: {want}. Got {dict(got)}.")


def _scale(me: _Combining, cohort: Sequence[Contribution]) -> None:
    if not me.divides or getattr(me.part, "cap", np.inf) < np.inf:
        return
    straight = me(cohort)
    heavy = [replace(c, weight=tree_map(lambda w: w * 4.0, c.weight)) for c in cohort]
    alike(me.part, "scale", straight.value, me(heavy).value, "All weights times a constant must change nothing.")
    if me.needs == "groups":
        pairs = [summed([c, c]) for c in me.lifted(cohort)]
        twice = me.lower([replace(p, sender=c.sender) for p, c in zip(pairs, cohort, strict=True)], len(cohort))
        alike(me.part, "groups", straight.value, twice.value, "A sum of a group must count as its mean.")


def _agree(me: _Combining, cohort: Sequence[Contribution]) -> None:
    if me.mean_like(cohort):
        same = [replace(c, value=cohort[0].value, weight=cohort[0].weight) for c in cohort]
        alike(me.part, "agree", cohort[0].value, me(same).value, "What all agree on must be the result.")


def _empty(me: _Combining, cohort: Sequence[Contribution]) -> None:
    if me.needs == "sum":
        zero = tree_map(np.zeros_like, me.lifted(cohort)[0].value)
        none = me.lower(Contribution(cohort[0].kind, zero, 0.0), len(cohort))
        for path, x in leaves(none.value):
            if not np.isfinite(np.asarray(x, float)).all():
                broken(me.part, "empty", f"{'.'.join(path)} of an empty cohort must be finite.")


def _text(me: _Combining, cohort: Sequence[Contribution]) -> None:
    for odd in ("text", b"bytes", None, {"deeper": "text"}):
        strange = replace(cohort[0], value=tree_map(lambda _, odd=odd: odd, cohort[0].value))
        try:
            me.part.lift(strange)
        except (ContributionError, ConfigError):
            continue
        except Exception as error:  # noqa: BLE001  that is the law
            broken(me.part, "text", f"{odd!r} must be taken or refused by a ContributionError. Got {error!r}.")


def _stacks(me: _Combining, cohort: Sequence[Contribution]) -> None:
    many: Any = getattr(me.part, "lift_many", None)
    if many is None or not stackable(cohort):
        return
    stack = said(me.part, "stacks", lambda: many(stacked(cohort)))
    for i, c in enumerate(cohort):
        one = me.part.lift(replace(c, metrics={k: c.metrics[k] for k in stack.metrics}))
        got = stack.one(i)
        here = {"value": dict(leaves(got.value)), "weight": got.weight, "metrics": got.metrics}
        there = {"value": dict(leaves(one.value)), "weight": one.weight, "metrics": one.metrics}
        if encode_tree(_sorted(here)) != encode_tree(_sorted(there)):
            broken(me.part, "stacks", f"`lift_many` must give what `lift` gives. It differs for '{c.sender}'.")


def _sorted(said: dict[str, Any]) -> dict[str, Any]:
    """The same whatever order its names were put in."""
    value = {".".join(path): np.asarray(x) for path, x in said["value"].items()}
    metrics = {k: np.array(said["metrics"][k], float) for k in sorted(said["metrics"])}
    return {"value": value, "weight": float(said["weight"]), "metrics": metrics}
