"""What a collaboration puts in by itself: integers for a channel that adds in a ring."""

import math
from dataclasses import replace

from comity.compress.fixedpoint import FixedPoint, bound_of
from comity.core.errors import ConfigError
from comity.core.round import Round
from comity.core.rules import Parts


def completed(parts: Parts) -> Parts:
    """The parts, with `FixedPoint` as last transform where the channel adds in a ring and nothing makes integers.

    Its bound is that of what the method expects, times the largest weight that the combiner lets count; or what a
    transform bounds a contribution to, where that is less.

    Raises:
        ConfigError: nothing bounds what is sent.
    """
    ring, last = getattr(parts.channel, "ring", False), parts.transforms[-1:]
    if not ring or any(getattr(t, "integers", False) for t in last) or parts.combiner.needs == "each":
        return parts
    even = getattr(parts.combiner, "denominator", "weight") != "weight"
    heaviest = 1.0 if even else float(getattr(parts.combiner, "cap", math.inf))
    if heaviest == math.inf:
        return parts  # the rules say what to do
    bound = _bound(parts, heaviest)
    if not 0 < bound < math.inf:
        name = type(parts.method).__name__
        raise ConfigError(
            f"{type(parts.channel).__name__} adds in a ring, and what {name} sends has no bound. Got {bound:g}. "
            f"Add Gaussian(clip=...), use {name}(..., bound=0.1), or put FixedPoint(bound=...) last."
        )
    return replace(parts, transforms=(*parts.transforms, FixedPoint(bound, heaviest=max(1.0, heaviest))))


def _bound(parts: Parts, heaviest: float) -> float:
    start = Round("start", 0)
    spec = parts.method.expect(parts.method.init(start), "", start)
    found = bound_of(spec.value, heaviest)
    for t in parts.transforms:
        if bounds := getattr(t, "bounds", None):
            found = min(found, bound_of(bounds(spec).value, 1.0))
    return found
